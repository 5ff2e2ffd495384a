#include "daemon/access/audit_log.h"

#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "spdlog/sinks/ostream_sink.h"
#include "spdlog/spdlog.h"

namespace twinroot::access {
namespace {

class AuditLogTest : public ::testing::Test {
 protected:
  std::string Path(const std::string& name) { return ::testing::TempDir() + "/" + name; }
  void SetUp() override {
    for (const char* name : {"a", "b"}) std::filesystem::remove(Path(name));
  }

  static std::string Contents(const std::string& path) {
    std::ifstream file(path);
    return {std::istreambuf_iterator<char>(file), {}};
  }

  static AuditEntry Entry(const std::string& method) {
    AuditEntry entry;
    entry.set_method(method);
    return entry;
  }

  int failures_ = 0;
  std::unique_ptr<AuditLog> Open(const std::string& path) {
    auto log = AuditLog::Open(path, [this] { ++failures_; });
    EXPECT_TRUE(log.ok()) << log.status();
    return *std::move(log);
  }
};

TEST_F(AuditLogTest, ALineIsOneObjectThatNoTextCanBreak) {
  auto log = Open(Path("a"));
  AuditEntry entry = Entry("S/M");
  entry.set_resource("vms/a\"\n\\{");
  entry.set_pid(7);
  entry.mutable_time()->set_seconds(1);
  log->Write(entry);
  log->Write(Entry("S/N"));
  EXPECT_EQ(Contents(Path("a")),
            "{\"time\":\"1970-01-01T00:00:01Z\",\"pid\":7,\"method\":\"S/M\","
            "\"resource\":\"vms/a\\\"\\n\\\\{\"}\n{\"method\":\"S/N\"}\n");
  EXPECT_EQ(failures_, 0);
}

TEST_F(AuditLogTest, TheFileIsTheOwnersAlone) {
  std::ofstream(Path("a")) << "before\n";
  chmod(Path("a").c_str(), 0644);
  Open(Path("a"))->Write(Entry("S/M"));
  struct stat facts {};
  ASSERT_EQ(stat(Path("a").c_str(), &facts), 0);
  EXPECT_EQ(facts.st_mode & 0777, 0600u);
  EXPECT_EQ(Contents(Path("a")), "before\n{\"method\":\"S/M\"}\n");
}

TEST_F(AuditLogTest, AFileThatWasRotatedAwayIsLeftForANewOne) {
  auto log = Open(Path("a"));
  log->Write(Entry("S/1"));
  std::filesystem::rename(Path("a"), Path("b"));
  log->Write(Entry("S/2"));
  ASSERT_TRUE(log->Reopen(Path("a")).ok());
  log->Write(Entry("S/3"));
  EXPECT_EQ(Contents(Path("b")), "{\"method\":\"S/1\"}\n{\"method\":\"S/2\"}\n");
  EXPECT_EQ(Contents(Path("a")), "{\"method\":\"S/3\"}\n");
}

TEST_F(AuditLogTest, WhenTheNewFileCannotBeOpenedTheOldOneGoesOn) {
  auto log = Open(Path("a"));
  const absl::Status status = log->Reopen("/no/such/folder/audit");
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_NE(std::string(status.message()).find("audit.path"), std::string::npos);
  log->Write(Entry("S/M"));
  EXPECT_EQ(Contents(Path("a")), "{\"method\":\"S/M\"}\n");
  EXPECT_FALSE(AuditLog::Open("/no/such/folder/audit", [] {}).ok());
}

TEST_F(AuditLogTest, ALinkIsNotFollowed) {
  std::filesystem::create_symlink(Path("b"), Path("a"));
  EXPECT_FALSE(AuditLog::Open(Path("a"), [] {}).ok());
  EXPECT_FALSE(std::filesystem::exists(Path("b")));
}

TEST_F(AuditLogTest, AFullDiskIsLoudAndHidesNoOtherLine) {
  std::ostringstream said;
  const auto before = spdlog::default_logger();
  spdlog::set_default_logger(std::make_shared<spdlog::logger>(
      "test", std::make_shared<spdlog::sinks::ostream_sink_mt>(said)));
  auto log = Open(Path("a"));
  log->Write(Entry("S/1"));
  // Room for one line and a half.
  rlimit all{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &all), 0);
  signal(SIGXFSZ, SIG_IGN);
  const rlimit little = {25, all.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &little), 0);
  log->Write(Entry("S/2"));
  log->Write(Entry("S/3"));
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &all), 0);
  log->Write(Entry("S/4"));
  spdlog::set_default_logger(before);
  EXPECT_EQ(failures_, 2);
  EXPECT_NE(said.str().find("{\"method\":\"S/2\"}"), std::string::npos) << said.str();
  EXPECT_NE(said.str().find("{\"method\":\"S/3\"}"), std::string::npos) << said.str();
  EXPECT_EQ(Contents(Path("a")), "{\"method\":\"S/1\"}\n{\"method\n{\"method\":\"S/4\"}\n");
}

TEST_F(AuditLogTest, LinesOfManyThreadsDoNotMix) {
  auto log = Open(Path("a"));
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int j = 0; j < 200; ++j) log->Write(Entry("S/M"));
    });
  }
  for (std::thread& thread : threads) thread.join();
  std::string expected;
  for (int i = 0; i < 800; ++i) expected += "{\"method\":\"S/M\"}\n";
  EXPECT_EQ(Contents(Path("a")), expected);
}

}  // namespace
}  // namespace twinroot::access
