// Stolen bits: aliases of one frame, in one root and in two (A2 to A5, A10, A11), and where the
// bits may lie.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "mmu/hw/ept_entry.h"
#include "mmu/hw/soft_bits.h"
#include "tests/fakes/test_space.h"

namespace twinroot::mmu {
namespace {

constexpr auto kPrivate = MemoryKind::kPrivate;
constexpr auto kShared = MemoryKind::kShared;
constexpr auto kOneRoot = RootArrangement::kOneRoot;
using Calls = std::vector<std::string>;

TestSpaceOptions With(RootArrangement arrangement, std::optional<int> execute_only_bit = {}) {
  TestSpaceOptions options;
  options.arrangement = arrangement;
  options.execute_only_bit = execute_only_bit;
  return options;
}

TEST(AliasesTest, A2_InOneRootTheSharedBitIsPartOfTheIndexAndNothingElse) {
  TestSpace t(With(kOneRoot));
  ASSERT_TRUE(t.create_status.ok()) << t.create_status;
  ASSERT_TRUE(t.Convert({Frames(512, 512)}, kShared).ok());
  ASSERT_TRUE(t.Fixes(0, kPrivate));
  ASSERT_TRUE(t.Fixes(512, kShared));
  const Translation mine = *t.space->Translate(Gpa(0), kPrivate);
  const Translation ours = *t.space->Translate(Gpa(512 << 12), kShared);
  EXPECT_EQ(mine.ept_pointer.raw(), ours.ept_pointer.raw());
  EXPECT_EQ(mine.steps[0].index, 0u);
  EXPECT_EQ(ours.steps[0].index, 128u);  // bit 46
  EXPECT_EQ(mine.hpa, HpaOf(TestSpace::kPrivatePfn));
  EXPECT_EQ(ours.hpa, HpaOf(TestSpace::kSharedPfn + 512));
  EXPECT_FALSE(t.IsMapped(512, kPrivate));
  EXPECT_FALSE(t.IsMapped(0, kShared));
  EXPECT_EQ(t.space->stats().table_pages, 5u);  // one root, two paths of two
  EXPECT_TRUE(t.space->Audit().ok()) << t.space->Audit();
}

TEST(AliasesTest, A3_ReservedBitsAreCheckedWithoutTheStolenOnesWhereverThoseLie) {
  for (const RootArrangement arrangement : {RootArrangement::kTwoRoots, kOneRoot}) {
    TestSpaceOptions options = With(arrangement, 47);
    options.shared_bit = 46;
    options.guest_maxphyaddr = 40;
    TestSpace t(options);
    ASSERT_TRUE(t.create_status.ok()) << t.create_status;
    EXPECT_TRUE(t.Fixes(5, kPrivate));
    EXPECT_TRUE(std::holds_alternative<MemoryFaultExit>(t.Touch(5, kShared)));
    const uint64_t stolen = t.Alias(5, kShared).value | uint64_t{1} << (47 - kPageShift);
    for (int bit = 40; bit < 46; ++bit) {
      const Gpa wrong((stolen << kPageShift) | uint64_t{1} << bit);
      const FaultOutcome outcome = t.space->HandleFault({wrong, Access::Fetch()});
      ASSERT_TRUE(std::holds_alternative<Failed>(outcome)) << bit;
      EXPECT_TRUE(absl::IsInvalidArgument(std::get<Failed>(outcome).status));
    }
  }
}

// Where every alias of a private and of a shared frame is mapped.
class EveryAliasTest : public testing::TestWithParam<RootArrangement> {
 protected:
  EveryAliasTest() : t_(With(GetParam(), 45)) {
    EXPECT_TRUE(t_.create_status.ok()) << t_.create_status;
    EXPECT_TRUE(t_.Convert({Frames(1024, 1024)}, kShared).ok());
    for (const auto& [gfn, kind] : {std::pair{0, kPrivate}, {1024, kShared}}) {
      EXPECT_TRUE(t_.Fixes(gfn, kind));
      EXPECT_TRUE(std::holds_alternative<Fixed>(t_.TouchExecuteOnly(gfn, kind, Access::Fetch())));
      EXPECT_TRUE(t_.IsMapped(gfn, kind));
      EXPECT_TRUE(t_.IsMapped(gfn, kind, /*execute_only=*/true));
    }
    EXPECT_TRUE(t_.space->Audit().ok()) << t_.space->Audit();
    t_.log.Take();
  }
  uint64_t FrameOf(uint64_t gfn, MemoryKind kind, bool execute_only) {
    return t_.space->layout().HwGfnOf(Gfn(gfn), kind, execute_only).value;
  }
  TestSpace t_;
};

TEST_P(EveryAliasTest, A4_ZapAndReclaimReachEveryAlias) {
  ASSERT_TRUE(t_.space->Zap(Frames(5, 1500)).ok());
  for (const bool execute_only : {false, true}) {
    EXPECT_FALSE(t_.IsMapped(0, kPrivate, execute_only));
    EXPECT_FALSE(t_.IsMapped(1024, kShared, execute_only));
  }
  EXPECT_TRUE(t_.space->Audit().ok()) << t_.space->Audit();
}

TEST_P(EveryAliasTest, A4_AConversionReachesEveryAliasOfTheKindThatNoLongerHolds) {
  ASSERT_TRUE(t_.Convert({Frames(5, 1)}, kShared).ok());
  for (const bool execute_only : {false, true}) {
    EXPECT_FALSE(t_.IsMapped(5, kPrivate, execute_only));
    EXPECT_TRUE(t_.IsMapped(0, kPrivate, execute_only)) << "beside it";
    EXPECT_TRUE(t_.IsMapped(1024, kShared, execute_only)) << "of the other kind";
  }
  EXPECT_TRUE(t_.space->Audit().ok()) << t_.space->Audit();
}

TEST_P(EveryAliasTest, A5_FlushesCoverEveryAlias) {
  // A neighbour in each table, so that no table goes and each flush is one large page.
  for (const auto& [gfn, kind] : {std::pair{512, kPrivate}, {1536, kShared}}) {
    ASSERT_TRUE(t_.Fixes(gfn, kind));
    ASSERT_TRUE(std::holds_alternative<Fixed>(t_.TouchExecuteOnly(gfn, kind, Access::Fetch())));
  }
  t_.log.Take();
  ASSERT_TRUE(t_.space->Zap(Frames(5, 1)).ok());
  EXPECT_EQ(t_.log.Take(), (Calls{CallText("flush", kPrivate, FrameOf(0, kPrivate, false), 512),
                                  CallText("flush", kPrivate, FrameOf(0, kPrivate, true), 512)}));
  ASSERT_TRUE(t_.space->Zap(Frames(1030, 1)).ok());
  EXPECT_EQ(t_.log.Take(), (Calls{CallText("flush", kShared, FrameOf(1024, kShared, false), 512),
                                  CallText("flush", kShared, FrameOf(1024, kShared, true), 512)}));
}

TEST_P(EveryAliasTest, A10_TheExecuteOnlyLeafMapsTheSameFrameInTheSameRootAndGrantsOnlyFetches) {
  const Translation plain = *t_.space->Translate(Gpa(0x5000), kPrivate);
  const Translation fetch = *t_.space->Translate(Gpa(0x5000), kPrivate, /*execute_only=*/true);
  EXPECT_EQ(plain.ept_pointer.raw(), fetch.ept_pointer.raw());
  EXPECT_EQ(plain.hpa, fetch.hpa);
  EXPECT_EQ(plain.access, Access::All());
  const uint64_t word = fetch.steps.back().entry;
  EXPECT_EQ(word & EptEntry::kRightsMask, EptEntry::kExecute);
  EXPECT_EQ(word & EptEntry::kAddressMask, plain.steps.back().entry & EptEntry::kAddressMask);
  EXPECT_EQ(fetch.steps[0].index, plain.steps[0].index | 64u);  // bit 45
}

TEST_P(EveryAliasTest, A10_ReadingAndWritingThroughItExitWithWhatIsDenied) {
  for (const Access access : {Access::Read(), Access::Write()}) {
    for (const uint64_t gfn : {5, 600}) {  // with a leaf there, and without
      const FaultOutcome outcome = t_.TouchExecuteOnly(gfn, kPrivate, access);
      ASSERT_TRUE(std::holds_alternative<MemoryFaultExit>(outcome));
      const auto& exit = std::get<MemoryFaultExit>(outcome);
      EXPECT_EQ(exit.denied, access);
      EXPECT_EQ(exit.gpa, Gpa(gfn << kPageShift));
      EXPECT_EQ(exit.wanted, kPrivate);
    }
  }
  // The wrong kind is told before the missing right (D1).
  const FaultOutcome mismatch = t_.TouchExecuteOnly(5, kShared, Access::Read());
  ASSERT_TRUE(std::holds_alternative<MemoryFaultExit>(mismatch));
  EXPECT_EQ(std::get<MemoryFaultExit>(mismatch).denied, Access::None());
}

INSTANTIATE_TEST_SUITE_P(Arrangements, EveryAliasTest,
                         testing::Values(RootArrangement::kTwoRoots, kOneRoot),
                         [](const auto& info) {
                           return info.param == kOneRoot ? "OneRoot" : "TwoRoots";
                         });

TEST(AliasesTest, A10_AnExecuteOnlyAliasNeedsTheCapability) {
  TestSpaceOptions options = With(RootArrangement::kTwoRoots, 45);
  options.capabilities.execute_only = false;
  TestSpace t(options);
  EXPECT_TRUE(absl::IsInvalidArgument(t.create_status)) << t.create_status;
  EXPECT_NE(t.create_status.ToString().find("execute-only"), std::string::npos);
  options.execute_only_bit = std::nullopt;
  TestSpace without(options);
  EXPECT_TRUE(without.create_status.ok()) << without.create_status;
}

TEST(AliasesTest, A10_TranslateKnowsTheAliasOnlyWhereThereIsOne) {
  TestSpace t;
  EXPECT_TRUE(absl::IsInvalidArgument(
      t.space->Translate(Gpa(0x5000), kPrivate, /*execute_only=*/true).status()));
}

TEST(AliasesTest, A7_AnAddressWithTheExecuteOnlyBitIsNoMemoryOfItsOwn) {
  TestSpace t(With(RootArrangement::kTwoRoots, 45));
  const GfnRange alias = Frames((uint64_t{1} << (45 - kPageShift)) + 5, 1);
  EXPECT_TRUE(absl::IsInvalidArgument(t.Convert({alias}, kShared).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(t.space->Zap(alias)));
  EXPECT_TRUE(absl::IsInvalidArgument(
      t.space->Translate(Gpa(alias.first.value << kPageShift), kPrivate).status()));
}

// Bits in every level of the walk, in every order, through every alias first: the auditor must find
// the tables named alike, whoever made them.
struct Bits {
  std::optional<int> shared;
  std::optional<int> execute_only;
  int walk_bits;
};

class LayoutsTest : public testing::TestWithParam<std::tuple<Bits, RootArrangement>> {};

TEST_P(LayoutsTest, A2_EveryAliasIsWalkedByTheRawAddressAndTheAuditAgrees) {
  const auto& [bits, arrangement] = GetParam();
  struct Alias {
    MemoryKind kind;
    bool execute_only;
  };
  std::vector<Alias> aliases = {{kPrivate, false}};
  if (bits.shared) aliases.push_back({kShared, false});
  if (bits.execute_only) {
    aliases.push_back({kPrivate, true});
    if (bits.shared) aliases.push_back({kShared, true});
  }
  for (size_t first = 0; first < aliases.size(); ++first) {
    TestSpaceOptions options = With(arrangement, bits.execute_only);
    options.shared_bit = bits.shared;
    options.walk_bits = bits.walk_bits;
    options.guest_maxphyaddr = 52;
    options.pool_pages = 128;
    TestSpace t(options);
    ASSERT_TRUE(t.create_status.ok()) << t.create_status;
    if (bits.shared) {
      ASSERT_TRUE(t.Convert({Frames(1024, 1024)}, kShared).ok());
    }
    for (size_t i = 0; i < aliases.size(); ++i) {
      const Alias& alias = aliases[(first + i) % aliases.size()];
      const uint64_t gfn = alias.kind == kPrivate ? 5 : 1030;
      const HwGfn frame = t.space->layout().HwGfnOf(Gfn(gfn), alias.kind, alias.execute_only);
      const FaultOutcome outcome =
          t.space->HandleFault({Gpa(frame.value << kPageShift), Access::Fetch()});
      ASSERT_TRUE(std::holds_alternative<Fixed>(outcome)) << first << " " << i;
      const Translation walk =
          *t.space->Translate(Gpa(gfn << kPageShift), alias.kind, alias.execute_only);
      ASSERT_TRUE(walk.mapped);
      EXPECT_EQ(walk.hpa, HpaOf(t.pages.PfnOf(Gfn(gfn), alias.kind)));
      for (const TranslationStep& step : walk.steps) {
        EXPECT_EQ(step.index, EptIndex(frame, step.level));
      }
      ASSERT_TRUE(t.space->Audit().ok()) << first << " " << i << " " << t.space->Audit();
    }
    ASSERT_TRUE(t.space->Zap(Frames(0, 2048)).ok());
    t.space->ReclaimTables(100);
    EXPECT_EQ(t.space->stats().table_pages,
              bits.shared && arrangement == RootArrangement::kTwoRoots ? 2u : 1u);
    EXPECT_TRUE(t.space->Audit().ok()) << t.space->Audit();
  }
}

std::string NameOfLayout(const testing::TestParamInfo<std::tuple<Bits, RootArrangement>>& info) {
  const Bits& bits = std::get<0>(info.param);
  return (bits.shared ? "Shared" + std::to_string(*bits.shared) : std::string("NoShared")) +
         (bits.execute_only ? "Fetch" + std::to_string(*bits.execute_only) : std::string()) +
         (std::get<1>(info.param) == kOneRoot ? "OneRoot" : "TwoRoots");
}

INSTANTIATE_TEST_SUITE_P(
    Bits, LayoutsTest,
    testing::Combine(testing::Values(Bits{39, {}, 48}, Bits{47, {}, 48}, Bits{51, {}, 57},
                                     Bits{{}, 39, 48}, Bits{{}, 51, 57}, Bits{32, 39, 48},
                                     Bits{39, 40, 48}, Bits{47, 39, 48}, Bits{51, 47, 57},
                                     Bits{47, 51, 57}, Bits{33, 55, 57}),
                     testing::Values(RootArrangement::kTwoRoots, kOneRoot)),
    NameOfLayout);

}  // namespace
}  // namespace twinroot::mmu
