// What hvctl does only on a terminal: ask, colour, show progress, and keep guests from commanding
// the terminal.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <unistd.h>

#include <fstream>

#include "tests/cli/fake_daemon.h"
#include "tests/cli/hvctl_process.h"

namespace twinroot::cli {
namespace {

class HvctlTerminal : public testing::Test {
 protected:
  HvctlTerminal() { daemon_.AddVm("demo"); }

  void SetUp() override {
    const int terminal = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (terminal < 0 || ptsname(terminal) == nullptr || access(ptsname(terminal), F_OK) != 0) {
      if (terminal >= 0) close(terminal);
      GTEST_SKIP() << "no pseudo terminal can be opened here (is /dev/pts mounted?)";
    }
    close(terminal);
  }

  HvctlOptions On(std::vector<std::string> arguments) {
    HvctlOptions options;
    options.arguments = std::move(arguments);
    options.environment = {"HVCTL_ENDPOINT=" + daemon_.socket()};
    options.terminal = Terminal::kAll;
    return options;
  }

  bool Exists(const std::string& vm) {
    return Hvctl(daemon_.socket(), {"vm", "get", vm}).exit_code == 0;
  }

  FakeDaemon daemon_;
};

TEST_F(HvctlTerminal, DeleteAsksAndTakesNoForAnAnswer) {
  for (const char* answer : {"n\n", "\n", "\x04"}) {
    HvctlProcess hvctl(On({"vm", "delete", "demo"}));
    ASSERT_TRUE(hvctl.SeesOutput("Delete vm demo and its memory? [y/N] "));
    hvctl.Type(answer);
    const Finished run = hvctl.Wait();
    EXPECT_EQ(run.exit_code, 1);
    EXPECT_NE(run.out.find("vm demo was not deleted"), std::string::npos);
    EXPECT_TRUE(Exists("demo"));
  }
}

TEST_F(HvctlTerminal, DeleteGoesOnAfterAYes) {
  HvctlProcess hvctl(On({"vm", "delete", "demo"}));
  ASSERT_TRUE(hvctl.SeesOutput("[y/N] "));
  hvctl.Type("y\n");
  EXPECT_EQ(hvctl.Wait().exit_code, 0);
  EXPECT_FALSE(Exists("demo"));
}

TEST_F(HvctlTerminal, DeleteDoesNotAskWithYes) {
  const Finished run = HvctlProcess(On({"vm", "delete", "demo", "--yes"})).Wait();
  EXPECT_EQ(run.exit_code, 0);
  EXPECT_EQ(run.out, "vm demo is deleted\r\n");  // A terminal adds the carriage return.
}

TEST_F(HvctlTerminal, AGuestCannotCommandTheTerminal) {
  daemon_.Say(
      "a\033]0;title\x07"
      "b\xc2\x9b"
      "31m\n");
  EXPECT_EQ(HvctlProcess(On({"vm", "console", "demo"})).Wait().out,
            "a^[]0;title^Gb\\xc2\\x9b31m\r\n");
}

TEST_F(HvctlTerminal, MemoryIsShownInHex) {
  const Finished run = HvctlProcess(On({"memory", "read", "demo", "2M", "2"})).Wait();
  EXPECT_EQ(run.out.rfind("00200000  00 00 ", 0), 0u) << run.out;
}

TEST_F(HvctlTerminal, GapsAreRedUnlessNoColorIsSet) {
  v1::Event event;
  event.mutable_gap()->set_count(12);
  daemon_.AddEvent(event);
  EXPECT_EQ(HvctlProcess(On({"events"})).Wait().out.rfind("\033[31m", 0), 0u);
  HvctlOptions plain = On({"events"});
  plain.environment.push_back("NO_COLOR=1");
  EXPECT_EQ(HvctlProcess(plain).Wait().out.find('\033'), std::string::npos);
}

TEST_F(HvctlTerminal, OnlyALargeImageShowsProgress) {
  const std::string path = daemon_.folder() + "/image";
  std::ofstream(path, std::ios::binary) << std::string(9 << 20, 'x');
  const Finished large =
      HvctlProcess(On({"vm", "create", "a", "--memory=64M", "--vcpus=1", "--image", path})).Wait();
  EXPECT_EQ(large.exit_code, 0);
  EXPECT_NE(large.out.find("9MiB of 9MiB"), std::string::npos) << large.out;
  std::ofstream(path, std::ios::binary) << "small";
  const Finished small =
      HvctlProcess(On({"vm", "create", "b", "--memory=64M", "--vcpus=1", "--image", path})).Wait();
  EXPECT_EQ(small.out, "vm b is DEFINED on backend SIM\r\n");
}

TEST_F(HvctlTerminal, PrefaultShowsABarAndTakesItAway) {
  const Finished run = HvctlProcess(On({"memory", "prefault", "demo"})).Wait();
  EXPECT_EQ(run.exit_code, 0);
  EXPECT_EQ(run.out,
            "\rmapping memory: [############            ] 20MiB of 40MiB\033[K"
            "\rmapping memory: [########################] 40MiB of 40MiB\033[K"
            "\r\033[K40MiB of vm demo are mapped\r\n");
}

TEST_F(HvctlTerminal, AnInteractiveConsoleTypesEveryKeyAndIsLeft) {
  ASSERT_EQ(Hvctl(daemon_.socket(), {"vm", "start", "demo"}).exit_code, 0);
  HvctlProcess hvctl(On({"vm", "console", "demo", "--interactive"}));
  ASSERT_TRUE(hvctl.SeesOutput("Ctrl-] leaves; the guest goes on\r\n"));
  hvctl.Type("ls\x03");  // Ctrl-C is the guest's
  ASSERT_TRUE(hvctl.SeesOutput("LS\x03"));
  hvctl.Type("bye\x1d");
  const Finished run = hvctl.Wait();
  EXPECT_EQ(run.exit_code, 0) << run.out;
  EXPECT_TRUE(Exists("demo"));
}

}  // namespace
}  // namespace twinroot::cli
