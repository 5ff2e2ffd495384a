// What a KVM with private memory does while one of its vCPUs waits in userfaultfd, on the fake
// kernel and on the real one.
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <future>
#include <memory>
#include <optional>
#include <string>
#include <thread>

#include "daemon/vcpu/kvm/fd.h"
#include "daemon/vcpu/kvm/userfault.h"
#include "daemon/vcpu/kvm/vcpu.h"
#include "tests/conformance/small_guest.h"
#include "tests/fakes/kvm/fake_kvm.h"

namespace twinroot::kvm {
namespace {

using Ran = SmallGuest::Ran;
using std::chrono::milliseconds;

constexpr uint64_t kPage = 4096;
constexpr uint64_t kSize = uint64_t{2} << 20;
constexpr uint64_t kGpa = uint64_t{2} << 20;
constexpr uint64_t kScratch = SmallGuest::kOwnGpa + 0x5000;
constexpr auto kLong = milliseconds(100);  // long enough to see that something waits
constexpr int kPatienceMs = 20000;

class BlockedVcpu : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    if (const std::string why = WhyNotHere(GetParam()); !why.empty()) GTEST_SKIP() << why;
    auto userfault = Userfault::Open();
    if (!userfault.ok()) GTEST_SKIP() << userfault.status().message();
    userfault_ = *std::move(userfault);
    KickSignal();
    KvmApi& api = std::string(GetParam()) == "real" ? HostKvm() : fake_;
    guest_ = std::make_unique<SmallGuest>(api, kVmTypeSwProtected);
    file_ = Fd(memfd_create("blocked-vcpu", MFD_CLOEXEC));
    ASSERT_EQ(ftruncate(file_.get(), kSize), 0);
    window_ = *memory::Mapping::Shared(file_.get(), kSize);
    ASSERT_TRUE(userfault_->Register(window_.data(), kSize).ok());
    memfd_ = guest_->MakeMemfd(kSize);
    ASSERT_EQ(guest_->SetRegion(guest_->Region(1, kGpa, window_, &memfd_)), 0);
  }

  // The guest reads the shared page at kGpa, on a thread of its own.
  std::future<Ran> ReadOnThread() {
    return std::async(std::launch::async, [this] {
      thread_ = static_cast<pid_t>(syscall(SYS_gettid));
      return again_ ? guest_->Again() : guest_->Copy(kGpa, kScratch);
    });
  }
  // Somebody waits for the page.
  void AwaitFault() {
    pollfd source = {userfault_->fd(), POLLIN, 0};
    for (;;) {
      ASSERT_EQ(poll(&source, 1, kPatienceMs), 1) << "nobody waits";
      const auto message = userfault_->Next();
      ASSERT_TRUE(message.ok());
      if (!message->has_value()) continue;
      EXPECT_EQ((*message)->arg.pagefault.address / kPage,
                reinterpret_cast<uintptr_t>(window_.data()) / kPage);
      return;
    }
  }
  void Kick() {
    std::atomic_ref<__u8>(guest_->run().immediate_exit).store(1);
    syscall(SYS_tgkill, getpid(), thread_.load(), KickSignal());
  }
  void Serve(uint64_t value) {
    ASSERT_EQ(pwrite(file_.get(), &value, sizeof value, 0), 8);
    ASSERT_TRUE(userfault_->Continue(window_.data(), kPage).ok());
    userfault_->Wake(window_.data(), kPage);
  }
  Ran KickedOut(std::future<Ran>& blocked) {
    Kick();
    const Ran ran = blocked.get();
    std::atomic_ref<__u8>(guest_->run().immediate_exit).store(0);
    again_ = true;
    return ran;
  }

  fake::FakeKvm fake_;
  std::optional<Userfault> userfault_;
  std::unique_ptr<SmallGuest> guest_;
  Fd file_;
  memory::Mapping window_;
  KvmFd memfd_;
  std::atomic<pid_t> thread_{0};
  bool again_ = false;
};

TEST_P(BlockedVcpu, IsTakenOutByASignalAndWaitsAgain) {
  std::future<Ran> blocked = ReadOnThread();
  AwaitFault();
  EXPECT_EQ(KickedOut(blocked), (Ran{-1, EINTR, KVM_EXIT_INTR}));
  blocked = ReadOnThread();
  AwaitFault();
  Serve(5);
  EXPECT_TRUE(blocked.get().done());
}

TEST_P(BlockedVcpu, HoldsUpNoChangeOfAttributesAndFindsItAfterASignal) {
  std::future<Ran> blocked = ReadOnThread();
  AwaitFault();
  EXPECT_EQ(guest_->SetPrivate(kGpa, kPage, true), 0);
  EXPECT_EQ(blocked.wait_for(kLong), std::future_status::timeout);
  EXPECT_EQ(KickedOut(blocked).error, EINTR);
  blocked = ReadOnThread();
  EXPECT_TRUE(blocked.get().done()) << "private memory is there without a fault";
  uint64_t value = 1;
  EXPECT_TRUE(guest_->Read(kScratch, value));
  EXPECT_EQ(value, 0u);
}

TEST_P(BlockedVcpu, ReadsPrivateMemoryWhenTheSharedPageComesTooLate) {
  std::future<Ran> blocked = ReadOnThread();
  AwaitFault();
  EXPECT_EQ(guest_->SetPrivate(kGpa, kPage, true), 0);
  Serve(5);
  // Either it looks again by itself, or it says that it was overtaken.
  Ran ran = blocked.get();
  for (int i = 0; i < 100 && ran.error == EFAULT && ran.reason == kExitMemoryFault; ++i) {
    ran = guest_->Again();
  }
  EXPECT_TRUE(ran.done());
  uint64_t value = 1;
  EXPECT_TRUE(guest_->Read(kScratch, value));
  EXPECT_EQ(value, 0u);
}

TEST_P(BlockedVcpu, HoldsUpTheDeletionOfAMemslotUntilItIsServed) {
  std::future<Ran> blocked = ReadOnThread();
  AwaitFault();
  std::future<int> deletion = std::async(std::launch::async, [this] {
    UserspaceMemoryRegion2 gone = guest_->Region(1, kGpa, window_);
    gone.memory_size = 0;
    return guest_->SetRegion(gone);
  });
  EXPECT_EQ(deletion.wait_for(kLong), std::future_status::timeout);
  Serve(5);
  EXPECT_EQ(deletion.get(), 0);
  blocked.get();  // done, or there is nothing any more
}

INSTANTIATE_TEST_SUITE_P(Kernels, BlockedVcpu, testing::Values("fake", "real"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace twinroot::kvm
