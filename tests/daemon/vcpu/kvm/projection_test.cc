// Projections without KVM: what stands in their windows is read from the kernel's page map, which
// touches nothing. Where userfaultfd lacks something the tests skip themselves by name.
#include "daemon/vcpu/kvm/projection.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <memory>
#include <optional>
#include <random>
#include <thread>
#include <vector>

#include "absl/cleanup/cleanup.h"

namespace twinroot::kvm {
namespace {

using mmu::Access;
using mmu::Gfn;
using mmu::GfnRange;
using mmu::Level;
using mmu::MemoryKind;

constexpr uint64_t kBlock = 512;  // frames
constexpr uint64_t kMemory = uint64_t{8} << 20;
constexpr Access kReadOnly = Access::Read();

class ProjectionTest : public testing::Test {
 protected:
  void SetUp() override {
    absl::StatusOr<Userfault> userfault = Userfault::Open();
    if (!userfault.ok()) GTEST_SKIP() << userfault.status().message();
    userfault_ = *std::move(userfault);
    ram_ = *memory::GuestRam::Create(kMemory, &space_, memory::Commit::kWholeLeaves);
    projection_.emplace(MemoryKind::kPrivate, &*userfault_, [this] { ++unsettled_; });
    ASSERT_TRUE(projection_->Open(*ram_).ok());
    page_map_ = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    ASSERT_GE(page_map_, 0);
  }
  void TearDown() override {
    if (page_map_ >= 0) close(page_map_);
  }

  absl::Status Set(uint64_t gfn, Level level, Access access = Access::All()) {
    const auto page = ram_->Resolve(Gfn(gfn), MemoryKind::kPrivate, level);
    if (!page.ok()) return page.status();
    return projection_->Set(Gfn(gfn), level, access, page->pfn);
  }
  struct Mapped {
    uint64_t pages = 0, writable = 0;
    friend bool operator==(const Mapped&, const Mapped&) = default;
    friend void PrintTo(const Mapped& mapped, std::ostream* os) {
      *os << mapped.pages << " pages, " << mapped.writable << " writable";
    }
  };
  // As the guest finds it.
  Mapped At(uint64_t gfn, uint64_t count) const {
    constexpr uint64_t kPresent = uint64_t{1} << 63;
    constexpr uint64_t kProtected = uint64_t{1} << 57;
    const auto address =
        reinterpret_cast<uintptr_t>(projection_->windows().front().mapping.data()) / mmu::kPageSize;
    std::vector<uint64_t> words(count);
    const auto bytes = static_cast<ssize_t>(count * 8);
    EXPECT_EQ(pread(page_map_, words.data(), count * 8, static_cast<off_t>((address + gfn) * 8)),
              bytes);
    Mapped mapped;
    for (const uint64_t word : words) {
      if ((word & kPresent) == 0) continue;
      ++mapped.pages;
      mapped.writable += (word & kProtected) == 0;
    }
    return mapped;
  }
  vcpu::ProjectionCounts Counts() const {
    vcpu::ProjectionCounts counts;
    projection_->AddCounts(counts);
    return counts;
  }
  // Skips where the host makes no leaf whole.
  bool CanSettle() {
    const absl::Status whole = ProbeWholeLeaves();
    if (!whole.ok()) Skip(whole.message());
    return whole.ok();
  }
  bool CanLog() {
    if (!projection_->CanWithholdWrite()) Skip("this kernel cannot protect shared memory");
    return projection_->CanWithholdWrite();
  }
  static void Skip(absl::string_view why) { GTEST_SKIP() << why; }

