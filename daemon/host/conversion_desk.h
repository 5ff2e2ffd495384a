// Where conversions between private and shared are decided: at once by the VM's policy within its
// quotas, later by an orchestrator or the deadline, or because an API call asks for them.
//
// Thread-safe. Work on one VM's desk waits for its turn, so that events are in the order of effects
// and each converted byte stands in exactly one terminal event; a vCPU is released only after its
// event was published. Nothing that serves other VMs waits for a turn: the clock hands over to the
// VM's own lane, and Pending and the counters read what the turns leave behind.
#ifndef TWINROOT_DAEMON_HOST_CONVERSION_DESK_H_
#define TWINROOT_DAEMON_HOST_CONVERSION_DESK_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "daemon/callbacks.h"
#include "daemon/events/journal.h"
#include "daemon/host/conversion_chunk.h"
#include "daemon/host/conversion_history.h"
#include "daemon/host/conversion_quota.h"
#include "daemon/host/event_words.h"
#include "daemon/host/task_lanes.h"
#include "daemon/host/task_thread.h"
#include "daemon/host/vm.h"
#include "daemon/vcpu/machine.h"
#include "mmu/vm/guest_address_space.h"

namespace twinroot::host {

class ConversionDesk : public std::enable_shared_from_this<ConversionDesk> {
 public:
  // What the desk asks of its VM; called outside of turns.
  struct Hooks {
    std::function<void(vcpu::VcpuIndex)> resume_fault;
    std::function<void(vcpu::VcpuIndex, vcpu::MapGpaAnswer)> answer_map_gpa;
    std::function<void(vcpu::StopReason, std::string)> fatal;
  };

  // The pointers must outlive the last call but Close.
  ConversionDesk(std::string vm, const ConversionPolicy& policy, mmu::GuestAddressSpace* engine,
                 events::Journal* journal, TaskThread* clock, TaskLanes* lanes, Hooks hooks);

  // An access found its page to be of the other kind. nullopt: it no longer is; handle the fault
  // again.
  std::optional<vcpu::Verdict> Implicit(vcpu::VcpuIndex vcpu, const mmu::Fault& fault,
                                        const mmu::MemoryFaultExit& exit, absl::Time exit_time);
  // MapGPA: at most one chunk, then the guest asks for the rest.
  vcpu::MapGpaVerdict Explicit(vcpu::VcpuIndex vcpu, const vcpu::MapGpaCall& call,
                               absl::Time exit_time);
  // SetMemoryAttributes.
  absl::StatusOr<Vm::ConversionResult> Api(mmu::AttributeChange change);

  ResolveResult Resolve(uint64_t id, Resolution resolution);
  // For requests from now on; what waits keeps its deadline. Quotas count from zero.
  void SetPolicy(const ConversionPolicy& policy);
  // The VM stopped: what waits is refused, what its guest asks is turned away. Deleted: the API is
  // turned away too, since the name may be another VM's by now.
  enum class Closing : uint8_t { kStopped, kDeleted };
  void Close(Closing closing);

  // These three wait for no turn.
  std::vector<PendingConversion> Pending() const;
  size_t waiting() const;
  uint64_t throttled() const { return throttled_.load(std::memory_order_relaxed); }
  uint64_t held_back() const { return held_back_count_.load(std::memory_order_relaxed); }

 private:
  // One request, as events describe it.
  struct Request {
    uint64_t id = 0;
    std::optional<vcpu::VcpuIndex> vcpu;
    mmu::GfnRange range;
    mmu::MemoryKind kind = mmu::MemoryKind::kShared;
    Cause cause = Cause::kImplicit;
    mmu::Content content = mmu::Content::kDestroy;
    absl::Time exit_time;
  };
  // A request whose vCPUs are parked: for a decision, or until the rate has room (held).
  struct Waiting {
    Request request;
    bool held = false;
    absl::Time deadline;
    std::vector<vcpu::VcpuIndex> vcpus;  // several may wait for the same page
    TaskThread::Ticket timer;
  };
  // A MapGPA that was granted and is not done: its vCPU comes again for the rest.
  struct Open {
    Request request;
    Decider decider = Decider::kPolicy;
    mmu::Gfn next;
    // Converted and not told yet, because the next chunk may make it longer; since which exit.
    mmu::GfnRange untold;
    absl::Time untold_since;
    bool told = false;  // it has a terminal event
  };
  // A vCPU that waits for a lossless watch to have room for its conversion's events; then it asks
  // again as if for the first time.
  struct HeldBack {
    vcpu::VcpuIndex vcpu = 0;
    std::optional<vcpu::MapGpaAnswer> ask_again;  // unset: an access
  };
  // What to do after the turn.
  struct Release {
    std::vector<vcpu::VcpuIndex> resume_fault;
    std::vector<std::pair<vcpu::VcpuIndex, vcpu::MapGpaAnswer>> answer_map_gpa;
    std::optional<std::pair<vcpu::StopReason, std::string>> fatal;
  };

