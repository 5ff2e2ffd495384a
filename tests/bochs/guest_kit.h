// What the guest of a probe stands on: one page of code and four of page tables, which lie in
// memory of the VM under test and are reached through its EPT like everything else. The page under
// test is one linear page of it. And what the software processor (mmu/vmx) says that such a probe
// does.
#ifndef TWINROOT_TESTS_BOCHS_GUEST_KIT_H_
#define TWINROOT_TESTS_BOCHS_GUEST_KIT_H_

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/strings/str_format.h"
#include "mmu/vmx/ept_walker.h"
#include "tests/bochs/bochs_machine.h"

namespace twinroot::bochs {

// What a probe does at its address. kWalk: the processor reads an entry of the guest's page tables
// there, and goes on to a page of the kit.
enum class Doing : uint8_t { kRead, kWrite, kFetch, kWalk };
inline constexpr Doing kAllDoings[] = {Doing::kRead, Doing::kWrite, Doing::kFetch, Doing::kWalk};

// Basic exit reasons (SDM vol. 3D, "VMX Basic Exit Reasons").
inline constexpr uint64_t kReasonVmcall = 18, kReasonViolation = 48, kReasonMisconfiguration = 49;

// Of one probe: how it ended, and what it read or fetched (Doing::kWrite: nothing).
struct Ending {
  uint64_t reason = 0;
  uint64_t qualification = 0;  // of a violation
  uint64_t gpa = 0;            // of a violation or a misconfiguration
  uint64_t value = 0;          // of a VMCALL

  std::string Text() const {
    return absl::StrFormat("reason %d qualification 0x%x gpa 0x%x value 0x%x", reason,
                           qualification, gpa, value);
  }
  friend bool operator==(const Ending&, const Ending&) = default;
};

class GuestKit {
 public:
  static constexpr uint64_t kPages = 5;

  // Where its pages are, for the guest and in the machine; both contiguous.
  GuestKit(mmu::Gpa gpa, mmu::Hpa hpa) : gpa_(gpa.value), hpa_(hpa.value) {}

  void LoadInto(BochsMachine& machine) const {
    PageWords pages[kPages] = {};
    pages[kCode][kReadAt / 8] = 0xC1'010F'038B;   // mov (%rbx), %eax; vmcall
    pages[kCode][kWriteAt / 8] = 0xC1'010F'1389;  // mov %edx, (%rbx); vmcall
    pages[kCode][kFetchAt / 8] = 0xE3FF;          // jmp *%rbx
    for (const uint64_t table : {kPml4, kPdpt, kPd}) pages[table][0] = Entry(PageOf(table + 1));
    pages[kPt][kCodePage] = Entry(PageOf(kCode));
    for (uint64_t i = 0; i < kPages; ++i) machine.Load(hpa_ + i * mmu::kPageSize, pages[i]);
  }

  // `gpa` is a multiple of 8. `at`: where the engine says that it is, if anywhere; `value`, 32
  // bits, is put there to be read or fetched, or is what the guest writes.
  Probe Make(mmu::EptPointer eptp, mmu::Gpa gpa, Doing doing, std::optional<mmu::Hpa> at,
             uint64_t value) const {
    Probe probe;
    probe.eptp = eptp.raw();
    probe.cr0 = 0x8001'0021;  // PG, WP, NE, PE
    probe.cr3 = PageOf(kPml4);
    probe.cr4 = 0x2020;  // VMXE, PAE
    probe.efer = 0xD00;  // NXE, LMA, LME
    probe.rip = kCodePage << 12 | (doing == Doing::kWrite   ? kWriteAt
                                   : doing == Doing::kFetch ? kFetchAt
                                                            : kReadAt);
    const uint64_t offset = gpa.value & mmu::kPageOffsetMask, page = gpa.value - offset;
    probe.rbx = doing == Doing::kWalk ? kWalkRegion | offset << 9 : kProbedPage << 12 | offset;
    probe.rdx = value;
    probe.pokes[0] = {Slot(kPt, kProbedPage), Entry(page)};
    probe.pokes[1] = {Slot(kPd, 1), Entry(page)};
    probe.pokes_count = 2;
    if (at) probe.pokes[probe.pokes_count++] = {at->value, Put(doing, value)};
    return probe;
  }
  // The word at the probed address: what stands there before, and what afterwards.
  static constexpr int kProbedWord = 2;  // of the result's `words`
  uint64_t Put(Doing doing, uint64_t value) const {
    switch (doing) {
      case Doing::kRead:
        return value;
      case Doing::kFetch:
        return 0xC101'0F00'0000'00B8 | value << 8;  // mov $value, %eax; vmcall
      case Doing::kWalk:
        return Entry(PageOf(kCode));
      case Doing::kWrite:
        break;
    }
    return ~value & 0xFFFF'FFFF;
  }
  // What VMCALL reports of a probe that went through.
  static uint64_t Value(Doing doing, uint64_t value) {
    if (doing == Doing::kWrite) return 0;
    return doing == Doing::kWalk ? 0x010F'038B : value;  // what the code begins with
  }

