#include "daemon/vcpu/kvm/userfault.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>

#include "absl/strings/str_cat.h"
#include "daemon/vcpu/kvm/kvm_abi.h"

namespace twinroot::kvm {
namespace {

constexpr uint64_t kNeeded =
    UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_MINOR_SHMEM | UFFD_FEATURE_THREAD_ID;
// The second came with Linux 6.4, and so did kContinueProtected, which has no bit of its own.
constexpr uint64_t kForWrites = UFFD_FEATURE_WP_HUGETLBFS_SHMEM | kUffdWpUnpopulated;

uffdio_range RangeOf(std::byte* start, uint64_t length) {
  return {.start = reinterpret_cast<uintptr_t>(start), .len = length};
}

absl::StatusOr<Fd> OpenFd() {
  const Fd device(open("/dev/userfaultfd", O_RDWR | O_CLOEXEC));
  if (device.valid()) {
    Fd fd(ioctl(device.get(), USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK));
    if (fd.valid()) return fd;
  }
  Fd fd(static_cast<int>(syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK)));
  if (fd.valid()) return fd;
  return absl::FailedPreconditionError(
      absl::StrCat("userfaultfd is not available (", std::strerror(errno),
                   "); give the daemon /dev/userfaultfd, or CAP_SYS_PTRACE, or set "
                   "vm.unprivileged_userfaultfd=1"));
}

}  // namespace

absl::StatusOr<Userfault> Userfault::Open() {
  absl::StatusOr<Fd> fd = OpenFd();
  if (!fd.ok()) return fd.status();
  // A refused request leaves the descriptor as it was.
  for (const uint64_t wish : {kForWrites, uint64_t{0}}) {
    uffdio_api api = {.api = UFFD_API, .features = kNeeded | wish, .ioctls = 0};
    if (ioctl(fd->get(), UFFDIO_API, &api) == 0) return Userfault(*std::move(fd), wish != 0);
  }
  return absl::FailedPreconditionError(
      "userfaultfd lacks minor faults on shared memory; Linux 5.14 or newer is needed");
}

absl::Status Userfault::Register(std::byte* start, uint64_t length, Watch watch) {
  uffdio_register request = {.range = RangeOf(start, length),
                             .mode = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR,
                             .ioctls = 0};
  if (watch == Watch::kWritesToo) request.mode |= UFFDIO_REGISTER_MODE_WP;
  if (ioctl(fd_.get(), UFFDIO_REGISTER, &request) == 0) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("userfaultfd cannot watch guest memory: ", std::strerror(errno)));
}

absl::Status Userfault::Continue(std::byte* start, uint64_t length, Rights rights) {
  const uint64_t mode =
      UFFDIO_CONTINUE_MODE_DONTWAKE | (rights == Rights::kRead ? kContinueProtected : 0);
  while (length != 0) {
    uffdio_continue request = {.range = RangeOf(start, length), .mode = mode, .mapped = 0};
    if (ioctl(fd_.get(), UFFDIO_CONTINUE, &request) == 0) return absl::OkStatus();
    const int error = errno;
    if (request.mapped > 0) {  // a part was done
      start += request.mapped;
      length -= static_cast<uint64_t>(request.mapped);
      continue;
    }
    if (error == EEXIST) {  // this page is mapped already
      start += 4096;
      length -= 4096;
      continue;
    }
    if (error == EAGAIN || error == EINTR) continue;  // the address space is changing elsewhere
    return absl::ResourceExhaustedError(
        absl::StrCat("the host cannot map a guest page: ", std::strerror(error)));
  }
  return absl::OkStatus();
}

absl::Status Userfault::SetProtection(std::byte* start, uint64_t length, uint64_t mode) {
  uffdio_writeprotect request = {.range = RangeOf(start, length), .mode = mode};
  while (ioctl(fd_.get(), UFFDIO_WRITEPROTECT, &request) != 0) {
    if (errno == EAGAIN || errno == EINTR) continue;
    return absl::InternalError(
        absl::StrCat("cannot change who may write to guest memory: ", std::strerror(errno)));
  }
  return absl::OkStatus();
}

absl::Status Userfault::Protect(std::byte* start, uint64_t length) {
  return SetProtection(start, length, UFFDIO_WRITEPROTECT_MODE_WP);
}

absl::Status Userfault::Unprotect(std::byte* start, uint64_t length) {
  return SetProtection(start, length, UFFDIO_WRITEPROTECT_MODE_DONTWAKE);
}

void Userfault::Wake(std::byte* start, uint64_t length) {
  uffdio_range range = RangeOf(start, length);
  ioctl(fd_.get(), UFFDIO_WAKE, &range);
}

absl::StatusOr<std::optional<uffd_msg>> Userfault::Next() {
  uffd_msg message;
  const ssize_t bytes = read(fd_.get(), &message, sizeof message);
  if (bytes == sizeof message) return message;
  if (bytes < 0 && (errno == EINTR || errno == EAGAIN)) return std::nullopt;
  return absl::InternalError(absl::StrCat("userfaultfd read: ", std::strerror(errno)));
}

}  // namespace twinroot::kvm