  // All of these in a turn. conversion_desk.cc:
  vcpu::Verdict DecideAccess(Request request, const mmu::Fault& fault, Release& release);
  absl::Status ApplyAccess(const Request& request, Decider decider, Release& release,
                           const mmu::Fault* then_map = nullptr);
  absl::StatusOr<std::vector<mmu::GfnRange>> Convert(const Request& request, mmu::GfnRange range);
  // Which bound these pages would break; the rate is asked for separately.
  std::optional<Quota> OverQuota(const Request& request, mmu::GfnRange range, uint64_t pages,
                                 absl::Time now) const;
  bool OverSharedBytes(mmu::MemoryKind kind, uint64_t pages) const;
  void RefuseAccess(const Request& request, Quota quota, Release& release);
  void Publish(const Request& request, mmu::GfnRange range, Decision decision, Decider decider,
               std::optional<Quota> quota = std::nullopt);
  static std::pair<vcpu::StopReason, std::string> FatalOf(const absl::Status& status);

  // conversion_waiting.cc:
  bool JoinWaiting(const Request& request);
  void Park(const Request& request);
  void Hold(const Request& request, absl::Time until);
  TaskThread::Ticket TimerAt(absl::Time when, uint64_t id);
  Decision Decide(const Waiting& waiting, Decision decision, Decider decider, Release& release);
  Decision DecideMapGpa(const Waiting& waiting, Decider decider, Release& release);
  Decision DecideAccess(const Waiting& waiting, Decider decider, Release& release);
  void SettleCovered(mmu::MemoryKind kind, const std::vector<mmu::GfnRange>& changed,
                     std::vector<mmu::GfnRange>& converted, Decider decider, Release& release);
  static void LetGo(const Waiting& waiting, vcpu::MapGpaAnswer answer, Release& release);
  Waiting TakeOut(std::map<uint64_t, Waiting>::iterator it);
  void Show();

  // conversion_map_gpa.cc:
  std::optional<Request> Parse(vcpu::VcpuIndex vcpu, const vcpu::MapGpaCall& call,
                               absl::Time exit_time) const;
  vcpu::MapGpaVerdict Ask(Request request, Release& release);
  Open* GoesOn(const Request& request);
  vcpu::MapGpaVerdict RefuseMapGpa(Request request, Quota quota, Release& release);
  absl::StatusOr<vcpu::MapGpaAnswer> ApplyChunk(Open& open, const Chunk& chunk,
                                                absl::Time exit_time, Release& release);
  void End(vcpu::VcpuIndex vcpu);
  void Tell(Open& open);
  void TellThose(const std::vector<mmu::GfnRange>& ranges);
  void TellAll();
  void TellLater();
  // Counts what was refused in a row; too much of it ends the VM.
  void CountRefusal(const Request& request, vcpu::StopReason reason, Release& release);

  // True: the vCPU is parked until there is room.
  bool HoldBack(const HeldBack& asking);
  void LookForRoomAt(absl::Time when);

  // The clock's; in a turn of their own, on the VM's lane.
  void Due(uint64_t id);
  void LetHeldBackGo();
  void TellDue();
  template <typename Task>
  TaskThread::Ticket OnLaneAt(absl::Time when, Task task);
  void Do(const Release& release);

  const std::string vm_;
  mmu::GuestAddressSpace* const engine_;
  events::Journal* const journal_;
  TaskThread* const clock_;
  TaskLanes* const lanes_;
  const Hooks hooks_;

  std::mutex turn_;
  // Guarded by turn_.
  ConversionPolicy policy_;
  ConversionQuota quota_;
  bool closed_ = false;
  bool deleted_ = false;
  uint64_t next_id_ = 1;
  uint32_t refused_in_a_row_ = 0;
  bool rate_told_ = false;  // since the last conversion within the rate
  bool tell_later_ = false;
  std::map<uint64_t, Waiting> waiting_;
  std::map<vcpu::VcpuIndex, Open> open_;
  ConversionHistory history_;
  std::vector<HeldBack> held_back_;
  // As long as somebody is held back: hears of room; the end of the longest watch's patience.
  std::unique_ptr<CallbackHandle> room_;
  TaskThread::Ticket patience_;

  std::atomic<uint64_t> throttled_{0};
  std::atomic<uint64_t> held_back_count_{0};
  mutable std::mutex shown_mutex_;
  std::vector<PendingConversion> shown_;  // guarded by shown_mutex_
};

}  // namespace twinroot::host

#endif  // TWINROOT_DAEMON_HOST_CONVERSION_DESK_H_