  // What the software processor does on the same tables; it sets the flags there.
  Ending OnSoftware(const mmu::vmx::EptWalker& walker, mmu::EptPointer eptp, mmu::Gpa gpa,
                    Doing doing, uint64_t value) const {
    for (const mmu::vmx::GuestAccess& access : AccessesOf(gpa, doing)) {
      const mmu::vmx::WalkOutcome outcome = walker.Walk(eptp, access);
      if (const auto* exit = std::get_if<mmu::vmx::EptViolationExit>(&outcome)) {
        return {kReasonViolation, exit->qualification.raw(), exit->gpa.value, 0};
      }
      if (const auto* exit = std::get_if<mmu::vmx::EptMisconfigurationExit>(&outcome)) {
        return {kReasonMisconfiguration, 0, exit->gpa.value, 0};
      }
      if (!std::holds_alternative<mmu::vmx::EptTranslation>(outcome)) return {};
    }
    return {kReasonVmcall, 0, 0, Value(doing, value)};
  }

  // Bochs 2.7 reports a page walk under accessed and dirty flags as a write alone, where the manual
  // has "the processor sets both bit 0 and bit 1 of the exit qualification" (table "Exit
  // Qualification for EPT Violations", footnote). So bit 0 of those is not compared.
  static Ending WithoutBochsLimits(Ending ending) {
    constexpr uint64_t kRead = 1 << 0, kWrite = 1 << 1, kTranslated = 1 << 8;
    if (ending.reason == kReasonViolation &&
        (ending.qualification & (kWrite | kTranslated)) == kWrite) {
      ending.qualification &= ~kRead;
    }
    return ending;
  }
  // What Bochs said, as far as it means something for such an end.
  static Ending OnBochs(const ProbeResult& result) {
    switch (result.reason) {
      case kReasonVmcall:
        return {kReasonVmcall, 0, 0, result.rax};
      case kReasonViolation:
        return {kReasonViolation, result.qualification, result.gpa, 0};
      case kReasonMisconfiguration:
        return {kReasonMisconfiguration, 0, result.gpa, 0};
      default:
        return {result.reason, result.qualification, result.interruption, result.error_code};
    }
  }

 private:
  static constexpr uint64_t kCode = 0, kPml4 = 1, kPdpt = 2, kPd = 3, kPt = 4;  // its pages
  static constexpr uint64_t kReadAt = 0x00, kWriteAt = 0x10, kFetchAt = 0x20;   // in its code
  static constexpr uint64_t kCodePage = 1, kProbedPage = 2;                     // linear pages
  static constexpr uint64_t kWalkRegion = uint64_t{1} << 21;  // linear, of the second PD entry

  // Present, writable, accessed and dirty already: the guest's own flags are another test's matter.
  static uint64_t Entry(uint64_t page) { return page | 0x63; }
  uint64_t PageOf(uint64_t page) const { return gpa_ + page * mmu::kPageSize; }
  uint64_t Slot(uint64_t page, uint64_t index) const {
    return hpa_ + page * mmu::kPageSize + index * 8;
  }

  // In the order in which the processor makes them: the code's walk and its fetch; then the data's.
  std::vector<mmu::vmx::GuestAccess> AccessesOf(mmu::Gpa gpa, Doing doing) const {
    using mmu::Access;
    std::vector<mmu::vmx::GuestAccess> accesses;
    const auto walk = [&](uint64_t pd_index, uint64_t last) {
      for (const uint64_t at : {PageOf(kPml4), PageOf(kPdpt), PageOf(kPd) + pd_index * 8, last}) {
        accesses.push_back({mmu::Gpa(at), Access::Read(), mmu::LinearMode::kSupervisor,
                            mmu::vmx::AccessTarget::kGuestPagingEntry});
      }
    };
    walk(0, PageOf(kPt) + kCodePage * 8);
    accesses.push_back({mmu::Gpa(PageOf(kCode)), Access::Fetch()});
    if (doing == Doing::kWalk) {
      walk(1, gpa.value);
      accesses.push_back({mmu::Gpa(PageOf(kCode)), Access::Read()});
      return accesses;
    }
    walk(0, PageOf(kPt) + kProbedPage * 8);
    accesses.push_back({gpa, doing == Doing::kRead    ? Access::Read()
                             : doing == Doing::kWrite ? Access::Write()
                                                      : Access::Fetch()});
    return accesses;
  }

  const uint64_t gpa_, hpa_;
};

}  // namespace twinroot::bochs

#endif  // TWINROOT_TESTS_BOCHS_GUEST_KIT_H_
