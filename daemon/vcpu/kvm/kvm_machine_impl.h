// The kvm backend's machine: one KVM VM whose memory is projections of the engine's leaves.
// Private to kvm_machine.cc (its life) and kvm_faults.cc (the faults of its vCPUs).
//
// Thread-safe where vcpu::Machine is. One thread serves faults and wakes vCPUs; nobody else does.
#ifndef TWINROOT_DAEMON_VCPU_KVM_KVM_MACHINE_IMPL_H_
#define TWINROOT_DAEMON_VCPU_KVM_KVM_MACHINE_IMPL_H_

#include <linux/userfaultfd.h>

#include <atomic>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <string_view>
#include <thread>
#include <vector>

#include "daemon/vcpu/kvm/boot_loader.h"
#include "daemon/vcpu/kvm/fd.h"
#include "daemon/vcpu/kvm/kvm_machine.h"
#include "daemon/vcpu/kvm/native_memory.h"
#include "daemon/vcpu/kvm/pc.h"
#include "daemon/vcpu/kvm/projection.h"
#include "daemon/vcpu/kvm/userfault.h"
#include "daemon/vcpu/kvm/vcpu.h"
#include "daemon/vcpu/pause_gate.h"

namespace twinroot::kvm {

class KvmMachine : public vcpu::Machine {
 public:
  KvmMachine(const KvmMachineConfig& config, const KvmSystem* system, const mmu::GpaLayout& layout,
             memory::GuestRam* ram, vcpu::MachineClient* client)
      : config_(config),
        system_(system),
        layout_(layout),
        ram_(ram),
        client_(client),
        gate_(config.vcpus) {}

  ~KvmMachine() override {
    RequestStop();
    Join();
  }

  absl::Status Open();

  mmu::ExternalTables* external(mmu::MemoryKind root) override {
    if (root == mmu::MemoryKind::kPrivate && native_.has_value()) return &*native_;
    return &projection(root);
  }
  mmu::PageSource* pages() override { return native_.has_value() ? &*native_ : nullptr; }
  mmu::TlbFlusher* flusher() override { return nullptr; }  // a projection needs none
  void Attach(mmu::GuestAddressSpace* engine) override { engine_ = engine; }
  absl::Status Start() override;
  absl::Status Type(std::string_view bytes) override;
  uint64_t exits() const override;
  void ResumeFault(vcpu::VcpuIndex vcpu) override;
  void AnswerMapGpa(vcpu::VcpuIndex vcpu, vcpu::MapGpaAnswer answer) override;
  absl::Status Prefault(mmu::GfnRange range) override;
  absl::Status Still(absl::FunctionRef<absl::Status()> change) override;
  absl::Status AddMemory(mmu::GfnRange range) override;
  void RemoveMemory(mmu::GfnRange range) override;
  absl::Status MoveMemory(mmu::GfnRange range, mmu::Gfn to) override;
  // Interrupt controllers, and what KVM itself keeps below 4 GiB.
  mmu::GfnRange devices() const override { return {mmu::Gfn(0xfec00), 0x1400}; }
  void Pause() override;
  void Resume() override;
  void AnnounceStop() override;
  void RequestStop() override;
  void Join() override;
  vcpu::ProjectionCounts projection_counts() const override {
    vcpu::ProjectionCounts counts;
    for (const auto& projection : projections_) projection->AddCounts(counts);
    return counts;
  }

 private:
  // A fault that a vCPU waits in: a frame of one alias. It is woken once it is resumed and the gate
  // lets it go. The host wakes by pages: whoever else waits for that page goes too, and is told of
  // again. While the machine is paused faults are not served, only kept until Resume.
  struct Parked {
    mmu::MemoryKind kind;
    mmu::Gfn gfn;
    bool resumed = false;
    bool IsOf(const Parked& page) const { return kind == page.kind && gfn == page.gfn; }
  };

