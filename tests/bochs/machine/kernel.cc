// The program of the machine in Bochs: a hypervisor that knows nothing. It loads pages as it is
// told, runs guests as it is told, and writes down what the processor said.
#include <stdint.h>

#include "tests/bochs/machine/disk.h"
#include "tests/bochs/machine/ports.h"
#include "tests/bochs/machine/vmcs.h"
#include "tests/bochs/protocol.h"

// The compiler's own calls.
extern "C" void* memset(void* to, int value, unsigned long bytes) {
  void* const start = to;
  asm volatile("rep stosb" : "+D"(to), "+c"(bytes) : "a"(value) : "memory");
  return start;
}
extern "C" void* memcpy(void* to, const void* from, unsigned long bytes) {
  void* const start = to;
  asm volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(bytes)::"memory");
  return start;
}

namespace twinroot::bochs {
namespace {

struct Registers {
  uint64_t rax = 0, rbx = 0, rdx = 0;
};
extern "C" bool EnterGuest(Registers* registers, bool launched);

uint64_t ReadMsr(uint32_t msr) {
  uint32_t low, high;
  asm volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(msr));
  return static_cast<uint64_t>(high) << 32 | low;
}
void WriteMsr(uint32_t msr, uint64_t value) {
  asm volatile("wrmsr" ::"c"(msr), "a"(static_cast<uint32_t>(value)),
               "d"(static_cast<uint32_t>(value >> 32)));
}
uint64_t Cr0() {
  uint64_t value;
  asm volatile("mov %%cr0, %0" : "=r"(value));
  return value;
}
uint64_t Cr4() {
  uint64_t value;
  asm volatile("mov %%cr4, %0" : "=r"(value));
  return value;
}
uint64_t& Physical(uint64_t hpa) { return *reinterpret_cast<uint64_t*>(hpa); }

// Free memory below the kernel's stack, above the kernel.
constexpr uint64_t kVmxonRegion = 0x30000, kVmcsRegion = 0x31000, kBuffer = 0x40000,
                   kResults = 0x50000;
static_assert(Command::kMostProbes * sizeof(Probe) <= kResults - kBuffer);

constexpr uint32_t kFeatureControl = 0x3A, kVmxBasic = 0x480, kEfer = 0xC0000080;

// What the processor demands, and what of the wish it allows (SDM, "Reserved Controls and Default
// Settings").
uint64_t Controls(uint32_t msr, uint64_t wish) {
  const uint64_t allowed = ReadMsr(msr);
  if (wish & ~(allowed >> 32)) Fail("the processor lacks a control");
  return (wish | allowed) & allowed >> 32;
}
void MustWrite(Field field, uint64_t value) {
  if (!Write(field, value)) Fail("a VMWRITE");
}

constexpr uint64_t kCr4Pke = 1 << 22;
// Protection keys, whose PKRU entries and exits do not change: if the processor has them.
void EnableKeys() {
  uint32_t eax = 7, ebx, ecx = 0, edx;
  asm volatile("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
  if (ecx & 1 << 3) asm volatile("mov %0, %%cr4" ::"r"(Cr4() | kCr4Pke));
}

void EnterVmxOperation() {
  if (!(ReadMsr(kFeatureControl) & 1)) WriteMsr(kFeatureControl, 5);
  const uint64_t revision = ReadMsr(kVmxBasic) & 0x7FFFFFFF;
  Physical(kVmxonRegion) = revision;
  Physical(kVmcsRegion) = revision;
  bool failed;
  uint64_t region = kVmxonRegion;
  asm volatile("vmxon %1" : "=@ccbe"(failed) : "m"(region) : "memory");
  if (failed) Fail("VMXON");
  region = kVmcsRegion;
  asm volatile("vmclear %1" : "=@ccbe"(failed) : "m"(region) : "memory");
  if (failed) Fail("VMCLEAR");
  asm volatile("vmptrld %1" : "=@ccbe"(failed) : "m"(region) : "memory");
  if (failed) Fail("VMPTRLD");
}

constexpr uint64_t kUseSecondary = uint64_t{1} << 31, kEnableEpt = 1 << 1;
constexpr uint64_t kHost64 = 1 << 9, kExitSaveEfer = 1 << 20, kExitLoadEfer = 1 << 21;
constexpr uint64_t kEntryGuest64 = 1 << 9, kEntryLoadEfer = 1 << 15;

struct [[gnu::packed]] DescriptorTable {
  uint16_t limit;
  uint64_t base;
};

// Everything that is the same for each probe. No VPID: every entry and exit flushes linear
// mappings.
void WriteConstantFields() {
  MustWrite(Field::kPinControls, Controls(0x481, 0));
  MustWrite(Field::kProcessorControls, Controls(0x482, kUseSecondary));
  MustWrite(Field::kSecondaryControls, Controls(0x48B, kEnableEpt));
  MustWrite(Field::kExitControls, Controls(0x483, kHost64 | kExitSaveEfer | kExitLoadEfer));
  MustWrite(Field::kExceptionBitmap, 0xFFFFFFFF);
  static constexpr Field kZero[] = {Field::kPageFaultMask,     Field::kPageFaultMatch,
                                    Field::kCr3TargetCount,    Field::kExitMsrStoreCount,
                                    Field::kExitMsrLoadCount,  Field::kEntryMsrLoadCount,
                                    Field::kEntryInterruption, Field::kCr0Mask,
                                    Field::kCr4Mask,           Field::kGuestInterruptibility,
                                    Field::kGuestActivity,     Field::kGuestSysenterCs,
                                    Field::kGuestSysenterEsp,  Field::kGuestSysenterEip,
                                    Field::kGuestPendingDebug, Field::kGuestGdtrBase,
                                    Field::kGuestIdtrBase,     Field::kGuestGdtrLimit,
                                    Field::kGuestIdtrLimit,    Field::kGuestRsp,
                                    Field::kHostSysenterCs,    Field::kHostSysenterEsp,
                                    Field::kHostSysenterEip,   Field::kHostFsBase,
                                    Field::kHostGsBase,        Field::kHostTrBase,
                                    Field::kHostIdtrBase};
  for (const Field field : kZero) {
    MustWrite(field, 0);
  }
  MustWrite(Field::kVmcsLinkPointer, ~uint64_t{0});
  MustWrite(Field::kGuestDr7, 0x400);
  for (int i = 0; i < 8; ++i) {
    MustWrite(Next(Field::kGuestEsLimit, i), i == 7 ? 0x67 : 0xFFFFFFFF);
    MustWrite(Next(Field::kGuestEsBase, i), 0);
  }
  MustWrite(Field::kGuestLdtrSelector, 0);
  MustWrite(Field::kGuestLdtrRights, 0x10000);  // unusable
  MustWrite(Field::kGuestTrSelector, 0x18);
  MustWrite(Field::kGuestTrRights, 0x8B);
  for (int i = 0; i < 6; ++i) MustWrite(Next(Field::kHostEsSelector, i), i == 1 ? 0x08 : 0x10);
  MustWrite(Field::kHostTrSelector, 0x18);
  MustWrite(Field::kHostCr0, Cr0());
  MustWrite(Field::kHostCr3, 0x1000);
  MustWrite(Field::kHostCr4, Cr4());
  MustWrite(Field::kHostEfer, ReadMsr(kEfer));
  DescriptorTable gdt;
  asm volatile("sgdt %0" : "=m"(gdt));
  MustWrite(Field::kHostGdtrBase, gdt.base);
}

void WriteGuestState(const Probe& probe) {
  constexpr uint64_t kLongModeActive = 1 << 10;
  const bool ring3 = probe.segments & Probe::kRing3, code32 = probe.segments & Probe::kCode32;
  MustWrite(Field::kEntryControls,
            Controls(0x484, kEntryLoadEfer | (probe.efer & kLongModeActive ? kEntryGuest64 : 0)));
  MustWrite(Field::kEptPointer, probe.eptp);
  MustWrite(Field::kGuestCr0, probe.cr0);
  MustWrite(Field::kGuestCr3, probe.cr3);
  MustWrite(Field::kGuestCr4, probe.cr4);
  MustWrite(Field::kGuestEfer, probe.efer);
  for (int i = 0; i < 4; ++i) MustWrite(Next(Field::kGuestPdpte0, i), probe.pdptes[i]);
  MustWrite(Field::kGuestRip, probe.rip);
  MustWrite(Field::kGuestRflags, probe.rflags);
  for (int i = 0; i < 6; ++i) {
    MustWrite(Next(Field::kGuestEsSelector, i), ring3 ? 0x13 : 0x10);
    MustWrite(Next(Field::kGuestEsRights, i), ring3 ? 0xC0F3 : 0xC093);
  }
  MustWrite(Field::kGuestCsSelector, ring3 ? 0x0B : 0x08);
  MustWrite(Field::kGuestCsRights, (code32 ? 0xC09B : 0xA09B) | (ring3 ? 0x60 : 0));
}

// "Individual addresses, single context, all contexts": the last.
void ForgetTranslations() {
  struct {
    uint64_t eptp, zero;
  } const all = {0, 0};
  bool failed;
  asm volatile("invept %1, %2" : "=@ccbe"(failed) : "m"(all), "r"(uint64_t{2}) : "memory");
  if (failed) Fail("INVEPT");
}

void Run(const Probe& probe, bool& launched, ProbeResult& result) {
  for (uint64_t i = 0; i < probe.pokes_count; ++i) {
    Physical(probe.pokes[i].hpa) = probe.pokes[i].value;
  }
  if (Cr4() & kCr4Pke) {
    asm volatile("wrpkru" ::"a"(static_cast<uint32_t>(probe.pkru)), "c"(0), "d"(0));
  }
  WriteGuestState(probe);
  ForgetTranslations();
  Registers registers{0, probe.rbx, probe.rdx};
  result = {};
  if (EnterGuest(&registers, launched)) {
    result.reason = Read(Field::kExitReason);
    // An entry that fails leaves the VMCS as it was launched before.
    if (!(result.reason & uint64_t{1} << 31)) launched = true;
    result.qualification = Read(Field::kExitQualification);
    result.gpa = Read(Field::kGuestPhysicalAddress);
    result.linear = Read(Field::kGuestLinearAddress);
    result.interruption = Read(Field::kExitInterruption);
    result.error_code = Read(Field::kExitErrorCode);
    result.rax = registers.rax;
  } else {
    result.reason = ProbeResult::kNoEntry;
    result.instruction_error = Read(Field::kInstructionError);
  }
  for (uint64_t i = 0; i < probe.pokes_count; ++i) result.words[i] = Physical(probe.pokes[i].hpa);
}

class Session {
 public:
  void RunAll() {
    for (;;) {
      Disk::Read(next_++, 1, &command_);
      if (command_.magic != kMagic) Fail("no command where one should be");
      switch (command_.type) {
        case CommandType::kBegin:
          results_ = command_.words[0];
          break;
        case CommandType::kLoad:
          for (uint64_t i = 0; i < command_.count; ++i) {
            Disk::Read(next_, kSectorsPerPage, &Physical(command_.words[i]));
            next_ += kSectorsPerPage;
          }
          break;
        case CommandType::kProbe:
          Probes();
          break;
        case CommandType::kDump:
          for (uint64_t i = 0; i < command_.count; ++i) {
            Disk::Write(results_, kSectorsPerPage, &Physical(command_.words[i]));
            results_ += kSectorsPerPage;
          }
          break;
        case CommandType::kEnd:
          Physical(kResults) = kDone;
          Disk::Write(results_, 1, &Physical(kResults));
          return;
      }
    }
  }

 private:
  // Of one command: probes in one half of the buffer, results in the other.
  void Probes() {
    if (command_.count > Command::kMostProbes) Fail("too many probes in one command");
    auto* const probes = reinterpret_cast<Probe*>(kBuffer);
    auto* const results = reinterpret_cast<ProbeResult*>(kResults);
    Disk::Read(next_, SectorsOf(command_.count * sizeof(Probe)), probes);
    next_ += SectorsOf(command_.count * sizeof(Probe));
    for (uint64_t i = 0; i < command_.count; ++i) Run(probes[i], launched_, results[i]);
    Disk::Write(results_, SectorsOf(command_.count * sizeof(ProbeResult)), results);
    results_ += SectorsOf(command_.count * sizeof(ProbeResult));
  }
  Command command_;
  uint64_t next_ = kStreamSector;
  uint64_t results_ = 0;
  bool launched_ = false;
};

}  // namespace

extern "C" void KernelMain() {
  EnableKeys();
  EnterVmxOperation();
  WriteConstantFields();
  static Session session;
  session.RunAll();
  Print("\nTWINROOT-DONE\n");
}

}  // namespace twinroot::bochs
