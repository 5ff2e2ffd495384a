// The VM behind vm.h: holds memory, engine, machine and desk together, and is what the machine
// reports to.
//
// Life: DEFINED -> RUNNING (<-> PAUSED) -> STOPPED, which a broken engine makes of DEFINED, too.
// Whatever ends a VM (exit code, end of all vCPUs, a fatal exit, a broken engine, a request) goes
// through BeginStop once; a helper thread then joins the machine and makes the VM STOPPED.
// Thread-safe. Lock order: lifecycle_mutex_, then a desk's, then state_mutex_.
#ifndef TWINROOT_DAEMON_HOST_VM_IMPL_H_
#define TWINROOT_DAEMON_HOST_VM_IMPL_H_

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "daemon/callbacks.h"
#include "daemon/events/journal.h"
#include "daemon/host/console.h"
#include "daemon/host/conversion_desk.h"
#include "daemon/host/cpu_groups.h"
#include "daemon/host/dirty_desk.h"
#include "daemon/host/exit_meter.h"
#include "daemon/host/memslot_desk.h"
#include "daemon/host/task_lanes.h"
#include "daemon/host/task_thread.h"
#include "daemon/host/vm.h"
#include "daemon/memory/guest_ram.h"
#include "daemon/memory/hpa_space.h"
#include "daemon/memory/mapping.h"
#include "daemon/memory/physical_map.h"
#include "daemon/vcpu/kvm/kvm_machine.h"
#include "daemon/vcpu/kvm/kvm_system.h"
#include "daemon/vcpu/machine.h"
#include "mmu/tables/bug_sink.h"
#include "mmu/tables/table_pool.h"

