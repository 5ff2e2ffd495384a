// What the daemon relies on of a KVM with private memory, asked of the fake kernel, which the other
// tests use, and of the real one where it has such VMs: both must answer the same.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <cerrno>
#include <memory>
#include <string>

#include "tests/conformance/small_guest.h"
#include "tests/fakes/kvm/fake_kvm.h"

namespace twinroot::kvm {
namespace {

using Ran = SmallGuest::Ran;

constexpr uint64_t kPage = 4096;
constexpr uint64_t kSize = uint64_t{2} << 20;
constexpr uint64_t kGpa = uint64_t{2} << 20;
constexpr uint64_t kHole = uint64_t{64} << 20;
constexpr Ran kMemoryFaultExit = {-1, EFAULT, kExitMemoryFault};

class Kvm : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    if (const std::string why = WhyNotHere(GetParam()); !why.empty()) GTEST_SKIP() << why;
    guest_ = std::make_unique<SmallGuest>(api(), kVmTypeSwProtected);
    shared_ = *memory::Mapping::Anonymous(kSize);
  }

  KvmApi& api() { return std::string(GetParam()) == "real" ? HostKvm() : fake_; }
  int Fallocate(const KvmFd& memfd, int mode, uint64_t offset, uint64_t length) {
    return api().Fallocate(memfd.get(), mode, offset, length) == 0 ? 0 : errno;
  }
  int Punch(const KvmFd& memfd, uint64_t offset, uint64_t length) {
    return Fallocate(memfd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length);
  }
  // A slot at kGpa with both kinds of memory.
  void AddSlot() {
    memfd_ = guest_->MakeMemfd(kSize);
    ASSERT_TRUE(memfd_.valid());
    ASSERT_EQ(guest_->SetRegion(guest_->Region(1, kGpa, shared_, &memfd_)), 0);
  }
  uint64_t Read(uint64_t gpa) {
    uint64_t value = 0;
    EXPECT_TRUE(guest_->Read(gpa, value)) << "at " << gpa;
    return value;
  }
  uint64_t* SharedWord(uint64_t offset = 0) {
    return reinterpret_cast<uint64_t*>(shared_.data() + offset);
  }

  fake::FakeKvm fake_;
  std::unique_ptr<SmallGuest> guest_;
  memory::Mapping shared_;
  KvmFd memfd_;
};

TEST_P(Kvm, TellsOnTheVmWhatItCanOfPrivateMemory) {
  const KvmFd& kvm = guest_->kvm();
  EXPECT_EQ(kvm.Ioctl(KVM_CHECK_EXTENSION, kCapVmTypes) & 3, 3);
  EXPECT_EQ(guest_->vm().Ioctl(KVM_CHECK_EXTENSION, kCapMemoryAttributes), 8);
  EXPECT_EQ(guest_->vm().Ioctl(KVM_CHECK_EXTENSION, kCapGuestMemfd), 1);
  const KvmFd ordinary = kvm.Make(KVM_CREATE_VM, kVmTypeDefault);
  EXPECT_EQ(ordinary.Ioctl(KVM_CHECK_EXTENSION, kCapMemoryAttributes), 0);
  EXPECT_EQ(ordinary.Ioctl(KVM_CHECK_EXTENSION, kCapGuestMemfd), 0);
  EXPECT_EQ(kvm.Ioctl(KVM_CHECK_EXTENSION, kCapPreFaultMemory), 1);
}

TEST_P(Kvm, MakesGuestMemfdsOfWholePages) {
  for (const uint64_t size : {uint64_t{0}, uint64_t{100}, uint64_t{1} << 63}) {
    EXPECT_FALSE(guest_->MakeMemfd(size).valid());
    EXPECT_EQ(errno, EINVAL) << size;
  }
  EXPECT_TRUE(guest_->MakeMemfd(uint64_t{1} << 40).valid());
  CreateGuestMemfd flagged;
  flagged.size = kPage;
  flagged.flags = uint64_t{1} << 40;
  EXPECT_FALSE(guest_->vm().Make(kCreateGuestMemfd, &flagged).valid());
  EXPECT_EQ(errno, EINVAL);
}

TEST_P(Kvm, AllocatesAndPunchesPagesOfAGuestMemfd) {
  const KvmFd memfd = guest_->MakeMemfd(kSize);
  EXPECT_EQ(Fallocate(memfd, 0, 0, kPage), EOPNOTSUPP);
  EXPECT_EQ(Fallocate(memfd, FALLOC_FL_ZERO_RANGE, 0, kPage), EOPNOTSUPP);
  EXPECT_EQ(Fallocate(memfd, FALLOC_FL_KEEP_SIZE, 0, kPage), 0);
  EXPECT_EQ(Fallocate(memfd, FALLOC_FL_KEEP_SIZE, kSize, kPage), EINVAL);
  EXPECT_EQ(Fallocate(memfd, FALLOC_FL_KEEP_SIZE, 100, kPage), EINVAL);
  EXPECT_EQ(Punch(memfd, 0, kPage), 0);
  EXPECT_EQ(Punch(memfd, kSize, kPage), 0);
  EXPECT_EQ(Punch(memfd, 100, kPage), EINVAL);
}

