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
  // Through /dev/userfaultfd where it exists (a file permission), else the system call (a
  // capability). Faults taken by the kernel itself are included: KVM takes them for the guest.
  // kFailedPrecondition says what is missing.
  static absl::StatusOr<Userfault> Open();

  // Missing and minor faults in a shared memfd mapping stop their thread from now on.
  absl::Status Register(std::byte* start, uint64_t length);

  // Maps pages that the memfd has, without waking anybody. Pages that are mapped already are fine.
  absl::Status Continue(std::byte* start, uint64_t length);

  // Lets threads that wait for a fault in the range try again.
  void Wake(std::byte* start, uint64_t length);

  // Readable when a fault waits to be read.
  int fd() const { return fd_.get(); }
  // The next fault; nullopt if there is none. One at a time on purpose: a wake takes threads off
  // the kernel's queue, but not out of a message that was read already, and such a fault is over.
  absl::StatusOr<std::optional<uffd_msg>> Next();

 private:
  explicit Userfault(Fd fd) : fd_(std::move(fd)) {}
  Fd fd_;
};

}  // namespace twinroot::kvm

#endif  // TWINROOT_DAEMON_VCPU_KVM_USERFAULT_H_
