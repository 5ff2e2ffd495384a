// A VM that runs nothing: state, console, attributes and waiting conversions behave as
// daemon/host/vm.h promises, and tests say what the "guest" does. Events go to a real journal.
// Thread-safe. Callbacks run without the VM's lock, as the interface allows.
#ifndef TWINROOT_TESTS_DAEMON_FAKES_FAKE_VM_H_
#define TWINROOT_TESTS_DAEMON_FAKES_FAKE_VM_H_

#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "daemon/callbacks.h"
#include "daemon/events/journal.h"
#include "daemon/host/vm.h"

namespace twinroot::fakes {

class FakeVm final : public host::Vm {
 public:
  FakeVm(host::VmSpec spec, host::BackendKind backend, events::Journal* journal);

  // What the guest does.
  void Say(const std::string& text);
  void ExitWith(uint32_t code);
  uint64_t AskToConvert(uint64_t gpa, uint64_t size, host::Direction direction);
  // Makes Convert wait until released.
  void HoldConversions();
  void ReleaseConversions();
  // Answers the next Convert with `status`.
  void FailNextConvert(absl::Status status);
  void SetCounters(const host::VmCounters& counters);
  // The guest writes to these pages.
  void Dirty(mmu::GfnRange range);
  // From now on Change refuses ranges that hold this frame, for want of memory.
  void RefuseChangesOf(mmu::Gfn gfn);
  void SetExplanation(const mmu::Explanation& why);
  // What the next split, recovery or audit answers.
  void FailNextMemoryCall(absl::Status status);
  // What calls brought.
  mmu::DirtyLogOptions log_options() const;
  std::vector<mmu::GfnRange> last_ranges() const;
  mmu::Level last_target() const;
  std::optional<mmu::MemoryKind> last_kind() const;
  // Prefault stops at this frame.
  void StopPrefaultAt(mmu::Gfn gfn, absl::Status why);
  // Each root has so many tables.
  void SetTables(size_t tables);
  uint64_t last_max() const;
  // Makes Start wait until released.
  void HoldStart();
  void ReleaseStart();
  uint64_t starts() const;
  // Callers that wait for the stop.
  size_t waiters() const;
  uint64_t converts() const;
  // What was typed on its console, which takes 8 KiB.
  std::string typed() const;

  // The VM is forgotten: who waits is told.
  void Forget();

  const host::VmSpec& spec() const override { return spec_; }
  host::BackendKind backend() const override { return backend_; }
  absl::Time create_time() const override { return create_time_; }
  host::VmStatus status() const override;
  host::VmSettings settings() const override;
  absl::Status Check(host::IfVersion if_version) const override;
  absl::Status Update(const host::VmSettings& settings, host::IfVersion if_version) override;
  absl::Status Start(host::IfVersion if_version = std::nullopt) override;
  absl::Status Pause(host::IfVersion if_version = std::nullopt) override;
  absl::Status Resume(host::IfVersion if_version = std::nullopt) override;
  absl::Status Stop(vcpu::StopReason reason, host::IfVersion if_version = std::nullopt) override;
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
  absl::StatusOr<mmu::SplitResult> EnableDirtyLog(const mmu::DirtyLogOptions& options) override;
  absl::StatusOr<mmu::RecoverResult> DisableDirtyLog() override;
  absl::StatusOr<std::vector<mmu::GfnRange>> HarvestDirty(
      std::optional<mmu::GfnRange> range) override;
  absl::Status ClearDirty(const std::vector<mmu::GfnRange>& ranges) override;
  void UndoHarvest(const std::vector<mmu::GfnRange>& runs) override;
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
  mmu::EptPointer ept_pointer(mmu::MemoryKind root) const override;
  absl::StatusOr<std::vector<mmu::GfnRange>> AgePages(mmu::GfnRange range) override;
  absl::StatusOr<mmu::RecoverResult> RecoverNxPages(uint64_t max) override;
  std::vector<mmu::GfnRange> Memory() const override;
  absl::Status Audit() const override;
  std::vector<host::PendingConversion> Pending() const override;
  host::ResolveResult Resolve(uint64_t id, host::Resolution resolution) override;
  host::VmCounters counters() const override;

 private:
  struct StopWaiters;
  class StopWaiter;
  class ConsoleWaiter;

  // Needs the lock. From `from` to `to`, or why not.
  absl::Status GoTo(host::VmState from, host::VmState to, host::IfVersion if_version);
  absl::Status CheckVersion(host::IfVersion if_version) const;
  // Need the lock.
  absl::Status CheckChange(const mmu::AttributeChange& change) const;
  mmu::AttributeChangeResult Make(const mmu::AttributeChange& change);
  mmu::Access DeniedOf(mmu::Gfn gfn) const;
  // Lets the event of a state go out and wakes whoever waits for it.
  void Announce(bool deleted);
  void EndWaits(const absl::Status& status);
  bool Inside(uint64_t gpa, uint64_t size) const;
  // Needs the lock: is every page of these bytes shared?
  bool Shared(uint64_t gpa, uint64_t size) const;
  // Needs the lock. The failure that a test asked for, or a range outside of memory.
  absl::Status CheckMemoryCall(const std::vector<mmu::GfnRange>& ranges) const;

  const host::VmSpec spec_;
  const host::BackendKind backend_;
  const absl::Time create_time_;
  events::Journal* const journal_;
  Callbacks<> console_watchers_;
  const std::shared_ptr<StopWaiters> stop_waiters_;

  mutable std::mutex mutex_;
  std::condition_variable released_;
  host::VmStatus status_;
  host::VmSettings settings_;
  bool hold_start_ = false;
  uint64_t starts_ = 0;
  size_t tables_ = 1;
  uint64_t last_max_ = 0;
  std::string console_;
  std::string typed_;
  std::vector<bool> shared_;  // by frame
  std::map<uint64_t, char> bytes_;
  std::map<uint64_t, host::PendingConversion> pending_;
  std::map<uint64_t, host::ResolveResult::Verdict> decided_;
  uint64_t next_id_ = 1;
  uint64_t converts_ = 0;
  bool hold_ = false;
  absl::Status next_convert_;
  mutable absl::Status next_memory_call_;
  std::optional<mmu::DirtyLogOptions> log_;
  mmu::DirtyLogOptions log_options_;
  std::vector<bool> dirty_;                 // by frame
  std::map<uint64_t, mmu::Access> denied_;  // by frame
  std::optional<mmu::Gfn> refused_;
  mmu::Explanation why_;
  std::vector<mmu::GfnRange> last_ranges_;
  mmu::Level last_target_ = mmu::Level::k1G;
  std::optional<mmu::MemoryKind> last_kind_;
  mmu::Gfn prefault_end_{~uint64_t{0}};
  absl::Status prefault_stop_;
  host::VmCounters counters_;
};

}  // namespace twinroot::fakes

#endif  // TWINROOT_TESTS_DAEMON_FAKES_FAKE_VM_H_