  Projection& projection(mmu::MemoryKind kind) { return *projections_[static_cast<size_t>(kind)]; }
  // Large leaves become whole, apart from the faults that made them.
  void SettleSoon();
  void SettleLeaves();
  void RenewProjection(Projection& projection);
  // KVM's memslots for one of the VM's, whose windows are there: by alias, under these numbers.
  absl::Status AddRegions(const memory::RamSlot& slot, const uint32_t (&numbers)[2]);
  uint32_t TakeNumber();
  absl::Status SetRegion(uint32_t number, mmu::MemoryKind kind, const Projection::Window& window);
  absl::Status CreateVcpus();
  absl::Status Load(const BootPlan& plan);
  // The handler's thread. Nobody else wakes vCPUs: between reading a fault and serving it, the vCPU
  // that it tells of stays where it is.
  void ServeFaults();
  // False: the VM ends.
  bool ServeNextFault();
  void ServeFault(const uffd_msg& message);
  void ServeFault(std::optional<vcpu::VcpuIndex> vcpu, const Parked& fault, mmu::Access access);
  void Park(std::optional<vcpu::VcpuIndex> vcpu, const Parked& fault);
  void WakeResumed();
  // Everybody who waits there, unless the gate keeps one of them. `let_go`: of a private page that
  // only KVM's own accesses stop at, which end there.
  bool WakePage(const Parked& page, bool let_go = false);
  // False: the access would stop here for ever, and this was its end.
  bool CheckTrapped(vcpu::VcpuIndex vcpu, mmu::Gfn gfn);
  void SignalHandler();
  std::optional<vcpu::VcpuIndex> VcpuOf(uint32_t thread) const;

  const KvmMachineConfig config_;
  const KvmSystem* const system_;
  const mmu::GpaLayout layout_;
  memory::GuestRam* const ram_;
  vcpu::MachineClient* const client_;

  mmu::GuestAddressSpace* engine_ = nullptr;  // null where a test plays the engine
  std::optional<Userfault> userfault_;
  std::optional<Projection> projections_[2];
  KvmFd vm_;
  std::optional<NativeMemory> native_;  // then the private projection is its trap, never filled
  // KVM's numbers of its memslots, by alias.
  struct Regions {
    mmu::GfnRange range;
    uint32_t slots[2];
  };
  std::list<Regions> added_;  // with the VM's memory that came later; guarded by start_mutex_
  std::vector<uint32_t> free_numbers_;  // guarded by start_mutex_
  uint32_t next_number_ = 0;
  std::unique_ptr<Pc> pc_;  // null: the guest is no operating system; fixed after Open
  std::vector<std::unique_ptr<Vcpu>> vcpus_;
  std::thread handler_;
  Fd handler_event_;  // tells the handler of resumed faults and of the stop
  std::mutex parked_mutex_;
  std::vector<std::optional<Parked>> parked_;  // by vCPU; guarded by parked_mutex_
  // Faults of threads that are no vCPU's. With interrupt controllers KVM has a worker of its own
  // fetch a page while the vCPU halts: the vCPU can be paused, and nobody knows which it is; the VM
  // is told of vCPU 0.
  std::vector<Parked> workers_parked_;     // guarded by parked_mutex_
  std::atomic<bool> counts_exits_{false};  // the vCPUs are all there
  std::atomic<bool> stop_{false};
  std::atomic<bool> stop_requested_{false};
  std::atomic<bool> settling_soon_{false};
  std::mutex start_mutex_;  // a start, the renewal of a projection, a change of memslots
  vcpu::PauseGate gate_;
  std::mutex serve_mutex_;  // held while a fault is served
  struct Trapped {
    mmu::Gfn gfn;
    int times = 0;
  };
  std::vector<Trapped> trapped_;  // by vCPU: accesses that had their leaf; of the handler's thread
  std::mutex prefault_mutex_;
  std::unique_ptr<Vcpu> prefaulter_;  // never runs; set before the handler is, used under the mutex
};

}  // namespace twinroot::kvm

#endif  // TWINROOT_DAEMON_VCPU_KVM_KVM_MACHINE_IMPL_H_
