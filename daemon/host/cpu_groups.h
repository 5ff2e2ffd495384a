// Control groups of the host, one for each VM on kvm: its vCPUs' threads are in it, so that the
// kernel divides processor time between VMs, and not between threads. Only vCPUs: what the daemon
// does for a VM (serving its faults, its calls) is the daemon's work, and a thread that the kernel
// holds back while it is inside the engine would hold up other VMs' epochs.
//
// Of the cpu controller, v1 or v2, below the daemon's own group, in which systemd lets it make
// groups with Delegate=cpu. On v2 the groups are threaded. Linux: Documentation/admin-guide,
// "Control Group v2", "Threads" and "CPU Interface Files"; "CFS Bandwidth Control" for v1.
#ifndef TWINROOT_DAEMON_HOST_CPU_GROUPS_H_
#define TWINROOT_DAEMON_HOST_CPU_GROUPS_H_

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "daemon/host/cpu_share.h"

namespace twinroot::host {

class CpuGroups;

// One VM's. Its threads end before it; thread-safe but for that.
class CpuGroup {
 public:
  ~CpuGroup();
  CpuGroup(const CpuGroup&) = delete;
  CpuGroup& operator=(const CpuGroup&) = delete;

  // The calling thread is in it from now on.
  absl::Status Enter() const;
  // An error leaves what was.
  absl::Status Set(const CpuShare& share);

 private:
  friend class CpuGroups;
  CpuGroup(CpuGroups* groups, std::string folder) : groups_(groups), folder_(std::move(folder)) {}

  CpuGroups* const groups_;
  const std::string folder_;
  CpuShare share_;
};

// Outlives its groups. Thread-safe.
class CpuGroups {
 public:
  // Makes a group and removes it again, and so knows; removes what daemons left behind that are
  // gone. kFailedPrecondition: why this daemon cannot have groups, and what would help.
  // `proc_self` is where the kernel tells of this process.
  static absl::StatusOr<std::unique_ptr<CpuGroups>> Open(
      const std::string& proc_self = "/proc/self");
  ~CpuGroups();

  // Named after the VM, and with `share` from the beginning.
  absl::StatusOr<std::unique_ptr<CpuGroup>> Make(const std::string& vm, const CpuShare& share);

  // Where they are: "/sys/fs/cgroup/system.slice/hvd.service".
  const std::string& folder() const { return folder_; }

 private:
  friend class CpuGroup;
  CpuGroups(std::string folder, bool v2) : folder_(std::move(folder)), v2_(v2) {}

  absl::Status Prepare(const std::string& group) const;
  absl::Status Write(const CpuShare& share, const std::string& group) const;
  void RemoveOrphans() const;
  // Removes it now or later: a thread that was joined may still be on its way out of it.
  void Leave(const std::string& group);
  void RemoveLeft();

  const std::string folder_;
  const bool v2_;
  std::mutex mutex_;
  uint64_t made_ = 0;  // guarded by mutex_, and below
  std::vector<std::string> left_;
};

using CpuGroupsOrWhyNot = absl::StatusOr<std::unique_ptr<CpuGroups>>;

}  // namespace twinroot::host

#endif  // TWINROOT_DAEMON_HOST_CPU_GROUPS_H_
