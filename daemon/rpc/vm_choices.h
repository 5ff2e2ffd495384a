// Fields of a Vm that are one choice each, checked. Pure; thread-safe. Errors name the field.
#ifndef TWINROOT_DAEMON_RPC_VM_CHOICES_H_
#define TWINROOT_DAEMON_RPC_VM_CHOICES_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "daemon/host/cpu_share.h"
#include "mmu/vm/mmu_mode.h"
#include "twinroot/v1/vm.pb.h"

namespace twinroot::rpc {

absl::StatusOr<bool> NxHugePagesOf(v1::Vm::NxHugePages choice);
// Ordered.
absl::StatusOr<std::vector<uint32_t>> CpusOf(const v1::Placement& placement);
absl::StatusOr<host::CpuShare> CpuShareOf(const v1::Placement& placement);
absl::StatusOr<mmu::MmuMode> MmuOf(v1::Vm::Mmu choice);
absl::StatusOr<bool> TellsRegisters(v1::Vm::Debug choice);

}  // namespace twinroot::rpc

#endif  // TWINROOT_DAEMON_RPC_VM_CHOICES_H_
