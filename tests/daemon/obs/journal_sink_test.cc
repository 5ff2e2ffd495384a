#include "daemon/obs/journal_sink.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "daemon/log_vm.h"
#include "gtest/gtest.h"
#include "spdlog/spdlog.h"

namespace twinroot::obs {
namespace {

using Fields = std::multimap<std::string, std::string>;

// As journald reads it: every field here has the form with a length.
Fields FieldsOf(const std::string& entry) {
  Fields fields;
  for (size_t at = 0; at < entry.size();) {
    const size_t end = entry.find('\n', at);
    uint64_t size = 0;
    EXPECT_LE(end + 9, entry.size());
    std::memcpy(&size, entry.data() + end + 1, sizeof(size));
    EXPECT_EQ(entry.at(end + 9 + size), '\n');
    fields.emplace(entry.substr(at, end - at), entry.substr(end + 9, size));
    at = end + 9 + size + 1;
  }
  return fields;
}

class JournalSinkTest : public ::testing::Test {
 protected:
  JournalSinkTest() {
    char folder[] = "/tmp/hvdXXXXXX";
    folder_ = mkdtemp(folder);
    path_ = folder_ + "/journal";
    journal_ = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path_.copy(address.sun_path, sizeof(address.sun_path) - 1);
    EXPECT_EQ(bind(journal_, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
    before_ = spdlog::default_logger();
    Use(path_);
  }
  ~JournalSinkTest() override {
    spdlog::set_default_logger(before_);
    close(journal_);
    std::filesystem::remove_all(folder_);
  }

  static void Use(const std::string& path) {
    spdlog::set_default_logger(
        std::make_shared<spdlog::logger>("test", std::make_shared<JournalSink>(path)));
  }

  // The next entry that journald gets.
  Fields Entry() {
    std::string entry(1 << 20, '\0');
    const ssize_t size = recv(journal_, entry.data(), entry.size(), 0);
    EXPECT_GT(size, 0);
    entry.resize(static_cast<size_t>(size));
    return FieldsOf(entry);
  }

  static std::string Of(const Fields& fields, const std::string& name) {
    EXPECT_EQ(fields.count(name), 1u) << name;
    const auto found = fields.find(name);
    return found == fields.end() ? "" : found->second;
  }

  std::string folder_;
  std::string path_;
  int journal_;
  std::shared_ptr<spdlog::logger> before_;
};

TEST_F(JournalSinkTest, ALineIsAnEntryWithAPriority) {
  spdlog::info("serves on {}", "/x");
  const Fields entry = Entry();
  EXPECT_EQ(Of(entry, "MESSAGE"), "serves on /x");
  EXPECT_EQ(Of(entry, "PRIORITY"), "6");
  EXPECT_EQ(Of(entry, "SYSLOG_IDENTIFIER"), "hvd");
  EXPECT_EQ(Of(entry, "TID"), std::to_string(gettid()));
  EXPECT_EQ(entry.size(), 4u);
  for (const auto& [level, priority] : {std::pair{spdlog::level::critical, "2"},
                                        {spdlog::level::err, "3"},
                                        {spdlog::level::warn, "4"}}) {
    spdlog::log(level, "x");
    EXPECT_EQ(Of(Entry(), "PRIORITY"), priority);
  }
}

TEST_F(JournalSinkTest, ALineAboutAVmHasItsNameAndReason) {
  const std::string vm = "demo";
  LogVm(spdlog::level::warn, {vm, "CONVERSION_QUOTA"}, "stopped, {}", 7);
  const Fields entry = Entry();
  EXPECT_EQ(Of(entry, "MESSAGE"), "vm demo: stopped, 7");
  EXPECT_EQ(Of(entry, "TWINROOT_VM"), "demo");
  EXPECT_EQ(Of(entry, "TWINROOT_REASON"), "CONVERSION_QUOTA");
  // Not the line after it.
  spdlog::info("another");
  EXPECT_EQ(Entry().count("TWINROOT_VM"), 0u);
}

TEST_F(JournalSinkTest, ALineWithoutAReasonHasNoSuchField) {
  LogVm(spdlog::level::info, std::string("demo"), "deleted");
  const Fields entry = Entry();
  EXPECT_EQ(Of(entry, "TWINROOT_VM"), "demo");
  EXPECT_EQ(entry.count("TWINROOT_REASON"), 0u);
}

TEST_F(JournalSinkTest, NewLinesBeginNoField) {
  const std::string hostile = "a\nPRIORITY=0\nTWINROOT_VM=other\n\n";
  spdlog::info(hostile);
  const Fields entry = Entry();
  EXPECT_EQ(Of(entry, "MESSAGE"), hostile);
  EXPECT_EQ(Of(entry, "PRIORITY"), "6");
  EXPECT_EQ(entry.count("TWINROOT_VM"), 0u);
}

TEST_F(JournalSinkTest, AVeryLongLineIsCutAndSaysSo) {
  spdlog::info(std::string(1 << 20, 'x'));
  const std::string message = Of(Entry(), "MESSAGE");
  EXPECT_LT(message.size(), 20000u);
  EXPECT_TRUE(message.ends_with("x [cut]"));
}

TEST_F(JournalSinkTest, WhatJournaldDoesNotTakeGoesToStderrWithItsPriority) {
  Use(folder_ + "/nobody");
  testing::internal::CaptureStderr();
  spdlog::error("lost?");
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "<3>lost?\n");
}

TEST(StderrIsJournal, WhenTheVariableNamesWhatStderrIs) {
  struct stat status {};
  ASSERT_EQ(fstat(STDERR_FILENO, &status), 0);
  const std::string its_own = std::to_string(status.st_dev) + ":" + std::to_string(status.st_ino);
  setenv("JOURNAL_STREAM", its_own.c_str(), 1);
  EXPECT_TRUE(StderrIsJournal());
  // Inherited from whoever started us, with stderr elsewhere.
  setenv("JOURNAL_STREAM", "1:2", 1);
  EXPECT_FALSE(StderrIsJournal());
  unsetenv("JOURNAL_STREAM");
  EXPECT_FALSE(StderrIsJournal());
}

}  // namespace
}  // namespace twinroot::obs
