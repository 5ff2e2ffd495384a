#include "daemon/given_sockets.h"

#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <systemd/sd-daemon.h>

#include <cstddef>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace twinroot {
namespace {

// The names that sd_listen_fds_with_names allocates, null at the end.
struct FreeNames {
  void operator()(char** names) const {
    for (char** name = names; name != nullptr && *name != nullptr; ++name) free(*name);
    free(static_cast<void*>(names));
  }
};

absl::Status Bad(const std::string& what) {
  return absl::InvalidArgumentError(
      absl::StrCat("the sockets given to hvd cannot be used: ", what));
}

std::string PathOf(int fd) {
  sockaddr_un address{};
  socklen_t size = sizeof(address);
  constexpr size_t kBefore = offsetof(sockaddr_un, sun_path);
  if (getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0 || size <= kBefore) {
    return "a socket without a name";
  }
  const std::string path(address.sun_path, strnlen(address.sun_path, size - kBefore));
  if (!path.empty()) return path;
  return absl::StrCat("@", std::string(address.sun_path + 1, size - kBefore - 1));  // abstract
}

absl::StatusOr<access::GivenSocket> Given(int fd, std::string_view name) {
  access::GivenSocket socket;
  socket.fd = fd;
  if (name == "operator") {
    socket.gives = access::Role::kOperator;
  } else if (name == "viewer") {
    socket.gives = access::Role::kViewer;
  } else if (name != "admin") {
    return Bad(absl::StrCat("descriptor ", fd, " is named \"", std::string(name),
                            "\", which is none of admin, operator, viewer: set "
                            "FileDescriptorName= in its socket unit"));
  }
  if (sd_is_socket_unix(fd, SOCK_STREAM, 1, nullptr, 0) <= 0) {
    return Bad(absl::StrCat("descriptor ", fd, " (", std::string(name),
                            ") is no unix stream socket that listens: give its socket unit a path "
                            "as ListenStream=, without Accept=yes"));
  }
  socket.path = PathOf(fd);
  return socket;
}

}  // namespace

absl::StatusOr<std::vector<access::GivenSocket>> TakeGivenSockets() {
  char** names_found = nullptr;
  // The variables stay: a reload asks again whether a socket of our own is needed, and there are no
  // children.
  const int count = sd_listen_fds_with_names(/*unset_environment=*/0, &names_found);
  const std::unique_ptr<char*, FreeNames> names(names_found);
  if (count < 0) {
    return Bad(absl::StrCat(
        "LISTEN_PID, LISTEN_FDS and LISTEN_FDNAMES do not fit together (", std::strerror(-count),
        "): each of the LISTEN_FDS descriptors from 3 on has one name, with colons between"));
  }
  std::vector<access::GivenSocket> sockets;
  for (int i = 0; i < count; ++i) {
    auto socket = Given(SD_LISTEN_FDS_START + i, names.get()[i]);
    if (!socket.ok()) return socket.status();
    sockets.push_back(*std::move(socket));
  }
  return sockets;
}

}  // namespace twinroot
