// How this room's values are said in events. Pure; thread-safe.
#ifndef TWINROOT_DAEMON_HOST_EVENT_WORDS_H_
#define TWINROOT_DAEMON_HOST_EVENT_WORDS_H_

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

void Describe(const PendingConversion& pending, v1::ConversionRequest& out);

v1::Event RequestedEvent(const std::string& vm, const PendingConversion& pending);
v1::Event StateEvent(const std::string& vm, const VmStatus& status);
v1::Event DeletedEvent(const std::string& vm, const VmStatus& status);

}  // namespace twinroot::host

#endif  // TWINROOT_DAEMON_HOST_EVENT_WORDS_H_
