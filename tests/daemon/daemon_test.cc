#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "grpcpp/grpcpp.h"
#include "gtest/gtest.h"
#include "tests/daemon/obs/scrape.h"
#include "twinroot/v1/event.grpc.pb.h"
#include "twinroot/v1/host.grpc.pb.h"
#include "twinroot/v1/vm.grpc.pb.h"

namespace twinroot {
namespace {

constexpr char kHvd[] = "tests/daemon/hvd_with_fake_vms";

std::string Contents(const std::string& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

// One hvd, a child process of this test.
class Child {
 public:
  Child(const std::string& log, std::vector<std::string> arguments) : log_(log) {
    arguments.insert(arguments.begin(), kHvd);
    std::vector<char*> argv;
    for (std::string& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    pid_ = fork();
    if (pid_ == 0) {
      const int fd = open(log.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
      dup2(fd, STDERR_FILENO);
      execv(kHvd, argv.data());
      _exit(127);
    }
  }
  ~Child() {
    if (pid_ > 0) {
      kill(pid_, SIGKILL);
      waitpid(pid_, nullptr, 0);
    }
  }

  void Signal(int signal) { kill(pid_, signal); }
  // Exit code, or 128 + signal.
  int Wait() {
    int status = 0;
    waitpid(std::exchange(pid_, -1), &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }
  pid_t pid() const { return pid_; }
  std::string log() const { return Contents(log_); }

 private:
  const std::string log_;
  pid_t pid_ = -1;
};

class DaemonTest : public ::testing::Test {
 protected:
  void SetUp() override {
    char folder[] = "/tmp/hvdXXXXXX";
    ASSERT_NE(mkdtemp(folder), nullptr);
    folder_ = folder;
    socket_ = folder_ + "/run/hvd.sock";
    state_dir_ = folder_ + "/state";
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::unique_ptr<Child> Run(std::vector<std::string> more = {}) {
    std::vector<std::string> arguments = {"--socket",          socket_, "--state-dir", state_dir_,
                                          "--metrics-address", metrics_};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return std::make_unique<Child>(folder_ + "/log" + std::to_string(++children_), arguments);
  }

  std::shared_ptr<grpc::Channel> Connect() {
    auto channel = grpc::CreateChannel("unix:" + socket_, grpc::InsecureChannelCredentials());
    EXPECT_TRUE(
        channel->WaitForConnected(std::chrono::system_clock::now() + std::chrono::seconds(20)));
    return channel;
  }

  v1::Host Host() {
    auto stub = v1::HostService::NewStub(Connect());
    grpc::ClientContext context;
    v1::GetHostResponse response;
    EXPECT_TRUE(stub->GetHost(&context, v1::GetHostRequest(), &response).ok());
    return response.host();
  }

  std::string folder_;
  std::string socket_;
  std::string state_dir_;
  std::string metrics_ = "127.0.0.1:0";
  int children_ = 0;
};

#define EXPECT_SAYS(child, text) \
  EXPECT_NE((child)->log().find(text), std::string::npos) << (child)->log()

TEST_F(DaemonTest, ServesAndEndsWellOnSigterm) {
  auto hvd = Run();
  const v1::Host host = Host();
  EXPECT_EQ(host.vms(), 1u);
  EXPECT_EQ(host.metrics_address().rfind("127.0.0.1:", 0), 0u);
  EXPECT_NE(host.metrics_address(), "127.0.0.1:0");
  struct stat status {};
  ASSERT_EQ(stat(socket_.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0600u);
  EXPECT_SAYS(hvd, "serves on " + socket_);
  EXPECT_SAYS(hvd, host.metrics_address());
  EXPECT_SAYS(hvd, "backend sim: the fake registry runs nothing");
  hvd->Signal(SIGTERM);
  EXPECT_EQ(hvd->Wait(), 0);
  EXPECT_FALSE(std::filesystem::exists(socket_));
}

TEST_F(DaemonTest, DrainTellsWatchersOfTheStopsAndEndsTheirStreams) {
  auto hvd = Run();
  auto stub = v1::EventService::NewStub(Connect());
  grpc::ClientContext context;
  auto reader = stub->WatchEvents(&context, v1::WatchEventsRequest());
  reader->WaitForInitialMetadata();
  hvd->Signal(SIGINT);
  std::vector<v1::Event> events;
  v1::WatchEventsResponse response;
  while (reader->Read(&response)) {
    events.insert(events.end(), response.events().begin(), response.events().end());
  }
  EXPECT_TRUE(reader->Finish().ok());
  ASSERT_EQ(events.size(), 2u);
  EXPECT_EQ(events[0].vm(), "demo");
  EXPECT_EQ(events[0].vm_state().stop_reason(), "DAEMON_STOPPING");
  EXPECT_TRUE(events[1].has_bookmark());
  EXPECT_EQ(hvd->Wait(), 0);
}

TEST_F(DaemonTest, CallsAreCountedByMethodAndCode) {
  auto hvd = Run();
  const std::string address = Host().metrics_address();
  auto stub = v1::EventService::NewStub(Connect());
  grpc::ClientContext context;
  v1::ListConversionsRequest request;
  request.set_vm("nobody");
  v1::ListConversionsResponse response;
  EXPECT_EQ(stub->ListConversions(&context, request, &response).error_code(),
            grpc::StatusCode::NOT_FOUND);
  const std::string scrape = obs::Scrape(address);
  EXPECT_EQ(obs::ValueOf(scrape,
                         "twinroot_grpc_started_total{method=\"twinroot.v1.HostService/GetHost\"}"),
            1);
  EXPECT_EQ(obs::ValueOf(scrape,
                         "twinroot_grpc_handled_total{code=\"OK\","
                         "method=\"twinroot.v1.HostService/GetHost\"}"),
            1);
  EXPECT_EQ(obs::ValueOf(scrape,
                         "twinroot_grpc_handled_total{code=\"NOT_FOUND\","
                         "method=\"twinroot.v1.EventService/ListConversions\"}"),
            1);
}

class ReloadTest : public DaemonTest {
 protected:
  void Write(const std::string& text) { std::ofstream(file_) << text; }
  static std::string Roles(const std::string& role) {
    return "roles: [{role: " + role + ", users: [" + std::to_string(geteuid()) + "]}]\n";
  }

  void SetUp() override {
    DaemonTest::SetUp();
    file_ = folder_ + "/hvd.yaml";
  }

  // SIGHUP, and what the daemon says about it.
  void Reload(Child& hvd, const std::string& says) {
    const std::string before = hvd.log();
    hvd.Signal(SIGHUP);
    while (hvd.log().find(says, before.size()) == std::string::npos) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }

  grpc::Status Create() {
    grpc::ClientContext context;
    v1::CreateVmResponse response;
    return v1::VmService::NewStub(Connect())->CreateVm(&context, v1::CreateVmRequest(), &response);
  }

  std::string file_;
};

TEST_F(ReloadTest, SighupTakesNewRolesAndReopensTheAuditLog) {
  Write(Roles("viewer"));
  auto hvd = Run({"--config", file_});
  EXPECT_EQ(Create().error_code(), grpc::StatusCode::PERMISSION_DENIED);
  const std::string audit = state_dir_ + "/audit.jsonl";
  EXPECT_NE(Contents(audit).find("PERMISSION_DENIED"), std::string::npos);
  std::filesystem::rename(audit, audit + ".1");
  Write(Roles("operator") + "backend: sim\nlog_level: debug\n");
  Reload(*hvd, "read " + file_ + " again");
  EXPECT_SAYS(hvd, "these wait for a restart: backend");
  EXPECT_EQ(Create().error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_NE(Contents(audit).find("INVALID_ARGUMENT"), std::string::npos);
  EXPECT_EQ(Contents(audit).find("PERMISSION_DENIED"), std::string::npos);
  hvd->Signal(SIGTERM);
  EXPECT_EQ(hvd->Wait(), 0);
}

TEST_F(ReloadTest, AFileWithAMistakeChangesNothing) {
  Write(Roles("viewer"));
  auto hvd = Run({"--config", file_});
  Host();
  Write(Roles("operator") + "sokcet: /x\n");
  Reload(*hvd, "so the old one stays: " + file_ + ":2:1: unknown key \"sokcet\"");
  EXPECT_EQ(Create().error_code(), grpc::StatusCode::PERMISSION_DENIED);
}

TEST_F(ReloadTest, ADrainIsNotEndedByIt) {
  setenv("HVD_FAKE_DRAIN_HANGS", "1", 1);
  auto hvd = Run();
  unsetenv("HVD_FAKE_DRAIN_HANGS");
  Host();
  hvd->Signal(SIGTERM);
  while (hvd->log().find("hanging") == std::string::npos) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  hvd->Signal(SIGHUP);
  EXPECT_EQ(Host().vms(), 1u);
  hvd->Signal(SIGTERM);
  EXPECT_EQ(hvd->Wait(), 1);
}

TEST_F(DaemonTest, AnAuditLogThatCannotBeWrittenIsRefused) {
  std::filesystem::create_directories(state_dir_ + "/audit.jsonl");
  auto hvd = Run();
  EXPECT_EQ(hvd->Wait(), 1);
  EXPECT_SAYS(hvd, "audit.path");
  EXPECT_FALSE(std::filesystem::exists(socket_));
}

TEST_F(DaemonTest, SecondDaemonOnTheSameSocketIsRefused) {
  auto first = Run();
  Host();
  auto second = Run();
  EXPECT_EQ(second->Wait(), 1);
  EXPECT_SAYS(second, "another hvd serves on " + socket_);
  EXPECT_SAYS(second, "--socket");
  // The first is not disturbed.
  EXPECT_EQ(Host().vms(), 1u);
}

TEST_F(DaemonTest, StaleSocketOfAKilledDaemonIsReplaced) {
  auto first = Run();
  Host();
  first->Signal(SIGKILL);
  EXPECT_EQ(first->Wait(), 128 + SIGKILL);
  ASSERT_TRUE(std::filesystem::exists(socket_));
  auto second = Run();
  EXPECT_EQ(Host().vms(), 1u);
  second->Signal(SIGTERM);
  EXPECT_EQ(second->Wait(), 0);
}

TEST_F(DaemonTest, FileThatIsNoSocketIsLeftAlone) {
  std::filesystem::create_directories(folder_ + "/run");
  std::ofstream(socket_) << "precious";
  auto hvd = Run();
  EXPECT_EQ(hvd->Wait(), 1);
  EXPECT_SAYS(hvd, "is no socket");
  EXPECT_EQ(Contents(socket_), "precious");
}

TEST_F(DaemonTest, SocketOfAnotherProgramIsNotTaken) {
  std::filesystem::create_directories(folder_ + "/run");
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  socket_.copy(address.sun_path, sizeof(address.sun_path) - 1);
  ASSERT_EQ(bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  ASSERT_EQ(listen(fd, 1), 0);
  auto hvd = Run();
  EXPECT_EQ(hvd->Wait(), 1);
  EXPECT_SAYS(hvd, "another program serves on");
  EXPECT_TRUE(std::filesystem::exists(socket_));
  close(fd);
}

TEST_F(DaemonTest, PathTooLongForASocketIsRefused) {
  socket_ = folder_ + "/" + std::string(120, 'x') + "/hvd.sock";
  auto hvd = Run();
  EXPECT_EQ(hvd->Wait(), 1);
  EXPECT_SAYS(hvd, "a socket's may have 107");
}

TEST_F(DaemonTest, FolderThatCannotBeMadeIsRefused) {
  std::ofstream(folder_ + "/file") << "x";
  state_dir_ = folder_ + "/file/state";
  auto no_state = Run();
  EXPECT_EQ(no_state->Wait(), 1);
  EXPECT_SAYS(no_state, "--state-dir");
  socket_ = folder_ + "/file/hvd.sock";
  auto no_run = Run();
  EXPECT_EQ(no_run->Wait(), 1);
  EXPECT_SAYS(no_run, "--socket");
}

TEST_F(DaemonTest, MetricsAddressThatIsTakenIsRefused) {
  auto first = Run();
  metrics_ = Host().metrics_address();
  socket_ = folder_ + "/other.sock";
  state_dir_ = folder_ + "/other-state";
  auto second = Run();
  EXPECT_EQ(second->Wait(), 1);
  EXPECT_SAYS(second, "--metrics-address");
  EXPECT_FALSE(std::filesystem::exists(socket_));
}

TEST_F(DaemonTest, BackendThatDoesNotWorkIsRefused) {
  auto hvd = Run({"--backend", "kvm"});
  EXPECT_EQ(hvd->Wait(), 1);
  EXPECT_SAYS(hvd, "kvm does not work here");
}

TEST_F(DaemonTest, CoreDumpsAreForbiddenUnlessTheyAreAllowed) {
  auto safe = Run();
  Host();
  EXPECT_SAYS(safe, "dumpable 0");
  safe->Signal(SIGTERM);
  EXPECT_EQ(safe->Wait(), 0);
  auto debugged = Run({"--allow-core-dumps"});
  Host();
  EXPECT_SAYS(debugged, "dumpable 1");
}

TEST_F(DaemonTest, SecondSignalEndsADrainThatHangs) {
  setenv("HVD_FAKE_DRAIN_HANGS", "1", 1);
  auto hvd = Run();
  unsetenv("HVD_FAKE_DRAIN_HANGS");
  Host();
  hvd->Signal(SIGTERM);
  while (hvd->log().find("hanging") == std::string::npos) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  hvd->Signal(SIGTERM);
  EXPECT_EQ(hvd->Wait(), 1);
  EXPECT_SAYS(hvd, "second signal");
}

}  // namespace
}  // namespace twinroot
