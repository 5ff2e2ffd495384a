// The processor of one vCPU of the fake kernel. It knows long mode with 4-level page tables, and of
// instructions: mov imm8 to al, out to a port, rep movsq, hlt, vmcall, and jmp to itself. Where it
// finds other bytes, a guest of access programs begins: it then executes the program that the boot
// information names (daemon/vcpu/program/op.h), operation by operation, as the interpreter does.
//
// By the thread that runs the vCPU. Whatever stops an access leaves the registers as they were.
#ifndef TWINROOT_TESTS_FAKES_KVM_GUEST_CPU_H_
#define TWINROOT_TESTS_FAKES_KVM_GUEST_CPU_H_

#include <linux/kvm.h>

#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "daemon/vcpu/program/op.h"
#include "tests/fakes/kvm/guest_memory.h"

namespace twinroot::kvm::fake {

// Where the programs of a VM's vCPUs wait for each other.
class MeetingPoint {
 public:
  uint64_t Arrive(uint32_t members);
  void Leave(uint32_t members);
  bool Passed(uint64_t round) const;

 private:
  void OpenIfAll(uint32_t members);

  mutable std::mutex mutex_;
  uint64_t round_ = 0;
  uint32_t arrived_ = 0, left_ = 0;
};

// Why the processor came out of the guest.
struct Exit {
  enum class Kind : uint8_t { kPort, kHypercall, kMmio, kHalt, kShutdown, kMemoryFault, kStopped };
  Kind kind = Kind::kStopped;
  uint16_t port = 0;
  std::string data = {};  // of kPort: bytes, or four of them
  uint8_t size = 1;
  uint64_t gpa = 0;  // kMmio, kMemoryFault
  uint64_t flags = 0;
  bool write = false;
  MemoryAttributes map_gpa = {};  // kHypercall: address, pages as size, attributes
};

class GuestCpu {
 public:
  GuestCpu(GuestMemory* memory, MeetingPoint* meeting) : memory_(*memory), meeting_(*meeting) {}

  kvm_regs regs = {};
  kvm_sregs sregs = {};
  bool forwards_map_gpa = false;  // KVM_CAP_EXIT_HYPERCALL

  // Until it exits or `interrupted`, which is asked between instructions.
  Exit Run(const std::function<bool()>& interrupted);
  // The kernel's second half of an exit, when the vCPU is run next.
  void Complete();

 private:
  struct Loop {
    uint64_t iteration = 0;
    uint64_t count = 0;
  };
  struct Program {
    uint64_t blob = 0;  // virtual address
    uint64_t ops = 0;
    uint32_t pc = 0;
    uint32_t vcpu = 0;
    uint32_t members = 0;
    uint64_t last = 0;
    std::vector<Loop> loops;
    uint64_t printed = 0;                 // of the text of this operation
    std::optional<uint64_t> round;        // at a barrier
    std::optional<uint8_t> exit_code;     // the program is over
    uint64_t map_gpa = 0, map_pages = 0;  // what is left of a MapGPA
    uint64_t iteration() const { return loops.empty() ? 0 : loops.back().iteration; }
  };

  // One instruction or operation. An exit: it is not over.
  std::optional<Exit> Step(const std::function<bool()>& interrupted);
  std::optional<Exit> RepMovs(const std::function<bool()>& interrupted);
  std::optional<Exit> Vmcall();
  std::optional<Exit> BeginProgram();
  std::optional<Exit> StepProgram();
  std::optional<Exit> Execute(const program::Op& op);
  std::optional<Exit> ExecuteMapGpa(const program::Op& op);
  std::optional<Exit> Fail(const program::Op& op);
  std::optional<Exit> Finish(uint8_t code);
  Exit Out(uint16_t port, std::string data, uint8_t size, std::function<void()> complete);

  std::optional<Exit> Access(uint64_t address, void* data, size_t size, GuestMemory::Access access);
  std::optional<Exit> Physical(uint64_t gpa, void* data, size_t size, GuestMemory::Access access);
  template <typename T>
  std::optional<Exit> Load(uint64_t address, T& value) {
    return Access(address, &value, sizeof value, GuestMemory::Access::kRead);
  }
  bool user() const { return (sregs.cs.dpl & 3) == 3; }

  GuestMemory& memory_;
  MeetingPoint& meeting_;
  std::function<bool()> interrupted_;  // of this run
  std::function<void()> complete_;
  std::optional<Program> program_;
};

}  // namespace twinroot::kvm::fake

#endif  // TWINROOT_TESTS_FAKES_KVM_GUEST_CPU_H_
