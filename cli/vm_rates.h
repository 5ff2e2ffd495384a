// What VMs do each second: the differences of two pages of the daemon's metrics, which one call
// gives for all VMs. Pure functions.
#ifndef TWINROOT_CLI_VM_RATES_H_
#define TWINROOT_CLI_VM_RATES_H_

#include <map>
#include <string>
#include <string_view>

namespace twinroot::cli {

struct VmCounts {
  // Only grow, for as long as the VM is the same.
  double conversions = 0;
  double faults = 0;
  double splits = 0;
  double dirty_bytes = 0;  // that harvests of the dirty log told of
  // As of now.
  double shared_bytes = 0;
  double allocated_bytes = 0;
  double waiting = 0;  // conversions that wait
};

// By VM, from Prometheus' text format. A VM without series of its own (the daemon bounds them) is
// not there.
std::map<std::string, VmCounts> ReadVmCounts(std::string_view metrics);

// Counters per second, the rest of `now`. A counter that has shrunk is another VM's of the same
// name, and counts from zero.
VmCounts RatesOf(const VmCounts& before, const VmCounts& now, double seconds);

}  // namespace twinroot::cli

#endif  // TWINROOT_CLI_VM_RATES_H_
