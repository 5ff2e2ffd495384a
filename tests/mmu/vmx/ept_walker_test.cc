// The walker against tables written by hand and expectations taken from the SDM (vol. 3C, "EPT
// Translation Mechanism", "EPT Misconfigurations", "EPT Violations", "Accessed and Dirty Flags").
#include "mmu/vmx/ept_walker.h"

#include "gtest/gtest.h"
#include "tests/mmu/vmx/hand_made_tables.h"

namespace twinroot::mmu::vmx {
namespace {

constexpr uint64_t kRead = 1, kWrite = 2, kExecute = 4;
constexpr uint64_t kLeafType = HandMadeTables::kWriteBack;
constexpr uint64_t kLinearAndTranslated = 0x180;
constexpr uint64_t kAccessed = 0x100, kDirty = 0x200;
// Different indexes at every level, the same offset in pages of every size.
constexpr uint64_t kGpa = 0x0000'1234'5678'9ABC & ~uint64_t{7};
constexpr uint64_t kGpaOf5Levels = kGpa | (uint64_t{3} << 48);

uint64_t PageBytes(int level) { return uint64_t{1} << (12 + 9 * (level - 1)); }

Access AccessOf(uint64_t bits) {
  return (bits & kRead ? Access::Read() : Access::None()) |
         (bits & kWrite ? Access::Write() : Access::None()) |
         (bits & kExecute ? Access::Fetch() : Access::None());
}

EptPointer Eptp(uint64_t root, int levels, bool accessed_dirty = false) {
  return EptPointer(root | 6 | static_cast<uint64_t>(levels - 1) << 3 |
                    (accessed_dirty ? 1u << 6 : 0));
}

// Where a leaf of `level` points; the walker does not touch it.
uint64_t PageFor(int level) { return uint64_t{7} * PageBytes(level); }

class EptWalkerTest : public ::testing::Test {
 protected:
  WalkOutcome Walk(uint64_t eptp_root, int levels, uint64_t gpa, uint64_t access) {
    return EptWalker(&memory_, capabilities_, maxphyaddr_)
        .Walk(Eptp(eptp_root, levels), Gpa(gpa), AccessOf(access));
  }

