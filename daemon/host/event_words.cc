#include "daemon/host/event_words.h"

#include <google/protobuf/util/time_util.h>

namespace twinroot::host {

using google::protobuf::util::TimeUtil;

Direction DirectionTo(mmu::MemoryKind kind) {
  return kind == mmu::MemoryKind::kShared ? Direction::kToShared : Direction::kToPrivate;
}

v1::Conversion::Direction WordOf(Direction direction) {
  return direction == Direction::kToShared ? v1::Conversion::DIRECTION_TO_SHARED
                                           : v1::Conversion::DIRECTION_TO_PRIVATE;
}

v1::Conversion::Cause WordOf(Cause cause) {
  switch (cause) {
    case Cause::kImplicit:
      return v1::Conversion::CAUSE_IMPLICIT;
    case Cause::kExplicit:
      return v1::Conversion::CAUSE_EXPLICIT;
    case Cause::kApi:
      return v1::Conversion::CAUSE_API;
  }
  return v1::Conversion::CAUSE_UNSPECIFIED;
}

v1::Vm::State WordOf(VmState state) {
  switch (state) {
    case VmState::kDefined:
      return v1::Vm::STATE_DEFINED;
    case VmState::kRunning:
      return v1::Vm::STATE_RUNNING;
    case VmState::kPaused:
      return v1::Vm::STATE_PAUSED;
    case VmState::kStopped:
      return v1::Vm::STATE_STOPPED;
  }
  return v1::Vm::STATE_UNSPECIFIED;
}

std::string WordOf(vcpu::StopReason reason) {
  switch (reason) {
    case vcpu::StopReason::kStopRequested:
      return "STOP_REQUESTED";
    case vcpu::StopReason::kGuestReset:
      return "GUEST_RESET";
    case vcpu::StopReason::kTripleFault:
      return "TRIPLE_FAULT";
    case vcpu::StopReason::kUnhandledExit:
      return "UNHANDLED_EXIT";
    case vcpu::StopReason::kMmioOutsideMemory:
      return "MMIO_OUTSIDE_MEMORY";
    case vcpu::StopReason::kConversionDenied:
      return "CONVERSION_DENIED";
    case vcpu::StopReason::kConversionQuota:
      return "CONVERSION_QUOTA";
    case vcpu::StopReason::kMemoryFault:
      return "MEMORY_FAULT";
    case vcpu::StopReason::kOutOfMemory:
      return "OUT_OF_MEMORY";
    case vcpu::StopReason::kEngineBug:
      return "ENGINE_BUG";
    case vcpu::StopReason::kBackendError:
      return "BACKEND_ERROR";
    case vcpu::StopReason::kDaemonStopping:
      return "DAEMON_STOPPING";
  }
  return "";
}

void SetDuration(absl::Duration duration, google::protobuf::Duration& out) {
  out = TimeUtil::NanosecondsToDuration(absl::ToInt64Nanoseconds(duration));
}

void SetTimestamp(absl::Time time, google::protobuf::Timestamp& out) {
  out = TimeUtil::NanosecondsToTimestamp(absl::ToUnixNanos(time));
}

v1::Conversion::Decision WordOf(Decision decision) {
  switch (decision) {
    case Decision::kApplied:
      return v1::Conversion::DECISION_APPLIED;
    case Decision::kDenied:
      return v1::Conversion::DECISION_DENIED;
    case Decision::kExpired:
      return v1::Conversion::DECISION_EXPIRED;
    case Decision::kQuota:
      return v1::Conversion::DECISION_QUOTA;
  }
  return v1::Conversion::DECISION_UNSPECIFIED;
}

v1::Conversion::Decider WordOf(Decider decider) {
  switch (decider) {
    case Decider::kPolicy:
      return v1::Conversion::DECIDER_POLICY;
    case Decider::kOrchestrator:
      return v1::Conversion::DECIDER_ORCHESTRATOR;
    case Decider::kDeadline:
      return v1::Conversion::DECIDER_DEADLINE;
    case Decider::kVmStop:
      return v1::Conversion::DECIDER_VM_STOP;
  }
  return v1::Conversion::DECIDER_UNSPECIFIED;
}

namespace {

v1::Conversion::Quota WordOf(Quota quota) {
  switch (quota) {
    case Quota::kSharedBytes:
      return v1::Conversion::QUOTA_SHARED_BYTES;
    case Quota::kRate:
      return v1::Conversion::QUOTA_RATE;
    case Quota::kPingPong:
      return v1::Conversion::QUOTA_PING_PONG;
  }
  return v1::Conversion::QUOTA_UNSPECIFIED;
}

v1::ConversionRequest::State WordOf(PendingConversion::State state) {
  switch (state) {
    case PendingConversion::State::kWaiting:
      return v1::ConversionRequest::STATE_WAITING;
    case PendingConversion::State::kHeld:
      return v1::ConversionRequest::STATE_HELD;
    case PendingConversion::State::kApplying:
      return v1::ConversionRequest::STATE_APPLYING;
  }
  return v1::ConversionRequest::STATE_UNSPECIFIED;
}

}  // namespace

void Describe(const PendingConversion& pending, v1::ConversionRequest& out) {
  out.set_id(pending.id);
  out.set_vcpu(pending.vcpu);
  out.set_gpa(pending.gpa);
  out.set_size(pending.size);
  out.set_direction(WordOf(pending.direction));
  out.set_cause(WordOf(pending.cause));
  out.set_state(WordOf(pending.state));
  if (pending.state == PendingConversion::State::kApplying) {
    out.set_done(pending.done);
  } else {
    SetTimestamp(pending.deadline, *out.mutable_deadline());
  }
}

v1::Event ConversionEvent(const std::string& vm, const DecidedConversion& decided) {
  v1::Event event;
  event.set_vm(vm);
  v1::Conversion* conversion = event.mutable_conversion();
  conversion->set_id(decided.id);
  if (decided.vcpu.has_value()) conversion->set_vcpu(*decided.vcpu);
  conversion->set_gpa(decided.gpa);
  conversion->set_size(decided.size);
  conversion->set_direction(WordOf(decided.direction));
  conversion->set_cause(WordOf(decided.cause));
  conversion->set_decision(WordOf(decided.decision));
  conversion->set_decider(WordOf(decided.decider));
  SetDuration(decided.latency, *conversion->mutable_latency());
  if (decided.quota.has_value()) conversion->set_quota(WordOf(*decided.quota));
  return event;
}

v1::Event RequestedEvent(const std::string& vm, const PendingConversion& pending) {
  v1::Event event;
  event.set_vm(vm);
  Describe(pending, *event.mutable_conversion_requested());
  return event;
}

v1::Event StateEvent(const std::string& vm, const VmStatus& status) {
  v1::Event event;
  event.set_vm(vm);
  v1::VmStateChange* change = event.mutable_vm_state();
  change->set_state(WordOf(status.state));
  if (status.exit_code.has_value()) change->set_exit_code(*status.exit_code);
  change->set_stop_reason(status.stop_reason);
  change->set_stop_message(status.stop_message);
  return event;
}

v1::Event UpdatedEvent(const std::string& vm, const VmSettings& before, const VmSettings& now) {
  v1::Event event;
  event.set_vm(vm);
  auto* changed = event.mutable_vm_updated()->mutable_changed();
  if (now.policy != before.policy) changed->add_paths("conversion_policy");
  if (now.labels != before.labels) changed->add_paths("labels");
  if (now.cpu_share.weight != before.cpu_share.weight) {
    changed->add_paths("placement.cpu_weight");
  }
  if (now.cpu_share.max_millicpus != before.cpu_share.max_millicpus) {
    changed->add_paths("placement.max_millicpus");
  }
  return event;
}

v1::Event DeletedEvent(const std::string& vm, const VmStatus& status) {
  v1::Event event = StateEvent(vm, status);
  event.mutable_vm_state()->set_deleted(true);
  return event;
}

}  // namespace twinroot::host
