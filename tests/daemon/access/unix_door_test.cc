#include "daemon/access/unix_door.h"

#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <set>
#include <thread>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"

namespace twinroot::access {
namespace {

template <typename Condition>
void Eventually(Condition condition) {
  while (!condition()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
}

class UnixDoorTest : public ::testing::Test {
 protected:
  UnixDoorTest() {
    char folder[] = "/tmp/hvdXXXXXX";
    folder_ = mkdtemp(folder);
    chmod(folder_.c_str(), 0755);
    options_.path = folder_ + "/hvd.sock";
  }
  ~UnixDoorTest() override {
    door_.reset();
    for (const int fd : admitted_) close(fd);
    std::filesystem::remove_all(folder_);
  }

  void Open() {
    auto door = UnixDoor::Make(options_);
    ASSERT_TRUE(door.ok()) << door.status();
    door_ = *std::move(door);
    door_->Serve([this](int fd) {
      std::lock_guard lock(mutex_);
      admitted_.insert(fd);
      last_ = fd;
      ++count_;
    });
  }

  static sockaddr_un AddressOf(const std::string& path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, sizeof(address.sun_path) - 1);
    return address;
  }

  // As systemd makes one.
  void Give(const std::string& path, Role role) {
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const sockaddr_un address = AddressOf(path);
    ASSERT_EQ(bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
    ASSERT_EQ(listen(fd, 16), 0);
    options_.given.push_back({fd, path, role});
  }

  int Connect() const { return Connect(options_.path); }
  static int Connect(const std::string& path) {
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_un address = AddressOf(path);
    if (connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0) return fd;
    close(fd);
    return -1;
  }

  // A connection that was admitted, as (the client's descriptor, gRPC's).
  std::pair<int, int> Admitted() { return Admitted(options_.path); }
  std::pair<int, int> Admitted(const std::string& path) {
    const size_t before = count();
    const int fd = Connect(path);
    EXPECT_GE(fd, 0);
    Eventually([&] { return count() > before; });
    std::lock_guard lock(mutex_);
    return {fd, last_};
  }

  // What gRPC does at a connection's end.
  void Drop(int number) {
    std::lock_guard lock(mutex_);
    admitted_.erase(number);
    close(number);
  }

  size_t count() {
    std::lock_guard lock(mutex_);
    return count_;
  }

  auto Find(int number) const { return door_->Find(absl::StrCat("fd:", number)); }

  static bool HungUp(int fd) {
    pollfd poll_fd = {fd, POLLIN | POLLRDHUP, 0};
    return poll(&poll_fd, 1, 0) == 1 && (poll_fd.revents & (POLLRDHUP | POLLHUP)) != 0;
  }

  std::string folder_;
  DoorOptions options_;
  std::mutex mutex_;
  std::set<int> admitted_;
  int last_ = -1;
  size_t count_ = 0;
  std::unique_ptr<UnixDoor> door_;
};

TEST_F(UnixDoorTest, KnowsWhoConnected) {
  Open();
  const auto [client, number] = Admitted();
  const auto connection = Find(number);
  ASSERT_NE(connection, nullptr);
  const User& user = *connection->principal.user;
  EXPECT_EQ(user.uid, geteuid());
  EXPECT_EQ(user.gid, getegid());
  EXPECT_EQ(user.pid, getpid());
  EXPECT_EQ(user.name, UserName(geteuid()));
  EXPECT_EQ(connection->principal.Name(), absl::StrCat("uid:", geteuid()));
  EXPECT_EQ(connection->of_user, 1u);
  std::vector<gid_t> groups(64);
  groups.resize(static_cast<size_t>(getgroups(64, groups.data())));
  EXPECT_EQ(std::multiset<uint32_t>(user.groups.begin(), user.groups.end()),
            std::multiset<uint32_t>(groups.begin(), groups.end()));
  close(client);
}

TEST_F(UnixDoorTest, KnowsAnotherUserAndItsSupplementaryGroups) {
  if (geteuid() != 0) GTEST_SKIP() << "only root can connect as another user";
  options_.mode = 0666;
  Open();
  const pid_t child = fork();
  if (child == 0) {
    const gid_t groups[] = {1234, 77};
    if (setgroups(2, groups) != 0 || setgid(4321) != 0 || setuid(65534) != 0) _exit(1);
    const int fd = Connect();
    pause();
    _exit(fd);
  }
  int ended = 0;
  Eventually([&] { return count() == 1 || waitpid(child, &ended, WNOHANG) == child; });
  if (count() == 0) GTEST_SKIP() << "this root may not become another user (a user namespace)";
  const auto connection = Find(last_);
  ASSERT_NE(connection, nullptr);
  const User& user = *connection->principal.user;
  EXPECT_EQ(user.uid, 65534u);
  EXPECT_EQ(user.gid, 4321u);
  EXPECT_EQ(user.pid, child);
  EXPECT_EQ(std::set<uint32_t>(user.groups.begin(), user.groups.end()),
            (std::set<uint32_t>{77, 1234}));
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
}

TEST_F(UnixDoorTest, OthersPeersAreNobodys) {
  Open();
  const auto [client, number] = Admitted();
  for (const std::string peer : {"", "fd:", "fd:x", "fd:-1", "fd:7", "ipv4:127.0.0.1:9"}) {
    EXPECT_EQ(door_->Find(peer), nullptr) << peer;
  }
  EXPECT_EQ(door_->Find(absl::StrCat(number)), nullptr);
  close(client);
}

TEST_F(UnixDoorTest, ANumberComesBackOnlyToWhoHadItWhileItIsInQuarantine) {
  Open();
  const auto [first, number] = Admitted();
  close(first);
  Drop(number);
  // Late calls of the old connection still find whose it was.
  ASSERT_NE(Find(number), nullptr);
  EXPECT_EQ(Find(number)->principal.user->uid, geteuid());
  const auto [second, next] = Admitted();
  EXPECT_NE(next, number);
  close(second);
}

TEST_F(UnixDoorTest, WhoComesThroughAGivenSocketHasItsRoleAndIsKnown) {
  const std::string operators = folder_ + "/operator.sock";
  const std::string viewers = folder_ + "/viewer.sock";
  Give(operators, Role::kOperator);
  Give(viewers, Role::kViewer);
  Open();
  for (const auto& [path, role] : {std::pair{options_.path, Role::kNone},
                                   {operators, Role::kOperator},
                                   {viewers, Role::kViewer}}) {
    const auto [client, number] = Admitted(path);
    const auto connection = Find(number);
    ASSERT_NE(connection, nullptr);
    EXPECT_EQ(connection->principal.given, role) << path;
    EXPECT_EQ(connection->principal.user->uid, geteuid());
    EXPECT_EQ(connection->principal.user->pid, getpid());
    close(client);
  }
}

TEST_F(UnixDoorTest, GivenSocketsAloneAreServedAndTheirPathsStay) {
  const std::string path = options_.path;
  Give(path, Role::kNone);
  options_.path.clear();
  Open();
  const auto [client, number] = Admitted(path);
  EXPECT_EQ(Find(number)->principal.given, Role::kNone);
  close(client);
  door_.reset();
  EXPECT_TRUE(std::filesystem::exists(path));
}

TEST_F(UnixDoorTest, ANumberDoesNotComeBackThroughAnotherSocketWhileItIsInQuarantine) {
  const std::string viewers = folder_ + "/viewer.sock";
  Give(viewers, Role::kViewer);
  options_.quarantine = absl::Hours(1);
  // Few numbers, so that the door soon comes back to the first.
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  const rlimit few = {128, before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &few), 0);
  Open();
  const auto [first, number] = Admitted();
  close(first);
  Drop(number);
  int again = 0;
  for (int i = 0; i < 300; ++i) {
    const auto [client, other] = Admitted(viewers);
    EXPECT_NE(other, number);
    again += other == number + 1 ? 1 : 0;
    close(client);
    Drop(other);
  }
  EXPECT_GT(again, 1);
  setrlimit(RLIMIT_NOFILE, &before);
}

TEST_F(UnixDoorTest, ItsThreadComesAroundWhenAsked) {
  Open();
  std::atomic<int> done{0};
  for (int i = 0; i < 3; ++i) door_->AskProgress([&] { ++done; });
  Eventually([&] { return done == 3; });
}

TEST_F(UnixDoorTest, AnEndIsForgottenAfterItsQuarantine) {
  options_.quarantine = absl::Milliseconds(20);
  options_.silence = absl::Milliseconds(80);
  Open();
  const auto [client, number] = Admitted();
  ASSERT_NE(Find(number), nullptr);
  close(client);
  Drop(number);
  Eventually([&] { return Find(number) == nullptr; });
}

TEST_F(UnixDoorTest, SilentConnectionsAreClosedAndThoseWithCallsStay) {
  options_.silence = absl::Milliseconds(50);
  Open();
  const auto [talks, talking] = Admitted();
  Find(talking);
  const auto [silent, ignored] = Admitted();
  Eventually([&, silent = silent] { return HungUp(silent); });
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  EXPECT_FALSE(HungUp(talks));
  close(talks);
  close(silent);
}

TEST_F(UnixDoorTest, ConnectionsOfAPrincipalAreCounted) {
  Open();
  const auto [first, a] = Admitted();
  const auto [second, b] = Admitted();
  EXPECT_EQ(Find(a)->of_user, 1u);
  EXPECT_EQ(Find(b)->of_user, 2u);
  close(first);
  close(second);
  // Its end may be heard later than the next one comes.
  Eventually([&] {
    const auto [third, c] = Admitted();
    close(third);
    return Find(c)->of_user == 1;
  });
}

TEST_F(UnixDoorTest, AUserWithTooManyConnectionsGetsNoMore) {
  options_.most_of_user = 2;
  Open();
  const auto [first, a] = Admitted();
  const auto [second, b] = Admitted();
  const int third = Connect();
  Eventually([&] { return HungUp(third); });
  EXPECT_EQ(count(), 2u);
  EXPECT_FALSE(HungUp(first));
  close(first);
  close(third);
  // There is room again, as soon as the end was heard.
  Eventually([&] {
    const int fourth = Connect();
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    close(fourth);
    return count() > 2;
  });
  close(second);
}

TEST_F(UnixDoorTest, ThousandsComeAndGo) {
  Open();
  const auto open_files = [] {
    return std::distance(std::filesystem::directory_iterator("/proc/self/fd"), {});
  };
  const auto before = open_files();
  constexpr size_t kConnections = 5000;
  for (size_t i = 0; i < kConnections; ++i) {
    const int fd = Connect();
    ASSERT_GE(fd, 0);
    if (i % 2 == 0) {
      EXPECT_EQ(write(fd, "PRI * HTT", 9), 9);
    }
    close(fd);
  }
  Eventually([&] { return count() == kConnections; });
  {
    std::lock_guard lock(mutex_);
    for (const int fd : admitted_) close(fd);
    admitted_.clear();
  }
  Eventually([&] { return open_files() == before; });
}

TEST_F(UnixDoorTest, TheSocketsModeAndGroupAreSet) {
  options_.mode = 0660;
  options_.gid = getegid();
  Open();
  struct stat facts {};
  ASSERT_EQ(stat(options_.path.c_str(), &facts), 0);
  EXPECT_EQ(facts.st_mode & 0777, 0660u);
  EXPECT_EQ(facts.st_gid, getegid());
}

TEST_F(UnixDoorTest, CloseRemovesTheSocketAndEndsWhoHasSaidNothing) {
  Open();
  const auto [silent, ignored] = Admitted();
  door_->Close();
  EXPECT_TRUE(HungUp(silent));
  EXPECT_FALSE(std::filesystem::exists(options_.path));
  EXPECT_EQ(Connect(), -1);
  close(silent);
}

TEST_F(UnixDoorTest, APlaceThatCannotBeBoundIsRefused) {
  options_.path = folder_ + "/missing/hvd.sock";
  EXPECT_EQ(UnixDoor::Make(options_).status().code(), absl::StatusCode::kUnavailable);
  options_.path = folder_ + "/" + std::string(120, 'x');
  EXPECT_EQ(UnixDoor::Make(options_).status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace twinroot::access
