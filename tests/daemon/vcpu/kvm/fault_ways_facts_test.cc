// The ways in which a process can serve the faults of its own guests, with bare system calls: one
// thread or several that read a userfaultfd, or the faulting thread itself in a signal handler.
// What each costs here is printed (best of some rounds); tests/bench/README.md says what follows.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/kvm.h>
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
#include <csignal>
#include <cstdio>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

namespace {

constexpr uint64_t kPage = 4096;
constexpr uint64_t kPages = 2048;
constexpr int kRounds = 5;

uint64_t Number(const volatile void* address) { return reinterpret_cast<uintptr_t>(address); }

int OpenUserfault(int extra) {
  const int device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
  if (device >= 0) {
    const int fd = ioctl(device, USERFAULTFD_IOC_NEW, O_CLOEXEC | extra);
    close(device);
    if (fd >= 0) return fd;
  }
  return static_cast<int>(syscall(SYS_userfaultfd, O_CLOEXEC | extra));
}

bool Continue(int uffd, uint64_t page) {
  uffdio_continue call = {{page, kPage}, UFFDIO_CONTINUE_MODE_DONTWAKE, 0};
  return ioctl(uffd, UFFDIO_CONTINUE, &call) == 0 || errno == EEXIST;
}

// Who faults in place finds this.
std::atomic<int> in_place{-1};
std::atomic<uint64_t> served_in_place{0};

void OnSigbus(int, siginfo_t* info, void*) {
  const int error = errno;
  if (!Continue(in_place, Number(info->si_addr) & ~(kPage - 1))) _exit(7);
  served_in_place.fetch_add(1, std::memory_order_relaxed);
  errno = error;
}

// A window of memory that is there and not mapped, as a projection's is.
class FaultWays : public testing::Test {
 protected:
  void SetUp() override {
    uffd_ = OpenUserfault(O_NONBLOCK);
    if (uffd_ < 0) GTEST_SKIP() << "no userfaultfd for this user: " << std::strerror(errno);
    memory_ = memfd_create("facts", MFD_CLOEXEC);
    ASSERT_EQ(ftruncate(memory_, kPages * kPage), 0);
    ASSERT_EQ(fallocate(memory_, 0, 0, kPages * kPage), 0);
    void* const window =
        mmap(nullptr, kPages * kPage, PROT_READ | PROT_WRITE, MAP_SHARED, memory_, 0);
    ASSERT_NE(window, MAP_FAILED);
    window_ = static_cast<std::byte*>(window);
    ASSERT_EQ(madvise(window_, kPages * kPage, MADV_NOHUGEPAGE), 0);
  }
  void TearDown() override {
    if (window_ != nullptr) munmap(window_, kPages * kPage);
    if (memory_ >= 0) close(memory_);
    if (uffd_ >= 0) close(uffd_);
  }

  void Watch(uint64_t features) {
    uffdio_api api = {UFFD_API, UFFD_FEATURE_MINOR_SHMEM | features, 0};
    if (ioctl(uffd_, UFFDIO_API, &api) != 0) {
      GTEST_SKIP() << "this kernel has no minor faults of shared memory, or no signals for them";
    }
    uffdio_register call = {{Number(window_), kPages * kPage}, UFFDIO_REGISTER_MODE_MINOR, 0};
    ASSERT_EQ(ioctl(uffd_, UFFDIO_REGISTER, &call), 0);
  }

  // Each of `touchers` threads reads pages of its own. Microseconds a page, of the best round.
  double Touch(int touchers) {
    double best = 1e9;
    for (int round = 0; round < kRounds; ++round) {
      madvise(window_, kPages * kPage, MADV_DONTNEED);
      std::vector<std::thread> threads;
      const auto begin = std::chrono::steady_clock::now();
      for (int i = 0; i < touchers; ++i) {
        threads.emplace_back([this, i, touchers] {
          for (uint64_t page = i; page < kPages; page += touchers) {
            (void)*reinterpret_cast<volatile std::byte*>(window_ + page * kPage);
          }
        });
      }
      for (std::thread& thread : threads) thread.join();
      const std::chrono::duration<double, std::micro> took =
          std::chrono::steady_clock::now() - begin;
      best = std::min(best, took.count() / kPages);
    }
    return best;
  }

