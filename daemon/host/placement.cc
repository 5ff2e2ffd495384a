#include "daemon/host/placement.h"

#include <sched.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "daemon/reasons.h"
#include "daemon/status_reason.h"

namespace twinroot::host {
namespace {

absl::Status Bad(const std::string& field, const std::string& what) {
  return WithReason(absl::InvalidArgumentError(what), reason::kInvalidField, {{"field", field}});
}

absl::Status NotOnSim(const VmSpec& spec) {
  return WithReason(
      absl::FailedPreconditionError(absl::StrCat("VM ", spec.name,
                                                 " asks for a placement, which sim does not give "
                                                 "its software processors: leave it out")),
      reason::kNotOnThisBackend, {{"vm", spec.name}});
}

// Processors that the daemon may use now.
absl::Status CheckCpus(const VmSpec& spec) {
  if (spec.cpus.empty()) return absl::OkStatus();
  if (spec.backend == BackendKind::kSim) return NotOnSim(spec);
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) {
    return absl::InternalError("the host does not say which processors the daemon may use");
  }
  for (const uint32_t cpu : spec.cpus) {
    if (cpu < CPU_SETSIZE && CPU_ISSET(cpu, &allowed)) continue;
    return Bad("vm.placement.cpus",
               absl::StrCat("the daemon may not use processor ", cpu, ": name some of the ",
                            CPU_COUNT(&allowed), " that it may (taskset -p its pid shows them)"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckCpuShare(const VmSpec& spec, const CpuShare& share,
                           const CpuGroupsOrWhyNot* groups) {
  if (share.is_default()) return absl::OkStatus();
  if (spec.backend == BackendKind::kSim) return NotOnSim(spec);
  if (groups != nullptr && groups->ok()) return absl::OkStatus();
  return WithReason(
      absl::FailedPreconditionError(absl::StrCat(
          "VM ", spec.name, " asks for a share of processor time, which this daemon cannot give: ",
          groups != nullptr ? groups->status().message() : "it has no control groups")),
      reason::kCpuGroupsUnavailable, {{"vm", spec.name}});
}

absl::Status CheckPlacement(const VmSpec& spec, const CpuGroupsOrWhyNot* groups) {
  if (absl::Status status = CheckCpus(spec); !status.ok()) return status;
  return CheckCpuShare(spec, spec.cpu_share, groups);
}

}  // namespace twinroot::host
