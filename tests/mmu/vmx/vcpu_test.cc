#include "mmu/vmx/vcpu.h"

#include <atomic>
#include <thread>

#include "gtest/gtest.h"
#include "tests/mmu/vmx/hand_made_tables.h"

namespace twinroot::mmu::vmx {
namespace {

constexpr int kSharedBit = 47;
constexpr uint64_t kShared = uint64_t{1} << kSharedBit;
constexpr uint64_t kGpa = 0x40'0000;

class VcpuTest : public ::testing::Test {
 protected:
  VcpuTest() : vcpu_(&memory_, EptCapabilities(), 52) { Load(false); }

  void Load(bool accessed_dirty) {
    vcpu_.LoadRoots(EptPointer(private_root_ | 0x1E | (accessed_dirty ? 0x40 : 0)),
                    EptPointer(shared_root_ | 0x1E | (accessed_dirty ? 0x40 : 0)), kSharedBit);
  }
  uint64_t MustRead(uint64_t gpa, int size = 8) {
    const AccessOutcome outcome = vcpu_.Read(Gpa(gpa), size);
    const auto* done = std::get_if<AccessDone>(&outcome);
    EXPECT_NE(done, nullptr);
    return done != nullptr ? done->value : 0;
  }

  HandMadeTables memory_;
  const uint64_t private_root_ = memory_.NewPage();
  const uint64_t shared_root_ = memory_.NewPage();
  Vcpu vcpu_;
};

TEST_F(VcpuTest, A2_SharedBitSelectsTheRootAndStaysPartOfTheIndex) {
  const uint64_t private_page = memory_.NewPage();
  const uint64_t shared_page = memory_.NewPage();
  memory_.Map4K(private_root_, kGpa, private_page);
  memory_.Map4K(shared_root_, kGpa | kShared, shared_page);
  memory_.Store(private_page, 0x1111);
  memory_.Store(shared_page, 0x2222);
  EXPECT_EQ(MustRead(kGpa), 0x1111u);
  EXPECT_EQ(MustRead(kGpa | kShared), 0x2222u);
  // A shared root that is indexed without the bit has nothing there.
  memory_.Unmap4K(shared_root_, kGpa | kShared);
  memory_.Map4K(shared_root_, kGpa, shared_page);
  vcpu_.FlushAll();
  EXPECT_TRUE(std::holds_alternative<EptViolationExit>(vcpu_.Read(Gpa(kGpa | kShared), 8)));
}

TEST_F(VcpuTest, ViolationReportsTheRawAddressWithItsOffset) {
  const AccessOutcome outcome = vcpu_.Write(Gpa((kGpa | kShared) + 0x128), 8, 1);
  const auto* exit = std::get_if<EptViolationExit>(&outcome);
  ASSERT_NE(exit, nullptr);
  EXPECT_EQ(exit->gpa.value, (kGpa | kShared) + 0x128);
  EXPECT_EQ(exit->qualification.raw(), 0x182u);
}

TEST_F(VcpuTest, AccessesOfEverySizeTouchTheirBytesOnly) {
  const uint64_t page = memory_.NewPage();
  memory_.Map4K(private_root_, kGpa, page);
  for (const int size : {1, 2, 4, 8}) {
    memory_.Store(page, ~uint64_t{0});
    memory_.Store(page + 8, ~uint64_t{0});
    ASSERT_TRUE(std::holds_alternative<AccessDone>(
        vcpu_.Write(Gpa(kGpa + 8), size, 0x0123'4567'89AB'CDEF)));
    const uint64_t mask = size == 8 ? ~uint64_t{0} : (uint64_t{1} << (8 * size)) - 1;
    EXPECT_EQ(memory_.Load(page), ~uint64_t{0});
    EXPECT_EQ(memory_.Load(page + 8), (0x0123'4567'89AB'CDEF & mask) | ~mask);
    EXPECT_EQ(MustRead(kGpa + 8, size), 0x0123'4567'89AB'CDEF & mask);
  }
  EXPECT_EQ(std::get<AccessDone>(vcpu_.Fetch(Gpa(kGpa + 9))).value, 0xCDu);
}

TEST_F(VcpuTest, StaleTranslationIsUsedUntilItIsFlushed) {
  const uint64_t old_page = memory_.NewPage();
  const uint64_t new_page = memory_.NewPage();
  memory_.Store(old_page, 1);
  memory_.Store(new_page, 2);
  memory_.Map4K(private_root_, kGpa, old_page);
  EXPECT_EQ(MustRead(kGpa), 1u);
  memory_.Map4K(private_root_, kGpa, new_page);
  EXPECT_EQ(MustRead(kGpa), 1u);
  vcpu_.FlushRange(MemoryKind::kShared, HwGfn(kGpa >> 12), 1);  // the wrong root
  EXPECT_EQ(MustRead(kGpa), 1u);
  vcpu_.FlushRange(MemoryKind::kPrivate, HwGfn(kGpa >> 12), 1);
  EXPECT_EQ(MustRead(kGpa), 2u);
  memory_.Unmap4K(private_root_, kGpa);
  EXPECT_EQ(MustRead(kGpa), 2u);
  vcpu_.FlushAll();
  EXPECT_TRUE(std::holds_alternative<EptViolationExit>(vcpu_.Read(Gpa(kGpa), 8)));
}

TEST_F(VcpuTest, StaleWriteRightIsUsedUntilItIsFlushedAndNewRightsAreSeenAtOnce) {
  const uint64_t page = memory_.NewPage();
  memory_.Map4K(private_root_, kGpa, page, 1);
  EXPECT_EQ(MustRead(kGpa), 0u);
  EXPECT_TRUE(std::holds_alternative<EptViolationExit>(vcpu_.Write(Gpa(kGpa), 8, 1)));
  memory_.Map4K(private_root_, kGpa, page, 3);
  EXPECT_TRUE(std::holds_alternative<AccessDone>(vcpu_.Write(Gpa(kGpa), 8, 2)));
  memory_.Map4K(private_root_, kGpa, page, 1);
  EXPECT_TRUE(std::holds_alternative<AccessDone>(vcpu_.Write(Gpa(kGpa), 8, 3)));
  vcpu_.FlushRange(MemoryKind::kPrivate, HwGfn(kGpa >> 12), 1);
  EXPECT_TRUE(std::holds_alternative<EptViolationExit>(vcpu_.Write(Gpa(kGpa), 8, 4)));
  EXPECT_EQ(memory_.Load(page), 3u);
}

TEST_F(VcpuTest, ViolationForgetsThePageItIsAbout) {
  const uint64_t page = memory_.NewPage();
  memory_.Map4K(private_root_, kGpa, page, 1);
  EXPECT_EQ(MustRead(kGpa), 0u);  // cached
  memory_.Unmap4K(private_root_, kGpa);
  EXPECT_EQ(MustRead(kGpa), 0u);  // stale
  EXPECT_TRUE(std::holds_alternative<EptViolationExit>(vcpu_.Write(Gpa(kGpa), 8, 1)));
  EXPECT_TRUE(std::holds_alternative<EptViolationExit>(vcpu_.Read(Gpa(kGpa), 8)));
}

TEST_F(VcpuTest, FirstWriteThroughACachedTranslationSetsTheDirtyFlag) {
  Load(true);
  const uint64_t page = memory_.NewPage();
  memory_.Map4K(private_root_, kGpa, page);
  const uint64_t leaf = memory_.Slot(private_root_, 4, kGpa, 1);
  MustRead(kGpa);
  EXPECT_EQ(memory_.Load(leaf) & 0x300, 0x100u);
  EXPECT_TRUE(std::holds_alternative<AccessDone>(vcpu_.Write(Gpa(kGpa), 8, 1)));
  EXPECT_EQ(memory_.Load(leaf) & 0x300, 0x300u);
}

TEST_F(VcpuTest, LeafWhereNoMemoryIsEndsInAMachineCheck) {
  memory_.Map4K(private_root_, kGpa, uint64_t{1} << 40);
  const AccessOutcome outcome = vcpu_.Write(Gpa(kGpa + 16), 8, 1);
  ASSERT_TRUE(std::holds_alternative<MachineCheck>(outcome));
  EXPECT_EQ(std::get<MachineCheck>(outcome).hpa.value, (uint64_t{1} << 40) + 16);
}

// A page is taken away, flushed, and only then reused: no store of the guest may land in it after
// the flush, whatever the vCPU was doing.
TEST_F(VcpuTest, NoStoreLandsAfterTheFlushHasReturned) {
  const uint64_t pages[] = {memory_.NewPage(), memory_.NewPage()};
  memory_.Map4K(private_root_, kGpa, pages[0]);
  std::atomic<bool> stop{false};
  std::thread guest([&] {
    for (uint64_t value = 1; !stop; ++value) vcpu_.Write(Gpa(kGpa), 8, value);
  });
  int late_stores = 0;
  for (int round = 0; round < 300; ++round) {
    const uint64_t away = pages[round % 2];
    // The guest is at work there, or there would be nothing to see.
    const bool stored = memory_.WaitForStore(away);
    EXPECT_TRUE(stored);
    if (!stored) break;
    memory_.Map4K(private_root_, kGpa, pages[(round + 1) % 2]);
    vcpu_.FlushRange(MemoryKind::kPrivate, HwGfn(kGpa >> 12), 1);
    const uint64_t seen = memory_.Load(away);
    std::this_thread::yield();
    if (memory_.Load(away) != seen) ++late_stores;
  }
  stop = true;
  guest.join();
  EXPECT_EQ(late_stores, 0);
}

}  // namespace
}  // namespace twinroot::mmu::vmx
