// One vCPU of a sim machine: executes its operations on a software VMX processor and takes the VM
// exits to the client. With nested paging the processor walks the guest's tables itself, through
// EPT; without, it walks shadow tables (sim_paging.cc). Run is for the vCPU's own thread; the rest
// is thread-safe.
#ifndef TWINROOT_DAEMON_VCPU_SIM_SIM_VCPU_H_
#define TWINROOT_DAEMON_VCPU_SIM_SIM_VCPU_H_

#include <atomic>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "daemon/vcpu/machine.h"
#include "daemon/vcpu/pause_gate.h"
#include "daemon/vcpu/program/op.h"
#include "daemon/vcpu/sim/barrier.h"
#include "daemon/vcpu/sim/full_logs.h"
#include "daemon/vcpu/sim/guest_registers.h"
#include "daemon/vcpu/sim/parking_place.h"
#include "daemon/vcpu/sim/shadow_processor.h"
#include "mmu/vmx/physical_memory.h"
#include "mmu/vmx/vcpu.h"

namespace twinroot::sim {

class SimVcpu {
 public:
  // What a machine's vCPUs share; outlives them.
  struct Shared {
    explicit Shared(uint32_t vcpus) : gate(vcpus) {}
    vcpu::MachineClient* client = nullptr;
    // Of the engine's guest-physical addresses; as attached.
    bool has_shared_bit = false;
    int guest_maxphyaddr = 52;
    mmu::GuestAddressSpace* shadow_engine = nullptr;  // null: nested paging
    vcpu::PauseGate gate;
    Barrier barrier;
    std::atomic<bool> stop{false};
    FullLogs full_logs;
  };

  SimVcpu(vcpu::VcpuIndex index, Shared* shared, mmu::vmx::PhysicalMemory* memory,
          const mmu::EptCapabilities& capabilities, int maxphyaddr)
      : index_(index),
        shared_(*shared),
        processor_(memory, capabilities, maxphyaddr),
        shadow_(memory, maxphyaddr) {}

  mmu::vmx::Vcpu& processor() { return processor_; }
  // What runs instead of it on shadow tables.
  ShadowProcessor& shadow() { return shadow_; }

  // Executes `ops` (as Decode gives them; empty: no program) until they end or the machine stops.
  // Texts lie in `blob`. Leaves the barrier only where the program ends by itself: after an exit
  // code or a fatal error the VM ends, and the others wait for that.
  void Run(const std::vector<program::Op>& ops, std::string_view blob);

  void Unpark(vcpu::MapGpaAnswer answer) { parking_.Decide(answer); }
  // Ends every wait; `stop` was set.
  void Stop() { parking_.Stop(); }

 private:
  struct Loop {
    uint64_t iterations;
    uint64_t i;
  };
  // Of an access that was made, or that faulted where the program catches that.
  struct Made {
    uint64_t value;  // what was read; or as kFlagCatch says
    bool faulted = false;
  };
  // nullopt: this vCPU does not go on.
  using Result = std::optional<Made>;

  // Index of the next operation.
  std::optional<size_t> Execute(size_t at, const program::Op& op, std::string_view blob);
  bool ExecuteRead(const program::Op& op);
  bool ExecuteWrite(const program::Op& op);
  bool ExecuteFetch(const program::Op& op);
  bool ExecuteMapGpa(const program::Op& op);
  bool ExecuteMove(const program::Op& op);
  bool ExecuteInvalidate();
  bool Check(const program::Op& op);
  std::optional<size_t> BeginLoop(size_t at, const program::Op& op);
  std::optional<size_t> EndLoop(size_t at, const program::Op& op);

  // Makes one access, as often as the client says.
  Result Access(const program::Op& op, uint64_t value);
  bool HandleViolation(const mmu::vmx::EptViolationExit& exit);
  // Of an access to `address`; true: try it again.
  bool HandleExit(const program::Op& op, uint64_t address, const mmu::vmx::AccessOutcome& outcome);

  // By linear address, the guest's tables on the way.
  mmu::LinearAccess LinearAccessOf(const program::Op& op, uint64_t address) const;
  Result AccessThroughEpt(const program::Op& op, uint64_t address, uint64_t value);
  Result AccessOnShadow(const program::Op& op, uint64_t address, uint64_t value);
  Result TakePageFault(const program::Op& op, const mmu::GuestPageFault& fault);
  // Nullopt: this vCPU does not go on.
  std::optional<mmu::LoadPdptesOutcome> ReadPdptes(const program::Op& op, uint64_t cr3);
  // The root for the registers as they are; false: there is none.
  bool LoadShadowRoot();
  mmu::GuestCpuFeatures GuestFeatures() const { return {.maxphyaddr = shared_.guest_maxphyaddr}; }
  std::optional<vcpu::MapGpaAnswer> MapGpa(const vcpu::MapGpaCall& call);
  // What the VM decided for a parked vCPU; nullopt: it stops.
  std::optional<vcpu::MapGpaAnswer> AwaitDecision();
  // At a barrier. False: the machine stops.
  bool AwaitOthers();

  mmu::vmx::AccessOutcome TryAccess(const program::Op& op, uint64_t value);
  bool Fatal(const program::Op& op, vcpu::StopReason reason, const std::string& what);
  uint64_t iteration() const { return loops_.empty() ? 0 : loops_.back().i; }
  uint64_t AddressOf(const program::Op& op) const { return op.gpa + iteration() * op.stride; }
  std::string Where(const program::Op& op) const;
  void ExecuteAll(const std::vector<program::Op>& ops, std::string_view blob);
  // Waits while the machine is paused. False: it stops.
  bool GoesOn() {
    shared_.gate.Pass(index_);
    return !shared_.stop.load(std::memory_order_acquire);
  }

  const vcpu::VcpuIndex index_;
  Shared& shared_;
  mmu::vmx::Vcpu processor_;
  ShadowProcessor shadow_;
  ParkingPlace parking_;

  // The program's state: of Run's thread.
  std::vector<Loop> loops_;
  uint64_t last_ = 0;
  std::optional<GuestRegisters> registers_;  // while it runs
};

}  // namespace twinroot::sim

#endif  // TWINROOT_DAEMON_VCPU_SIM_SIM_VCPU_H_
