// The floor of kvm's rows: a shared memory window watched by userfaultfd, and the bare system calls
// on it. Its faults are a thread's of this process, served by another that does nothing but the
// calls.
#ifndef TWINROOT_TESTS_BENCH_BARE_WINDOW_H_
#define TWINROOT_TESTS_BENCH_BARE_WINDOW_H_

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <iterator>
#include <thread>

#include "tests/bench/clock.h"

namespace twinroot::bench {

class BareWindow {
 public:
  static constexpr uint64_t kPage = 4096;
  static constexpr uint64_t kBlock = uint64_t{2} << 20;

  // `size` is a multiple of 2 MiB.
  explicit BareWindow(uint64_t size) : size_(size) {
    uffd_ = Open();
    uffdio_api api = {
        UFFD_API,
        UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_MINOR_SHMEM | UFFD_FEATURE_WP_HUGETLBFS_SHMEM, 0};
    Require(uffd_ >= 0 && ioctl(uffd_, UFFDIO_API, &api) == 0, "userfaultfd");
    file_ = memfd_create("bench", MFD_CLOEXEC);
    Require(file_ >= 0 && ftruncate(file_, static_cast<off_t>(size)) == 0, "memfd");
    hole_ =
        mmap(nullptr, size + kBlock, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    Require(hole_ != MAP_FAILED, "mmap");
    const uint64_t skip = (kBlock - reinterpret_cast<uintptr_t>(hole_) % kBlock) % kBlock;
    data_ = static_cast<std::byte*>(hole_) + skip;
    Require(mmap(data_, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, file_, 0) == data_,
            "mmap of a memfd");
    Watch(UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR);
    end_ = eventfd(0, EFD_CLOEXEC);
    handler_ = std::thread([this] { Serve(); });
  }
  ~BareWindow() {
    const uint64_t one = 1;
    (void)!write(end_, &one, sizeof one);
    handler_.join();
    munmap(hole_, size_ + kBlock);
    for (const int fd : {uffd_, file_, end_}) close(fd);
  }
  BareWindow(const BareWindow&) = delete;
  BareWindow& operator=(const BareWindow&) = delete;

  void Touch(uint64_t offset) { *reinterpret_cast<volatile char*>(data_ + offset) = 1; }

  void Allocate(uint64_t offset, uint64_t length) const {
    Require(fallocate(file_, 0, static_cast<off_t>(offset), static_cast<off_t>(length)) == 0,
            "fallocate");
  }
  void Punch(uint64_t offset, uint64_t length) const {
    Require(fallocate(file_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(offset),
                      static_cast<off_t>(length)) == 0,
            "a hole");
  }
  void Map(uint64_t offset, uint64_t length) const {
    uffdio_continue request = {RangeOf(offset, length), UFFDIO_CONTINUE_MODE_DONTWAKE, 0};
    Require(ioctl(uffd_, UFFDIO_CONTINUE, &request) == 0, "UFFDIO_CONTINUE");
  }
  void Zap(uint64_t offset, uint64_t length) const {
    Require(madvise(data_ + offset, length, MADV_DONTNEED) == 0, "a zap");
  }
  // One entry for 2 MiB.
  void Collapse(uint64_t offset) const {
    constexpr int kCollapse = 25;
    Require(madvise(data_ + offset, kBlock, kCollapse) == 0, "a collapse");
  }
  void WatchWrites() const {
    Watch(UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR | UFFDIO_REGISTER_MODE_WP);
  }
  void Protect(uint64_t offset, uint64_t length, bool on = true) const {
    uffdio_writeprotect request = {RangeOf(offset, length), on ? UFFDIO_WRITEPROTECT_MODE_WP
                                                               : UFFDIO_WRITEPROTECT_MODE_DONTWAKE};
    Require(ioctl(uffd_, UFFDIO_WRITEPROTECT, &request) == 0, "UFFDIO_WRITEPROTECT");
  }

 private:
  // By the device, which a file permission guards, or else by the system call.
  static int Open() {
    const int device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
    if (device >= 0) {
      const int fd = ioctl(device, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK);
      close(device);
      if (fd >= 0) return fd;
    }
    return static_cast<int>(syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK));
  }
  uffdio_range RangeOf(uint64_t offset, uint64_t length) const {
    return {reinterpret_cast<uintptr_t>(data_) + offset, length};
  }
  void Watch(uint64_t mode) const {
    uffdio_register request = {RangeOf(0, size_), mode, 0};
    Require(ioctl(uffd_, UFFDIO_REGISTER, &request) == 0, "UFFDIO_REGISTER");
  }
  void Serve() const {
    pollfd sources[] = {{uffd_, POLLIN, 0}, {end_, POLLIN, 0}};
    for (;;) {
      poll(sources, std::size(sources), -1);
      if (sources[1].revents != 0) return;
      uffd_msg message;
      if (read(uffd_, &message, sizeof message) != sizeof message) continue;
      const auto& fault = message.arg.pagefault;
      const uint64_t offset = (fault.address - reinterpret_cast<uintptr_t>(data_)) & ~(kPage - 1);
      if (fault.flags & UFFD_PAGEFAULT_FLAG_WP) {
        Protect(offset, kPage, false);
      } else {
        Allocate(offset, kPage);
        Map(offset, kPage);
      }
      uffdio_range range = RangeOf(offset, kPage);
      ioctl(uffd_, UFFDIO_WAKE, &range);
    }
  }

  const uint64_t size_;
  int uffd_ = -1, file_ = -1, end_ = -1;
  void* hole_ = nullptr;
  std::byte* data_ = nullptr;
  std::thread handler_;
};

}  // namespace twinroot::bench

#endif  // TWINROOT_TESTS_BENCH_BARE_WINDOW_H_
