// The host kernel's userfaultfd, as far as a projection needs it. Thread-safe.
#ifndef TWINROOT_DAEMON_VCPU_KVM_USERFAULT_H_
#define TWINROOT_DAEMON_VCPU_KVM_USERFAULT_H_

#include <linux/userfaultfd.h>

#include <cstddef>
#include <cstdint>
#include <optional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "daemon/vcpu/kvm/fd.h"

namespace twinroot::kvm {

class Userfault {
 public:
  // What stops a thread. kAccesses: to pages that are not mapped. kWritesToo: and writes to mapped
  // pages that were protected.
  enum class Watch : uint8_t { kAccesses, kWritesToo };
  enum class Rights : uint8_t { kRead, kWrite };

  // Through /dev/userfaultfd where it exists (a file permission), else the system call (a
  // capability). Faults taken by the kernel itself are included: KVM takes them for the guest.
  // kFailedPrecondition says what is missing.
  static absl::StatusOr<Userfault> Open();

  // Whether this kernel can watch writes to shared memory, and map a page without the right to
  // write in one step: Linux 6.4.
  bool can_watch_writes() const { return can_watch_writes_; }

  // From now on accesses to a shared memfd mapping stop their thread. May be called again to watch
  // writes too; never less.
  absl::Status Register(std::byte* start, uint64_t length, Watch watch = Watch::kAccesses);

  // Maps pages that the memfd has, without waking anybody. Pages that are mapped already are fine,
  // and keep the rights that they have. kRead needs Watch::kWritesToo.
  absl::Status Continue(std::byte* start, uint64_t length, Rights rights = Rights::kWrite);

  // Takes the right to write away, from pages that are not mapped too. Needs Watch::kWritesToo.
  // Final when it returns OK.
  absl::Status Protect(std::byte* start, uint64_t length);
  // Gives it back, without waking anybody.
  absl::Status Unprotect(std::byte* start, uint64_t length);

  // Lets threads that wait for a fault in the range try again.
  void Wake(std::byte* start, uint64_t length);

  // Readable when a fault waits to be read.
  int fd() const { return fd_.get(); }
  // The next fault; nullopt if there is none. One at a time on purpose: a wake takes threads off
  // the kernel's queue, but not out of a message that was read already, and such a fault is over.
  absl::StatusOr<std::optional<uffd_msg>> Next();

 private:
  Userfault(Fd fd, bool can_watch_writes)
      : fd_(std::move(fd)), can_watch_writes_(can_watch_writes) {}
  absl::Status SetProtection(std::byte* start, uint64_t length, uint64_t mode);

  Fd fd_;
  bool can_watch_writes_;
};

}  // namespace twinroot::kvm

#endif  // TWINROOT_DAEMON_VCPU_KVM_USERFAULT_H_
