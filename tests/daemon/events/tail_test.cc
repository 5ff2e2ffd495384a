#include "daemon/events/tail.h"

#include "gtest/gtest.h"

namespace twinroot::events {
namespace {

SharedEvent AnEvent() { return std::make_shared<const SealedEvent>(v1::Event()); }

TEST(Tail, WhatWaitsIsNotRead) {
  Tail tail(10, 100, 100);
  EXPECT_TRUE(tail.Append(AnEvent()));
  EXPECT_EQ(tail.next(), 11u);
  EXPECT_EQ(tail.committed(), 10u);
  EXPECT_TRUE(tail.Read(10, 99, 99).empty());
  ASSERT_EQ(tail.Take(10).size(), 1u);
  EXPECT_TRUE(tail.Commit(11).empty());
  EXPECT_EQ(tail.waiting(), 0u);
  ASSERT_EQ(tail.Read(10, 99, 99).size(), 1u);
  EXPECT_EQ(tail.Read(10, 99, 99)[0].position, 10u);
  EXPECT_TRUE(tail.Read(10, 10, 99).empty());
}

TEST(Tail, KeepsTheNewestCommittedOnes) {
  Tail tail(0, 3, 100);
  for (int i = 0; i < 5; ++i) tail.Append(AnEvent());
  EXPECT_EQ(tail.Commit(5).size(), 2u);
  EXPECT_EQ(tail.first(), 2u);
  EXPECT_EQ(tail.Read(2, 99, 2).size(), 2u);
}

TEST(Tail, WhatWaitsIsKeptHoweverMuchIsCommitted) {
  Tail tail(0, 1, 100);
  for (int i = 0; i < 5; ++i) tail.Append(AnEvent());
  EXPECT_EQ(tail.Commit(3).size(), 2u);
  EXPECT_EQ(tail.waiting(), 2u);
  EXPECT_EQ(tail.first(), 2u);
}

TEST(Tail, WhatFindsNoRoomBecomesOneHole) {
  Tail tail(0, 100, 2);
  EXPECT_TRUE(tail.Append(AnEvent()));
  EXPECT_TRUE(tail.Append(AnEvent()));
  for (int i = 0; i < 5; ++i) EXPECT_FALSE(tail.Append(AnEvent()));
  EXPECT_EQ(tail.next(), 7u);
  const std::vector<Entry> all = tail.Take(10);
  ASSERT_EQ(all.size(), 3u);
  EXPECT_EQ(all[2].what, Entry::What::kLost);
  EXPECT_EQ(all[2].position, 2u);
  EXPECT_EQ(all[2].count, 5u);
}

TEST(Tail, AHoleThatTheWriterTookGrowsNoMore) {
  Tail tail(0, 100, 1);
  tail.Append(AnEvent());
  tail.Append(AnEvent());
  const std::vector<Entry> taken = tail.Take(10);
  tail.Append(AnEvent());
  EXPECT_EQ(taken.back().end(), 2u);
  tail.Commit(2);
  const std::vector<Entry> rest = tail.Take(10);
  ASSERT_EQ(rest.size(), 1u);
  EXPECT_EQ(rest[0].what, Entry::What::kLost);
  EXPECT_EQ(rest[0].position, 2u);
  EXPECT_EQ(rest[0].count, 1u);
}

TEST(Tail, AFailedBatchIsTakenAgain) {
  Tail tail(0, 100, 100);
  for (int i = 0; i < 3; ++i) tail.Append(AnEvent());
  EXPECT_EQ(tail.Take(2).size(), 2u);
  EXPECT_EQ(tail.Take(10).size(), 3u);
}

TEST(Tail, ReadBeginsInsideAHole) {
  Tail tail(0, 100, 1);
  for (int i = 0; i < 4; ++i) tail.Append(AnEvent());
  tail.Commit(4);
  const std::vector<Entry> read = tail.Read(2, 99, 99);
  ASSERT_EQ(read.size(), 1u);
  EXPECT_EQ(read[0].position, 1u);
  EXPECT_EQ(read[0].end(), 4u);
}

}  // namespace
}  // namespace twinroot::events
