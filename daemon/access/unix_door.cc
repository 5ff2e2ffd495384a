#include "daemon/access/unix_door.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "spdlog/spdlog.h"

namespace twinroot::access {
namespace {

constexpr std::string_view kPeerPrefix = "fd:";
constexpr int kBacklog = 4096;
constexpr rlim_t kNumbers = 65536;  // of connections: as many from there on, where the limit allows
constexpr int kNumbersToTry = 1024;
constexpr size_t kNamesToKeep = 1024;
// Nobody but the owner may connect between bind and chmod. The mask is the process's, so the door
// is opened while the daemon still starts and nothing else makes files.
constexpr mode_t kBindMask = 0177;
constexpr mode_t kOthers = 0077;
constexpr mode_t kOthersMayPass = 0011;
constexpr useconds_t kNoFilesLeftPause = 50'000;  // microseconds

absl::Status Unusable(const std::string& what, int error, const std::string& key) {
  return absl::FailedPreconditionError(
      absl::StrCat("cannot ", what, ": ", std::strerror(error), "; change ", key));
}

void Watch(int epoll, int fd, uint32_t events) {
  epoll_event event{};
  event.events = events;
  event.data.fd = fd;
  epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
}

// A socket that others may use helps nobody in a folder that they may not pass.
void WarnIfOutOfReach(const DoorOptions& options) {
  struct stat folder {};
  const std::string path = std::filesystem::path(options.path).parent_path();
  if ((options.mode & kOthers) == 0 || stat(path.empty() ? "." : path.c_str(), &folder) != 0 ||
      (folder.st_mode & kOthersMayPass) != 0) {
    return;
  }
  spdlog::warn("others may use the socket and cannot reach it: chmod o+x {}", path);
}

}  // namespace

UnixDoor::UnixDoor(int own, DoorOptions options)
    : options_(std::move(options)),
      epoll_(epoll_create1(EPOLL_CLOEXEC)),
      wake_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  if (own >= 0) listeners_.push_back({own});
  for (const GivenSocket& socket : options_.given) {
    // Whoever hangs up before it is accepted must not stop the thread.
    fcntl(socket.fd, F_SETFL, fcntl(socket.fd, F_GETFL) | O_NONBLOCK);
    listeners_.push_back({socket.fd, socket.gives});
  }
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  const rlim_t first = std::min(limit.rlim_cur / 2, kNumbers);
  first_number_ = next_number_ = static_cast<int>(first);
  end_number_ = static_cast<int>(first + std::min(limit.rlim_cur - first, kNumbers));
}

UnixDoor::~UnixDoor() {
  Close();
  close(epoll_);
  close(wake_);
}

absl::StatusOr<std::unique_ptr<UnixDoor>> UnixDoor::Make(const DoorOptions& options) {
  if (options.path.empty()) return std::unique_ptr<UnixDoor>(new UnixDoor(-1, options));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (options.path.size() >= sizeof(address.sun_path)) {
    return absl::InvalidArgumentError("the socket path is too long: choose another with --socket");
  }
  std::memcpy(address.sun_path, options.path.c_str(), options.path.size() + 1);
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return Unusable("make a socket", errno, "the limit of open files");
  auto close_fd = absl::MakeCleanup([fd] { close(fd); });
  const mode_t mask = umask(kBindMask);
  const int bound = bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address));
  umask(mask);
  if (bound != 0) {
    return absl::UnavailableError(absl::StrCat("cannot listen on ", options.path, ": ",
                                               std::strerror(errno),
                                               "; choose another place with --socket"));
  }
  auto remove = absl::MakeCleanup([&] { unlink(options.path.c_str()); });
  if (options.gid.has_value() && chown(options.path.c_str(), -1, *options.gid) != 0) {
    return Unusable(absl::StrCat("give ", options.path, " to group ", *options.gid), errno,
                    "socket_group, or run hvd with that group");
  }
  if (chmod(options.path.c_str(), options.mode) != 0) {
    return Unusable(absl::StrCat("set the mode of ", options.path), errno, "socket_mode");
  }
  WarnIfOutOfReach(options);
  if (listen(fd, kBacklog) != 0) return Unusable("listen", errno, "--socket");
  std::move(remove).Cancel();
  std::move(close_fd).Cancel();
  return std::unique_ptr<UnixDoor>(new UnixDoor(fd, options));
}

