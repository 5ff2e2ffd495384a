// The series that one VM has, as a table: so many VMs' numbers can be added up, whatever they
// count. Plain values; thread-safe.
#ifndef TWINROOT_DAEMON_OBS_VM_SERIES_H_
#define TWINROOT_DAEMON_OBS_VM_SERIES_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

#include "daemon/host/vm.h"
#include "daemon/obs/catalogue.h"

namespace twinroot::obs {

struct VmSeries {
  const Metric* metric;
  // Besides vm, in the order of the metric's; a name that is null is none.
  std::array<std::pair<const char*, const char*>, 2> labels;
  // What few VMs meet: a number that is 0 has no series.
  bool rare;
  uint64_t (*value)(const host::VmCounters& counters);
};

// Series of one metric stand together.
inline constexpr size_t kVmSeries = 46;
std::span<const VmSeries, kVmSeries> AllVmSeries();

using VmNumbers = std::array<uint64_t, kVmSeries>;
VmNumbers NumbersOf(const host::VmCounters& counters);

}  // namespace twinroot::obs

#endif  // TWINROOT_DAEMON_OBS_VM_SERIES_H_
