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

absl::StatusOr<host::Placement> PlacementOf(const v1::Placement& placement) {
  host::Placement result{{placement.cpus().begin(), placement.cpus().end()},
                         placement.cpu_weight()};
  std::sort(result.cpus.begin(), result.cpus.end());
  if (std::adjacent_find(result.cpus.begin(), result.cpus.end()) != result.cpus.end()) {
    return FieldError("vm.placement.cpus", "a processor is named twice", reason::kInvalidField);
  }
  constexpr uint32_t kMaxCpuWeight = 10000;
  if (result.cpu_weight > kMaxCpuWeight) {
    return FieldError("vm.placement.cpu_weight",
                      absl::StrCat(result.cpu_weight, " is more than ", kMaxCpuWeight),
                      reason::kInvalidField);
  }
  return result;
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