void UnixDoor::Serve(std::function<void(int)> admit) {
  admit_ = std::move(admit);
  for (const Listener& listener : listeners_) Watch(epoll_, listener.fd, EPOLLIN);
  Watch(epoll_, wake_, EPOLLIN);
  thread_ = std::thread([this] { Run(); });
}

void UnixDoor::Close() {
  if (closing_) return;
  closing_ = true;
  const uint64_t one = 1;
  (void)!write(wake_, &one, sizeof(one));
  if (thread_.joinable()) thread_.join();
  for (const Listener& listener : listeners_) close(listener.fd);
  if (!options_.path.empty()) unlink(options_.path.c_str());
  for (const auto& [watch, open] : open_) {
    // gRPC would wait for the peer's first words.
    if (!open.connection->called) shutdown(watch, SHUT_RDWR);
    close(watch);
  }
  open_.clear();
}

void UnixDoor::AskProgress(std::function<void()> done) {
  {
    std::lock_guard lock(mutex_);
    asked_.push_back(std::move(done));
  }
  const uint64_t one = 1;
  (void)!write(wake_, &one, sizeof(one));
}

void UnixDoor::ComeAround() {
  uint64_t wakes = 0;
  (void)!read(wake_, &wakes, sizeof(wakes));
  std::vector<std::function<void()>> asked;
  {
    std::lock_guard lock(mutex_);
    asked.swap(asked_);
  }
  for (const auto& done : asked) done();
}

std::shared_ptr<const UnixDoor::Connection> UnixDoor::Find(const std::string& peer) const {
  int number = 0;
  if (!peer.starts_with(kPeerPrefix) ||
      !absl::SimpleAtoi(peer.substr(kPeerPrefix.size()), &number)) {
    return nullptr;
  }
  std::lock_guard lock(mutex_);
  const auto found = entries_.find(number);
  if (found == entries_.end()) return nullptr;
  found->second.connection->called = true;
  return found->second.connection;
}

void UnixDoor::Run() {
  pthread_setname_np(pthread_self(), "hvd-door");
  std::array<epoll_event, 64> events;
  const absl::Duration pause = std::max(options_.silence / 4, absl::Milliseconds(1));
  const auto sweep = absl::ToChronoMilliseconds(pause);
  Clock::time_point next_sweep = Clock::now() + sweep;
  while (!closing_) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(next_sweep - Clock::now());
    const int count = epoll_wait(epoll_, events.data(), events.size(),
                                 static_cast<int>(std::max<int64_t>(left.count(), 0)));
    for (int i = 0; i < count && !closing_; ++i) {
      const int fd = events[static_cast<size_t>(i)].data.fd;
      const auto listener = std::find_if(listeners_.begin(), listeners_.end(),
                                         [&](const Listener& each) { return each.fd == fd; });
      if (listener != listeners_.end()) {
        Accept(*listener);
      } else if (fd == wake_) {
        ComeAround();
      } else {
        End(fd);
      }
    }
    if (Clock::now() < next_sweep) continue;
    Sweep();
    next_sweep = Clock::now() + sweep;
  }
}

// One connection a turn: hang-ups, which make room, are heard between.
void UnixDoor::Accept(const Listener& listener) {
  const int fd = accept4(listener.fd, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
  if (fd >= 0) {
    Welcome(fd, listener.gives);
  } else if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
    spdlog::error("cannot accept a connection: {}; raise the limit of open files",
                  std::strerror(errno));
    usleep(kNoFilesLeftPause);  // it stays in the queue, and we would be called again at once
  }
}

