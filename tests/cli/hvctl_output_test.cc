// How answers are printed: -o wide|yaml|name, --watch, `explain`, `top`.
#include <gtest/gtest.h>
#include <signal.h>

#include "tests/cli/fake_daemon.h"
#include "tests/cli/hvctl_process.h"

namespace twinroot::cli {
namespace {

class HvctlOutput : public testing::Test {
 protected:
  HvctlOutput() {
    daemon_.AddVm("demo");
    daemon_.AddVm("web");
  }
  Finished Run(std::vector<std::string> arguments) {
    return Hvctl(daemon_.socket(), std::move(arguments));
  }
  HvctlOptions On(std::vector<std::string> arguments, Terminal terminal) {
    HvctlOptions options;
    options.arguments = std::move(arguments);
    options.environment = {"HVCTL_ENDPOINT=" + daemon_.socket()};
    options.terminal = terminal;
    return options;
  }

  FakeDaemon daemon_;
};

TEST_F(HvctlOutput, NamesAreOneALine) {
  EXPECT_EQ(Run({"vm", "list", "-o", "name"}).out, "demo\nweb\n");
  EXPECT_EQ(Run({"vm", "get", "web", "-o", "name"}).out, "web\n");
  EXPECT_EQ(Run({"vm", "create", "new", "--memory=16M", "--vcpus=1", "-o", "name"}).out, "new\n");
  v1::ConversionRequest waiting;
  waiting.set_id(17);
  daemon_.Park(waiting);
  EXPECT_EQ(Run({"conversion", "list", "demo", "-o", "name"}).out, "17\n");
}

TEST_F(HvctlOutput, YamlSaysWhatJsonSays) {
  const Finished run = Run({"vm", "get", "demo", "-o", "yaml"});
  EXPECT_EQ(run.exit_code, 0) << run.err;
  EXPECT_EQ(run.out.rfind("name: vms/demo\nmemoryBytes: \"67108864\"\nvcpus: 2\n", 0), 0u)
      << run.out;
  EXPECT_NE(run.out.find("\nconversionPolicy:\n  mode: AUTO\n"), std::string::npos) << run.out;
  EXPECT_NE(Run({"vm", "list", "-o", "yaml"}).out.find("vms:\n- name: vms/demo\n  memoryBytes: "),
            std::string::npos);
}

TEST_F(HvctlOutput, StreamsAreDocumentsOfYaml) {
  const Finished run = Run({"host", "audit", "-o", "yaml"});
  EXPECT_EQ(run.out,
            "---\nvm: demo\nverdict: SOUND\ndetail: \"\"\n"
            "---\nvm: web\nverdict: BROKEN\ndetail: a table is lost\n");
}

TEST_F(HvctlOutput, WideHasMoreColumns) {
  const std::string narrow = Run({"vm", "list"}).out;
  const std::string wide = Run({"vm", "list", "-o", "wide"}).out;
  EXPECT_EQ(narrow.find("LABELS"), std::string::npos);
  EXPECT_NE(wide.substr(0, wide.find('\n')).find("MMU  IMAGE  QUOTAS  LABELS"), std::string::npos)
      << wide;
  EXPECT_NE(wide.find("TDP"), std::string::npos);
}

TEST_F(HvctlOutput, WatchPrintsAgainWhatHasChangedAndNothingElse) {
  HvctlProcess hvctl(On({"vm", "list", "--watch"}, Terminal::kNone));
  ASSERT_TRUE(hvctl.SeesOutput("web"));
  daemon_.Exit("web", 3);
  ASSERT_TRUE(hvctl.SeesOutput("STOPPED  3"));
  hvctl.Signal(SIGINT);
  const Finished run = hvctl.Wait();
  EXPECT_EQ(run.exit_code, 130);
  EXPECT_EQ(run.out,
            "NAME  STATE    EXIT  BACKEND  MEMORY  VCPUS  POLICY\n"
            "demo  DEFINED  -     SIM       64MiB      2  AUTO\n"
            "web   DEFINED  -     SIM       64MiB      2  AUTO\n"
            "\n"
            "NAME  STATE    EXIT  BACKEND  MEMORY  VCPUS  POLICY\n"
            "demo  DEFINED  -     SIM       64MiB      2  AUTO\n"
            "web   STOPPED  3     SIM       64MiB      2  AUTO\n");
}

TEST_F(HvctlOutput, AWatchOfJsonIsAnObjectALine) {
  HvctlProcess hvctl(On({"vm", "get", "web", "-w", "-o", "json"}, Terminal::kNone));
  ASSERT_TRUE(hvctl.SeesOutput("\"state\":\"DEFINED\""));
  daemon_.Exit("web", 3);
  ASSERT_TRUE(hvctl.SeesOutput("\"exitCode\":3"));
  hvctl.Signal(SIGTERM);
  const std::string out = hvctl.Wait().out;
  EXPECT_EQ(std::count(out.begin(), out.end(), '\n'), 2) << out;
}

TEST_F(HvctlOutput, AWatchEndsWithTheDaemonsRefusal) {
  HvctlProcess hvctl(On({"vm", "list", "--watch"}, Terminal::kNone));
  ASSERT_TRUE(hvctl.SeesOutput("web"));
  daemon_.RefuseNext(/*INTERNAL*/ 13, "the pool is gone");
  const Finished run = hvctl.Wait();
  EXPECT_EQ(run.exit_code, 1);
  EXPECT_NE(run.err.find("the pool is gone"), std::string::npos);
}

TEST_F(HvctlOutput, ExplainSaysWhatAWordMeansAndWhatToDo) {
  EXPECT_EQ(Run({"explain", "no-such-vm"}).out,
            "NO_SUCH_VM: reason of an error, exit code 3\n"
            "  There is no VM of this name.\n"
            "  What to do: `hvctl vm list` shows the VMs\n");
  EXPECT_EQ(Run({"explain", "125"}).out.rfind("125: exit code\n  Of `vm wait`", 0), 0u);
  EXPECT_NE(Run({"explain", "DAEMON_STOPPING"}).out.find("\n\nDAEMON_STOPPING: reason why a VM"),
            std::string::npos);
  EXPECT_NE(Run({"explain"}).out.find("\nCONVERSION_QUOTA "), std::string::npos);
  const Finished typo = Run({"explain", "NOSUCHVM"});
  EXPECT_EQ(typo.exit_code, 2);
  EXPECT_NE(typo.err.find("\nhint: did you mean NO_SUCH_VM? "), std::string::npos) << typo.err;
  EXPECT_EQ(daemon_.calls(), 0);
}

TEST_F(HvctlOutput, TopPrintsRatesOnceForScripts) {
  const Finished run = Run({"top", "--once", "--interval", "100ms", "--sort", "name"});
  EXPECT_EQ(run.exit_code, 0) << run.err;
  EXPECT_EQ(run.out.find('\033'), std::string::npos);
  EXPECT_NE(run.out.find("2 VMs, 0 running; "), std::string::npos) << run.out;
  EXPECT_NE(run.out.find("\ndemo "), std::string::npos) << run.out;
  EXPECT_NE(run.out.find("\nweb            -         -  DEFINED"), std::string::npos) << run.out;
  const Finished json = Run({"top", "-n", "2", "--interval", "50ms", "-o", "json"});
  EXPECT_EQ(std::count(json.out.begin(), json.out.end(), '\n'), 2) << json.out;
  EXPECT_NE(json.out.find("\"conversionsPerSecond\":"), std::string::npos) << json.out;
}

TEST_F(HvctlOutput, TopFillsATerminalAndLeavesItAsItWas) {
  HvctlProcess hvctl(On({"top", "--interval", "100ms"}, Terminal::kAll));
  ASSERT_TRUE(hvctl.SeesOutput("\033[?1049h"));
  ASSERT_TRUE(hvctl.SeesOutput("CONV/S"));
  hvctl.Type("m");  // by memory
  ASSERT_TRUE(hvctl.SeesOutput("\033[1m   MEMORY\033[0m"));
  hvctl.Type("q");
  const Finished run = hvctl.Wait();
  EXPECT_EQ(run.exit_code, 0);
  EXPECT_NE(run.out.find("\033[?25h\033[?1049l"), std::string::npos);
}

TEST_F(HvctlOutput, TopRestoresTheTerminalWhenItIsInterrupted) {
  HvctlOptions options = On({"top"}, Terminal::kAll);
  options.environment.push_back("NO_COLOR=1");
  HvctlProcess hvctl(options);
  ASSERT_TRUE(hvctl.SeesOutput("CONV/S"));
  hvctl.Signal(SIGINT);
  const Finished run = hvctl.Wait();
  EXPECT_EQ(run.exit_code, 130);
  EXPECT_NE(run.out.find("\033[?25h\033[?1049l"), std::string::npos);
  EXPECT_EQ(run.out.find("\033[1m"), std::string::npos) << "no bold with NO_COLOR";
}

}  // namespace
}  // namespace twinroot::cli
