// The facade: configuration, memslots, user-facing calls, zap, hole, audit.
#include "mmu/vm/guest_address_space.h"

#include <gtest/gtest.h>

#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "mmu/hw/ept_entry.h"
#include "tests/fakes/test_space.h"

namespace twinroot::mmu {
namespace {

constexpr auto kPrivate = MemoryKind::kPrivate;
constexpr auto kShared = MemoryKind::kShared;
using Calls = std::vector<std::string>;

// Half private, half shared, all mapped as 2M leaves.
void MapBothKinds(TestSpace& t) {
  ASSERT_TRUE(t.Convert({Frames(1024, 1024)}, kShared).ok());
  for (const uint64_t gfn : {0, 512}) ASSERT_TRUE(t.Fixes(gfn, kPrivate));
  for (const uint64_t gfn : {1024, 1536}) ASSERT_TRUE(t.Fixes(gfn, kShared));
  t.log.Take();
}

TEST(GuestAddressSpaceTest, A1_SlotsAndAttributesAreKeyedByTheStrippedFrame) {
  TestSpace t;
  ASSERT_TRUE(t.Convert({Frames(5, 1)}, kShared).ok());
  // The same frame, through the alias that has the stolen bit.
  EXPECT_TRUE(t.Fixes(5, kShared));
  EXPECT_EQ(t.space->GetMemoryAttributes(Frames(5, 1))->at(0).kind, kShared);
  EXPECT_EQ(t.space->Translate(Gpa(0x5000), kShared)->hpa, HpaOf(TestSpace::kSharedPfn + 5));
}

TEST(GuestAddressSpaceTest, A4_ZapReachesEveryAlias) {
  TestSpace t;
  MapBothKinds(t);
  t.pages.Mark(Gfn(600), kPrivate) = 42;
  ASSERT_TRUE(t.space->Zap(Frames(600, 1000)).ok());
  EXPECT_TRUE(t.IsMapped(0, kPrivate));
  EXPECT_FALSE(t.IsMapped(512, kPrivate));
  EXPECT_FALSE(t.IsMapped(1024, kShared));
  EXPECT_FALSE(t.IsMapped(1536, kShared));
  EXPECT_EQ(t.pages.Mark(Gfn(600), kPrivate), 42u);
  EXPECT_EQ(t.space->GetMemoryAttributes().size(), 2u);
  EXPECT_TRUE(t.space->Audit().ok()) << t.space->Audit();
}

TEST(GuestAddressSpaceTest, A5_FlushesCoverEveryAliasAsItsWalkNumbersTheFrames) {
  TestSpace t;
  MapBothKinds(t);
  ASSERT_TRUE(t.space->Zap(Frames(520, 600)).ok());
  EXPECT_EQ(t.log.Take(), (Calls{"flush private 0x200+512",
                                 CallText("flush", kShared, t.Alias(1024, kShared).value, 512)}));
  EXPECT_EQ(t.space->stats().flushes_range, 2u);
}

TEST(GuestAddressSpaceTest, A6_StolenBitsNeed64BitPagingWithoutNestedEpt) {
  TestSpace t;
  GuestAddressSpace::Environment env{.pool = &t.pool, .pages = &t.pages};
  for (const bool stolen : {false, true}) {
    const GpaLayout layout =
        *GpaLayout::Create(stolen ? std::optional<int>(46) : std::nullopt, 48, 46);
    for (const bool legacy : {false, true}) {
      for (const bool nested : {false, true}) {
        const auto made = GuestAddressSpace::Create({.layout = layout,
                                                     .capabilities = {},
                                                     .legacy_guest_paging = legacy,
                                                     .nested_ept = nested},
                                                    env);
        EXPECT_EQ(made.ok(), !stolen || (!legacy && !nested)) << stolen << legacy << nested;
        if (!made.ok()) {
          EXPECT_TRUE(absl::IsInvalidArgument(made.status()));
          EXPECT_NE(made.status().ToString().find(legacy ? "32-bit" : "nested"), std::string::npos);
        }
      }
    }
  }
}

TEST(GuestAddressSpaceTest, ConfigurationsBeyondTheHardwareAreRefused) {
  TestSpace t;
  GuestAddressSpace::Environment env{.pool = &t.pool, .pages = &t.pages};
  const GpaLayout five = *GpaLayout::Create(51, 57, 51);
  EptCapabilities four_only;
  four_only.walk_length_5 = false;
  const auto code = [&](const GuestAddressSpace::Config& config) {
    return GuestAddressSpace::Create(config, env).status().code();
  };
  EXPECT_EQ(code({.layout = five, .capabilities = four_only}), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code({.layout = five, .host_maxphyaddr = 38, .capabilities = {}}),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code({.layout = five, .capabilities = {}}), absl::StatusCode::kOk);
  env.pages = nullptr;
  EXPECT_EQ(code({.layout = five, .capabilities = {}}), absl::StatusCode::kInvalidArgument);
}

TEST(GuestAddressSpaceTest, BadMemslotsAreRefusedAndChangeNothing) {
  TestSpace t;
  const auto add = [&](GfnRange range, std::optional<Pfn> mine, std::optional<Pfn> ours) {
    return t.space->AddMemslot({.range = range, .private_pfn = mine, .shared_pfn = ours}).code();
  };
  const Pfn free(uint64_t{1} << 24);
  const auto invalid = absl::StatusCode::kInvalidArgument;
  EXPECT_EQ(add(Frames(4096, 0), free, {}), invalid);
  EXPECT_EQ(add(Frames(4096, 1), {}, {}), invalid);
  EXPECT_EQ(add(Frames((uint64_t{1} << 34) - 1, 2), free, {}), invalid);
  EXPECT_EQ(add(Frames(4096, ~uint64_t{0}), free, {}), invalid);
  EXPECT_EQ(add(Frames(4096, 2), Pfn((uint64_t{1} << 40) - 1), {}), invalid);
  EXPECT_EQ(add(Frames(4096, 2), free, free + 1), invalid);
  EXPECT_EQ(add(Frames(4096, 2), TestSpace::kSharedPfn + 2047, {}), invalid);
  EXPECT_EQ(add(Frames(4096, 2), PfnOf(TestSpace::kPoolBase), {}), invalid);
  EXPECT_EQ(add(Frames(2047, 2), free, {}), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(t.space->stats().private_frames_attribute, 2048u);
  EXPECT_EQ(add(Frames(4096, 2), free, {}), absl::StatusCode::kOk);
  EXPECT_EQ(t.space->stats().private_frames_attribute, 2050u);
  EXPECT_EQ(t.space->GetMemoryAttributes().size(), 2u);
  EXPECT_TRUE(t.space->Audit().ok()) << t.space->Audit();
}

TEST(GuestAddressSpaceTest, A7_UserFacingCallsTakeOnlyUnaliasedAddresses) {
  TestSpace t;
  const GfnRange alias = Frames(t.Alias(5, kShared).value, 1);
  EXPECT_TRUE(absl::IsInvalidArgument(t.space->GetMemoryAttributes(alias).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(t.Convert({alias}, kShared).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(t.space->Zap(alias)));
  EXPECT_TRUE(absl::IsInvalidArgument(t.space->PunchHole(alias, kShared)));
  EXPECT_TRUE(absl::IsInvalidArgument(t.space->WithSharedPages(alias, [] { FAIL(); })));
  EXPECT_TRUE(absl::IsInvalidArgument(
      t.space->Translate(t.space->layout().GpaOf(Gfn(5), kShared), kShared).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(t.space->AddMemslot(
      {.range = alias, .private_pfn = Pfn(uint64_t{1} << 24), .shared_pfn = {}})));
  EXPECT_TRUE(t.space->Translate(Gpa(0x5000), kShared).ok());
}

TEST(GuestAddressSpaceTest, AttributesComeAsMaximalRuns) {
  TestSpace t;
  ASSERT_TRUE(t.Convert({Frames(10, 5), Frames(20, 1)}, kShared).ok());
  const auto all = t.space->GetMemoryAttributes();
  ASSERT_EQ(all.size(), 5u);
  EXPECT_EQ(all[1].range, Frames(10, 5));
  EXPECT_EQ(all[1].kind, kShared);
  EXPECT_EQ(all[4].range, Frames(21, 2027));
  const auto part = *t.space->GetMemoryAttributes(Frames(12, 4));
  ASSERT_EQ(part.size(), 2u);
  EXPECT_EQ(part[0].range, Frames(12, 3));
  EXPECT_EQ(part[1].range, Frames(15, 1));
  EXPECT_TRUE(absl::IsInvalidArgument(t.space->GetMemoryAttributes(Frames(2040, 9)).status()));
}

TEST(GuestAddressSpaceTest, D7_PunchingAHoleZeroesExactlyThatRange) {
  TestSpace t;
  MapBothKinds(t);
  for (uint64_t gfn = 0; gfn < 1024; ++gfn) t.pages.Mark(Gfn(gfn), kPrivate) = gfn + 1;
  ASSERT_TRUE(t.space->PunchHole(Frames(500, 20), kPrivate).ok());
  for (uint64_t gfn = 0; gfn < 1024; ++gfn) {
    const bool inside = gfn >= 500 && gfn < 520;
    EXPECT_EQ(t.pages.Mark(Gfn(gfn), kPrivate), inside ? 0 : gfn + 1) << gfn;
  }
  EXPECT_FALSE(t.IsMapped(505, kPrivate));
  EXPECT_FALSE(t.IsMapped(512, kPrivate));
  EXPECT_TRUE(t.IsMapped(1024, kShared));
  EXPECT_EQ(t.log.Take(), (Calls{"flush private 0x0+1024", "discard private 0x1f4+20"}));
  EXPECT_EQ(t.space->GetMemoryAttributes().size(), 2u);
  EXPECT_TRUE(t.Fixes(505, kPrivate));
  EXPECT_TRUE(t.space->Audit().ok()) << t.space->Audit();
}

TEST(GuestAddressSpaceTest, WithSharedPagesRunsOnlyOverSharedMemory) {
  TestSpace t;
  ASSERT_TRUE(t.Convert({Frames(10, 10)}, kShared).ok());
  int runs = 0;
  EXPECT_TRUE(t.space->WithSharedPages(Frames(12, 8), [&] { ++runs; }).ok());
  const absl::Status denied = t.space->WithSharedPages(Frames(15, 10), [&] { ++runs; });
  EXPECT_TRUE(absl::IsPermissionDenied(denied));
  EXPECT_NE(denied.ToString().find("0x14000"), std::string::npos) << denied;
  EXPECT_TRUE(absl::IsInvalidArgument(t.space->WithSharedPages(Frames(2040, 10), [&] { ++runs; })));
  EXPECT_EQ(runs, 1);
}

TEST(GuestAddressSpaceTest, WithSharedPagesWaitsForAChangeUnderWay) {
  TestSpace t;
  ASSERT_TRUE(t.Convert({Frames(10, 1)}, kShared).ok());
  std::atomic<bool> ran{false};
  std::thread reader;
  t.pages.on_content = [&](GfnRange) {
    reader = std::thread([&] {
      const absl::Status status = t.space->WithSharedPages(Frames(10, 1), [&] { ran = true; });
      EXPECT_TRUE(absl::IsPermissionDenied(status)) << status;
    });
    // Long enough for the reader to run into the change; it must not see half of it.
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    EXPECT_FALSE(ran);
  };
  ASSERT_TRUE(t.Convert({Frames(10, 1)}, kPrivate).ok());
  reader.join();
  EXPECT_FALSE(ran);
}

TEST(GuestAddressSpaceTest, TranslateNamesEveryStepAndStopsWhereNothingIsMapped) {
  TestSpace t;
  const Translation empty = *t.space->Translate(Gpa(0x5000), kPrivate);
  EXPECT_EQ(empty.steps.size(), 1u);
  EXPECT_FALSE(empty.mapped);
  EXPECT_EQ(empty.attribute, kPrivate);
  EXPECT_TRUE(
      absl::IsInvalidArgument(t.space->Translate(Gpa(uint64_t{1} << 47), kPrivate).status()));
}

TEST(GuestAddressSpaceTest, ProcessorsMaySetAccessedAndDirtyAtAnyTime) {
  TestSpace t;
  ASSERT_TRUE(t.Fixes(5, kPrivate));
  const Translation walk = *t.space->Translate(Gpa(0x5000), kPrivate);
  for (const TranslationStep& step : walk.steps) {
    auto* word = reinterpret_cast<std::atomic<uint64_t>*>(t.pool_memory.get() +
                                                          (step.entry_hpa - TestSpace::kPoolBase));
    word->fetch_or(EptEntry::kAccessed | (&step == &walk.steps.back() ? EptEntry::kDirty : 0));
  }
  EXPECT_TRUE(std::holds_alternative<Spurious>(t.Touch(5, kPrivate)));
  EXPECT_TRUE(t.space->Audit().ok()) << t.space->Audit();
  ASSERT_TRUE(t.space->Zap(Frames(0, 2048)).ok());
  t.space->ReclaimTables(100);
  EXPECT_EQ(t.space->stats().table_pages, 2u);
  EXPECT_TRUE(t.space->Audit().ok()) << t.space->Audit();
  EXPECT_TRUE(t.Fixes(5, kPrivate));
}

// Damages the tables as a bug of ours could, and expects the auditor to say what is wrong.
class AuditTest : public testing::Test {
 protected:
  AuditTest() {
    EXPECT_TRUE(t_.Convert({Frames(1024, 1024)}, kShared).ok());
    EXPECT_TRUE(t_.Fixes(5, kPrivate));
    EXPECT_TRUE(t_.Fixes(1030, kShared));
    EXPECT_TRUE(t_.space->Audit().ok()) << t_.space->Audit();
  }
  std::atomic<uint64_t>& Word(uint64_t gfn, MemoryKind kind, size_t step) {
    const Translation walk = *t_.space->Translate(Gpa(gfn << 12), kind);
    return *reinterpret_cast<std::atomic<uint64_t>*>(
        t_.pool_memory.get() + (walk.steps.at(step).entry_hpa - TestSpace::kPoolBase));
  }
  void ExpectViolation(const std::string& words) {
    const absl::Status status = t_.space->Audit();
    EXPECT_TRUE(absl::IsInternal(status));
    EXPECT_NE(status.ToString().find(words), std::string::npos) << status;
  }

  TestSpace t_{{.max_level = Level::k4K}};
};

TEST_F(AuditTest, D8_FindsAPrivateFrameInTheSharedRoot) {
  Word(1030, kShared, 3) = HpaOf(TestSpace::kPrivatePfn + 1030).value | 0xC37;
  ExpectViolation("maps a frame of another backing");
}
TEST_F(AuditTest, F11_FindsALeafThatContradictsTheAttribute) {
  // A shared leaf right beside a true one, over a frame that is private.
  ASSERT_TRUE(t_.Convert({Frames(0, 16)}, kShared).ok());
  ASSERT_TRUE(t_.Fixes(6, kShared));
  ASSERT_TRUE(t_.Convert({Frames(0, 6), Frames(7, 9)}, kPrivate).ok());
  (&Word(6, kShared, 3))[1] = HpaOf(TestSpace::kSharedPfn + 7).value | 0xC37;
  ExpectViolation("contradicts the attribute");
}
TEST_F(AuditTest, F11_FindsAFrozenEntryAtRest) {
  Word(5, kPrivate, 3) = (uint64_t{1} << 62) | (uint64_t{0x5A} << 52);
  ExpectViolation("is frozen at rest");
}
TEST_F(AuditTest, F11_FindsAMisconfiguration) {
  Word(5, kPrivate, 3) &= ~EptEntry::kRead;
  ExpectViolation("is misconfigured");
}
TEST_F(AuditTest, F11_FindsALinkOutsideThePool) {
  Word(5, kPrivate, 1) = 0xC07;
  ExpectViolation("links a page outside the pool");
}
TEST_F(AuditTest, F11_FindsATableReachedFromTheWrongRoot) {
  Word(1030, kShared, 2) = Word(5, kPrivate, 2).load();
  ExpectViolation("links a table of another identity");
}
TEST_F(AuditTest, F10_FindsAWrongCountOfLeaves) {
  Word(5, kPrivate, 3) = 0;
  ExpectViolation("found 0 private leaves of level 1, counted 1");
}
TEST_F(AuditTest, F10_FindsAWrongCountOfTables) {
  Word(5, kPrivate, 2) = 0;
  ExpectViolation("tables, counted");
}
TEST_F(AuditTest, F11_FindsAWordThatIsNeitherEmptyNorPresent) {
  (&Word(5, kPrivate, 3))[1] = uint64_t{1} << 60;
  ExpectViolation("is neither empty, a mark, a link nor a leaf");
}
TEST_F(AuditTest, F11_FindsATableThatIsReachedTwice) {
  // In the next entry, with the name that a table there would have: only the visit tells.
  (&Word(5, kPrivate, 2))[1] = Word(5, kPrivate, 2).load();
  EXPECT_FALSE(t_.space->Audit().ok());
}

}  // namespace
}  // namespace twinroot::mmu
