// Where conversions between private and shared are decided: at once by the VM's policy, later by an
// orchestrator or the deadline, or because an API call asks for them.
//
// Thread-safe. One lock covers a decision, its effect on the engine and its event, so that events
// are in the order of effects and each converted byte stands in exactly one terminal event. A vCPU
// is released only after its event was published.
#ifndef TWINROOT_DAEMON_HOST_CONVERSION_DESK_H_
#define TWINROOT_DAEMON_HOST_CONVERSION_DESK_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "daemon/events/journal.h"
#include "daemon/host/event_words.h"
#include "daemon/host/task_thread.h"
#include "daemon/host/vm.h"
#include "daemon/vcpu/machine.h"
#include "mmu/vm/guest_address_space.h"

namespace twinroot::host {

class ConversionDesk : public std::enable_shared_from_this<ConversionDesk> {
 public:
  // What the desk asks of its VM; called without the desk's lock.
  struct Hooks {
    std::function<void(vcpu::VcpuIndex)> resume_fault;
    std::function<void(vcpu::VcpuIndex, vcpu::MapGpaResult)> answer_map_gpa;
    std::function<void(vcpu::StopReason, std::string)> fatal;
  };

  // The pointers must outlive the last call but Close.
  ConversionDesk(std::string vm, const ConversionPolicy& policy, mmu::GuestAddressSpace* engine,
                 events::Journal* journal, TaskThread* clock, Hooks hooks);

  // An access found its page to be of the other kind. nullopt: it no longer is; handle the fault
  // again.
  std::optional<vcpu::Verdict> Implicit(vcpu::VcpuIndex vcpu, const mmu::Fault& fault,
                                        const mmu::MemoryFaultExit& exit, absl::Time exit_time);
  // MapGPA.
  vcpu::MapGpaVerdict Explicit(vcpu::VcpuIndex vcpu, const vcpu::MapGpaCall& call,
                               absl::Time exit_time);
  // SetMemoryAttributes.
  absl::StatusOr<Vm::ConversionResult> Api(mmu::AttributeChange change);

  // For requests from now on; those that wait keep their deadline.
  void SetPolicy(const ConversionPolicy& policy);
  std::vector<PendingConversion> Pending() const;
  // False: nothing with this id waits.
  bool Resolve(uint64_t id, Resolution resolution);
  // The VM stopped: what waits is refused, what its guest asks is turned away. Deleted: the API is
  // turned away too, since the name may be another VM's by now.
  enum class Closing : uint8_t { kStopped, kDeleted };
  void Close(Closing closing);

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
  // A request that waits for a decision; several vCPUs may wait for the same page.
  struct Waiting {
    Request request;
    absl::Time deadline;
    std::vector<vcpu::VcpuIndex> vcpus;
    TaskThread::Ticket expiry;
  };
  // What to do once the lock is released.
  struct Release {
    std::vector<vcpu::VcpuIndex> resume_fault;
    std::vector<std::pair<vcpu::VcpuIndex, vcpu::MapGpaResult>> answer_map_gpa;
    std::optional<std::pair<vcpu::StopReason, std::string>> fatal;
  };

  // All of these hold mutex_.
  absl::Status Apply(const Request& request, Decider decider, Release& release,
                     const mmu::Fault* then_map = nullptr);
  vcpu::Verdict DecideAccess(Request request, const mmu::Fault& fault, Release& release);
  void Park(const Request& request);
  static PendingConversion Describe(const Waiting& waiting);
  static void LetGo(const Waiting& waiting, vcpu::MapGpaResult result, Release& release);
  // Counts what was refused in a row; too much of it ends the VM.
  void Refuse(const Request& request, Release& release);
  void Decide(Waiting waiting, Decision decision, Decider decider, Release& release);
  void SettleCovered(mmu::MemoryKind kind, std::vector<mmu::GfnRange>& converted, Decider decider,
                     Release& release);
  // Is every frame of that kind already? nullopt: some frame lies outside memory.
  std::optional<bool> IsAll(mmu::GfnRange range, mmu::MemoryKind kind) const;
  void Publish(const Request& request, mmu::GfnRange range, Decision decision, Decider decider);
  static std::pair<vcpu::StopReason, std::string> FatalOf(const absl::Status& status);

  void Expire(uint64_t id);
  void Do(const Release& release);

  const std::string vm_;
  mmu::GuestAddressSpace* const engine_;
  events::Journal* const journal_;
  TaskThread* const clock_;
  const Hooks hooks_;

  mutable std::mutex mutex_;
  bool closed_ = false;
  bool deleted_ = false;
  ConversionPolicy policy_;
  uint64_t next_id_ = 1;
  uint32_t refused_in_a_row_ = 0;
  std::map<uint64_t, Waiting> waiting_;
};

}  // namespace twinroot::host

#endif  // TWINROOT_DAEMON_HOST_CONVERSION_DESK_H_