  // The same with so many threads that read the descriptor.
  double TouchWith(int servers, int touchers) {
    stop_ = false;
    std::vector<std::thread> threads;
    for (int i = 0; i < servers; ++i) threads.emplace_back([this] { Serve(); });
    const double cost = Touch(touchers);
    stop_ = true;
    for (std::thread& thread : threads) thread.join();
    return cost;
  }

  void Serve() {
    while (!stop_) {
      pollfd source = {uffd_, POLLIN, 0};
      if (poll(&source, 1, 10) <= 0) continue;
      uffd_msg message;
      if (read(uffd_, &message, sizeof message) != sizeof message) continue;  // another has it
      const uint64_t page = message.arg.pagefault.address & ~(kPage - 1);
      if (!Continue(uffd_, page)) ++failures_;
      uffdio_range range = {page, kPage};
      if (ioctl(uffd_, UFFDIO_WAKE, &range) != 0) ++failures_;
      ++served_;
    }
  }

  int uffd_ = -1;
  int memory_ = -1;
  std::byte* window_ = nullptr;
  std::atomic<bool> stop_{false};
  std::atomic<uint64_t> served_{0};
  std::atomic<int> failures_{0};
};

TEST_F(FaultWays, OneThreadOrSeveralServeTheFaultsOfSeveral) {
  Watch(0);
  if (IsSkipped()) return;
  std::printf("us a fault   1 server   2 servers   4 servers\n");
  for (const int touchers : {1, 2, 4}) {
    std::printf("%d touching  ", touchers);
    for (const int servers : {1, 2, 4}) {
      served_ = 0;
      std::printf("%10.1f", TouchWith(servers, touchers));
      EXPECT_GE(served_, kRounds * kPages);
    }
    std::printf("\n");
  }
  EXPECT_EQ(failures_, 0);
}

TEST_F(FaultWays, AThreadServesItsOwnFaultInASignalHandler) {
  Watch(UFFD_FEATURE_SIGBUS);
  if (IsSkipped()) return;
  in_place = uffd_;
  struct sigaction action = {};
  struct sigaction before;
  action.sa_sigaction = OnSigbus;
  action.sa_flags = SA_SIGINFO;
  ASSERT_EQ(sigaction(SIGBUS, &action, &before), 0);
  for (const int touchers : {1, 2, 4}) {
    served_in_place = 0;
    std::printf("us a fault in place, %d touching: %.1f\n", touchers, Touch(touchers));
    EXPECT_EQ(served_in_place, kRounds * kPages);
  }
  sigaction(SIGBUS, &before, nullptr);
}

// A guest's access is KVM's, in the kernel, where no signal handler of ours runs.
TEST_F(FaultWays, KvmDoesNotSayWhereAGuestsFaultInPlaceWas) {
  Watch(UFFD_FEATURE_SIGBUS);
  if (IsSkipped()) return;
  const int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
  if (kvm < 0) GTEST_SKIP() << "/dev/kvm: " << std::strerror(errno);
  const int vm = ioctl(kvm, KVM_CREATE_VM, 0);
  ASSERT_GE(vm, 0);
  // Tables that map the first 2M to itself, and a page with mov al, [rbx]; out 0xf5, al: 64-bit
  // code in ring 3, so that the processor executes it and no KVM emulates it.
  constexpr uint64_t kOwn = 4 * kPage;
  void* const own = mmap(nullptr, kOwn, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(own, MAP_FAILED);
  auto* const words = static_cast<uint64_t*>(own);
  words[0] = kPage | 0x7;
  words[512] = 2 * kPage | 0x7;
  words[1024] = 0x87;
  const unsigned char code[] = {0x8a, 0x03, 0xe6, 0xf5};
  std::memcpy(words + 1536, code, sizeof code);
  kvm_userspace_memory_region region = {0, 0, 0, kOwn, Number(own)};
  ASSERT_EQ(ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region), 0);
  region = {1, 0, kOwn, 16 * kPage, Number(window_)};
  ASSERT_EQ(ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region), 0);
  const int vcpu = ioctl(vm, KVM_CREATE_VCPU, 0);
  ASSERT_GE(vcpu, 0);
  constexpr size_t kMostEntries = 256;
  std::vector<uint64_t> room(1 + kMostEntries * sizeof(kvm_cpuid_entry2) / sizeof(uint64_t));
  room[0] = kMostEntries;
  // The calls' numbers have the size of kvm_cpuid2, which C++ takes for another than C does.
  constexpr unsigned long kGetSupportedCpuid = 0xc008ae05, kSetCpuid2 = 0x4008ae90;
  ASSERT_EQ(ioctl(kvm, kGetSupportedCpuid, room.data()), 0);
  ASSERT_EQ(ioctl(vcpu, kSetCpuid2, room.data()), 0);  // long mode is one of its bits
  const int bytes = ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
  auto* const run = static_cast<kvm_run*>(
      mmap(nullptr, static_cast<size_t>(bytes), PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0));
  ASSERT_NE(run, MAP_FAILED);
  kvm_sregs sregs;
  ASSERT_EQ(ioctl(vcpu, KVM_GET_SREGS, &sregs), 0);
  sregs.cr0 = 0x80000011;  // PG, ET, PE
  sregs.cr3 = 0;
  sregs.cr4 = 0x20;    // PAE
  sregs.efer = 0x500;  // LMA, LME
  sregs.cs = {0, 0xffffffff, 0x0b, 0x0b, 1, 3, 0, 1, 1, 1, 0, 0, 0};
  for (kvm_segment* segment : {&sregs.ds, &sregs.es, &sregs.fs, &sregs.gs, &sregs.ss}) {
    *segment = {0, 0xffffffff, 0x13, 0x03, 1, 3, 1, 1, 0, 1, 0, 0, 0};
  }
  sregs.tr = {0, 0x67, 0x18, 0x0b, 1, 0, 0, 0, 0, 0, 0, 0, 0};
  ASSERT_EQ(ioctl(vcpu, KVM_SET_SREGS, &sregs), 0);
  kvm_regs regs = {};
  regs.rip = 3 * kPage;
  regs.rbx = kOwn;
  regs.rflags = 0x3002;  // IOPL 3
  ASSERT_EQ(ioctl(vcpu, KVM_SET_REGS, &regs), 0);

  errno = 0;
  const int returned = ioctl(vcpu, KVM_RUN, 0);
  const int error = errno;
  std::printf("KVM_RUN on a page that is to be served in place: %d, %s, exit reason %u\n", returned,
              error != 0 ? std::strerror(error) : "no error", run->exit_reason);
  EXPECT_EQ(returned, -1);
  EXPECT_EQ(error, EFAULT);
  constexpr uint32_t kMemoryFault = 39;  // KVM_EXIT_MEMORY_FAULT, which would have the address
  if (run->exit_reason == kMemoryFault) {
    std::printf("this KVM says where: fault in place could be had (tests/bench/README.md)\n");
  }
  // Once the page is there the guest goes on as if nothing had been.
  ASSERT_TRUE(Continue(uffd_, Number(window_)));
  EXPECT_EQ(ioctl(vcpu, KVM_RUN, 0), 0);
  EXPECT_EQ(run->exit_reason, static_cast<uint32_t>(KVM_EXIT_IO));
  munmap(run, static_cast<size_t>(bytes));
  close(vcpu);
  close(vm);
  close(kvm);
  munmap(own, kOwn);
}

}  // namespace
