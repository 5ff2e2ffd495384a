// How the large leaves of a VM stand in the host's own tables, and why not better. Plain values.
#ifndef TWINROOT_DAEMON_VCPU_PROJECTION_COUNTS_H_
#define TWINROOT_DAEMON_VCPU_PROJECTION_COUNTS_H_

#include <cstdint>

namespace twinroot::vcpu {

struct ProjectionCounts {
  // 2M leaves now.
  uint64_t whole = 0;   // one entry
  uint64_t pieces = 0;  // 512 entries
  // Leaves that stayed in pieces, or became small, since the VM was made.
  uint64_t kept_no_memory = 0;       // the host had no 2 MiB in one piece, or none at all
  uint64_t kept_writes_watched = 0;  // a dirty log watches their writes
  uint64_t kept_busy = 0;            // their pages were in use by the host
  uint64_t renewals = 0;             // windows begun anew after a dirty log
};

}  // namespace twinroot::vcpu

#endif  // TWINROOT_DAEMON_VCPU_PROJECTION_COUNTS_H_