  memory::HpaSpace space_;
  std::optional<Userfault> userfault_;
  std::unique_ptr<memory::GuestRam> ram_;
  std::atomic<int> unsettled_{0};
  std::optional<Projection> projection_;
  int page_map_ = -1;
};

// As a thread of the kernel's does that fetches a page for KVM.
TEST_F(ProjectionTest, WhoWaitsForAPoisonedPageGoesOnWithAnError) {
  int pipe_fds[2];
  ASSERT_EQ(pipe2(pipe_fds, O_CLOEXEC), 0);
  const absl::Cleanup close_both = [&] { close(pipe_fds[0]), close(pipe_fds[1]); };
  const std::byte* const page = projection_->windows().front().mapping.data() + 5 * mmu::kPageSize;
  int error = 0;
  std::thread reader([&] { error = write(pipe_fds[1], page, 1) == 1 ? 0 : errno; });
  pollfd waits = {userfault_->fd(), POLLIN, 0};
  EXPECT_EQ(poll(&waits, 1, 10000), 1);
  const absl::Status poisoned = projection_->Poison(Gfn(5));
  if (!poisoned.ok()) projection_->Revoke();  // lets it go too
  reader.join();
  if (!poisoned.ok()) GTEST_SKIP() << poisoned.message();
  EXPECT_EQ(error, EFAULT);
  EXPECT_TRUE(projection_->Poison(Gfn(5)).ok()) << "it is already";
  // It goes with what is taken away; a leaf can come again.
  ASSERT_TRUE(projection_->Remove({Gfn(0), kBlock}).ok());
  ASSERT_TRUE(Set(5, Level::k4K).ok());
  EXPECT_EQ(write(pipe_fds[1], page, 1), 1);
}

TEST_F(ProjectionTest, ASmallLeafIsOnePage) {
  ASSERT_TRUE(Set(5, Level::k4K).ok());
  EXPECT_EQ(At(0, kBlock), (Mapped{1, 1}));
  EXPECT_EQ(At(5, 1), (Mapped{1, 1}));
  EXPECT_EQ(unsettled_, 0);
}

TEST_F(ProjectionTest, ALargeLeafIsThereAtOnceAndBecomesWholeLater) {
  if (!CanSettle()) return;
  ASSERT_TRUE(Set(kBlock, Level::k2M).ok());
  EXPECT_EQ(At(kBlock, kBlock), (Mapped{kBlock, kBlock}));
  EXPECT_EQ(At(0, kBlock), Mapped{});
  EXPECT_EQ(Counts().pieces, 1u);
  EXPECT_EQ(unsettled_, 1);
  EXPECT_TRUE(projection_->Settle());
  EXPECT_EQ(Counts().whole, 1u);
  EXPECT_EQ(Counts().pieces, 0u);
  EXPECT_EQ(At(kBlock, kBlock), (Mapped{kBlock, kBlock}));
  EXPECT_FALSE(projection_->Settle()) << "one is one";
}

TEST_F(ProjectionTest, WhatIsTakenAwayIsGoneWhateverItsSize) {
  const bool settles = CanSettle();
  for (const bool whole : {false, true}) {
    if (whole && !settles) return;
    ASSERT_TRUE(Set(0, Level::k2M).ok());
    if (whole) projection_->Settle();
    ASSERT_EQ(Counts().whole, whole ? 1u : 0u);
    ASSERT_TRUE(projection_->Remove({Gfn(7), 1}).ok());
    EXPECT_EQ(At(7, 1), Mapped{});
    ASSERT_TRUE(projection_->Remove({Gfn(0), kBlock}).ok());
    EXPECT_EQ(At(0, kBlock), Mapped{});
    EXPECT_FALSE(projection_->Settle()) << "a leaf that went is not brought back";
    EXPECT_EQ(Counts().whole + Counts().pieces, 0u);
  }
}

TEST_F(ProjectionTest, ASplitKeepsEveryPage) {
  if (!CanSettle()) return;
  ASSERT_TRUE(Set(0, Level::k2M).ok());
  ASSERT_TRUE(projection_->Settle());
  ASSERT_TRUE(projection_->Split(Gfn(0), Level::k2M).ok());
  EXPECT_EQ(At(0, kBlock), (Mapped{kBlock, kBlock}));
  EXPECT_EQ(Counts().whole + Counts().pieces, 0u);
  ASSERT_TRUE(projection_->Merge(Gfn(0), Level::k2M).ok());
  EXPECT_TRUE(projection_->Settle());
  EXPECT_EQ(Counts().whole, 1u);
  EXPECT_FALSE(projection_->NeedsRenewal());
}

TEST_F(ProjectionTest, AVcpuThatFindsALeafWithAHoleGetsItsNeighbourhood) {
  ASSERT_TRUE(Set(0, Level::k2M).ok());
  // As when the host drops pages by itself.
  ASSERT_EQ(madvise(projection_->windows().front().mapping.data(), kBlock << 12, MADV_DONTNEED), 0);
  {
    const Projection::Faulting faulting(Gfn(100));
    ASSERT_TRUE(Set(0, Level::k2M).ok());
  }
  EXPECT_EQ(At(0, kBlock), (Mapped{16, 16}));
  EXPECT_EQ(At(96, 16), (Mapped{16, 16}));
  ASSERT_TRUE(Set(0, Level::k2M).ok());
  EXPECT_EQ(At(0, kBlock), (Mapped{kBlock, kBlock})) << "nobody in particular asks: all of it";
}

TEST_F(ProjectionTest, WithheldWritesComeBackPageByPage) {
  if (!CanLog()) return;
  ASSERT_TRUE(Set(0, Level::k2M).ok());
  ASSERT_TRUE(Set(kBlock + 1, Level::k4K).ok());
  ASSERT_TRUE(projection_->Split(Gfn(0), Level::k2M).ok());
  ASSERT_TRUE(projection_->WithholdWrite({Gfn(0), 2 * kBlock}).ok());
  EXPECT_EQ(At(0, 2 * kBlock), (Mapped{kBlock + 1, 0}));
  ASSERT_TRUE(Set(9, Level::k4K).ok());
  EXPECT_EQ(At(0, 2 * kBlock), (Mapped{kBlock + 1, 1}));
  EXPECT_EQ(At(9, 1), (Mapped{1, 1}));
  ASSERT_TRUE(Set(kBlock + 2, Level::k4K, kReadOnly).ok());
  EXPECT_EQ(At(kBlock + 2, 1), (Mapped{1, 0})) << "new pages may be protected from the start";
  ASSERT_TRUE(projection_->WithholdWrite({Gfn(0), 64}).ok());
  EXPECT_EQ(At(0, 2 * kBlock).writable, 0u);
}

TEST_F(ProjectionTest, ALeafInOnePieceThatLosesWritesKeepsNoPageThatCanBeWritten) {
  if (!CanLog() || !CanSettle()) return;
  ASSERT_TRUE(Set(0, Level::k2M).ok());
  ASSERT_TRUE(projection_->Settle());
  ASSERT_TRUE(projection_->WithholdWrite({Gfn(0), kBlock}).ok());
  EXPECT_EQ(At(0, kBlock).writable, 0u);
  EXPECT_EQ(Counts().whole, 0u);
  ASSERT_TRUE(Set(0, Level::k2M, kReadOnly).ok());
  EXPECT_EQ(At(0, kBlock), (Mapped{kBlock, 0}));
}

TEST_F(ProjectionTest, LeavesStayInPiecesUnderALogAndBecomeWholeAfterIt) {
  if (!CanLog() || !CanSettle()) return;
  ASSERT_TRUE(projection_->WithholdWrite({Gfn(0), kBlock}).ok());
  ASSERT_TRUE(Set(0, Level::k2M).ok());
  EXPECT_TRUE(projection_->Settle());
  EXPECT_EQ(Counts().pieces, 1u);
  EXPECT_EQ(Counts().kept_writes_watched, 1u);
  ASSERT_TRUE(projection_->Split(Gfn(0), Level::k2M).ok());
  ASSERT_TRUE(projection_->Merge(Gfn(0), Level::k2M).ok());
  ASSERT_TRUE(projection_->NeedsRenewal());
  ASSERT_TRUE(projection_->Renew().ok());
  EXPECT_FALSE(projection_->NeedsRenewal());
  EXPECT_EQ(At(0, kMemory >> 12), Mapped{}) << "it begins anew";
  ASSERT_TRUE(Set(0, Level::k2M).ok());
  EXPECT_TRUE(projection_->Settle());
  EXPECT_EQ(Counts().whole, 1u);
  EXPECT_EQ(Counts().renewals, 1u);
  // And the next log finds what it needs.
  ASSERT_TRUE(projection_->WithholdWrite({Gfn(0), kBlock}).ok());
  EXPECT_EQ(At(0, kBlock).writable, 0u);
}

TEST_F(ProjectionTest, ZapsAndProtectionsAreFinalWhileLeavesSettle) {
  if (!CanSettle()) return;
  std::atomic<bool> stop{false};
  std::thread settler([&] {
    while (!stop) projection_->Settle();
  });
  const absl::Cleanup end = [&] {
    stop = true;
    settler.join();
  };
  std::minstd_rand random(7);
  for (int round = 0; round < 300; ++round) {
    const uint64_t block = random() % (kMemory >> 21);
    const uint64_t first = block * kBlock;
    ASSERT_TRUE(Set(first, Level::k2M).ok());
    if (random() % 2 == 0) std::this_thread::yield();
    switch (random() % 3) {
      case 0:
        ASSERT_TRUE(projection_->Remove({Gfn(first), kBlock}).ok());
        ASSERT_EQ(At(first, kBlock), Mapped{}) << round;
        break;
      case 1:
        ASSERT_TRUE(projection_->Remove({Gfn(first + 3), 2}).ok());
        ASSERT_EQ(At(first + 3, 2), Mapped{}) << round;
        break;
      default:
        ASSERT_TRUE(projection_->Split(Gfn(first), Level::k2M).ok());
        // How many stand now is the kernel's: it moves small pages about to make large ones.
        ASSERT_TRUE(projection_->Remove({Gfn(first + 3), 2}).ok());
        ASSERT_EQ(At(first + 3, 2), Mapped{}) << round;
    }
  }
}

TEST_F(ProjectionTest, ALogThatSplitNothingLeavesWholeLeavesToo) {
  if (!CanSettle() || !CanLog()) return;
  ASSERT_TRUE(projection_->WithholdWrite({Gfn(0), kBlock}).ok());
  EXPECT_FALSE(projection_->NeedsRenewal());
  ASSERT_TRUE(Set(0, Level::k2M).ok());
  ASSERT_TRUE(projection_->NeedsRenewal());
  ASSERT_TRUE(projection_->Renew().ok());
  ASSERT_TRUE(Set(0, Level::k2M).ok());
  EXPECT_TRUE(projection_->Settle());
  EXPECT_EQ(Counts().whole, 1u);
}

TEST_F(ProjectionTest, WhereSetFailsNothingIsLeft) {
  ASSERT_TRUE(Set(0, Level::k2M).ok());
  ram_->Discard({Gfn(kBlock - 1), 1}, MemoryKind::kPrivate);
  EXPECT_FALSE(projection_->Set(Gfn(0), Level::k2M, Access::All(), {}).ok());
  EXPECT_EQ(At(0, kBlock), Mapped{}) << "the old leaf may have had fewer rights";
}

TEST_F(ProjectionTest, OnlyPagesOf4KAnd2MAreTaken) {
  EXPECT_EQ(Set(0, Level::k1G).code(), absl::StatusCode::kUnimplemented);
  EXPECT_EQ(projection_->Split(Gfn(0), Level::k1G).code(), absl::StatusCode::kUnimplemented);
  EXPECT_EQ(projection_->Merge(Gfn(0), Level::k1G).code(), absl::StatusCode::kUnimplemented);
  EXPECT_EQ(At(0, kMemory >> 12), Mapped{});
}

TEST_F(ProjectionTest, NothingComesBackAfterRevoke) {
  ASSERT_TRUE(Set(0, Level::k2M).ok());
  projection_->Revoke();
  EXPECT_EQ(At(0, kBlock), Mapped{});
  EXPECT_FALSE(projection_->Settle());
  EXPECT_TRUE(projection_->Renew().ok());
  EXPECT_TRUE(projection_->WithholdWrite({Gfn(0), kBlock}).ok());
  EXPECT_TRUE(projection_->Remove({Gfn(0), kBlock}).ok());
  EXPECT_FALSE(Set(0, Level::k2M).ok());
  EXPECT_EQ(At(0, kBlock), Mapped{});
}

}  // namespace
}  // namespace twinroot::kvm
