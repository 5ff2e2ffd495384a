// F13: pages that their source does not have yet.
#include "mmu/vm/page_waiters.h"

#include <gtest/gtest.h>

#include "tests/fakes/test_space.h"

namespace twinroot::mmu {
namespace {

using Vcpus = std::vector<uint32_t>;

FaultOutcome TouchBy(TestSpace& t, uint32_t vcpu, uint64_t gfn, MemoryKind kind) {
  return t.space->HandleFault({t.space->layout().GpaOf(Gfn(gfn), kind), Access::Read(), vcpu});
}

TEST(PageWaitersTest, TakesExactlyThoseOfOnePage) {
  PageWaiters waiters;
  waiters.Add(Gfn(5), MemoryKind::kPrivate, 1);
  waiters.Add(Gfn(5), MemoryKind::kPrivate, 2);
  waiters.Add(Gfn(5), MemoryKind::kPrivate, 1);
  waiters.Add(Gfn(5), MemoryKind::kShared, 3);
  waiters.Add(Gfn(6), MemoryKind::kPrivate, 4);
  EXPECT_EQ(waiters.Take(Gfn(5), MemoryKind::kPrivate), (Vcpus{1, 2}));
  EXPECT_EQ(waiters.Take(Gfn(5), MemoryKind::kPrivate), Vcpus{});
  waiters.Remove(Gfn(6), MemoryKind::kPrivate, 4);
  EXPECT_EQ(waiters.TakeRange({Gfn(0), 100}), (Vcpus{3}));
}

class PendingPageTest : public testing::Test {
 protected:
  PendingPageTest() { t_.pages.fail_resolve = absl::UnavailableError("on its way"); }
  TestSpace t_;
};

TEST_F(PendingPageTest, F13_AVcpuWaitsAndIsNamedWhenThePageIsReady) {
  const FaultOutcome outcome = TouchBy(t_, 2, 7, MemoryKind::kPrivate);
  ASSERT_TRUE(std::holds_alternative<PagePending>(outcome));
  EXPECT_EQ(std::get<PagePending>(outcome).gpa, Gpa(7 << kPageShift));
  ASSERT_TRUE(std::holds_alternative<PagePending>(TouchBy(t_, 3, 8, MemoryKind::kPrivate)));
  EXPECT_FALSE(t_.IsMapped(7, MemoryKind::kPrivate));

  t_.pages.fail_resolve.reset();
  EXPECT_EQ(t_.space->PageReady(Gfn(7), MemoryKind::kPrivate), (Vcpus{2}));
  EXPECT_EQ(t_.space->PageReady(Gfn(7), MemoryKind::kPrivate), Vcpus{});
  EXPECT_TRUE(std::holds_alternative<Fixed>(TouchBy(t_, 2, 7, MemoryKind::kPrivate)));
  EXPECT_EQ(t_.space->PageReady(Gfn(8), MemoryKind::kPrivate), (Vcpus{3}));
}

TEST_F(PendingPageTest, F13_WhoWaitsForAPageThatIsConvertedIsNamed) {
  ASSERT_TRUE(std::holds_alternative<PagePending>(TouchBy(t_, 2, 7, MemoryKind::kPrivate)));
  ASSERT_TRUE(t_.Convert({Frames(6, 4)}, MemoryKind::kShared).ok());
  EXPECT_EQ(t_.space->TakeWaiters(Frames(6, 4)), (Vcpus{2}));
  EXPECT_TRUE(std::holds_alternative<MemoryFaultExit>(TouchBy(t_, 2, 7, MemoryKind::kPrivate)));
  EXPECT_EQ(t_.space->TakeWaiters(Frames(0, 2048)), Vcpus{});
}

TEST_F(PendingPageTest, F13_APageThatIsConvertedWhileTheVcpuBeginsToWaitIsTriedAgain) {
  t_.pages.on_resolve = [&](Gfn, MemoryKind) {
    t_.pages.on_resolve = nullptr;
    ASSERT_TRUE(t_.Convert({Frames(7, 1)}, MemoryKind::kShared).ok());
  };
  EXPECT_TRUE(std::holds_alternative<Retry>(TouchBy(t_, 2, 7, MemoryKind::kPrivate)));
  EXPECT_EQ(t_.space->TakeWaiters(Frames(0, 2048)), Vcpus{});
}

TEST_F(PendingPageTest, F13_APageThatComesWhileTheVcpuBeginsToWaitIsNotMissed) {
  // The second question, asked after the vCPU was put on the list, finds the page.
  int asked = 0;
  t_.pages.on_resolve = [&](Gfn, MemoryKind) {
    if (++asked == 2) t_.pages.fail_resolve.reset();
  };
  EXPECT_TRUE(std::holds_alternative<Fixed>(TouchBy(t_, 2, 7, MemoryKind::kPrivate)));
  EXPECT_EQ(t_.space->PageReady(Gfn(7), MemoryKind::kPrivate), Vcpus{});
}

TEST_F(PendingPageTest, F13_TheGuestMayBeToldOfSharedPagesOnlyUnlessItCanBeToldOfPrivateOnes) {
  ASSERT_TRUE(t_.Convert({Frames(7, 1)}, MemoryKind::kShared).ok());
  const FaultOutcome shared = TouchBy(t_, 0, 7, MemoryKind::kShared);
  ASSERT_TRUE(std::holds_alternative<PagePending>(shared));
  EXPECT_TRUE(std::get<PagePending>(shared).may_tell);
  const FaultOutcome hidden = TouchBy(t_, 0, 8, MemoryKind::kPrivate);
  EXPECT_FALSE(std::get<PagePending>(hidden).may_tell);

  TestSpaceOptions options;
  options.tell_private_pending = true;
  TestSpace told(options);
  told.pages.fail_resolve = absl::UnavailableError("on its way");
  const FaultOutcome outcome = TouchBy(told, 0, 8, MemoryKind::kPrivate);
  ASSERT_TRUE(std::holds_alternative<PagePending>(outcome));
  EXPECT_TRUE(std::get<PagePending>(outcome).may_tell);
}

}  // namespace
}  // namespace twinroot::mmu
