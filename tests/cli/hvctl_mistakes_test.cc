// Each common mistake ends with its own sentence, the next step, and its exit code; nothing of it
// reaches the daemon.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <fstream>

#include "tests/cli/fake_daemon.h"
#include "tests/cli/hvctl_process.h"

namespace twinroot::cli {
namespace {

class HvctlMistakes : public testing::Test {
 protected:
  Finished Run(std::vector<std::string> arguments) {
    return Hvctl(daemon_.socket(), std::move(arguments));
  }

  std::string File(const std::string& name, const std::string& content) {
    const std::string path = daemon_.folder() + "/" + name;
    std::ofstream(path, std::ios::binary) << content;
    return path;
  }

  FakeDaemon daemon_;
};

TEST_F(HvctlMistakes, UsageErrorsEndWith2BeforeAnyCall) {
  const struct {
    std::vector<std::string> arguments;
    std::string says;
  } mistakes[] = {
      {{},
       "`hvctl` needs one of: vm, memory, dirty, conversion, events, top, host, version, context"},
      {{"vm"}, "`hvctl vm` needs one of: "},
      {{"vn", "list"}, "`hvctl vn` is none of: vm, memory"},
      {{"vm", "lst"}, "`hvctl vm lst` is none of: create, list"},
      {{"--bogus"}, "`hvctl --bogus` is none of"},
      {{"vm", "list", "--bogus"}, "not expected: --bogus"},
      {{"vm", "list", "extra"}, "not expected: extra"},
      {{"vm", "list", "-o", "xml"}, "'xml' is none of table|wide|json|yaml|name"},
      {{"memory", "get", "x", "-o", "name"}, "-o name is for verbs that answer VMs or conversions"},
      {{"vm", "create", "x", "--memory", "64", "--vcpus", "1"},
       "--memory: 64 is 64 bytes; write 64MiB or 64GiB"},
      {{"memory", "map", "x", "--cell", "3K"}, "3KiB is no power of two of at least 4KiB"},
      {{"top", "--sort", "size"}, "'size' is none of conversions|faults"},
      {{"top", "-n", "0"}, "--count"},
      {{"top", "--once", "-n", "2"}, "--once excludes"},
      {{"explain", "NO_SUCH"}, "'NO_SUCH' is no reason, exit code or kind of event"},
      {{"man", "page"}, "there is no page about 'page'"},
      {{"completion", "csh"}, "'csh' is none of bash|zsh|fish"},
      {{"vm", "list", "--endpoint", "/a", "--context", "b"}, "excludes"},
      {{"vm", "list", "--context", "b"}, "there is no context 'b'"},
      {{"vm", "get"}, "NAME is required"},
      {{"vm", "get", ""}, "NAME: the value is empty"},
      {{"vm", "create", "x", "--vcpus", "1"}, "--memory is required"},
      {{"vm", "create", "x", "--memory", "64M"}, "--vcpus is required"},
      {{"vm", "create", "x", "--memory", "MiB", "--vcpus", "1"}, "it has no digits"},
      {{"vm", "create", "x", "--memory", "64MB", "--vcpus", "1"}, "units are binary"},
      {{"vm", "create", "x", "--memory", "64M", "--vcpus", "two"}, "--vcpus"},
      {{"vm", "create", "x", "--memory", "64M", "--vcpus", "-1"}, "--vcpus"},
      {{"vm", "create", "x", "--memory", "64M", "--vcpus", "1", "--cpl", "2"}, "none of 0|3"},
      {{"vm", "create", "x", "--memory", "64M", "--vcpus", "1", "--backend", "xen"},
       "none of auto|kvm|kvm-native|sim"},
      {{"vm", "create", "x", "--memory", "64M", "--vcpus", "1", "--on-timeout", "apply"},
       "only has a meaning with --policy orchestrator"},
      {{"vm", "create", "x", "--memory", "64M", "--vcpus", "1", "--image", ""},
       "--image: the value is empty"},
      {{"vm", "wait", "x", "--timeout", "30"}, "is not a duration"},
      {{"vm", "wait", "x", "--timeout", "0s"}, "is too short"},
      {{"memory", "set", "x", "--range", "0:4k"}, "[--private,--shared,--deny]"},
      {{"memory", "set", "x", "", "--private"}, "--range is required"},
      {{"memory", "write", "x", "0", "", "--data", "a"}, "was not expected: "},
      {{"memory", "set", "x", "--range", "0:4k", "--private", "--shared"},
       "--private excludes --shared"},
      {{"memory", "set", "x", "--shared"}, "--range is required"},
      {{"memory", "set", "x", "--range", "4k", "--shared"}, "write GPA:SIZE"},
      {{"memory", "set", "x", "--range", "0:4k,", "--shared"}, "is not a range"},
      {{"memory", "set", "x", "--range", "0xfffffffffffff000:8k", "--shared"}, "wraps around"},
      {{"memory", "translate", "x", "0x"}, "it has no digits"},
      {{"memory", "read", "x", "0xffffffffffffffff", "2"}, "wraps around"},
      {{"memory", "write", "x", "0"}, "[--data,--file]"},
      {{"memory", "write", "x", "0", "--file", "/no/such"}, "cannot read file /no/such"},
      {{"conversion", "approve", "x"}, "give the ids to decide, or --all"},
      {{"conversion", "deny", "x", "7", "--all"}, "give the ids to decide, or --all"},
      {{"conversion", "deny", "x", "seven"}, "seven"},
      {{"events", "--vm", ""}, "--vm: the value is empty"},
      {{"events", "--kind", "gap"}, "'gap' is none of vm-state|conversion|"},
      {{"vm", "list", "--endpoint", "127.0.0.1:9000"}, "is not a unix socket"},
      {{"vm", "list", "--endpoint", "unix:"}, "names no socket"},
      {{"vm", "list", "--endpoint", "/" + std::string(120, 'x')}, "longer than a socket path"},
  };
  for (const auto& mistake : mistakes) {
    const Finished run = Run(mistake.arguments);
    std::string command = "hvctl";
    for (const std::string& word : mistake.arguments) command += " " + word;
    EXPECT_EQ(run.exit_code, 2) << command;
    EXPECT_EQ(run.out, "") << command;
    EXPECT_EQ(run.err.rfind("hvctl: ", 0), 0u) << command << "\n" << run.err;
    EXPECT_NE(run.err.find(mistake.says), std::string::npos) << command << "\n" << run.err;
    // One line that says what to do, which a terminal does not break.
    const size_t hint = run.err.find("\nhint: ");
    ASSERT_NE(hint, std::string::npos) << command << "\n" << run.err;
    EXPECT_EQ(run.err.find('\n', hint + 1), run.err.size() - 1) << command << "\n" << run.err;
    EXPECT_LE(run.err.size() - 2 - hint, 80u) << command << "\n" << run.err;
  }
  EXPECT_EQ(daemon_.calls(), 0);
}

TEST_F(HvctlMistakes, AUsageErrorPointsAtTheHelpOfItsVerb) {
  EXPECT_EQ(Run({"vm", "create", "x", "--memory", "1M", "--vcpus", "1", "--frob"}).err,
            "hvctl: The following argument was not expected: --frob\n"
            "hint: see `hvctl vm create --help`\n");
}

TEST_F(HvctlMistakes, ATypoOfACommandOrAnOptionIsGuessed) {
  EXPECT_EQ(Run({"vm", "lst"}).err.substr(Run({"vm", "lst"}).err.find("\nhint")),
            "\nhint: did you mean `hvctl vm list`?\n");
  EXPECT_NE(Run({"memroy", "get"}).err.find("\nhint: did you mean `hvctl memory`?\n"),
            std::string::npos);
  EXPECT_NE(Run({"vm", "create", "x", "--memory=1G", "--vcpus=1", "--polcy=deny"})
                .err.find("\nhint: did you mean --policy? see `hvctl vm create --help`\n"),
            std::string::npos);
}

TEST_F(HvctlMistakes, HelpIsNoMistake) {
  for (const std::vector<std::string>& arguments :
       {std::vector<std::string>{"--help"}, {"vm", "--help"}, {"vm", "create", "-h"}}) {
    const Finished run = Run(arguments);
    EXPECT_EQ(run.exit_code, 0);
    EXPECT_EQ(run.err, "");
    EXPECT_NE(run.out.find("Exit codes: 0 done"), std::string::npos) << run.out;
  }
}

TEST_F(HvctlMistakes, ATypoInAVmNameLeadsToTheList) {
  daemon_.AddVm("demo");
  const std::vector<std::vector<std::string>> commands = {
      {"vm", "get", "dmeo"},
      {"vm", "start", "dmeo"},
      {"vm", "stop", "dmeo"},
      {"vm", "delete", "dmeo"},
      {"vm", "wait", "dmeo"},
      {"vm", "console", "dmeo"},
      {"memory", "get", "dmeo"},
      {"memory", "set", "dmeo", "--range=0:4k", "--shared"},
      {"memory", "translate", "dmeo", "0"},
      {"memory", "read", "dmeo", "0", "1"},
      {"memory", "write", "dmeo", "0", "--data", "x"},
      {"conversion", "list", "dmeo"},
      {"conversion", "approve", "dmeo", "1"},
      {"conversion", "deny", "dmeo", "--all"},
  };
  for (const auto& command : commands) {
    const Finished run = Run(command);
    EXPECT_EQ(run.exit_code, 3) << command[0] << " " << command[1];
    EXPECT_EQ(run.out, "");
    EXPECT_NE(run.err.find(": there is no vm 'dmeo'\n"
                           "hint: did you mean demo? `hvctl vm list` shows the VMs\n"),
              std::string::npos)
        << run.err;
  }
}

TEST_F(HvctlMistakes, ATakenAndAMalformedNameAreExplained) {
  daemon_.AddVm("demo");
  const Finished taken = Run({"vm", "create", "demo", "--memory", "64M", "--vcpus", "1"});
  EXPECT_EQ(taken.exit_code, 5);
  EXPECT_EQ(taken.err,
            "hvctl: cannot create vm demo: there is a vm 'demo' already\n"
            "hint: take another name, or `hvctl vm delete demo`\n");
  const Finished malformed = Run({"vm", "create", "Demo", "--memory", "64M", "--vcpus", "1"});
  EXPECT_EQ(malformed.exit_code, 2);
  EXPECT_NE(malformed.err.find("hint: a name is a-z"), std::string::npos) << malformed.err;
}

TEST_F(HvctlMistakes, BadFilesAreNamedBeforeAnyCall) {
  const std::vector<std::string> create = {"vm", "create", "x", "--memory", "64M", "--vcpus", "1"};
  const struct {
    std::string option;
    std::string path;
    std::string says;
  } mistakes[] = {
      {"--image", "/no/such/image", "cannot read image /no/such/image: No such file"},
      {"--image", daemon_.folder(), "it is not a regular file"},
      {"--image", File("empty.elf", ""), "empty.elf is empty"},
      {"--image", File("huge.elf", std::string((64 << 20) + 1, 'x')), "huge.elf is 64.0MiB"},
      {"--program", "/no/such/program", "cannot read program /no/such/program: No such file"},
      {"--program", File("empty.textproto", "\n"), "empty.textproto is empty"},
      {"--program", File("bad.textproto", "vcpus {\n  stepz {}\n}\n"), "bad.textproto:2:9: "},
      {"--program", File("bad.json", "{\"vcpus\": [{]}"), "bad.json:1:13: "},
  };
  for (const auto& mistake : mistakes) {
    std::vector<std::string> arguments = create;
    arguments.insert(arguments.end(), {mistake.option, mistake.path});
    const Finished run = Run(arguments);
    EXPECT_EQ(run.exit_code, 2) << mistake.path;
    EXPECT_NE(run.err.find(mistake.says), std::string::npos) << run.err;
  }
  EXPECT_EQ(daemon_.calls(), 0);
}

TEST_F(HvctlMistakes, AMissingSocketAsksWhetherTheDaemonRuns) {
  const Finished run = Hvctl(daemon_.folder() + "/other.sock", {"vm", "list"});
  EXPECT_EQ(run.exit_code, 4);
  EXPECT_EQ(run.err, "hvctl: cannot list vms: there is no socket " + daemon_.folder() +
                         "/other.sock\n"
                         "hint: is hvd running? name its socket with --endpoint PATH or "
                         "HVCTL_ENDPOINT\n");
  const Finished version = Hvctl(daemon_.folder() + "/other.sock", {"version"});
  EXPECT_EQ(version.exit_code, 0);
  EXPECT_NE(version.out.find("hvd does not answer"), std::string::npos);
}

TEST_F(HvctlMistakes, ASocketThatNobodyServesIsToldApart) {
  const std::string path = daemon_.folder() + "/stale.sock";
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strcpy(address.sun_path, path.c_str());
  ASSERT_EQ(bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  close(fd);
  const Finished stale = Hvctl(path, {"vm", "list"});
  EXPECT_EQ(stale.exit_code, 4);
  EXPECT_NE(stale.err.find("nobody listens on " + path), std::string::npos) << stale.err;

  const Finished file = Hvctl(File("file", "x"), {"vm", "list"});
  EXPECT_EQ(file.exit_code, 4);
  EXPECT_NE(file.err.find("/file is not a socket"), std::string::npos) << file.err;
}

TEST_F(HvctlMistakes, ASocketWithoutPermissionSaysSo) {
  ASSERT_EQ(chmod(daemon_.socket().c_str(), 0), 0);
  HvctlOptions options;
  options.arguments = {"vm", "list", "--endpoint", daemon_.socket()};
  // Root may connect to everything, unless it gave that capability away.
  if (geteuid() == 0) {
    options.prefix = {"setpriv", "--bounding-set=-dac_override", "--inh-caps=-dac_override"};
  }
  const Finished run = HvctlProcess(options).Wait();
  EXPECT_EQ(run.exit_code, 6) << run.err;
  EXPECT_EQ(
      run.err,
      "hvctl: cannot list vms: no permission for the socket " + daemon_.socket() +
          "\n"
          "hint: run hvctl as root, as the user that runs hvd, or as a member of its group\n");
}

TEST_F(HvctlMistakes, TheEndpointOptionWinsOverTheEnvironment) {
  HvctlOptions options;
  options.arguments = {"vm", "list", "--endpoint", "unix://" + daemon_.socket()};
  options.environment = {"HVCTL_ENDPOINT=/no/such.sock"};
  EXPECT_EQ(HvctlProcess(options).Wait().exit_code, 0);
}

TEST_F(HvctlMistakes, FaultsOfTheDaemonAreReportedOnOneLine) {
  daemon_.RefuseNext(/*INTERNAL*/ 13, "two\nlines \033[31m");
  const Finished run = Run({"vm", "list"});
  EXPECT_EQ(run.exit_code, 1);
  EXPECT_EQ(run.err,
            "hvctl: cannot list vms: two lines ^[[31m\n"
            "hint: this is a fault of hvd; look at its log\n");
}

TEST_F(HvctlMistakes, AFullDiskIsNotSilent) {
  HvctlOptions options;
  options.arguments = {"-c",
                       "exec cli/hvctl vm list --endpoint " + daemon_.socket() + " > /dev/full"};
  options.binary = "sh";
  const Finished run = HvctlProcess(options).Wait();
  EXPECT_EQ(run.exit_code, 1);
  EXPECT_EQ(run.err, "hvctl: cannot write the output: No space left on device\n");
}

}  // namespace
}  // namespace twinroot::cli