TEST_P(Kvm, RefusesMemslotsThatItCannotBack) {
  const KvmFd memfd = guest_->MakeMemfd(kSize);
  const UserspaceMemoryRegion2 good = guest_->Region(1, kGpa, shared_, &memfd);
  UserspaceMemoryRegion2 bad = good;
  bad.guest_memfd_offset = 100;
  EXPECT_EQ(guest_->SetRegion(bad), EINVAL);
  bad.guest_memfd_offset = kPage;  // reaches over the end
  EXPECT_EQ(guest_->SetRegion(bad), EINVAL);
  for (const uint32_t flag : {KVM_MEM_READONLY, KVM_MEM_LOG_DIRTY_PAGES}) {
    bad = good;
    bad.flags |= flag;
    EXPECT_EQ(guest_->SetRegion(bad), EINVAL) << flag;
  }
  bad = good;
  bad.guest_memfd = static_cast<uint32_t>(-1);
  EXPECT_EQ(guest_->SetRegion(bad), EBADF);
  SmallGuest other(api(), kVmTypeSwProtected);
  EXPECT_EQ(other.SetRegion(good), EINVAL) << "the memory of another VM";
  SmallGuest ordinary(api(), kVmTypeDefault);
  const KvmFd of_ordinary = ordinary.MakeMemfd(kSize);
  EXPECT_TRUE(of_ordinary.valid());
  EXPECT_EQ(ordinary.SetRegion(ordinary.Region(1, kGpa, shared_, &of_ordinary)), EINVAL);
  kvm_userspace_memory_region old = {1, kMemGuestMemfd, kGpa, kSize, good.userspace_addr};
  EXPECT_EQ(guest_->vm().Ioctl(KVM_SET_USER_MEMORY_REGION, &old), -1);
  EXPECT_EQ(errno, EINVAL);
  EXPECT_EQ(guest_->SetRegion(good), 0);
}

TEST_P(Kvm, LetsAMemslotWithPrivateMemoryOnlyGo) {
  AddSlot();
  const UserspaceMemoryRegion2 slot = guest_->Region(1, kGpa, shared_, &memfd_);
  EXPECT_EQ(guest_->SetRegion(slot), EINVAL) << "set again";
  UserspaceMemoryRegion2 moved = slot;
  moved.guest_phys_addr = kHole;
  EXPECT_EQ(guest_->SetRegion(moved), EINVAL);
  moved.slot = 2;
  EXPECT_EQ(guest_->SetRegion(moved), EINVAL) << "the same private pages twice";
  EXPECT_EQ(guest_->SetRegion(guest_->Region(3, kGpa, shared_)), EEXIST);
  UserspaceMemoryRegion2 gone = slot;
  gone.memory_size = 0;
  EXPECT_EQ(guest_->SetRegion(gone), 0);
  EXPECT_EQ(guest_->SetRegion(gone), EINVAL);
}

TEST_P(Kvm, SetsAttributesWhereverThereIsAnAddress) {
  EXPECT_EQ(guest_->SetPrivate(kHole, kPage, true), 0);
  EXPECT_EQ(guest_->SetPrivate(kHole, kPage, true), 0);
  EXPECT_EQ(guest_->SetPrivate(kHole, 0, true), EINVAL);
  EXPECT_EQ(guest_->SetPrivate(kHole + 100, kPage, true), EINVAL);
  EXPECT_EQ(guest_->SetPrivate(~uint64_t{0xfff}, 2 * kPage, true), EINVAL);
  MemoryAttributes odd = {kHole, kPage, 1, 0};
  EXPECT_EQ(guest_->vm().Ioctl(kSetMemoryAttributes, &odd), -1);
  EXPECT_EQ(errno, EINVAL);
  SmallGuest ordinary(api(), kVmTypeDefault);
  EXPECT_EQ(ordinary.SetPrivate(kHole, kPage, true), EINVAL);
}