// `fd` becomes our own descriptor, which hears of the end; gRPC gets another of the same.
void UnixDoor::Welcome(int fd, Role given) {
  auto user = UserAtPeer(fd);
  if (user.ok()) {
    const auto open = of_users_.find(user->uid);
    if (open != of_users_.end() && open->second >= options_.most_of_user) {
      close(fd);
      return;
    }
  }
  Principal principal;
  principal.given = given;
  if (user.ok()) principal.user = *user;
  const int number = user.ok() ? MoveToFreshNumber(fd, principal) : -1;
  if (number < 0) {
    spdlog::error("a connection was turned away: {}",
                  user.ok() ? "no number is free for it; try again in a few seconds"
                            : std::string(user.status().message()));
    close(fd);
    return;
  }
  auto connection = std::make_shared<Connection>();
  principal.user->name = NameOf(user->uid);
  connection->principal = std::move(principal);
  connection->of_user = ++of_users_[connection->principal.user->uid];
  open_[fd] = {number, connection, Clock::now()};
  {
    std::lock_guard lock(mutex_);
    entries_[number] = {std::move(connection), std::nullopt};
  }
  admit_(number);
  Watch(epoll_, fd, EPOLLRDHUP | EPOLLET);
}

int UnixDoor::MoveToFreshNumber(int fd, const Principal& principal) {
  const auto same_rights = [&](const Principal& before) {
    return before.given == principal.given && before.user->SameRights(*principal.user);
  };
  const auto quarantine = absl::ToChronoMilliseconds(options_.quarantine);
  for (int tries = 0; tries < kNumbersToTry; ++tries) {
    if (next_number_ >= end_number_) next_number_ = first_number_;
    const int number = fcntl(fd, F_DUPFD_CLOEXEC, next_number_);
    if (number < 0) return -1;
    next_number_ = number + 1;
    std::lock_guard lock(mutex_);
    const auto found = entries_.find(number);
    // An entry without an end is over too, or its number would not be free; we have yet to hear it.
    if (found == entries_.end() || same_rights(found->second.connection->principal) ||
        (found->second.end.has_value() && *found->second.end + quarantine <= Clock::now())) {
      return number;
    }
    close(number);
  }
  return -1;
}

// The other side is gone, or gRPC has shut the connection down.
void UnixDoor::End(int watch) {
  const auto found = open_.find(watch);
  if (found == open_.end()) return;
  const Open ended = std::move(found->second);
  open_.erase(found);
  const auto counted = of_users_.find(ended.connection->principal.user->uid);
  if (--counted->second == 0) of_users_.erase(counted);
  {
    std::lock_guard lock(mutex_);
    const auto entry = entries_.find(ended.number);
    if (entry != entries_.end() && entry->second.connection == ended.connection) {
      entry->second.end = Clock::now();
    }
  }
  // gRPC may still have the connection open, so epoll would not forget it by itself.
  epoll_ctl(epoll_, EPOLL_CTL_DEL, watch, nullptr);
  close(watch);
}

void UnixDoor::Sweep() {
  const auto silent = Clock::now() - absl::ToChronoMilliseconds(options_.silence);
  for (const auto& [watch, open] : open_) {
    // We hear of it as of every end.
    if (!open.connection->called && open.since < silent) shutdown(watch, SHUT_RDWR);
  }
  const auto quarantine = Clock::now() - absl::ToChronoMilliseconds(options_.quarantine);
  std::lock_guard lock(mutex_);
  std::erase_if(entries_, [&](const auto& item) {
    return item.second.end.has_value() && *item.second.end < quarantine;
  });
}

const std::string& UnixDoor::NameOf(uint32_t uid) {
  if (names_.size() > kNamesToKeep) names_.clear();
  const auto [found, added] = names_.try_emplace(uid);
  if (added) found->second = UserName(uid);
  return found->second;
}

}  // namespace twinroot::access