namespace twinroot::host {

class VmImpl : public Vm,
               public vcpu::MachineClient,
               public mmu::BugSink,
               public std::enable_shared_from_this<VmImpl> {
 public:
  // What all VMs of the daemon share; outlives them.
  struct House {
    memory::HpaSpace* hpa_space = nullptr;
    events::Journal* journal = nullptr;
    TaskThread* clock = nullptr;                    // deadlines: says when, and hands over to
    TaskLanes* lanes = nullptr;                     // what may take long, each VM for itself
    const kvm::KvmSystem* kvm = nullptr;            // null: only sim
    ExitMeter* exits = nullptr;                     // null: nobody counts
    const CpuGroupsOrWhyNot* cpu_groups = nullptr;  // null: nobody gets one
    bool whole_leaves = false;                      // on kvm (ProbeWholeLeaves)
    bool probe = false;                             // the start-up probe: its VMs are not told of
  };

  // `spec.backend` is not kAuto. Nothing runs yet.
  static absl::StatusOr<std::shared_ptr<VmImpl>> Create(VmSpec spec, const House& house);
  ~VmImpl() override;

  const VmSpec& spec() const override { return spec_; }
  BackendKind backend() const override { return spec_.backend; }
  absl::Time create_time() const override { return create_time_; }
  VmStatus status() const override;
  VmSettings settings() const override;
  absl::Status Check(IfVersion if_version) const override;
  absl::Status Update(const VmSettings& settings, IfVersion if_version) override;
  absl::Status Start(IfVersion if_version = std::nullopt) override;
  absl::Status Pause(IfVersion if_version = std::nullopt) override;
  absl::Status Resume(IfVersion if_version = std::nullopt) override;
  absl::Status Stop(vcpu::StopReason reason, IfVersion if_version = std::nullopt) override;
  std::unique_ptr<Waiter> OnStopped(std::function<void(absl::Status)> done) override;
  ConsoleChunk ReadConsole(uint64_t offset, size_t max) const override;
  std::unique_ptr<Waiter> OnConsole(std::function<void()> wake) override;
  absl::Status WriteConsole(std::string_view bytes) override;
  absl::StatusOr<ConversionResult> Change(mmu::AttributeChange change) override;
  absl::StatusOr<mmu::AttributeChangePlan> PlanChange(mmu::AttributeChange change) const override;
  absl::StatusOr<std::vector<mmu::AttributeRun>> Attributes(
      std::optional<mmu::GfnRange> range) const override;
  absl::StatusOr<mmu::Translation> Translate(uint64_t gpa, mmu::MemoryKind alias) const override;
  absl::StatusOr<std::string> ReadMemory(uint64_t gpa, uint64_t size) override;
  absl::Status WriteMemory(uint64_t gpa, const std::string& data) override;
  absl::StatusOr<mmu::SplitResult> EnableDirtyLog(const mmu::DirtyLogOptions& options) override {
    return dirty_desk_->Enable(options);
  }
  absl::StatusOr<mmu::RecoverResult> DisableDirtyLog() override { return dirty_desk_->Disable(); }
  absl::StatusOr<std::vector<mmu::GfnRange>> HarvestDirty(
      std::optional<mmu::GfnRange> range) override {
    return dirty_desk_->Harvest(range ? std::vector{*range} : Memory());
  }
  absl::Status ClearDirty(const std::vector<mmu::GfnRange>& ranges) override {
    return dirty_desk_->Clear(ranges);
  }
  void UndoHarvest(const std::vector<mmu::GfnRange>& runs) override { dirty_desk_->Mark(runs); }
  absl::StatusOr<mmu::SplitResult> SplitPages(const std::vector<mmu::GfnRange>& ranges,
                                              mmu::Level target) override;
  absl::StatusOr<mmu::RecoverResult> RecoverPages(
      const std::vector<mmu::GfnRange>& ranges) override;
  absl::StatusOr<mmu::PrefaultResult> Prefault(mmu::GfnRange range,
                                               std::optional<mmu::MemoryKind> kind) override;
  absl::Status CheckAddMemslot(mmu::GfnRange range) const override;
  absl::Status AddMemslot(mmu::GfnRange range) override;
  absl::Status RemoveMemslot(mmu::Gfn first) override;
  absl::Status MoveMemslot(mmu::Gfn first, mmu::Gfn new_first) override;
  absl::StatusOr<std::vector<mmu::TableImage>> DumpTables(mmu::MemoryKind root,
                                                          const mmu::TableImage* after,
                                                          size_t max) const override;
  mmu::EptPointer ept_pointer(mmu::MemoryKind root) const override {
    return engine_->ept_pointer(root);
  }
  absl::StatusOr<std::vector<mmu::GfnRange>> AgePages(mmu::GfnRange range) override;
  absl::StatusOr<mmu::RecoverResult> RecoverNxPages(uint64_t max) override;
  std::vector<mmu::GfnRange> Memory() const override;
  absl::Status Audit() const override;
  std::vector<PendingConversion> Pending() const override { return desk_->Pending(); }
  ResolveResult Resolve(uint64_t id, Resolution resolution) override {
    return desk_->Resolve(id, resolution);
  }
  VmCounters counters() const override;

  // The first event of its life.
  void PublishDefined();
  // It starts no more, and its settings stay. What runs, runs on.
  absl::Status Retire(IfVersion if_version = std::nullopt);
  // If it runs its vCPUs leave the guest, as Machine says; Stop follows.
  void AnnounceStop();
  // Stops the VM if it runs, tells everybody who waits that it is gone.
  void Delete();

  // MachineClient.
  vcpu::Verdict OnEptViolation(vcpu::VcpuIndex vcpu, const mmu::Fault& fault) override;
  std::optional<vcpu::Verdict> OnEptMisconfiguration(vcpu::VcpuIndex vcpu, mmu::Gpa gpa) override;
  vcpu::ShadowAnswer OnShadowFault(vcpu::VcpuIndex vcpu, const mmu::ShadowFault& fault) override;
  vcpu::MapGpaVerdict OnMapGpa(vcpu::VcpuIndex vcpu, const vcpu::MapGpaCall& call) override;
  void OnConsole(std::string_view bytes) override;
  void OnExitCode(vcpu::VcpuIndex vcpu, uint8_t code) override;
  void OnVcpuEnded(vcpu::VcpuIndex vcpu) override;
  void OnFatal(vcpu::StopReason reason, std::string message) override;
  void RunLater(std::function<void()> task) override;

  // BugSink: its tables cannot be trusted any more, so the VM ends.
  void ReportBug(const std::string& what) override;

 private:
  // What becomes of a vCPU that cannot just run on; nullopt: ask the engine again.
  std::optional<vcpu::Verdict> AnswerFault(vcpu::VcpuIndex vcpu, const mmu::Fault& fault,
                                           const mmu::FaultOutcome& outcome, uint64_t harvests,
                                           absl::Time exit_time);
  void CountExit(ExitMeter::Reason reason);
  vcpu::Verdict StopAtMmio(vcpu::VcpuIndex vcpu, mmu::Gpa gpa, mmu::MemoryKind alias);
  // Nothing is told of a VM after its end was.
  void Publish(const v1::Event& event);
  VmImpl(VmSpec spec, const House& house);
  static VmStatus Stopped(vcpu::StopReason reason, std::string message);
  static VmStatus Exited(uint32_t code);
  absl::Status Build();
  absl::Status BuildEngine(const mmu::GpaLayout& layout);
  // Records why the VM ends, once, and lets the machine stop. Any thread.
  void BeginStop(VmStatus outcome);
  absl::Status CheckStops(IfVersion if_version);
  void FinishStop();
  // These hold state_mutex_.
  void SetStatus(VmStatus next);  // and tells of it
  absl::Status CheckVersion(IfVersion if_version) const;
  absl::Status SetCpuShare(const CpuShare& share);
  absl::Status WrongState(const std::string& what) const;
  absl::Status CheckStays() const;   // kUnavailable once it is retired
  absl::Status CheckRuns() const;    // or is paused
  absl::Status CheckTables() const;  // not OK: on shadow tables
  absl::Status CheckContent(const mmu::AttributeChange& change) const;
  // Errors if one of the ranges is not memory.
  absl::Status CheckMemory(const std::vector<mmu::GfnRange>& ranges) const;
  // Runs `access` while the pages stay shared, whatever the range's alignment.
  absl::Status AccessShared(uint64_t gpa, uint64_t size, absl::FunctionRef<absl::Status()> access);

  const VmSpec spec_;
  const House house_;
  const absl::Time create_time_;

  // Fixed after Build, destroyed in the opposite order.
  std::unique_ptr<memory::GuestRam> ram_;
  memory::HpaRange table_hpas_;
  memory::Mapping table_arena_;
  std::unique_ptr<mmu::TablePool> table_pool_;
  memory::PhysicalMap physical_map_;
  std::unique_ptr<CpuGroup> cpu_group_;  // or null
  std::unique_ptr<vcpu::Machine> machine_;
  std::unique_ptr<mmu::GuestAddressSpace> engine_;
  std::shared_ptr<ConversionDesk> desk_;
  std::unique_ptr<DirtyDesk> dirty_desk_;
  std::unique_ptr<MemslotDesk> memslot_desk_;

  std::mutex lifecycle_mutex_;  // Update, Start, Pause, Resume, Stop and the join take turns
  Console console_;
  Callbacks<> console_wakers_;
  Callbacks<absl::Status> stop_waiters_;
  std::atomic<uint32_t> vcpus_running_{0};

  mutable std::mutex state_mutex_;
  std::condition_variable state_changed_;
  VmStatus status_;                  // guarded by state_mutex_
  VmSettings settings_;              // guarded by state_mutex_
  std::optional<VmStatus> outcome_;  // set by BeginStop; guarded by state_mutex_
  bool retired_ = false;             // guarded by state_mutex_
  bool deleted_ = false;             // guarded by state_mutex_
};

// What of a VM is the machine's.
kvm::KvmMachineConfig KvmConfigOf(const VmSpec& spec);

}  // namespace twinroot::host

#endif  // TWINROOT_DAEMON_HOST_VM_IMPL_H_
