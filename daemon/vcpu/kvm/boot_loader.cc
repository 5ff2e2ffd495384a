#include "daemon/vcpu/kvm/boot_loader.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "daemon/vcpu/kvm/boot_info.h"
#include "daemon/vcpu/kvm/flat_segments.h"
#include "daemon/vcpu/kvm/low_memory.h"
#include "mmu/types/address.h"

namespace twinroot::kvm {
namespace {

constexpr uint64_t kGdt = 0x1000;
constexpr uint64_t kTss = 0x2000;
constexpr uint64_t kBootInfo = 0x6000;
constexpr uint64_t kCmdline = 0x7000;
constexpr uint64_t kPml4 = 0x10000;
constexpr uint64_t kPrivatePdpt = 0x11000;
constexpr uint64_t kSharedPdpt = 0x12000;
constexpr uint64_t kPrivatePds = 0x20000;
constexpr uint64_t kSharedPds = 0x60000;  // 64 directories after the private ones
static_assert(kSharedPds - kPrivatePds == 64 * 4096, "one directory for each GiB of RAM");
static_assert(kSharedPds + 64 * 4096 <= kImageBase);

// 64-bit guest page table entries (SDM vol. 3A, "4-Level Paging").
constexpr uint64_t kPtePresent = 1;
constexpr uint64_t kPteWrite = 1 << 1;
constexpr uint64_t kPteUser = 1 << 2;
constexpr uint64_t kPtePageSize = 1 << 7;
constexpr uint64_t kPteNoExecute = uint64_t{1} << 63;
constexpr uint64_t kPteTable = kPtePresent | kPteWrite | kPteUser;

// TSS (SDM vol. 3A, "64-Bit TSS"): the I/O bitmap follows the 104-byte structure directly.
constexpr uint64_t kTssBytes = 0x68;
constexpr uint64_t kIoBitmapBytes = 8192;
constexpr uint32_t kTssLimit = kTssBytes + kIoBitmapBytes;  // and one byte of ones

// Selectors; each segment's GDT slot is selector / 8.
constexpr uint16_t kSelectorCode0 = 0x08;
constexpr uint16_t kSelectorData0 = 0x10;
constexpr uint16_t kSelectorData3 = 0x18 | 3;
constexpr uint16_t kSelectorCode3 = 0x20 | 3;
constexpr uint16_t kSelectorTss = 0x28;

// Control register bits (SDM vol. 3A, "Control Registers").
constexpr uint64_t kCr0 = 0x80050033;                   // PE MP ET NE WP AM PG
constexpr uint64_t kCr4 = 1 << 5 | 1 << 9 | 1 << 10;    // PAE OSFXSR OSXMMEXCPT
constexpr uint64_t kEfer = 1 << 8 | 1 << 10 | 1 << 11;  // LME LMA NXE
constexpr uint64_t kRflags = 1 << 1 | 3 << 12;          // reserved one, IOPL 3

// All 2 MiB pages of each GiB that RAM begins in, so that memory that comes later can be there too;
// `alias` is added to every address.
void WriteDirectories(const memory::GuestRam& ram, LowMemory& low, uint64_t pdpt,
                      uint64_t directories, uint64_t alias, uint64_t extra) {
  uint64_t directory = directories;
  for (const memory::RamSlot& slot : ram.slots()) {
    const uint64_t begin = slot.range.first.value << mmu::kPageShift;
    const uint64_t end = slot.range.end().value << mmu::kPageShift;
    for (uint64_t gib = begin; gib < end; gib += uint64_t{1} << 30, directory += 4096) {
      low.Put(pdpt + (gib >> 30) * 8, directory | kPteTable);
      for (uint64_t i = 0; i < mmu::kEntriesPerTable; ++i) {
        const uint64_t gpa = gib + i * mmu::BytesPerEntry(mmu::Level::k2M);
        low.Put(directory + i * 8, gpa | alias | kPteTable | kPtePageSize | extra);
      }
    }
  }
}

// Flat descriptors (SDM vol. 3A, "Segment Descriptors"); the processor's segment registers are set
// directly, the table is there for guests that load selectors.
void WriteGdt(LowMemory& low) {
  low.Put(kGdt + 0x08, uint64_t{0x00af9b000000ffff});  // 64-bit code, DPL 0
  low.Put(kGdt + 0x10, uint64_t{0x00cf93000000ffff});  // data, DPL 0
  low.Put(kGdt + 0x18, uint64_t{0x00cff3000000ffff});  // data, DPL 3
  low.Put(kGdt + 0x20, uint64_t{0x00affb000000ffff});  // 64-bit code, DPL 3
  const uint64_t tss = uint64_t{kTssLimit & 0xffff} | (kTss & 0xffffff) << 16 |
                       uint64_t{0x8b} << 40 | uint64_t{kTssLimit >> 16} << 48;
  low.Put(kGdt + 0x28, tss);
  low.Put(kGdt + 0x30, uint64_t{0});
}

// An all-zero I/O bitmap lets ring 3 use every port even where IOPL is not honoured.
void WriteTss(LowMemory& low) {
  low.Put(kTss + 0x66, uint16_t{kTssBytes});
  low.Put(kTss + kTssBytes + kIoBitmapBytes, uint8_t{0xff});
}

}  // namespace

absl::StatusOr<uint64_t> PlaceProgram(const BootPlan& plan, uint64_t memory_bytes) {
  const uint64_t gpa = (plan.image.end + mmu::kPageOffsetMask) & ~mmu::kPageOffsetMask;
  const uint64_t stacks = std::min(memory_bytes, memory::kLowRamLimit) - kStackBytes * plan.vcpus;
  if (gpa + plan.program.size() > stacks) {
    return absl::InvalidArgumentError(
        "program: it does not fit between the image and the stacks; give the VM more memory");
  }
  return gpa;
}

absl::Status LoadGuest(const BootPlan& plan, memory::GuestRam& ram) {
  LowMemory low(ram);
  for (const GuestImage::Segment& segment : plan.image.segments) low.Put(segment.gpa, segment.data);
  BootInfo info = {};
  info.magic = kBootMagic;
  info.version = kBootVersion;
  info.vcpus = plan.vcpus;
  info.memory_bytes = ram.bytes();
  info.shared_bit = static_cast<uint32_t>(plan.shared_bit);
  if (!plan.cmdline.empty()) {
    info.cmdline_gpa = kCmdline;  // the page is zero behind the text
    low.Put(kCmdline, plan.cmdline);
  }
  if (!plan.program.empty()) {
    const absl::StatusOr<uint64_t> gpa = PlaceProgram(plan, ram.bytes());
    if (!gpa.ok()) return gpa.status();
    info.program_gpa = *gpa;
    info.program_bytes = plan.program.size();
    low.Put(*gpa, plan.program);
  }
  low.Put(kBootInfo, info);

  WriteGdt(low);
  WriteTss(low);
  low.Put(kPml4, kPrivatePdpt | kPteTable);
  low.Put(kPml4 + (uint64_t{1} << (kSharedVirtualBit - 39)) * 8, kSharedPdpt | kPteTable);
  WriteDirectories(ram, low, kPrivatePdpt, kPrivatePds, 0, 0);
  WriteDirectories(ram, low, kSharedPdpt, kSharedPds, uint64_t{1} << plan.shared_bit,
                   kPteNoExecute);
  return low.status();
}

void SetEntryState(const BootPlan& plan, uint64_t low_memory_bytes, uint32_t vcpu, kvm_sregs& sregs,
                   kvm_regs& regs) {
  const bool user = plan.cpl == 3;
  SetFlatSegments({.code = user ? kSelectorCode3 : kSelectorCode0,
                   .data = user ? kSelectorData3 : kSelectorData0,
                   .tss = kSelectorTss,
                   .code_is_64bit = true,
                   .gdt = kGdt,
                   .gdt_limit = 0x37,
                   .tss_base = kTss,
                   .tss_limit = kTssLimit},
                  sregs);
  sregs.cr0 = kCr0;
  sregs.cr3 = kPml4;
  sregs.cr4 = kCr4;
  sregs.efer = kEfer;

  regs = {};
  regs.rip = plan.image.entry;
  regs.rdi = kBootInfo;
  regs.rsi = vcpu;
  regs.rsp = low_memory_bytes - 16 - kStackBytes * vcpu;
  regs.rflags = kRflags;
}

}  // namespace twinroot::kvm
