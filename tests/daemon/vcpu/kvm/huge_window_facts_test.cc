// What the host's kernel does with a shared memory window that userfaultfd watches and that holds
// entries of 4K and 2M side by side: the facts that projection.cc stands on, with bare system calls
// and what each costs here (best of some rounds, printed). Skipped by name where the kernel lacks
// it.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <string>
#include <thread>

namespace {

constexpr uint64_t kPage = 4096;
constexpr uint64_t kBlock = uint64_t{2} << 20;
constexpr uint64_t kWindow = 16 * kBlock;
constexpr uint64_t kAccesses = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR;
constexpr uint64_t kWritesToo = kAccesses | UFFDIO_REGISTER_MODE_WP;
constexpr uint64_t kContinueProtected = 2;
constexpr uint64_t kWpUnpopulated = 1 << 13;  // came with kContinueProtected
constexpr int kCollapse = 25;

uint64_t Number(const volatile void* address) { return reinterpret_cast<uintptr_t>(address); }

// By the device, which a file permission guards, or else by the system call.
int OpenUserfault() {
  const int device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
  if (device >= 0) {
    const int fd = ioctl(device, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK);
    close(device);
    if (fd >= 0) return fd;
  }
  return static_cast<int>(syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK));
}

class HugeWindowFacts : public testing::Test {
 protected:
  void SetUp() override {
    uffd_ = OpenUserfault();
    if (uffd_ < 0) GTEST_SKIP() << "no userfaultfd for this user: " << std::strerror(errno);
    uffdio_api api = {UFFD_API,
                      UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_MINOR_SHMEM |
                          UFFD_FEATURE_WP_HUGETLBFS_SHMEM | kWpUnpopulated,
                      0};
    if (ioctl(uffd_, UFFDIO_API, &api) != 0) {
      GTEST_SKIP() << "this kernel cannot write-protect shared memory: Linux 6.4 can";
    }
    fd_ = memfd_create("facts", MFD_CLOEXEC);
    ASSERT_EQ(ftruncate(fd_, kWindow), 0);
    own_ = Map();
    window_ = Map();
    ASSERT_EQ(Register(kAccesses), 0);
    Allocate(0, kBlock);
    if (madvise(own_, kBlock, kCollapse) != 0 || madvise(window_, kBlock, kCollapse) != 0) {
      GTEST_SKIP() << "this kernel does not collapse shared memory: " << std::strerror(errno);
    }
    Drop(0, kBlock);
    handler_ = std::thread([this] { Serve(); });
  }
  void TearDown() override {
    stop_ = true;
    if (handler_.joinable()) handler_.join();
    if (uffd_ >= 0) close(uffd_);
    if (fd_ >= 0) close(fd_);
  }

