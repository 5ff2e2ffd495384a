#include "daemon/access/rules.h"

#include <unistd.h>

#include <algorithm>
#include <string_view>
#include <utility>

namespace twinroot::access {
namespace {

// deploy/systemd/sysusers.d makes it.
constexpr char kAdminGroup[] = "twinroot-admin";

template <typename T>
bool Contains(const std::vector<T>& list, const T& value) {
  return std::find(list.begin(), list.end(), value) != list.end();
}

bool Matches(std::string_view pattern, std::string_view uri) {
  if (!pattern.ends_with("/*")) return pattern == uri;
  // Something must stand where the star is.
  pattern.remove_suffix(1);
  return uri.size() > pattern.size() && uri.starts_with(pattern);
}

bool Includes(const Grant& grant, const Principal& principal) {
  if (principal.user.has_value()) {
    const User& user = *principal.user;
    return Contains(grant.uids, user.uid) || Contains(grant.gids, user.gid) ||
           std::any_of(user.groups.begin(), user.groups.end(),
                       [&](uint32_t gid) { return Contains(grant.gids, gid); });
  }
  return std::any_of(principal.uris.begin(), principal.uris.end(), [&](const std::string& uri) {
    return std::any_of(grant.uris.begin(), grant.uris.end(),
                       [&](const std::string& pattern) { return Matches(pattern, uri); });
  });
}

}  // namespace

Rules DefaultRules() {
  Rules rules;
  Grant admins{Role::kAdmin, {0, geteuid()}, {}, {}};
  if (const auto gid = FindGroup(kAdminGroup)) admins.gids.push_back(*gid);
  rules.grants.push_back(std::move(admins));
  return rules;
}

Role RoleOf(const std::vector<Grant>& grants, const Principal& principal) {
  if (principal.given != Role::kNone) return principal.given;
  Role highest = Role::kNone;
  for (const Grant& grant : grants) {
    if (grant.role > highest && Includes(grant, principal)) highest = grant.role;
  }
  return highest;
}

bool IsRevoked(const Revocations& revocations, const Principal& principal) {
  return !revocations.empty() && !principal.certificate.empty() &&
         revocations.Contains(principal.certificate);
}

}  // namespace twinroot::access
