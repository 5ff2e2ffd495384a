// Denials of rights by attributes (D11).
#include <gtest/gtest.h>

#include <string>
#include <variant>
#include <vector>

#include "tests/fakes/test_space.h"

namespace twinroot::mmu {
namespace {

constexpr auto kPrivate = MemoryKind::kPrivate;
constexpr auto kShared = MemoryKind::kShared;
constexpr Access kReadFetch = Access::Read() | Access::Fetch();

absl::StatusOr<AttributeChangeResult> Deny(TestSpace& t, GfnRange range, Access denied) {
  return t.space->SetMemoryAttributes({.ranges = {range}, .deny = denied});
}

Access AccessOf(const TestSpace& t, uint64_t gfn, MemoryKind kind) {
  return t.space->Translate(Gpa(gfn << kPageShift), kind)->access;
}

TEST(DenialsTest, D11_ADeniedAccessExitsAndSaysWhatIsDenied) {
  TestSpace t;
  ASSERT_TRUE(Deny(t, Frames(5, 1), Access::Write()).ok());
  const FaultOutcome outcome = t.Touch(5, kPrivate, Access::Read() | Access::Write());
  const auto* exit = std::get_if<MemoryFaultExit>(&outcome);
  ASSERT_NE(exit, nullptr);
  EXPECT_EQ(exit->denied, Access::Write());
  EXPECT_EQ(exit->gpa, Gpa(5 << kPageShift));
  EXPECT_EQ(exit->wanted, kPrivate);
  EXPECT_FALSE(t.IsMapped(5, kPrivate));
  EXPECT_TRUE(t.Fixes(5, kPrivate));
  EXPECT_EQ(AccessOf(t, 5, kPrivate), kReadFetch);
  // The kind comes before the denial.
  const FaultOutcome other = t.Touch(5, kShared, Access::Write());
  ASSERT_TRUE(std::holds_alternative<MemoryFaultExit>(other));
  EXPECT_EQ(std::get<MemoryFaultExit>(other).denied, Access::None());
}

TEST(DenialsTest, D11_DenyingReadsDeniesWritesToo) {
  TestSpace t;
  ASSERT_TRUE(Deny(t, Frames(5, 1), Access::Read()).ok());
  const std::vector<AttributeRun> runs = t.space->GetMemoryAttributes();
  ASSERT_EQ(runs.size(), 3u);
  EXPECT_EQ(runs[1].denied, Access::Read() | Access::Write());
  EXPECT_TRUE(std::holds_alternative<MemoryFaultExit>(t.Touch(5, kPrivate, Access::Read())));
  EXPECT_TRUE(std::holds_alternative<Fixed>(t.Touch(5, kPrivate, Access::Fetch())));
  EXPECT_EQ(AccessOf(t, 5, kPrivate), Access::Fetch());
  // Saying the same in other words changes nothing.
  const auto again = Deny(t, Frames(5, 1), Access::Read() | Access::Write());
  ASSERT_TRUE(again.ok());
  EXPECT_TRUE(again->redenied.empty());
}

TEST(DenialsTest, D11_RightsAreTakenInPlaceWithOneFlushAndNoFault) {
  TestSpace t;
  ASSERT_TRUE(std::holds_alternative<Fixed>(t.Touch(600, kPrivate, Access::Write())));
  t.log.Take();
  const auto result = Deny(t, Frames(512, 512), Access::Write());
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_TRUE(result->converted.empty());
  EXPECT_EQ(result->redenied, (std::vector<GfnRange>{Frames(512, 512)}));
  EXPECT_EQ(t.log.Take(), (std::vector<std::string>{"flush private 0x200+512"}));
  EXPECT_EQ(t.LevelOf(600, kPrivate), Level::k2M);
  EXPECT_EQ(AccessOf(t, 600, kPrivate), kReadFetch);
  const FaultOutcome write = t.Touch(600, kPrivate, Access::Write());
  ASSERT_TRUE(std::holds_alternative<MemoryFaultExit>(write));
  EXPECT_TRUE(t.space->Audit().ok()) << t.space->Audit();
}

TEST(DenialsTest, D11_RightsThatComeBackComeWithTheNextFault) {
  TestSpace t;
  ASSERT_TRUE(Deny(t, Frames(512, 512), Access::Write()).ok());
  ASSERT_TRUE(t.Fixes(600, kPrivate));
  ASSERT_TRUE(Deny(t, Frames(512, 512), Access::None()).ok());
  EXPECT_FALSE(t.IsMapped(600, kPrivate));
  EXPECT_TRUE(std::holds_alternative<Fixed>(t.Touch(600, kPrivate, Access::Write())));
  EXPECT_EQ(AccessOf(t, 600, kPrivate), Access::All());
  EXPECT_EQ(t.space->bugged(), "");
}

TEST(DenialsTest, D11_NoLargePageStandsOverDifferentDenials) {
  TestSpace t;
  ASSERT_TRUE(t.Fixes(600, kPrivate));
  ASSERT_TRUE(Deny(t, Frames(600, 1), Access::Write()).ok());
  EXPECT_EQ(t.space->stats().splits_conversion, 1u);
  EXPECT_EQ(AccessOf(t, 600, kPrivate), kReadFetch);
  EXPECT_EQ(AccessOf(t, 601, kPrivate), Access::All());
  EXPECT_EQ(t.LevelOf(601, kPrivate), Level::k4K);
  ASSERT_TRUE(t.space->Zap(Frames(512, 512)).ok());
  ASSERT_TRUE(t.Fixes(700, kPrivate));
  EXPECT_EQ(t.LevelOf(700, kPrivate), Level::k4K);
  EXPECT_TRUE(t.space->Audit().ok()) << t.space->Audit();
}

TEST(DenialsTest, D11_EqualDenialsOnBothHalvesMakeOneLargePageAgain) {
  TestSpace t;
  ASSERT_TRUE(t.Fixes(600, kPrivate));
  ASSERT_TRUE(Deny(t, Frames(512, 256), Access::Write()).ok());
  ASSERT_EQ(t.LevelOf(600, kPrivate), Level::k4K);
  ASSERT_TRUE(Deny(t, Frames(768, 256), Access::Write()).ok());
  EXPECT_EQ(t.LevelOf(600, kPrivate), Level::k2M);
  EXPECT_EQ(AccessOf(t, 600, kPrivate), kReadFetch);
  EXPECT_EQ(t.space->stats().collapses_attributes, 1u);
  EXPECT_TRUE(t.space->Audit().ok()) << t.space->Audit();
}

TEST(DenialsTest, D11_WhereEverythingIsDeniedNothingIsMapped) {
  TestSpace t;
  ASSERT_TRUE(t.Fixes(600, kPrivate));
  ASSERT_TRUE(Deny(t, Frames(512, 512), Access::All()).ok());
  EXPECT_FALSE(t.IsMapped(600, kPrivate));
  for (const Access access : {Access::Read(), Access::Write(), Access::Fetch()}) {
    const FaultOutcome outcome = t.Touch(600, kPrivate, access);
    ASSERT_TRUE(std::holds_alternative<MemoryFaultExit>(outcome));
    EXPECT_EQ(std::get<MemoryFaultExit>(outcome).denied, access);
  }
  EXPECT_TRUE(t.Fixes(5, kPrivate));
}

TEST(DenialsTest, D11_DenialsAloneKeepTheKindsAndTheBytes) {
  TestSpace t;
  ASSERT_TRUE(t.Convert({Frames(100, 10)}, kShared).ok());
  t.pages.Mark(Gfn(99), kPrivate) = 1;
  t.pages.Mark(Gfn(100), kShared) = 2;
  const auto result = Deny(t, Frames(99, 2), Access::Write());
  ASSERT_TRUE(result.ok());
  EXPECT_EQ(result->redenied, (std::vector<GfnRange>{Frames(99, 2)}));
  EXPECT_TRUE(result->converted.empty());
  EXPECT_EQ(t.pages.Mark(Gfn(99), kPrivate), 1u);
  EXPECT_EQ(t.pages.Mark(Gfn(100), kShared), 2u);
  EXPECT_EQ(t.space->stats().shared_frames_attribute, 10u);
  // A conversion that does not speak of denials keeps them; one that does changes both at once.
  ASSERT_TRUE(t.Convert({Frames(100, 1)}, kPrivate).ok());
  EXPECT_TRUE(std::holds_alternative<MemoryFaultExit>(t.Touch(100, kPrivate, Access::Write())));
  const auto both = t.space->SetMemoryAttributes(
      {.ranges = {Frames(100, 1)}, .kind = kShared, .deny = Access::None()});
  ASSERT_TRUE(both.ok());
  EXPECT_EQ(both->converted, both->redenied);
  EXPECT_TRUE(std::holds_alternative<Fixed>(t.Touch(100, kShared, Access::Write())));
}

TEST(DenialsTest, D11_WithoutExecuteOnlyPagesReadsCannotBeDeniedAlone) {
  TestSpace t({.capabilities = {.execute_only = false}});
  EXPECT_TRUE(absl::IsFailedPrecondition(Deny(t, Frames(5, 1), Access::Read()).status()));
  EXPECT_EQ(t.space->GetMemoryAttributes().size(), 1u);
  EXPECT_TRUE(Deny(t, Frames(5, 1), Access::Read() | Access::Fetch()).ok());
}

TEST(DenialsTest, D11_AWithheldWriteIsNotGivenBackWhereItIsDenied) {
  TestSpace t;
  ASSERT_TRUE(t.space->EnableDirtyLog({}).ok());
  ASSERT_TRUE(t.Fixes(5, kPrivate));  // W withheld
  ASSERT_EQ(AccessOf(t, 5, kPrivate), kReadFetch);
  const uint64_t flushes = t.space->stats().flushes_range;
  ASSERT_TRUE(Deny(t, Frames(5, 1), Access::Write()).ok());
  EXPECT_EQ(t.space->stats().flushes_range, flushes);  // no processor knew of it
  EXPECT_TRUE(std::holds_alternative<MemoryFaultExit>(t.Touch(5, kPrivate, Access::Write())));
  ASSERT_TRUE(Deny(t, Frames(5, 1), Access::None()).ok());
  EXPECT_TRUE(std::holds_alternative<Fixed>(t.Touch(5, kPrivate, Access::Write())));
}

TEST(DenialsTest, D11_EveryAliasLosesTheRight) {
  TestSpace t({.guest_maxphyaddr = 45, .execute_only_bit = 45});
  ASSERT_TRUE(t.create_status.ok()) << t.create_status;
  const Gpa alias(t.space->layout().HwGfnOf(Gfn(5), kPrivate, true).value << kPageShift);
  const auto mapped = [&] {
    return t.space->Translate(Gpa(5 << kPageShift), kPrivate, true)->mapped;
  };
  ASSERT_TRUE(std::holds_alternative<Fixed>(t.space->HandleFault({alias, Access::Fetch()})));
  ASSERT_TRUE(t.Fixes(5, kPrivate));
  ASSERT_TRUE(Deny(t, Frames(0, 512), Access::Write()).ok());
  EXPECT_TRUE(mapped());
  ASSERT_TRUE(Deny(t, Frames(0, 512), Access::Write() | Access::Fetch()).ok());
  EXPECT_FALSE(mapped());
  EXPECT_EQ(AccessOf(t, 5, kPrivate), Access::Read());
  EXPECT_TRUE(
      std::holds_alternative<MemoryFaultExit>(t.space->HandleFault({alias, Access::Fetch()})));
  EXPECT_TRUE(t.space->Audit().ok()) << t.space->Audit();
}

TEST(DenialsTest, D11_AnExternalTableIsToldWhatALeafGrants) {
  TestSpace t({.external = true});
  ASSERT_TRUE(t.Fixes(5, kPrivate));
  EXPECT_EQ(t.external_private.last_access, Access::All());
  ASSERT_TRUE(Deny(t, Frames(0, 512), Access::Write()).ok());
  EXPECT_FALSE(t.external_private.Holds(Gfn(5)));  // it cannot be told that rights shrink
  ASSERT_TRUE(t.Fixes(5, kPrivate));
  EXPECT_EQ(t.external_private.last_access, kReadFetch);
  EXPECT_FALSE(t.external_private.contradiction);
}

TEST(DenialsTest, D11_WhereAnExternalTableCannotRestrictDenialsAreRefused) {
  TestSpace t({.external = true});
  t.external_private.can_restrict = false;
  const auto refused = t.space->SetMemoryAttributes(
      {.ranges = {Frames(5, 1)}, .kind = std::nullopt, .deny = Access::Write()});
  EXPECT_TRUE(absl::IsFailedPrecondition(refused.status())) << refused.status();
  // Taking denials away is no denial.
  EXPECT_TRUE(t.space
                  ->SetMemoryAttributes(
                      {.ranges = {Frames(5, 1)}, .kind = std::nullopt, .deny = Access::None()})
                  .ok());
}

}  // namespace
}  // namespace twinroot::mmu
