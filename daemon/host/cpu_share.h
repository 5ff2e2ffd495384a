// How much processor time the vCPUs of a VM get.
#ifndef TWINROOT_DAEMON_HOST_CPU_SHARE_H_
#define TWINROOT_DAEMON_HOST_CPU_SHARE_H_

#include <cstdint>

namespace twinroot::host {

inline constexpr uint32_t kMaxCpuWeight = 10'000;
inline constexpr uint32_t kDefaultCpuWeight = 100;
// The kernel takes no bound below 1 ms in each period of 100 ms.
inline constexpr uint32_t kMinMillicpus = 10;
inline constexpr uint32_t kMaxMillicpus = 1'000'000;

struct CpuShare {
  // Beside other VMs, where they want more than there is. 0: the default.
  uint32_t weight = 0;
  // Of all vCPUs together, in thousandths of a processor; 0: no bound.
  uint32_t max_millicpus = 0;

  bool is_default() const { return *this == CpuShare{}; }
  friend bool operator==(const CpuShare&, const CpuShare&) = default;
};

}  // namespace twinroot::host

#endif  // TWINROOT_DAEMON_HOST_CPU_SHARE_H_
