// Between the messages of twinroot.v1 and the plain values of daemon/host. Pure; thread-safe.
#ifndef TWINROOT_DAEMON_RPC_CONVERT_H_
#define TWINROOT_DAEMON_RPC_CONVERT_H_

#include <string>

#include "absl/status/statusor.h"
#include "daemon/host/vm.h"
#include "daemon/host/vm_registry.h"
#include "twinroot/v1/dirty_log.pb.h"
#include "twinroot/v1/host.pb.h"
#include "twinroot/v1/memory.pb.h"
#include "twinroot/v1/vm.pb.h"

namespace twinroot::rpc {

// The VM as GetVm shows it, without its access program (which may be large).
void ToProto(const host::Vm& vm, v1::Vm* out);
void ToProto(const mmu::Translation& translation, v1::TranslateResponse* out);
void ToProto(const mmu::AttributeRun& run, v1::MemoryRun* out);
void ToProto(mmu::GfnRange range, v1::MemoryRange* out);
void ToProto(const mmu::AttributeChangeResult& result, v1::SetMemoryAttributesResponse* out);
void ToProto(const mmu::AttributeChangePlan& plan, v1::SetMemoryAttributesResponse::Plan* out);
void ToProto(const mmu::Explanation& why, v1::Explanation* out);
void ToProto(const mmu::SplitResult& split, v1::SplitCounts* out);
void ToProto(const host::VmCounters& counters, v1::MemoryStats* out);
void ToProto(const host::HostCheck& check, v1::Host::Check* out);

v1::Backend ToProto(host::BackendKind backend);
v1::MemoryKind ToProto(mmu::MemoryKind kind);

void ToProto(const mmu::TableImage& table, v1::DumpTablesResponse::Table* out);

// The VM that Create would make of it.
void ToProto(const host::VmSpec& spec, v1::Vm* out);
// What may change of a VM, out of and into its message.
void ToProto(const host::VmSettings& settings, v1::Vm* out);
absl::StatusOr<host::VmSettings> SettingsOf(const v1::Vm& vm);

// kInvalidArgument: a value that the enum does not have; UNSPECIFIED, unless a default is given.
absl::StatusOr<mmu::MemoryKind> KindOf(const std::string& field, v1::MemoryKind kind);

// What CreateVm asks for, but for the image's bytes. `field` errors begin with "vm.".
// kInvalidArgument: whatever a message can be checked for by itself.
absl::StatusOr<host::VmSpec> SpecOf(const std::string& bare_name, const v1::Vm& vm);

}  // namespace twinroot::rpc

#endif  // TWINROOT_DAEMON_RPC_CONVERT_H_
