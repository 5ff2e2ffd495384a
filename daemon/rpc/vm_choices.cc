#include "daemon/rpc/vm_choices.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "daemon/reasons.h"
#include "daemon/rpc/status.h"

namespace twinroot::rpc {

absl::StatusOr<bool> NxHugePagesOf(v1::Vm::NxHugePages choice) {
  switch (choice) {
    case v1::Vm::NX_HUGE_PAGES_UNSPECIFIED:
    case v1::Vm::NX_HUGE_PAGES_OFF:
      return false;
    case v1::Vm::NX_HUGE_PAGES_ON:
      return true;
    default:
      return FieldError("vm.nx_huge_pages", absl::StrCat(choice, " is no choice: use OFF or ON"),
                        reason::kInvalidField);
  }
}

absl::StatusOr<std::vector<uint32_t>> CpusOf(const v1::Placement& placement) {
  std::vector<uint32_t> cpus(placement.cpus().begin(), placement.cpus().end());
  std::sort(cpus.begin(), cpus.end());
  if (std::adjacent_find(cpus.begin(), cpus.end()) == cpus.end()) return cpus;
  return FieldError("vm.placement.cpus", "a processor is named twice: name each once",
                    reason::kInvalidField);
}

absl::StatusOr<host::CpuShare> CpuShareOf(const v1::Placement& placement) {
  const uint32_t weight = placement.cpu_weight();
  const uint32_t most = placement.max_millicpus();
  if (weight > host::kMaxCpuWeight) {
    return FieldError("vm.placement.cpu_weight",
                      absl::StrCat(weight, " is over ", host::kMaxCpuWeight),
                      reason::kInvalidField);
  }
  if (most != 0 && (most < host::kMinMillicpus || most > host::kMaxMillicpus)) {
    return FieldError("vm.placement.max_millicpus",
                      absl::StrCat(most, " is neither 0 (no bound) nor within ",
                                   host::kMinMillicpus, " and ", host::kMaxMillicpus),
                      reason::kInvalidField);
  }
  return host::CpuShare{weight, most};
}

absl::StatusOr<mmu::MmuMode> MmuOf(v1::Vm::Mmu choice) {
  switch (choice) {
    case v1::Vm::MMU_UNSPECIFIED:
    case v1::Vm::MMU_TDP:
      return mmu::MmuMode::kTdp;
    case v1::Vm::MMU_SHADOW:
      return mmu::MmuMode::kShadow;
    default:
      return FieldError("vm.mmu", absl::StrCat(choice, " is no choice: use TDP or SHADOW"),
                        reason::kInvalidField);
  }
}

absl::StatusOr<bool> TellsRegisters(v1::Vm::Debug choice) {
  switch (choice) {
    case v1::Vm::DEBUG_UNSPECIFIED:
    case v1::Vm::DEBUG_OFF:
      return false;
    case v1::Vm::DEBUG_REGISTERS:
      return true;
    default:
      return FieldError("vm.debug", absl::StrCat(choice, " is no choice: use OFF or REGISTERS"),
                        reason::kInvalidField);
  }
}

}  // namespace twinroot::rpc
