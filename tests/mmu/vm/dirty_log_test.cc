// The parts of the dirty log by themselves: bitmap, ring, and the log over memslots.
#include "mmu/vm/dirty_log.h"

#include <gtest/gtest.h>

#include <atomic>
#include <bit>
#include <thread>

#include "tests/fakes/test_space.h"

namespace twinroot::mmu {
namespace {

TEST(DirtyBitmapTest, WordsAreAlignedToFramesOfTheGuestWhereverTheSlotBegins) {
  const auto bitmap = DirtyBitmap::Create(Frames(70, 100));
  ASSERT_NE(bitmap, nullptr);
  EXPECT_EQ(bitmap->first(), Gfn(64));
  EXPECT_EQ(bitmap->words(), 2u);
  bitmap->Mark(Gfn(70));
  bitmap->Mark(Gfn(169));
  EXPECT_EQ(bitmap->Word(0), uint64_t{1} << 6);
  EXPECT_EQ(bitmap->Word(1), uint64_t{1} << 41);
}

TEST(DirtyBitmapTest, ARangeSetsItsBitsAndNoOther) {
  for (uint64_t first : {0, 1, 63, 64, 100}) {
    for (uint64_t count : {1, 2, 63, 64, 65, 128, 130}) {
      const auto bitmap = DirtyBitmap::Create(Frames(0, 256));
      bitmap->MarkRange(Frames(first, count));
      for (uint64_t i = 0; i < 256; ++i) {
        EXPECT_EQ(bitmap->Word(i / 64) >> i % 64 & 1, i >= first && i < first + count);
      }
    }
  }
}

TEST(DirtyBitmapTest, TakeTakesTheMaskAndLeavesTheRest) {
  const auto bitmap = DirtyBitmap::Create(Frames(0, 64));
  bitmap->MarkRange(Frames(0, 8));
  EXPECT_EQ(bitmap->Take(0, 0x3C), 0x3Cu);
  EXPECT_EQ(bitmap->Word(0), 0xC3u);
  EXPECT_EQ(bitmap->Take(0, 0x3C), 0u);
}

TEST(DirtyBitmapTest, F3_NoMarkIsLostBesideATaker) {
  const auto bitmap = DirtyBitmap::Create(Frames(0, 64));
  constexpr int kMarks = 2000;
  std::atomic<uint64_t> taken{0};
  std::atomic<bool> stop{false};
  // Marks one bit, waits until it was taken, marks it again.
  std::thread taker([&] {
    while (!stop) {
      taken += static_cast<uint64_t>(std::popcount(bitmap->Take(0, ~uint64_t{0})));
      std::this_thread::yield();
    }
  });
  for (int i = 0; i < kMarks; ++i) {
    bitmap->Mark(Gfn(static_cast<uint64_t>(i % 64)));
    while (bitmap->Word(0) >> i % 64 & 1) std::this_thread::yield();
  }
  stop = true;
  taker.join();
  EXPECT_EQ(taken, static_cast<uint64_t>(kMarks));
}

TEST(DirtyRingTest, IsSoftFullBeforeItIsFullAndKeepsTheOrder) {
  DirtyRing ring(DirtyRing::kReserve + 2);
  EXPECT_TRUE(ring.Push(Gfn(9)));
  EXPECT_FALSE(ring.soft_full());
  EXPECT_TRUE(ring.Push(Gfn(3)));
  EXPECT_TRUE(ring.soft_full());
  for (size_t i = 0; i < DirtyRing::kReserve; ++i) EXPECT_TRUE(ring.Push(Gfn(100 + i)));
  EXPECT_FALSE(ring.Push(Gfn(1000)));
  EXPECT_EQ(ring.Take(2), (std::vector<Gfn>{Gfn(9), Gfn(3)}));
  EXPECT_TRUE(ring.Push(Gfn(1000))) << "around the end";
  EXPECT_EQ(ring.Take(1000).back(), Gfn(1000));
  EXPECT_EQ(ring.size(), 0u);
  EXPECT_FALSE(ring.soft_full());
}

TEST(DirtyLogTest, F3_WhatARingHasNoRoomForGoesToTheBitmap) {
  DirtyLogOptions options{.ring_entries = 130, .ring_vcpus = 1};
  const auto log = *DirtyLog::Create(options, {Frames(0, 1000)});
  for (uint64_t i = 0; i < 131; ++i) log->Mark(Gfn(i), 0);
  EXPECT_TRUE(log->SoftFull(0));
  EXPECT_EQ(log->ring(0)->size(), 130u);
  EXPECT_EQ(log->bitmaps()[0]->Word(2), uint64_t{1} << 2);
  log->Mark(Gfn(7), 5);
  EXPECT_EQ(log->bitmaps()[0]->Word(0), uint64_t{1} << 7) << "a vCPU without a ring";
}

TEST(DirtyLogTest, MarksLandInTheirSlotsAndNowhereElse) {
  const auto log = *DirtyLog::Create({}, {Frames(0, 64), Frames(100, 60)});
  log->MarkRange(Frames(60, 50));
  log->MarkPage(Gfn(80));
  log->MarkPage(Gfn(1000));
  EXPECT_EQ(log->bitmaps()[0]->Word(0), uint64_t{0xF} << 60);
  EXPECT_EQ(log->bitmaps()[1]->Word(0), uint64_t{0x3FF} << 36);
}

TEST(DirtyLogTest, SlotsThatStayKeepTheirMarks) {
  const auto log = *DirtyLog::Create({}, {Frames(0, 64), Frames(64, 64)});
  log->MarkPage(Gfn(5));
  const auto next = *log->ForSlots({Frames(0, 64), Frames(512, 64)});
  EXPECT_EQ(next->bitmaps()[0]->Word(0), uint64_t{1} << 5);
  EXPECT_EQ(next->bitmaps()[1]->Word(0), 0u);
}

TEST(DirtyLogTest, F4_InitiallyAllSetSetsTheSlotsBitsOnly) {
  const DirtyLogOptions options{.clear = DirtyClear::kManual, .initially_all_set = true};
  const auto log = *DirtyLog::Create(options, {Frames(60, 8)});
  EXPECT_EQ(log->bitmaps()[0]->Word(0), uint64_t{0xF} << 60);
  EXPECT_EQ(log->bitmaps()[0]->Word(1), 0xFu);
}

}  // namespace
}  // namespace twinroot::mmu
