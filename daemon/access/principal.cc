#include "daemon/access/principal.h"

#include <grp.h>
#include <pwd.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace twinroot::access {
namespace {

// Room for one entry of the user and of the group database; a group may have many members.
constexpr size_t kUserBytes = size_t{16} << 10;
constexpr size_t kGroupBytes = size_t{1} << 20;
constexpr char kNoUri[] = "certificate without a URI";

std::optional<uint32_t> Number(const std::string& text) {
  uint32_t id = 0;
  // (uid_t)-1 means "no user" to the kernel.
  if (text.empty() || !std::all_of(text.begin(), text.end(), ::isdigit) ||
      !absl::SimpleAtoi(text, &id) || id == UINT32_MAX) {
    return std::nullopt;
  }
  return id;
}

}  // namespace

std::string Principal::Name() const {
  if (user.has_value()) return absl::StrCat("uid:", user->uid);
  return uris.empty() ? kNoUri : uris.front();
}

absl::StatusOr<User> UserAtPeer(int fd) {
  ucred credentials{};
  socklen_t size = sizeof(credentials);
  if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &size) != 0) {
    return absl::InternalError(absl::StrCat("SO_PEERCRED: ", std::strerror(errno)));
  }
  User user;
  user.uid = credentials.uid;
  user.gid = credentials.gid;
  user.pid = credentials.pid;
  // The size that is needed is told by the first call, which fails unless there are no groups.
  socklen_t bytes = 0;
  if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, nullptr, &bytes) != 0) {
    if (errno != ERANGE) {
      return absl::InternalError(absl::StrCat("SO_PEERGROUPS: ", std::strerror(errno)));
    }
    user.groups.resize(bytes / sizeof(gid_t));
    if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, user.groups.data(), &bytes) != 0) {
      return absl::InternalError(absl::StrCat("SO_PEERGROUPS: ", std::strerror(errno)));
    }
  }
  return user;
}

std::string UserName(uint32_t uid) {
  std::vector<char> room(kUserBytes);
  passwd entry{};
  passwd* found = nullptr;
  if (getpwuid_r(uid, &entry, room.data(), room.size(), &found) != 0 || found == nullptr) return "";
  return entry.pw_name;
}

std::optional<uint32_t> FindUser(const std::string& name) {
  if (const auto number = Number(name)) return number;
  std::vector<char> room(kUserBytes);
  passwd entry{};
  passwd* found = nullptr;
  if (getpwnam_r(name.c_str(), &entry, room.data(), room.size(), &found) != 0 || found == nullptr) {
    return std::nullopt;
  }
  return entry.pw_uid;
}

std::optional<uint32_t> FindGroup(const std::string& name) {
  if (const auto number = Number(name)) return number;
  std::vector<char> room(kGroupBytes);
  group entry{};
  group* found = nullptr;
  if (getgrnam_r(name.c_str(), &entry, room.data(), room.size(), &found) != 0 || found == nullptr) {
    return std::nullopt;
  }
  return entry.gr_gid;
}

}  // namespace twinroot::access
