#include "daemon/memory/guest_ram.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <string>
#include <thread>

namespace twinroot::memory {
namespace {

using mmu::Gfn;
using mmu::GfnRange;
using mmu::Level;
using mmu::MemoryKind;

constexpr uint64_t kMiB = uint64_t{1} << 20;
constexpr uint64_t kGiB = uint64_t{1} << 30;

std::unique_ptr<GuestRam> Make(uint64_t bytes, HpaSpace& space) {
  absl::StatusOr<std::unique_ptr<GuestRam>> ram = GuestRam::Create(bytes, &space);
  EXPECT_TRUE(ram.ok()) << ram.status();
  return *std::move(ram);
}

TEST(GuestRam, SmallMemoryIsOneSlotFromZero) {
  HpaSpace space;
  const auto ram = Make(64 * kMiB, space);
  ASSERT_EQ(ram->slots().size(), 1u);
  EXPECT_EQ(ram->slots()[0].range, (GfnRange{Gfn(0), 64 * kMiB >> 12}));
}

TEST(GuestRam, WhatExceedsThreeGiBContinuesAtFourGiB) {
  HpaSpace space;
  const auto ram = Make(5 * kGiB, space);
  ASSERT_EQ(ram->slots().size(), 2u);
  EXPECT_EQ(ram->slots()[0].range, (GfnRange{Gfn(0), 3 * kGiB >> 12}));
  EXPECT_EQ(ram->slots()[1].range, (GfnRange{Gfn(4 * kGiB >> 12), 2 * kGiB >> 12}));
  EXPECT_EQ(ram->allocated_bytes(MemoryKind::kPrivate), 0u) << "memory is reserved, not allocated";
}

TEST(GuestRam, PrivateAndSharedPagesOfAFrameAreDifferentFramesWithDifferentBytes) {
  HpaSpace space;
  const auto ram = Make(4 * kMiB, space);
  const auto private_page = ram->Resolve(Gfn(5), MemoryKind::kPrivate, Level::k4K);
  const auto shared_page = ram->Resolve(Gfn(5), MemoryKind::kShared, Level::k4K);
  ASSERT_TRUE(private_page.ok() && shared_page.ok());
  EXPECT_NE(private_page->pfn, shared_page->pfn);
  ram->slots()[0].private_pages.data()[5 * 4096] = std::byte{0x5a};
  EXPECT_EQ(ram->slots()[0].shared_pages.data()[5 * 4096], std::byte{0});
}

TEST(GuestRam, ResolveAllocatesExactlyTheAskedPage) {
  HpaSpace space;
  const auto ram = Make(4 * kMiB, space);
  ASSERT_TRUE(ram->Resolve(Gfn(7), MemoryKind::kShared, Level::k4K).ok());
  EXPECT_EQ(ram->allocated_bytes(MemoryKind::kShared), 4096u);
  EXPECT_EQ(ram->allocated_bytes(MemoryKind::kPrivate), 0u);
}

TEST(GuestRam, APageIsReadyFromResolveToDiscard) {
  HpaSpace space;
  const auto ram = Make(4 * kMiB, space);
  EXPECT_FALSE(ram->Ready(Gfn(7), MemoryKind::kPrivate));
  ASSERT_TRUE(ram->Resolve(Gfn(7), MemoryKind::kPrivate, Level::k4K).ok());
  EXPECT_EQ(ram->Ready(Gfn(7), MemoryKind::kPrivate), mmu::Level::k2M);
  EXPECT_FALSE(ram->Ready(Gfn(7), MemoryKind::kShared));
  EXPECT_FALSE(ram->Ready(Gfn(8), MemoryKind::kPrivate));
  ASSERT_TRUE(ram->Reserve({Gfn(60), 10}, MemoryKind::kPrivate).ok());
  ram->Discard({Gfn(7), 58}, MemoryKind::kPrivate);
  for (uint64_t gfn = 0; gfn < 1024; ++gfn) {
    EXPECT_EQ(ram->Ready(Gfn(gfn), MemoryKind::kPrivate).has_value(), gfn >= 65 && gfn < 70) << gfn;
  }
  EXPECT_FALSE(ram->Ready(Gfn(4 * kMiB >> 12), MemoryKind::kPrivate)) << "outside";
}

TEST(GuestRam, APageThatIsDiscardedWhileItIsAllocatedIsNotReady) {
  AllocatedPages pages(128);
  const AllocatedPages::Ticket before = pages.Begin();
  pages.Forget(100, 1);
  pages.Remember(before, 5, 1);
  EXPECT_FALSE(pages.Has(5)) << "it may be the one that was discarded";
  pages.Remember(pages.Begin(), 5, 1);
  EXPECT_TRUE(pages.Has(5));
}

// One thread allocates and another discards: a page that is ready stands in the file.
TEST(GuestRam, WhatIsReadyIsAllocatedWhateverRaces) {
  HpaSpace space;
  const auto ram = Make(2 * kMiB, space);
  std::atomic<bool> stop{false};
  std::thread discards([&] {
    while (!stop) ram->Discard({Gfn(5), 1}, MemoryKind::kPrivate);
  });
  for (int i = 0; i < 20000; ++i)
    ASSERT_TRUE(ram->Resolve(Gfn(5), MemoryKind::kPrivate, Level::k4K).ok());
  stop = true;
  discards.join();
  const bool ready = ram->Ready(Gfn(5), MemoryKind::kPrivate).has_value();
  if (ready) {
    EXPECT_EQ(ram->allocated_bytes(MemoryKind::kPrivate), 4096u);
  }
  ASSERT_TRUE(ram->Resolve(Gfn(5), MemoryKind::kPrivate, Level::k4K).ok());
  EXPECT_TRUE(ram->Ready(Gfn(5), MemoryKind::kPrivate));
  EXPECT_EQ(ram->allocated_bytes(MemoryKind::kPrivate), 4096u);
}

TEST(GuestRam, AWholeLeafIsAllocatedWhenItIsWantedAndNeverClaimedWithoutAPage) {
  HpaSpace space;
  const auto ram = *GuestRam::Create(4 * kMiB, &space, Commit::kWholeLeaves);
  const auto resolve = [&](uint64_t gfn, Level wanted) {
    const auto page = ram->Resolve(Gfn(gfn), MemoryKind::kPrivate, wanted);
    EXPECT_TRUE(page.ok()) << page.status();
    return page->max_level;
  };
  EXPECT_EQ(resolve(5, Level::k4K), Level::k4K);
  EXPECT_EQ(ram->allocated_bytes(MemoryKind::kPrivate), 4096u);
  EXPECT_FALSE(ram->Ready(Gfn(5), MemoryKind::kPrivate)) << "a larger leaf may be wanted";
  EXPECT_EQ(resolve(5, Level::k2M), Level::k2M);
  EXPECT_EQ(ram->allocated_bytes(MemoryKind::kPrivate), 2 * kMiB);
  EXPECT_EQ(ram->Ready(Gfn(511), MemoryKind::kPrivate), Level::k2M);
  EXPECT_FALSE(ram->Ready(Gfn(512), MemoryKind::kPrivate));
  ram->Discard({Gfn(7), 1}, MemoryKind::kPrivate);
  EXPECT_FALSE(ram->Ready(Gfn(5), MemoryKind::kPrivate));
  EXPECT_EQ(resolve(5, Level::k4K), Level::k4K);
  EXPECT_EQ(ram->allocated_bytes(MemoryKind::kPrivate), 2 * kMiB - 4096) << "not without a wish";
  EXPECT_EQ(resolve(7, Level::k2M), Level::k2M);
  EXPECT_EQ(ram->Ready(Gfn(5), MemoryKind::kPrivate), Level::k2M);
  EXPECT_EQ(ram->leaves_without_memory(), 0u);
}

TEST(GuestRam, ResolveOutsideEverySlotIsRefused) {
  HpaSpace space;
  const auto ram = Make(4 * kMiB, space);
  EXPECT_EQ(ram->Resolve(Gfn(4 * kMiB >> 12), MemoryKind::kPrivate, Level::k4K).status().code(),
            absl::StatusCode::kFailedPrecondition);
}

TEST(GuestRam, DiscardZeroesExactlyTheRangeAndFreesIt) {
  HpaSpace space;
  const auto ram = Make(4 * kMiB, space);
  std::byte* bytes = ram->slots()[0].private_pages.data();
  std::memset(bytes, 0x77, 4 * 4096);
  ram->Discard({Gfn(1), 2}, MemoryKind::kPrivate);
  EXPECT_EQ(ram->allocated_bytes(MemoryKind::kPrivate), 2 * 4096u);
  for (int page = 0; page < 4; ++page) {
    const std::byte expected = page == 1 || page == 2 ? std::byte{0} : std::byte{0x77};
    EXPECT_EQ(bytes[page * 4096], expected) << page;
    EXPECT_EQ(bytes[page * 4096 + 4095], expected) << page;
  }
}

TEST(GuestRam, CopyTakesTheBytesAndLeavesHolesZero) {
  HpaSpace space;
  const auto ram = Make(4 * kMiB, space);
  std::byte* from = ram->slots()[0].private_pages.data();
  const std::byte* to = ram->slots()[0].shared_pages.data();
  from[0] = std::byte{1};                // page 0
  from[2 * 4096 + 4095] = std::byte{2};  // page 2; page 1 is a hole
  from[5 * 4096] = std::byte{3};         // outside the range
  ram->Copy({Gfn(0), 4}, MemoryKind::kPrivate, MemoryKind::kShared);
  EXPECT_EQ(to[0], std::byte{1});
  EXPECT_EQ(to[4096], std::byte{0});
  EXPECT_EQ(to[2 * 4096 + 4095], std::byte{2});
  EXPECT_EQ(to[5 * 4096], std::byte{0});
}

TEST(GuestRam, PiecesCrossNoHoleBetweenTheSlots) {
  HpaSpace space;
  const auto ram = Make(4 * kGiB, space);
  int calls = 0;
  auto count = [&](std::byte*, uint64_t) { ++calls; };
  EXPECT_TRUE(ram->ForEachPiece(3 * kGiB - 8, 8, MemoryKind::kShared, count));
  EXPECT_EQ(calls, 1);
  EXPECT_FALSE(ram->ForEachPiece(3 * kGiB - 8, 9, MemoryKind::kShared, count));
  EXPECT_FALSE(ram->ForEachPiece(~uint64_t{0} - 4, 8, MemoryKind::kShared, count));
  EXPECT_EQ(calls, 1) << "a refused range is not touched at all";
}

TEST(GuestRam, AddedSlotsComeMoveAndGo) {
  HpaSpace space;
  const auto ram = *GuestRam::Create(16 * kMiB, &space);
  const GfnRange range = {Gfn(0x8000), 0x400};
  const auto slot = ram->Add(range, &space);
  ASSERT_TRUE(slot.ok()) << slot.status();
  EXPECT_EQ(ram->Added(range.first), *slot);
  EXPECT_EQ(ram->added_bytes(), 4 * kMiB);
  EXPECT_EQ(ram->Memslots().size(), 2u);
  EXPECT_EQ(ram->Resolve(Gfn(0x8005), MemoryKind::kShared, Level::k4K)->pfn,
            mmu::PfnOf((*slot)->shared_pages.hpa()) + 5);
  (*slot)->shared_pages.data()[5 * 4096] = std::byte{7};

  ASSERT_TRUE(ram->Move(range, Gfn(0x9000)).ok());
  EXPECT_EQ(ram->Resolve(Gfn(0x8005), MemoryKind::kShared, Level::k4K).status().code(),
            absl::StatusCode::kFailedPrecondition);
  std::byte seen{};
  EXPECT_TRUE(ram->ForEachPiece(0x9005000, 1, MemoryKind::kShared,
                                [&](std::byte* data, uint64_t) { seen = *data; }));
  EXPECT_EQ(seen, std::byte{7});

  ram->Remove(Gfn(0x9000));
  EXPECT_EQ(ram->Added(Gfn(0x9000)), nullptr);
  EXPECT_EQ(ram->added_slots(), 0u);
  EXPECT_FALSE(ram->Resolve(Gfn(0x9005), MemoryKind::kShared, Level::k4K).ok());
  EXPECT_EQ(ram->allocated_bytes(MemoryKind::kShared), 0u);
}

TEST(GuestRam, AddedSlotsDoNotOverlap) {
  HpaSpace space;
  const auto ram = *GuestRam::Create(16 * kMiB, &space);
  EXPECT_EQ(ram->Add({Gfn(0xe00), 0x400}, &space).status().code(),
            absl::StatusCode::kAlreadyExists);
  ASSERT_TRUE(ram->Add({Gfn(0x1000), 0x400}, &space).ok());
  EXPECT_EQ(ram->Add({Gfn(0x1200), 0x400}, &space).status().code(),
            absl::StatusCode::kAlreadyExists);
  EXPECT_FALSE(ram->Move({Gfn(0), 0x1000}, Gfn(0x8000)).ok());
}

TEST(GuestRam, PopulateAllocatesOneKindAcrossSlots) {
  HpaSpace space;
  const auto ram = *GuestRam::Create(2 * kMiB, &space);
  ASSERT_TRUE(ram->Add({Gfn(0x200), 0x200}, &space).ok());
  ASSERT_TRUE(ram->Populate({Gfn(0x1ff), 3}, MemoryKind::kPrivate).ok());
  EXPECT_EQ(ram->allocated_bytes(MemoryKind::kPrivate), 3u * 4096);
  EXPECT_EQ(ram->allocated_bytes(MemoryKind::kShared), 0u);
}

}  // namespace
}  // namespace twinroot::memory
