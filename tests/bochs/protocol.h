// What a test and the machine in Bochs tell each other, on the machine's disk: the test writes a
// stream of commands from kStreamSector on, the machine its results from where the first command
// says. Everything is made of 64-bit words and begins at a sector. Freestanding: the kernel of the
// machine has it too.
#ifndef TWINROOT_TESTS_BOCHS_PROTOCOL_H_
#define TWINROOT_TESTS_BOCHS_PROTOCOL_H_

#include <stdint.h>

namespace twinroot::bochs {

constexpr uint64_t kSectorBytes = 512;
constexpr uint64_t kSectorsPerPage = 4096 / kSectorBytes;
constexpr uint64_t SectorsOf(uint64_t bytes) { return (bytes + kSectorBytes - 1) / kSectorBytes; }
constexpr uint64_t kStreamSector = 128;  // behind the boot sector and the kernel

enum class CommandType : uint64_t {
  kBegin = 1,  // words[0]: the first sector of the results
  kLoad,       // words: physical addresses of pages; their content follows
  kProbe,      // `count` probes follow; as many results
  kDump,       // words: physical addresses of pages; their content is the result
  kEnd,        // the result: one sector that begins with kDone
};
constexpr uint64_t kMagic = 0x544F4F524E495754;  // TWINROOT
constexpr uint64_t kDone = 0x454E4F4453454259;

struct Command {
  static constexpr uint64_t kMostPages = 60;
  static constexpr uint64_t kMostProbes = 256;

  uint64_t magic = kMagic;
  CommandType type = CommandType::kEnd;
  uint64_t count = 0;
  uint64_t words[61] = {};
};
static_assert(sizeof(Command) == kSectorBytes);

// A word of physical memory.
struct Poke {
  uint64_t hpa = 0, value = 0;
};

// One run of a guest: words are poked, it enters, and leaves by the first exit.
struct Probe {
  static constexpr uint64_t kMostPokes = 8;
  // Of `segments`.
  static constexpr uint64_t kCode32 = 1;  // else 64-bit code
  static constexpr uint64_t kRing3 = 2;   // else ring 0

  uint64_t eptp = 0;
  uint64_t cr0 = 0, cr3 = 0, cr4 = 0, efer = 0;
  uint64_t rip = 0, rflags = 2, rbx = 0, rdx = 0;
  uint64_t segments = 0;
  uint64_t pkru = 0;
  uint64_t pdptes[4] = {};  // the registers of PAE paging
  uint64_t pokes_count = 0;
  Poke pokes[kMostPokes];
};
static_assert(sizeof(Probe) == 256);

// What came of it. `words`: what stands where the probe poked, afterwards.
struct ProbeResult {
  static constexpr uint64_t kNoEntry = ~uint64_t{0};  // as reason: the instruction itself failed

  uint64_t reason = 0;  // basic reason in bits 15:0, bit 31: VM entry failed
  uint64_t qualification = 0;
  uint64_t gpa = 0, linear = 0;
  uint64_t interruption = 0, error_code = 0;  // of an exception
  uint64_t rax = 0;
  uint64_t instruction_error = 0;
  uint64_t words[Probe::kMostPokes] = {};
};
static_assert(sizeof(ProbeResult) == 128);

}  // namespace twinroot::bochs

#endif  // TWINROOT_TESTS_BOCHS_PROTOCOL_H_