TEST_P(Kvm, ConvertsWithoutCopyingOrForgetting) {
  AddSlot();
  *SharedWord() = 1;
  EXPECT_EQ(Read(kGpa), 1u);
  ASSERT_EQ(guest_->SetPrivate(kGpa, kPage, true), 0);
  EXPECT_EQ(Read(kGpa), 0u);
  EXPECT_TRUE(guest_->Write(kGpa, 2));
  EXPECT_EQ(*SharedWord(), 1u);
  ASSERT_EQ(guest_->SetPrivate(kGpa, kPage, false), 0);
  EXPECT_EQ(Read(kGpa), 1u);
  ASSERT_EQ(guest_->SetPrivate(kGpa, kPage, true), 0);
  EXPECT_EQ(Read(kGpa), 2u) << "backed twice until somebody punches a hole";
  ASSERT_EQ(Punch(memfd_, 0, kPage), 0);
  EXPECT_EQ(Read(kGpa), 0u);
}

TEST_P(Kvm, AttributesOfAPartLeaveTheRest) {
  AddSlot();
  *SharedWord(kPage) = 7;
  ASSERT_EQ(guest_->SetPrivate(kGpa, kSize, true), 0);
  EXPECT_TRUE(guest_->Write(kGpa, 5));
  EXPECT_TRUE(guest_->Write(kGpa + 2 * kPage, 6));
  ASSERT_EQ(guest_->SetPrivate(kGpa + kPage, kPage, false), 0);
  EXPECT_EQ(Read(kGpa), 5u);
  EXPECT_EQ(Read(kGpa + kPage), 7u);
  EXPECT_EQ(Read(kGpa + 2 * kPage), 6u);
}

TEST_P(Kvm, AMemoryFaultNamesThePageAndCanBeRepeated) {
  ASSERT_EQ(guest_->SetRegion(guest_->Region(1, kGpa, shared_)), 0);  // no private memory
  ASSERT_EQ(guest_->SetPrivate(kGpa + kPage, kPage, true), 0);
  EXPECT_EQ(guest_->Copy(kGpa + kPage + 8, kGpa), kMemoryFaultExit);
  EXPECT_EQ(guest_->memory_fault().gpa, kGpa + kPage);
  EXPECT_EQ(guest_->memory_fault().size, kPage);
  EXPECT_EQ(guest_->memory_fault().flags, kMemoryFaultPrivate);
  EXPECT_EQ(guest_->Rip(), guest_->code());
  EXPECT_EQ(guest_->Again(), kMemoryFaultExit);
  // The reason is stale now: only errno tells.
  EXPECT_EQ(guest_->ComeBack(), (Ran{-1, EINTR, kExitMemoryFault}));
  ASSERT_EQ(guest_->SetPrivate(kGpa + kPage, kPage, false), 0);
  *SharedWord(kPage + 8) = 9;
  EXPECT_TRUE(guest_->Again().done());
  EXPECT_EQ(*SharedWord(), 9u);
}

TEST_P(Kvm, APrivateHoleIsAMemoryFaultASharedOneIsMmio) {
  AddSlot();
  EXPECT_EQ(guest_->Copy(kHole, kGpa), (Ran{0, 0, KVM_EXIT_MMIO}));
  EXPECT_EQ(guest_->run().mmio.phys_addr, kHole);
  SmallGuest second(api(), kVmTypeSwProtected);
  ASSERT_EQ(second.SetPrivate(kHole, kPage, true), 0);
  EXPECT_EQ(second.Copy(kHole, SmallGuest::kOwnGpa + 0x5000), kMemoryFaultExit);
  EXPECT_EQ(second.memory_fault().flags, kMemoryFaultPrivate);
}

TEST_P(Kvm, TheLastDescriptorTakesPrivateMemoryWithIt) {
  AddSlot();
  ASSERT_EQ(guest_->SetPrivate(kGpa, kPage, true), 0);
  EXPECT_TRUE(guest_->Write(kGpa, 5));
  memfd_ = KvmFd();
  EXPECT_EQ(guest_->Copy(kGpa, SmallGuest::kOwnGpa + 0x5000), kMemoryFaultExit);
  EXPECT_EQ(guest_->memory_fault().flags, kMemoryFaultPrivate);
}

TEST_P(Kvm, AHostPageThatIsNotToBeHadIsABareError) {
  AddSlot();
  *SharedWord() = 3;
  ASSERT_EQ(mprotect(shared_.data(), kPage, PROT_NONE), 0);
  EXPECT_EQ(guest_->Copy(kGpa, SmallGuest::kOwnGpa + 0x5000), (Ran{-1, EFAULT, KVM_EXIT_UNKNOWN}));
  ASSERT_EQ(mprotect(shared_.data(), kPage, PROT_READ | PROT_WRITE), 0);
  EXPECT_TRUE(guest_->Again().done());
}

