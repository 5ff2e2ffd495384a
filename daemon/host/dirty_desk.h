// Where the dirty log of one VM is kept: switched, harvested and cleared for who asks, and where
// vCPUs wait whose ring is full.
//
// Thread-safe; switching, harvesting and clearing take turns. A vCPU that finds its ring full
// counts the harvests before its fault and parks only if none has ended since: either it sees the
// harvest that emptied its ring, or that harvest sees it parked.
#ifndef TWINROOT_DAEMON_HOST_DIRTY_DESK_H_
#define TWINROOT_DAEMON_HOST_DIRTY_DESK_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "daemon/vcpu/machine.h"
#include "mmu/vm/guest_address_space.h"
#include "twinroot/v1/event.pb.h"

namespace twinroot::host {

class DirtyDesk {
 public:
  // `resume_fault` lets a parked vCPU try its access again; called without the desk's locks.
  // `publish` tells of what changed, in the order of the changes. The engine must outlive the desk.
  DirtyDesk(std::string vm, uint32_t vcpus, mmu::GuestAddressSpace* engine,
            std::function<void(vcpu::VcpuIndex)> resume_fault,
            std::function<void(v1::Event)> publish);

  // As dirty_log.proto says. `options.ring_vcpus` is the desk's to fill.
  absl::StatusOr<mmu::SplitResult> Enable(mmu::DirtyLogOptions options);
  absl::StatusOr<mmu::RecoverResult> Disable();
  // Maximal runs, ordered, of these ranges, which are ordered too.
  absl::StatusOr<std::vector<mmu::GfnRange>> Harvest(const std::vector<mmu::GfnRange>& ranges);
  absl::Status Clear(const std::vector<mmu::GfnRange>& ranges);
  // Somebody other than a vCPU has written, or a harvest has not reached who asked for it.
  void Mark(const std::vector<mmu::GfnRange>& ranges);

  uint64_t harvests() const { return harvests_.load(); }
  // The vCPU's fault, begun when harvests() was `before`, found its ring full. False: a harvest has
  // ended since, try again. True: it waits, and is resumed.
  bool Park(vcpu::VcpuIndex vcpu, uint64_t before);

  bool enabled() const { return engine_->dirty_log_enabled(); }
  uint64_t pages_harvested() const { return pages_harvested_.load(); }
  uint32_t vcpus_waiting() const;

 private:
  // Needs turn_.
  absl::Status CheckOn() const;
  // What the rings know goes to the bitmap, so that nothing is lost whatever fails later.
  absl::Status EmptyRings();
  // The rings are empty, or gone: who waits goes on.
  void Release();

  const std::string vm_;
  const uint32_t vcpus_;
  mmu::GuestAddressSpace* const engine_;
  const std::function<void(vcpu::VcpuIndex)> resume_fault_;
  const std::function<void(v1::Event)> publish_;

  std::mutex turn_;
  mmu::DirtyLogOptions options_;  // of the log that is on; guarded by turn_

  std::atomic<uint64_t> pages_harvested_{0};
  std::atomic<uint64_t> harvests_{0};  // grows under parked_mutex_
  mutable std::mutex parked_mutex_;
  std::set<vcpu::VcpuIndex> parked_;  // guarded by parked_mutex_
};

}  // namespace twinroot::host

#endif  // TWINROOT_DAEMON_HOST_DIRTY_DESK_H_
