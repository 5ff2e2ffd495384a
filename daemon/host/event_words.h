// How this room's values are said in events. Pure; thread-safe.
#ifndef TWINROOT_DAEMON_HOST_EVENT_WORDS_H_
#define TWINROOT_DAEMON_HOST_EVENT_WORDS_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/time/time.h"
#include "daemon/host/vm.h"
#include "daemon/vcpu/machine.h"
#include "mmu/types/memory_kind.h"
#include "twinroot/v1/event.pb.h"

namespace twinroot::host {

Direction DirectionTo(mmu::MemoryKind kind);
v1::Conversion::Direction WordOf(Direction direction);
v1::Conversion::Cause WordOf(Cause cause);
v1::Vm::State WordOf(VmState state);
// As Vm.stop_reason spells it.
std::string WordOf(vcpu::StopReason reason);

void SetDuration(absl::Duration duration, google::protobuf::Duration& out);
void SetTimestamp(absl::Time time, google::protobuf::Timestamp& out);

v1::Conversion::Decision WordOf(Decision decision);
v1::Conversion::Decider WordOf(Decider decider);

// Which bound of its policy a guest has met.
enum class Quota : uint8_t { kSharedBytes, kRate, kPingPong };

struct DecidedConversion {
  uint64_t id = 0;
  std::optional<uint32_t> vcpu;  // unset: the API asked
  uint64_t gpa = 0;
  uint64_t size = 0;
  Direction direction = Direction::kToShared;
  Cause cause = Cause::kImplicit;
  Decision decision = Decision::kApplied;
  Decider decider = Decider::kPolicy;
  absl::Duration latency;
  std::optional<Quota> quota;  // with kQuota
};

void Describe(const PendingConversion& pending, v1::ConversionRequest& out);

v1::Event ConversionEvent(const std::string& vm, const DecidedConversion& decided);

v1::Event RequestedEvent(const std::string& vm, const PendingConversion& pending);
v1::Event StateEvent(const std::string& vm, const VmStatus& status);
v1::Event DeletedEvent(const std::string& vm, const VmStatus& status);

}  // namespace twinroot::host

#endif  // TWINROOT_DAEMON_HOST_EVENT_WORDS_H_