  // Aligned to 2 MiB.
  std::byte* Map() const {
    void* hole = mmap(nullptr, kWindow + kBlock, PROT_NONE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    const uint64_t skip = (kBlock - Number(hole) % kBlock) % kBlock;
    return static_cast<std::byte*>(mmap(static_cast<std::byte*>(hole) + skip, kWindow,
                                        PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd_, 0));
  }
  int Register(uint64_t mode) const {
    uffdio_register request = {{Number(window_), kWindow}, mode, 0};
    return ioctl(uffd_, UFFDIO_REGISTER, &request) == 0 ? 0 : errno;
  }
  int Continue(uint64_t offset, uint64_t length, uint64_t mode = 0) const {
    uffdio_continue request = {
        {Number(window_ + offset), length}, mode | UFFDIO_CONTINUE_MODE_DONTWAKE, 0};
    return ioctl(uffd_, UFFDIO_CONTINUE, &request) == 0 ? 0 : errno;
  }
  int Protect(uint64_t offset, uint64_t length, bool on = true) const {
    uffdio_writeprotect request = {
        {Number(window_ + offset), length},
        on ? UFFDIO_WRITEPROTECT_MODE_WP : UFFDIO_WRITEPROTECT_MODE_DONTWAKE};
    return ioctl(uffd_, UFFDIO_WRITEPROTECT, &request) == 0 ? 0 : errno;
  }
  void Allocate(uint64_t offset, uint64_t length) const {
    ASSERT_EQ(fallocate(fd_, 0, static_cast<off_t>(offset), static_cast<off_t>(length)), 0);
  }
  void Punch(uint64_t offset, uint64_t length) const {
    ASSERT_EQ(fallocate(fd_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(offset),
                        static_cast<off_t>(length)),
              0);
  }
  void Drop(uint64_t offset, uint64_t length) const {
    ASSERT_EQ(madvise(window_ + offset, length, MADV_DONTNEED), 0);
  }
  int Collapse(uint64_t offset) const {
    return madvise(window_ + offset, kBlock, kCollapse) == 0 ? 0 : errno;
  }
  // As the guest does; how many faults the handler saw for it.
  int Read(uint64_t offset) {
    return Counted([&] { (void)*reinterpret_cast<volatile char*>(window_ + offset); });
  }
  int Write(uint64_t offset) {
    return Counted([&] { *reinterpret_cast<volatile char*>(window_ + offset) = 1; });
  }
  template <typename Access>
  int Counted(const Access& access) {
    const int before = faults_;
    access();
    return faults_ - before;
  }

  // Maps and unprotects whatever is asked for.
  void Serve() {
    pollfd source = {uffd_, POLLIN, 0};
    while (!stop_) {
      uffd_msg message;
      if (poll(&source, 1, 10) <= 0 || read(uffd_, &message, sizeof message) != sizeof message) {
        continue;
      }
      ++faults_;
      const uint64_t offset = (message.arg.pagefault.address - Number(window_)) & ~(kPage - 1);
      if (message.arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WP) {
        Protect(offset, kPage, false);
      } else {
        Continue(offset, kPage);
      }
      uffdio_range range = {Number(window_ + offset), kPage};
      ioctl(uffd_, UFFDIO_WAKE, &range);
    }
  }

  // KiB of the window that are mapped by entries of 2M; VMAs that it consists of.
  std::pair<int, int> WindowState() const {
    std::ifstream smaps("/proc/self/smaps");
    std::string line;
    bool inside = false;
    int huge = 0, vmas = 0;
    while (std::getline(smaps, line)) {
      unsigned long begin, end;
      int kib;
      if (std::sscanf(line.c_str(), "%lx-%lx ", &begin, &end) == 2) {
        inside = begin >= Number(window_) && end <= Number(window_) + kWindow;
        vmas += inside;
      } else if (inside && std::sscanf(line.c_str(), "ShmemPmdMapped: %d", &kib) == 1) {
        huge += kib;
      }
    }
    return {huge, vmas};
  }
  int HugeKib() const { return WindowState().first; }

  // Microseconds, best of some rounds.
  template <typename Before, typename Work>
  void Measure(const char* what, const Before& before, const Work& work) const {
    double best = 1e9;
    for (int round = 0; round < 10; ++round) {
      before();
      const auto begin = std::chrono::steady_clock::now();
      work();
      const std::chrono::duration<double, std::micro> took =
          std::chrono::steady_clock::now() - begin;
      best = std::min(best, took.count());
    }
    std::printf("  %-48s %8.1f us\n", what, best);
  }

  int uffd_ = -1, fd_ = -1;
  std::byte* own_ = nullptr;
  std::byte* window_ = nullptr;
  std::thread handler_;
  std::atomic<bool> stop_{false};
  std::atomic<int> faults_{0};
};

TEST_F(HugeWindowFacts, OneVmaHoldsEntriesOfBothSizes) {
  EXPECT_EQ(Collapse(0), 0);
  Allocate(kBlock, kBlock);
  EXPECT_EQ(Continue(kBlock, kBlock), 0);
  EXPECT_EQ(Write(0) + Write(kBlock - 1) + Write(kBlock) + Write(2 * kBlock - 1), 0);
  EXPECT_EQ(WindowState(), std::make_pair(2048, 1));
}

TEST_F(HugeWindowFacts, SmallPagesBecomeOneEntryThroughTheWindowWithTheirBytes) {
  Allocate(kBlock, kBlock);
  std::memset(own_ + kBlock, 0x5a, kBlock);
  ASSERT_EQ(Continue(kBlock, kBlock), 0);
  EXPECT_EQ(Collapse(kBlock), 0);
  EXPECT_EQ(HugeKib(), 2048);
  EXPECT_EQ(Read(kBlock + 7), 0);
  EXPECT_EQ(std::memcmp(window_ + kBlock, own_ + kBlock, kBlock), 0);
}

TEST_F(HugeWindowFacts, AHoleInTheFileKeepsItFromCollapsing) {
  EXPECT_NE(Collapse(kBlock), 0) << "nothing is allocated";
  Allocate(kBlock, kBlock - kPage);
  EXPECT_NE(Collapse(kBlock), 0);
  EXPECT_EQ(HugeKib(), 0);
}

TEST_F(HugeWindowFacts, AZapOfOnePageTakesTheLargeEntryAwayAndNothingRefaultsSilently) {
  ASSERT_EQ(Collapse(0), 0);
  Drop(8 * kPage, kPage);
  EXPECT_EQ(HugeKib(), 0);
  EXPECT_EQ(Write(8 * kPage), 1) << "the zapped page";
  EXPECT_EQ(Write(9 * kPage), 1) << "its neighbour";
  EXPECT_EQ(Read(kBlock - kPage), 1);
  EXPECT_EQ(Collapse(0), 0) << "some small entries are no hindrance";
  EXPECT_EQ(HugeKib(), 2048);
  Drop(0, kBlock);
  EXPECT_EQ(Write(0), 1);
  EXPECT_EQ(HugeKib(), 0);
}

TEST_F(HugeWindowFacts, ContinueOverALargeEntrySaysThatItIsThere) {
  ASSERT_EQ(Collapse(0), 0);
  EXPECT_EQ(Continue(0, kPage), EEXIST);
  EXPECT_EQ(Continue(0, kBlock), EEXIST);
  EXPECT_EQ(HugeKib(), 2048);
}

TEST_F(HugeWindowFacts, WatchingWritesTooNeedsNoNewVmaAndKeepsWhatIsMapped) {
  ASSERT_EQ(Collapse(0), 0);
  EXPECT_EQ(Register(kWritesToo), 0);
  EXPECT_EQ(WindowState(), std::make_pair(2048, 1));
  EXPECT_EQ(Register(kAccesses), 0) << "accepted, but takes nothing back:";
  Allocate(kBlock, kBlock);
  EXPECT_EQ(Collapse(kBlock), EINVAL);
}

TEST_F(HugeWindowFacts, NothingCollapsesWhereWritesAreWatched) {
  ASSERT_EQ(Register(kWritesToo), 0);
  EXPECT_EQ(Collapse(0), EINVAL) << "even where the page is large in the file";
  // Only a new mapping forgets that. It is safe because nothing may be touched before it is
  // watched.
  ASSERT_NE(mmap(window_, kWindow, PROT_NONE, MAP_SHARED | MAP_FIXED, fd_, 0), MAP_FAILED);
  ASSERT_EQ(Register(kAccesses), 0);
  ASSERT_EQ(mprotect(window_, kWindow, PROT_READ | PROT_WRITE), 0);
  EXPECT_EQ(Write(0), 1);
  EXPECT_EQ(Collapse(0), 0);
  EXPECT_EQ(WindowState(), std::make_pair(2048, 1));
}

TEST_F(HugeWindowFacts, ProtectingALargeEntryTakesItAwayAndRemembersTheProtection) {
  ASSERT_EQ(Collapse(0), 0);
  ASSERT_EQ(Register(kWritesToo), 0);
  ASSERT_EQ(Protect(0, kBlock), 0);
  EXPECT_EQ(HugeKib(), 0);
  EXPECT_EQ(Continue(0, kPage, kContinueProtected), 0);
  EXPECT_EQ(Read(0), 0);
  EXPECT_EQ(Write(0), 1) << "mapped, and writes are seen";
  EXPECT_EQ(Write(0), 0);
  EXPECT_EQ(Continue(kPage, kPage), 0);
  EXPECT_EQ(Write(kPage), 0) << "mapped with the right to write";
}

TEST_F(HugeWindowFacts, ProtectionReachesEntriesOf4KAndContinueDoesNotLiftIt) {
  ASSERT_EQ(Register(kWritesToo), 0);
  ASSERT_EQ(Continue(0, kBlock), 0);
  EXPECT_EQ(Write(0), 0);
  ASSERT_EQ(Protect(0, kBlock), 0);
  EXPECT_EQ(Continue(0, kPage), EEXIST);
  EXPECT_EQ(Read(0), 0);
  EXPECT_EQ(Write(0), 1);
}

TEST_F(HugeWindowFacts, RegisteringAPartSplitsTheVma) {
  uffdio_range part = {Number(window_ + 4 * kBlock), kBlock};
  ASSERT_EQ(ioctl(uffd_, UFFDIO_UNREGISTER, &part), 0);
  EXPECT_EQ(WindowState().second, 3);
}

TEST_F(HugeWindowFacts, APunchedPageOfALargePageReadsZeroAndTheRestStays) {
  ASSERT_EQ(Collapse(0), 0);
  std::memset(own_, 0x5a, kBlock);
  Drop(8 * kPage, kPage);
  Punch(8 * kPage, kPage);
  EXPECT_EQ(own_[8 * kPage], std::byte{0});
  EXPECT_EQ(own_[9 * kPage], std::byte{0x5a});
}

TEST_F(HugeWindowFacts, WhatItCosts) {
  const auto nothing = [] {};
  const auto drop = [&] { Drop(0, kBlock); };
  const auto large = [&] { ASSERT_EQ(Collapse(0), 0); };
  const auto pieces = [&] {
    Drop(0, kBlock);
    ASSERT_EQ(Continue(0, kBlock), 0);
  };
  const auto fresh = [&] {
    Punch(kBlock, kBlock);
    Allocate(kBlock, kBlock);
  };
  Measure(
      "allocate 2M", [&] { Punch(kBlock, kBlock); }, [&] { Allocate(kBlock, kBlock); });
  Measure("collapse 2M of fresh pages", fresh, [&] { ASSERT_EQ(Collapse(kBlock), 0); });
  Measure("map 2M, one entry, page large in the file", drop, large);
  Measure("map 2M, 512 entries", drop, [&] { Continue(0, kBlock); });
  Measure("map 4K", drop, [&] { Continue(0, kPage); });
  Measure("map 64K", drop, [&] { Continue(0, 16 * kPage); });
  Measure("zap 2M, one entry", large, drop);
  Measure("zap 2M, 512 entries", pieces, drop);
  Measure("split: zap and map 512 entries", large, pieces);
  Measure("watch the writes of 32M", nothing, [&] { ASSERT_EQ(Register(kWritesToo), 0); });
  Measure(
      "protect 2M, 512 entries", [&] { Protect(0, kBlock, false); }, [&] { Protect(0, kBlock); });
  Measure(
      "protect 32M of which 2M are mapped", [&] { Protect(0, kWindow, false); },
      [&] { Protect(0, kWindow); });
}

}  // namespace
