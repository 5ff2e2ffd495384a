#include "mmu/tables/table_role.h"

#include <gtest/gtest.h>

#include <set>
#include <vector>

#include "mmu/tables/root.h"

namespace twinroot::mmu {
namespace {

TEST(TableRoleTest, B1_EveryFieldOfTheRoleIsPartOfTheIdentity) {
  std::vector<TableRole> roles(19);
  size_t n = 1;  // roles[0] is the plain one
  roles[n++].level = Level::k1G;
  roles[n++].kind = MemoryKind::kShared;
  roles[n++].execute_only = true;
  roles[n++].direct = false;
  roles[n++].access = Access::Read();
  roles[n++].promoted = true;
  roles[n++].pae_root = true;
  roles[n++].quadrant = 3;
  roles[n++].guest_mode = true;
  roles[n++].cr0_wp = true;
  roles[n++].cr4_pae = true;
  roles[n++].cr4_pse = true;
  roles[n++].cr4_smep = true;
  roles[n++].cr4_smap = true;
  roles[n++].cr4_la57 = true;
  roles[n++].efer_nx = true;
  roles[n++].efer_lma = true;
  roles[n++].guest_flags = true;
  ASSERT_EQ(n, roles.size());
  std::set<uint32_t> words;
  for (const TableRole& role : roles) {
    words.insert(role.word());
    for (const TableRole& other : roles) EXPECT_EQ(role == other, &role == &other);
  }
  EXPECT_EQ(words.size(), roles.size());
}

TEST(TableRoleTest, B1_TheFrameIsPartOfTheIdentity) {
  const TableRole role;
  EXPECT_EQ((TableIdentity{Gfn(512), role}), (TableIdentity{Gfn(512), role}));
  EXPECT_NE((TableIdentity{Gfn(512), role}), (TableIdentity{Gfn(0), role}));
}

TEST(TableRoleTest, B1_AChildIsTheParentsFrameOneLevelDownInTheRoleOfItsAlias) {
  TableRole role;
  role.level = Level::k1G;
  const TableIdentity parent{Gfn(0), role};
  Root shared;
  shared.kind = MemoryKind::kShared;
  shared.base = shared.kind_base = HwGfn(uint64_t{1} << 34);
  const TableIdentity child = ChildIdentity(parent, shared, Gfn((3 << 18) + 777));
  EXPECT_EQ(child.gfn, Gfn(3 << 18));
  EXPECT_EQ(child.role.level, Level::k2M);
  EXPECT_EQ(child.role.kind, MemoryKind::kShared);
  EXPECT_EQ(child, ChildIdentity(parent, shared, Gfn(3 << 18)));
  EXPECT_NE(child, ChildIdentity(parent, shared, Gfn(4 << 18)));
  EXPECT_NE(child, ChildIdentity(parent, Root{}, Gfn(3 << 18)));
}

TEST(TableRoleTest, B1_ATableThatHoldsFramesOfBothAliasesBelongsToNeither) {
  TableRole role;
  role.level = Level::k256T;
  const TableIdentity parent{Gfn(0), role};
  Root shared;
  shared.kind = MemoryKind::kShared;
  shared.base = shared.kind_base = HwGfn(uint64_t{1} << 34);  // inside the first entry of 256T
  EXPECT_EQ(ChildIdentity(parent, shared, Gfn(5)), ChildIdentity(parent, Root{}, Gfn(5)));
}

TEST(TableRoleTest, B1_TheSharedAndTheExecuteOnlyBitNameATableEachByItself) {
  TableRole role;
  role.level = Level::k256T;
  const TableIdentity parent{Gfn(0), role};
  Root fetches;
  fetches.kind = MemoryKind::kShared;
  fetches.execute_only = true;
  fetches.kind_base = HwGfn(uint64_t{1} << 39);                         // chooses the entry
  fetches.base = fetches.kind_base + FramesPerEntry(Level::k256T) / 2;  // inside it
  const TableIdentity child = ChildIdentity(parent, fetches, Gfn(5));
  EXPECT_EQ(child.role.kind, MemoryKind::kShared);
  EXPECT_FALSE(child.role.execute_only);
  EXPECT_TRUE(ChildIdentity(child, fetches, Gfn(5)).role.execute_only);
}

}  // namespace
}  // namespace twinroot::mmu