  HandMadeTables memory_{16};
  EptCapabilities capabilities_;
  int maxphyaddr_ = 52;
};

// Every mixture of rights in an upper entry and in the leaf, for every access, walk length and page
// size: 8 x 8 x 3 x 2 x 3 cases.
TEST_F(EptWalkerTest, F1_RightsAreTheAndOfEveryEntryOfTheWalk) {
  for (const int levels : {4, 5}) {
    const uint64_t gpa = levels == 5 ? kGpaOf5Levels : kGpa;
    for (const int leaf_level : {1, 2, 3}) {
      for (uint64_t upper = 0; upper < 8; ++upper) {
        for (uint64_t leaf = 0; leaf < 8; ++leaf) {
          HandMadeTables memory(16);
          const uint64_t root = memory.NewPage();
          memory.Store(memory.Slot(root, levels, gpa, leaf_level),
                       PageFor(leaf_level) | kLeafType | leaf |
                           (leaf_level > 1 ? HandMadeTables::kLargePage : 0));
          const uint64_t upper_slot = memory.Slot(root, levels, gpa, leaf_level + 1);
          memory.Store(upper_slot, (memory.Load(upper_slot) & ~uint64_t{7}) | upper);
          for (const uint64_t access : {kRead, kWrite, kExecute}) {
            SCOPED_TRACE(testing::Message()
                         << levels << " levels, leaf level " << leaf_level << ", upper " << upper
                         << ", leaf " << leaf << ", access " << access);
            const WalkOutcome outcome = EptWalker(&memory, capabilities_, maxphyaddr_)
                                            .Walk(Eptp(root, levels), Gpa(gpa), AccessOf(access));
            // The first entry that is wrong or absent decides; the manual's order is top down.
            const bool upper_wrong = upper == 2 || upper == 6;
            const bool leaf_wrong = upper != 0 && (leaf == 2 || leaf == 6);
            const uint64_t both = upper & leaf;
            if (upper_wrong || leaf_wrong) {
              const auto* exit = std::get_if<EptMisconfigurationExit>(&outcome);
              ASSERT_NE(exit, nullptr);
              EXPECT_EQ(static_cast<int>(exit->level), upper_wrong ? leaf_level + 1 : leaf_level);
              EXPECT_EQ(exit->gpa.value, gpa);
            } else if ((both & access) == 0) {
              const auto* exit = std::get_if<EptViolationExit>(&outcome);
              ASSERT_NE(exit, nullptr);
              EXPECT_EQ(exit->qualification.raw(), kLinearAndTranslated | access | both << 3);
              EXPECT_EQ(exit->gpa.value, gpa);
            } else {
              const auto* found = std::get_if<EptTranslation>(&outcome);
              ASSERT_NE(found, nullptr);
              EXPECT_EQ(found->HpaOf(Gpa(gpa)).value,
                        PageFor(leaf_level) + gpa % PageBytes(leaf_level));
              EXPECT_EQ(static_cast<int>(found->level), leaf_level);
              EXPECT_EQ(found->access, AccessOf(both));
            }
          }
        }
      }
    }
  }
}

struct MisconfigurationCase {
  const char* what;
  int level;       // where the entry stands
  uint64_t entry;  // raw; its address is right for the level unless the case is about it
  bool wrong;
  int maxphyaddr = 52;
  EptCapabilities capabilities = {};
};

// Expectations straight from the SDM's lists of misconfigurations and entry formats.
TEST_F(EptWalkerTest, F1_MisconfigurationsAreThoseOfTheManual) {
  constexpr uint64_t kBig = HandMadeTables::kLargePage;
  constexpr uint64_t k1G = uint64_t{1} << 30, k2M = uint64_t{2} << 20;
  const MisconfigurationCase cases[] = {
      {"4K leaf, WB", 1, 0x8000 | kLeafType | 7, false},
      {"4K leaf, UC", 1, 0x8000 | 7, false},
      {"4K leaf, WC", 1, 0x8000 | 1 << 3 | 7, false},
      {"4K leaf, type 2", 1, 0x8000 | 2 << 3 | 7, true},
      {"4K leaf, type 3", 1, 0x8000 | 3 << 3 | 7, true},
      {"4K leaf, WT", 1, 0x8000 | 4 << 3 | 7, false},
      {"4K leaf, WP", 1, 0x8000 | 5 << 3 | 7, false},
      {"4K leaf, type 7", 1, 0x8000 | 7 << 3 | 7, true},
      {"4K leaf, bit 7 is ignored", 1, 0x8000 | kLeafType | kBig | 7, false},
      {"4K leaf, ignore PAT", 1, 0x8000 | kLeafType | 1 << 6 | 7, false},
      {"4K leaf, bits 62:52 are ignored", 1, 0x7FF0'0000'0000'8000 | kLeafType | 7, false},
      {"4K leaf, suppress #VE", 1, 0x8000'0000'0000'8000 | kLeafType | 7, false},
      {"4K leaf, execute-only", 1, 0x8000 | kLeafType | 4, false},
      {"4K leaf, execute-only without the capability",
       1,
       0x8000 | kLeafType | 4,
       true,
       52,
       {.execute_only = false}},
      {"4K leaf, address inside MAXPHYADDR", 1, uint64_t{1} << 38 | kLeafType | 7, false, 39},
      {"4K leaf, address beyond MAXPHYADDR", 1, uint64_t{1} << 39 | kLeafType | 7, true, 39},
      {"4K leaf, bit 51 at MAXPHYADDR 52", 1, uint64_t{1} << 51 | kLeafType | 7, false, 52},
      {"4K leaf, bit 51 at MAXPHYADDR 51", 1, uint64_t{1} << 51 | kLeafType | 7, true, 51},
      {"not present, anything else set", 1, 0xFFFF'FFFF'FFFF'FBF8, false},
      {"2M leaf", 2, k2M * 3 | kLeafType | kBig | 7, false},
      {"2M leaf, bit 12", 2, k2M * 3 | 1 << 12 | kLeafType | kBig | 7, true},
      {"2M leaf, bit 20", 2, k2M * 3 | 1 << 20 | kLeafType | kBig | 7, true},
      {"2M leaf, type 2", 2, k2M * 3 | 2 << 3 | kBig | 7, true},
      {"2M leaf without the capability",
       2,
       k2M * 3 | kLeafType | kBig | 7,
       true,
       52,
       {.page_2m = false}},
      {"1G leaf", 3, k1G * 3 | kLeafType | kBig | 7, false},
      {"1G leaf, bit 29", 3, k1G * 3 | 1 << 29 | kLeafType | kBig | 7, true},
      {"1G leaf without the capability",
       3,
       k1G * 3 | kLeafType | kBig | 7,
       true,
       52,
       {.page_1g = false}},
      {"PDE with a memory type", 2, HandMadeTables::kBase | kLeafType | 7, true},
      {"PDE with ignore PAT", 2, HandMadeTables::kBase | 1 << 6 | 7, true},
      {"PDPTE with bit 3", 3, HandMadeTables::kBase | 1 << 3 | 7, true},
      {"PML4E with bit 7", 4, HandMadeTables::kBase | kBig | 7, true},
      {"PML4E with bit 5", 4, HandMadeTables::kBase | 1 << 5 | 7, true},
      {"PML5E with bit 7", 5, HandMadeTables::kBase | kBig | 7, true},
      {"PML5E beyond MAXPHYADDR", 5, uint64_t{1} << 40 | 7, true, 40},
      {"PML4E, write without read", 4, HandMadeTables::kBase | 2, true},
  };
  for (const MisconfigurationCase& c : cases) {
    SCOPED_TRACE(c.what);
    HandMadeTables memory(16);
    const uint64_t root = memory.NewPage();
    const int levels = c.level == 5 ? 5 : 4;
    memory.Store(memory.Slot(root, levels, kGpa, c.level), c.entry);
    const WalkOutcome outcome = EptWalker(&memory, c.capabilities, c.maxphyaddr)
                                    .Walk(Eptp(root, levels), Gpa(kGpa), Access::Fetch());
    const auto* exit = std::get_if<EptMisconfigurationExit>(&outcome);
    EXPECT_EQ(exit != nullptr, c.wrong);
    if (exit != nullptr) {
      EXPECT_EQ(static_cast<int>(exit->level), c.level);
    }
  }
}

TEST_F(EptWalkerTest, F1_AddressBeyondTheWalkIsAViolationThatNothingAllows) {
  const uint64_t root4 = memory_.NewPage();
  memory_.Map4K(root4, kGpa, PageFor(1));
  const WalkOutcome beyond = Walk(root4, 4, kGpa | uint64_t{1} << 48, kRead);
  ASSERT_TRUE(std::holds_alternative<EptViolationExit>(beyond));
  EXPECT_EQ(std::get<EptViolationExit>(beyond).qualification.raw(), 0x181u);
  EXPECT_EQ(std::get<EptViolationExit>(beyond).gpa.value, kGpa | uint64_t{1} << 48);
  EXPECT_TRUE(std::holds_alternative<EptTranslation>(Walk(root4, 4, kGpa, kRead)));

  const uint64_t root5 = memory_.NewPage();
  const uint64_t high = kGpa | uint64_t{1} << 51;
  memory_.Map4K(root5, high, PageFor(1), 7, 5);
  EXPECT_TRUE(std::holds_alternative<EptTranslation>(Walk(root5, 5, high, kRead)));
  EXPECT_TRUE(std::holds_alternative<EptViolationExit>(Walk(root5, 5, kGpa, kRead)));
}

TEST_F(EptWalkerTest, F1_ModeBasedExecuteMakesTheUserBitPartOfPresenceAndOfTheQualification) {
  capabilities_.mode_based_execute = true;
  const uint64_t root = memory_.NewPage();
  const uint64_t slot = memory_.Slot(root, 4, kGpa, 1);
  for (uint64_t table_level = 2; table_level <= 4; ++table_level) {
    const uint64_t link = memory_.Slot(root, 4, kGpa, static_cast<int>(table_level));
    memory_.Store(link, memory_.Load(link) | 1 << 10);
  }
  memory_.Store(slot, 0x8000 | kLeafType | 1 << 10 | kRead);
  const WalkOutcome refused = Walk(root, 4, kGpa, kWrite);
  ASSERT_TRUE(std::holds_alternative<EptViolationExit>(refused));
  EXPECT_EQ(std::get<EptViolationExit>(refused).qualification.raw(), 0x180u | 2 | 1 << 3 | 1 << 6);
  // Only the user bit: present, not readable, hence execute-only.
  memory_.Store(slot, 0x8000 | kLeafType | 1 << 10);
  const WalkOutcome user_only = Walk(root, 4, kGpa, kRead);
  ASSERT_TRUE(std::holds_alternative<EptViolationExit>(user_only));
  EXPECT_EQ(std::get<EptViolationExit>(user_only).qualification.raw(), 0x181u | 1 << 6);
  capabilities_.mode_based_execute = false;
  EXPECT_EQ(std::get<EptViolationExit>(Walk(root, 4, kGpa, kRead)).qualification.raw(), 0x181u);
}

struct FlagsCase {
  const char* what;
  bool enabled;
  uint64_t access;
  uint64_t leaf_rights;
  uint64_t table_flags, leaf_flags;  // afterwards
  bool dirty;                        // of the translation
};

TEST_F(EptWalkerTest, F1_AccessedAndDirtyFlagsAreSetByTranslationsThatAreUsed) {
  const FlagsCase cases[] = {
      {"read", true, kRead, 7, kAccessed, kAccessed, false},
      {"fetch", true, kExecute, 7, kAccessed, kAccessed, false},
      {"write", true, kWrite, 7, kAccessed, kAccessed | kDirty, true},
      {"read, flags off", false, kRead, 7, 0, 0, true},
      {"write, flags off", false, kWrite, 7, 0, 0, true},
      {"refused write", true, kWrite, 5, 0, 0, false},
  };
  for (const int leaf_level : {1, 2, 3}) {
    for (const FlagsCase& c : cases) {
      SCOPED_TRACE(testing::Message() << c.what << ", leaf level " << leaf_level);
      HandMadeTables memory(16);
      const uint64_t root = memory.NewPage();
      const uint64_t leaf = memory.Slot(root, 4, kGpa, leaf_level);
      const uint64_t leaf_before = PageFor(leaf_level) | kLeafType | c.leaf_rights |
                                   (leaf_level > 1 ? HandMadeTables::kLargePage : 0);
      memory.Store(leaf, leaf_before);
      const uint64_t top = memory.Slot(root, 4, kGpa, 4);
      const uint64_t top_before = memory.Load(top);
      const WalkOutcome outcome =
          EptWalker(&memory, capabilities_, maxphyaddr_)
              .Walk(Eptp(root, 4, c.enabled), Gpa(kGpa), AccessOf(c.access));
      EXPECT_EQ(memory.Load(top), top_before | c.table_flags);
      EXPECT_EQ(memory.Load(leaf), leaf_before | c.leaf_flags);
      if (const auto* found = std::get_if<EptTranslation>(&outcome)) {
        EXPECT_EQ(found->dirty, c.dirty);
      } else {
        EXPECT_EQ(c.leaf_rights & c.access, 0u);
      }
    }
  }
}

// Changes an upper entry when the walk is about to read the leaf: after the walk has read that
// entry, before it sets flags.
class MemoryThatChanges : public HandMadeTables {
 public:
  std::byte* At(Hpa hpa, size_t size) override {
    if (hpa.value == leaf_slot && !changed) {
      changed = true;
      Store(upper_slot, replacement);
    }
    return HandMadeTables::At(hpa, size);
  }

  uint64_t leaf_slot = 0;
  uint64_t upper_slot = 0;
  uint64_t replacement = 0;
  bool changed = false;
};

TEST_F(EptWalkerTest, F1_FlagsAreNeverSetInAnEntryThatSoftwareHasChangedMeanwhile) {
  MemoryThatChanges memory;
  const uint64_t root = memory.NewPage();
  memory.Map4K(root, kGpa, PageFor(1));
  memory.upper_slot = memory.Slot(root, 4, kGpa, 2);
  memory.leaf_slot = memory.Slot(root, 4, kGpa, 1);
  memory.replacement = 0x4000'0000'0000'0000;  // not present: say, frozen
  const WalkOutcome outcome = EptWalker(&memory, capabilities_, maxphyaddr_)
                                  .Walk(Eptp(root, 4, true), Gpa(kGpa), Access::Write());
  EXPECT_TRUE(std::holds_alternative<EptViolationExit>(outcome));
  EXPECT_TRUE(memory.changed);
  EXPECT_EQ(memory.Load(memory.upper_slot), memory.replacement);
  EXPECT_EQ(memory.Load(memory.leaf_slot) & (kAccessed | kDirty), 0u);
}

TEST_F(EptWalkerTest, TableAtAnAddressWhereNothingIsEndsInAMachineCheck) {
  const uint64_t root = memory_.NewPage();
  memory_.Store(memory_.Slot(root, 4, kGpa, 3), uint64_t{1} << 40 | 7);
  const WalkOutcome outcome = Walk(root, 4, kGpa, kRead);
  ASSERT_TRUE(std::holds_alternative<MachineCheck>(outcome));
  EXPECT_EQ(std::get<MachineCheck>(outcome).hpa.value >> 12, uint64_t{1} << 28);
}

}  // namespace
}  // namespace twinroot::mmu::vmx
