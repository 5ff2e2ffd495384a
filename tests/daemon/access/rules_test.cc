#include "daemon/access/rules.h"

#include <unistd.h>

#include "gtest/gtest.h"

namespace twinroot::access {
namespace {

Principal OfUser(uint32_t uid, uint32_t gid, std::vector<uint32_t> groups = {}) {
  Principal principal;
  principal.user = User{uid, gid, std::move(groups), "", 1};
  return principal;
}

Principal OfUris(std::vector<std::string> uris) {
  Principal principal;
  principal.uris = std::move(uris);
  return principal;
}

TEST(Rules, WithoutAFileRootAndTheDaemonsUserAreAdminsAndOthersNothing) {
  const Rules rules = DefaultRules();
  EXPECT_EQ(RoleOf(rules.grants, OfUser(0, 5)), Role::kAdmin);
  EXPECT_EQ(RoleOf(rules.grants, OfUser(geteuid(), 5)), Role::kAdmin);
  EXPECT_EQ(RoleOf(rules.grants, OfUser(geteuid() + 1, 0, {0})), Role::kNone);
  EXPECT_EQ(RoleOf(rules.grants, OfUris({"spiffe://a/b"})), Role::kNone);
}

TEST(Rules, TheAdminsGroupIsTheDefaultWhereTheHostHasIt) {
  const auto gid = FindGroup("twinroot-admin");
  if (!gid.has_value()) GTEST_SKIP() << "this host has no group twinroot-admin";
  EXPECT_EQ(RoleOf(DefaultRules().grants, OfUser(geteuid() + 1, 5, {*gid})), Role::kAdmin);
}

TEST(Rules, ASocketThatGivesARoleGivesItToEverybodyAndNoMore) {
  const std::vector<Grant> grants = {{Role::kAdmin, {0}, {}, {}}, {Role::kViewer, {7}, {}, {}}};
  for (const uint32_t uid : {0u, 7u, 8u}) {
    Principal principal = OfUser(uid, 5);
    principal.given = Role::kOperator;
    EXPECT_EQ(RoleOf(grants, principal), Role::kOperator) << uid;
    principal.given = Role::kViewer;
    EXPECT_EQ(RoleOf({}, principal), Role::kViewer) << uid;
  }
}

TEST(Rules, AUserHasTheHighestRoleOfItsIdAndItsGroups) {
  const std::vector<Grant> grants = {{Role::kAdmin, {}, {30}, {}},
                                     {Role::kViewer, {7}, {10}, {}},
                                     {Role::kOperator, {8}, {20}, {}}};
  EXPECT_EQ(RoleOf(grants, OfUser(7, 1)), Role::kViewer);
  EXPECT_EQ(RoleOf(grants, OfUser(7, 20)), Role::kOperator);
  EXPECT_EQ(RoleOf(grants, OfUser(9, 10, {1, 2, 30})), Role::kAdmin);
  EXPECT_EQ(RoleOf(grants, OfUser(9, 9, {9})), Role::kNone);
  // A gid is no uid.
  EXPECT_EQ(RoleOf(grants, OfUser(30, 9)), Role::kNone);
}

TEST(Rules, AUriMatchesWholeOrByAPrefixOfWholeSegments) {
  const std::vector<Grant> grants = {{Role::kViewer, {}, {}, {"spiffe://a/ops/*"}},
                                     {Role::kAdmin, {}, {}, {"spiffe://a/root"}}};
  EXPECT_EQ(RoleOf(grants, OfUris({"spiffe://a/ops/x"})), Role::kViewer);
  EXPECT_EQ(RoleOf(grants, OfUris({"spiffe://a/ops/x/y"})), Role::kViewer);
  EXPECT_EQ(RoleOf(grants, OfUris({"spiffe://a/ops/"})), Role::kNone);
  EXPECT_EQ(RoleOf(grants, OfUris({"spiffe://a/opsx"})), Role::kNone);
  EXPECT_EQ(RoleOf(grants, OfUris({"spiffe://a/root"})), Role::kAdmin);
  EXPECT_EQ(RoleOf(grants, OfUris({"spiffe://a/root/x"})), Role::kNone);
  EXPECT_EQ(RoleOf(grants, OfUris({"spiffe://a/rootx"})), Role::kNone);
  EXPECT_EQ(RoleOf(grants, OfUris({"x://y", "spiffe://a/ops/x"})), Role::kViewer);
  EXPECT_EQ(RoleOf(grants, OfUris({})), Role::kNone);
}

TEST(Rules, UsersAndGroupsAreFoundByNameAndByNumber) {
  EXPECT_EQ(FindUser("root"), 0u);
  EXPECT_EQ(FindGroup("root"), 0u);
  EXPECT_EQ(FindUser("4711"), 4711u);
  EXPECT_EQ(FindGroup("4711"), 4711u);
  for (const char* none : {"", "no-such-name-here", "4294967295", "99999999999", "-1", "1x"}) {
    EXPECT_FALSE(FindUser(none).has_value()) << none;
    EXPECT_FALSE(FindGroup(none).has_value()) << none;
  }
  EXPECT_EQ(UserName(0), "root");
  EXPECT_EQ(UserName(4294000000), "");
}

}  // namespace
}  // namespace twinroot::access
