// A machine of software VMX processors: its vCPUs execute access programs through the engine's own
// tables, with TLBs that keep stale entries until they are flushed. Needs nothing of the host.
//
// Thread-safe as vcpu::Machine says; flushes are synchronous and may come at any time.
#ifndef TWINROOT_DAEMON_VCPU_SIM_SIM_MACHINE_H_
#define TWINROOT_DAEMON_VCPU_SIM_SIM_MACHINE_H_

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "daemon/vcpu/machine.h"
#include "daemon/vcpu/program/decoder.h"
#include "daemon/vcpu/sim/sim_vcpu.h"
#include "mmu/hw/ept_capabilities.h"
#include "mmu/hw/ept_pointer.h"
#include "mmu/vm/mmu_mode.h"
#include "mmu/vmx/physical_memory.h"

namespace twinroot::sim {

struct SimConfig {
  uint32_t vcpus = 1;
  std::string program;                    // compiled blob; without one, Start refuses
  mmu::MmuMode mmu = mmu::MmuMode::kTdp;  // of the engine that is attached
  // The processor; as the engine was told.
  mmu::EptCapabilities capabilities;
  int host_maxphyaddr = 52;
};

class SimMachine final : public vcpu::Machine, private mmu::TlbFlusher, private mmu::PmlSource {
 public:
  // Pointers are not owned and outlive the machine.
  SimMachine(const SimConfig& config, mmu::vmx::PhysicalMemory* memory,
             vcpu::MachineClient* client);
  ~SimMachine() override;

  mmu::ExternalTables* external(mmu::MemoryKind) override { return nullptr; }
  mmu::TlbFlusher* flusher() override { return this; }
  mmu::PmlSource* pml() override { return config_.capabilities.accessed_dirty ? this : nullptr; }
  void Attach(mmu::GuestAddressSpace* engine) override;
  absl::Status Start() override;
  void ResumeFault(vcpu::VcpuIndex vcpu) override { AnswerMapGpa(vcpu, vcpu::MapGpaResult::kOk); }
  void AnswerMapGpa(vcpu::VcpuIndex vcpu, vcpu::MapGpaAnswer answer) override;
  void Pause() override;
  void Resume() override { shared_.gate.Resume(); }
  void RequestStop() override;
  void Join() override;

  // What Attach does: the roots that the vCPUs walk from (see mmu::vmx::Vcpu::LoadRoots).
  void LoadRoots(mmu::EptPointer private_root, mmu::EptPointer shared_root,
                 std::optional<int> shared_bit);

 private:
  void FlushRange(mmu::MemoryKind root, mmu::HwGfn first, uint64_t count) override;
  void FlushAll() override;
  void SetEnabled(bool enabled) override;
  void Drain(absl::FunctionRef<void(mmu::Gpa)> page) override;

  // What VM entry would refuse.
  absl::Status CheckRoots() const;

  const SimConfig config_;
  SimVcpu::Shared shared_;
  std::vector<std::unique_ptr<SimVcpu>> vcpus_;  // all of them from the constructor on

  // Set by LoadRoots, before Start.
  std::vector<mmu::EptPointer> roots_;

  std::mutex start_mutex_;  // held while Start runs: the vCPUs' threads wait for it
  bool started_ = false;    // guarded by start_mutex_
  program::DecodedProgram program_;

  std::mutex join_mutex_;
  std::vector<std::thread> threads_;  // Start fills it, Join empties it
};

std::unique_ptr<vcpu::Machine> MakeSimMachine(const SimConfig& config,
                                              mmu::vmx::PhysicalMemory* memory,
                                              vcpu::MachineClient* client);

}  // namespace twinroot::sim

#endif  // TWINROOT_DAEMON_VCPU_SIM_SIM_MACHINE_H_