TEST_P(Kvm, AnOutStandsAtItsInstructionUntilTheNextRun) {
  kvm_regs regs = {};
  ASSERT_EQ(guest_->vcpu().Ioctl(KVM_GET_REGS, &regs), 0);
  EXPECT_TRUE(guest_->Copy(SmallGuest::kOwnGpa, SmallGuest::kOwnGpa + 0x5000).done());
  EXPECT_EQ(guest_->run().io.port, 0xf6);
  EXPECT_EQ(guest_->run().io.size, 1);
  EXPECT_EQ(guest_->run().io.direction, KVM_EXIT_IO_OUT);
  EXPECT_EQ(guest_->Rip(), guest_->code() + 5) << "Copy has let it come back once";
}

TEST_P(Kvm, ForwardsMapGpaOnceItIsAskedTo) {
  constexpr uint64_t kNoSuchCall = static_cast<uint64_t>(-1000);
  EXPECT_TRUE(guest_->Hypercall(kMapGpaHypercall, kGpa, 1, 16).done());
  EXPECT_EQ(guest_->Rax(), kNoSuchCall);
  kvm_enable_cap enable = {};
  enable.cap = KVM_CAP_EXIT_HYPERCALL;
  enable.args[0] = 1;
  EXPECT_EQ(guest_->vm().Ioctl(KVM_ENABLE_CAP, &enable), -1);
  EXPECT_EQ(errno, EINVAL);
  enable.args[0] = 1 << kMapGpaHypercall;
  ASSERT_EQ(guest_->vm().Ioctl(KVM_ENABLE_CAP, &enable), 0);

  ASSERT_EQ(guest_->Hypercall(kMapGpaHypercall, kHole, 3, 0x35), (Ran{0, 0, KVM_EXIT_HYPERCALL}));
  EXPECT_EQ(guest_->run().hypercall.nr, kMapGpaHypercall);
  EXPECT_EQ(guest_->run().hypercall.args[0], kHole);
  EXPECT_EQ(guest_->run().hypercall.args[1], 3u);
  EXPECT_EQ(guest_->run().hypercall.args[2], 0x35u) << "not looked at";
  EXPECT_EQ(guest_->Rip(), guest_->hypercall_code());
  guest_->run().hypercall.ret = 77;
  EXPECT_TRUE(guest_->Again().done());
  EXPECT_EQ(guest_->Rax(), 77u);
  EXPECT_EQ(guest_->Copy(kHole, SmallGuest::kOwnGpa + 0x5000), (Ran{0, 0, KVM_EXIT_MMIO}))
      << "the attribute is not KVM's to change";
}

TEST_P(Kvm, AnswersMapGpaItselfWhereItMakesNoSense) {
  kvm_enable_cap enable = {};
  enable.cap = KVM_CAP_EXIT_HYPERCALL;
  enable.args[0] = 1 << kMapGpaHypercall;
  ASSERT_EQ(guest_->vm().Ioctl(KVM_ENABLE_CAP, &enable), 0);
  constexpr uint64_t kInvalid = static_cast<uint64_t>(-22);
  for (const auto& [gpa, pages] :
       {std::pair<uint64_t, uint64_t>{kGpa + 1, 1}, {kGpa, 0}, {~uint64_t{0xfff}, 2}}) {
    EXPECT_TRUE(guest_->Hypercall(kMapGpaHypercall, gpa, pages, 16).done());
    EXPECT_EQ(guest_->Rax(), kInvalid) << gpa << " " << pages;
  }
  EXPECT_TRUE(guest_->Hypercall(4711, 0, 0, 0).done());
  EXPECT_EQ(guest_->Rax(), static_cast<uint64_t>(-1000));
}

TEST_P(Kvm, PrefaultsUntilMemoryEnds) {
  AddSlot();
  ASSERT_EQ(guest_->SetPrivate(kGpa, kSize / 2, true), 0);
  const auto prefault = [&](uint64_t gpa, uint64_t size, uint64_t& left) {
    PreFaultMemory request;
    request.gpa = gpa;
    request.size = size;
    const int result = guest_->vcpu().Ioctl(kPreFaultMemory, &request);
    left = request.size;
    return result == 0 ? 0 : errno;
  };
  uint64_t left = 0;
  EXPECT_EQ(prefault(kGpa, kSize, left), 0);
  EXPECT_EQ(left, 0u);
  EXPECT_EQ(prefault(kGpa + kSize - kPage, 3 * kPage, left), 0);
  EXPECT_EQ(left, 2 * kPage);
  EXPECT_EQ(prefault(kHole, kPage, left), ENOENT);
  EXPECT_EQ(prefault(kGpa, 0, left), EINVAL);
  EXPECT_EQ(prefault(kGpa + 1, kPage, left), EINVAL);
  memfd_ = KvmFd();
  EXPECT_EQ(prefault(kGpa, kPage, left), EFAULT);
  EXPECT_EQ(guest_->run().exit_reason, kExitMemoryFault);
}

INSTANTIATE_TEST_SUITE_P(Kernels, Kvm, testing::Values("fake", "real"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace twinroot::kvm
