// hvctl vm ...: the real binary against a fake daemon.
#include <gtest/gtest.h>

#include <fstream>

#include "tests/cli/fake_daemon.h"
#include "tests/cli/hvctl_process.h"

namespace twinroot::cli {
namespace {

class HvctlVm : public testing::Test {
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

TEST_F(HvctlVm, CreateSendsEveryOption) {
  const std::string image = File("image.elf", std::string((2 << 20) + 5, 'x'));
  const std::string program =
      File("p.textproto", "vcpus { steps { read { gpa: 0x400000 alias: SHARED } } }");
  const Finished run = Run({"vm",
                            "create",
                            "demo",
                            "--memory",
                            "64MiB",
                            "--vcpus",
                            "2",
                            "--image",
                            image,
                            "--cmdline",
                            "pages=3",
                            "--program",
                            program,
                            "--backend",
                            "kvm",
                            "--policy",
                            "orchestrator",
                            "--decision-timeout",
                            "1500ms",
                            "--on-timeout",
                            "apply",
                            "--cpl",
                            "0"});
  EXPECT_EQ(run.exit_code, 0) << run.err;
  EXPECT_EQ(run.out, "vm demo is DEFINED on backend KVM\n");
  EXPECT_EQ(run.err, "");

  EXPECT_EQ(daemon_.upload_chunks(), (std::vector<size_t>{1 << 20, 1 << 20, 5}));
  const v1::CreateVmRequest sent = daemon_.last_create();
  EXPECT_EQ(sent.vm_id(), "demo");
  EXPECT_EQ(sent.vm().memory_bytes(), 64u << 20);
  EXPECT_EQ(sent.vm().vcpus(), 2u);
  EXPECT_EQ(sent.vm().image(), "images/2097157");
  EXPECT_EQ(sent.vm().cmdline(), "pages=3");
  EXPECT_EQ(sent.vm().program().vcpus(0).steps(0).read().alias(), v1::MEMORY_KIND_SHARED);
  EXPECT_EQ(sent.vm().backend(), v1::BACKEND_KVM);
  const v1::ConversionPolicy& policy = sent.vm().conversion_policy();
  EXPECT_EQ(policy.mode(), v1::ConversionPolicy::MODE_ORCHESTRATOR);
  EXPECT_EQ(policy.decision_timeout().seconds(), 1);
  EXPECT_EQ(policy.decision_timeout().nanos(), 500'000'000);
  EXPECT_EQ(policy.on_timeout(), v1::ConversionPolicy::ON_TIMEOUT_APPLY);
  EXPECT_TRUE(sent.vm().boot().has_cpl());
  EXPECT_EQ(sent.vm().boot().cpl(), 0u);
}

TEST_F(HvctlVm, QuotasOfThePolicyAreSentAndShown) {
  const Finished run =
      Run({"vm", "create", "demo", "--memory=16M", "--vcpus=1", "--max-shared=8MiB",
           "--max-conversion-rate=100", "--conversion-burst=7", "--ping-pong-limit=3",
           "--ping-pong-window=2s", "--decision-timeout=1s"});
  EXPECT_EQ(run.exit_code, 0) << run.err;
  const v1::Vm sent = daemon_.last_create().vm();
  const v1::ConversionPolicy& policy = sent.conversion_policy();
  EXPECT_EQ(policy.max_shared_bytes(), 8u << 20);
  EXPECT_EQ(policy.max_conversions_per_second(), 100u);
  EXPECT_EQ(policy.conversion_burst(), 7u);
  EXPECT_EQ(policy.ping_pong_limit(), 3u);
  EXPECT_EQ(policy.ping_pong_window().seconds(), 2);
  EXPECT_EQ(policy.decision_timeout().seconds(), 1);
  const std::string shown = Run({"vm", "get", "demo"}).out;
  EXPECT_NE(shown.find("at most 8MiB shared; 100 conversions a second, 7 at once; "
                       "3 turns of 2MiB in 2s\n"),
            std::string::npos)
      << shown;
}

TEST_F(HvctlVm, CreateRefusesTimesThatMeanNothing) {
  const std::vector<std::string> create = {"vm", "create", "demo", "--memory=16M", "--vcpus=1"};
  for (const char* option : {"--decision-timeout=1s", "--on-timeout=apply"}) {
    std::vector<std::string> arguments = create;
    arguments.push_back(option);
    const Finished run = Run(arguments);
    EXPECT_EQ(run.exit_code, 2) << option;
    EXPECT_NE(run.err.find("only has a meaning with --policy orchestrator"), std::string::npos)
        << run.err;
  }
}

TEST_F(HvctlVm, CreateLeavesWhatWasNotGivenToTheDaemon) {
  const Finished run = Run({"vm", "create", "demo", "--memory=16M", "--vcpus=1"});
  EXPECT_EQ(run.exit_code, 0) << run.err;
  const v1::Vm sent = daemon_.last_create().vm();
  EXPECT_EQ(sent.image(), "");
  EXPECT_FALSE(sent.has_program());
  EXPECT_FALSE(sent.has_boot());
  EXPECT_EQ(sent.backend(), v1::BACKEND_UNSPECIFIED);
  EXPECT_EQ(sent.conversion_policy().mode(), v1::ConversionPolicy::MODE_UNSPECIFIED);
  EXPECT_FALSE(sent.conversion_policy().has_decision_timeout());
  EXPECT_TRUE(daemon_.upload_chunks().empty());
}

TEST_F(HvctlVm, GetShowsTheVmInWordsAndAsJson) {
  daemon_.AddVm("demo");
  daemon_.Stop("demo", "TRIPLE_FAULT", "vCPU 0 shut down");
  EXPECT_EQ(Run({"vm", "get", "demo"}).out,
            "Name:          demo\n"
            "State:         STOPPED\n"
            "Stop reason:   TRIPLE_FAULT\n"
            "Stop message:  vCPU 0 shut down\n"
            "Backend:       SIM\n"
            "Memory:        64MiB\n"
            "vCPUs:         2\n"
            "Policy:        AUTO\n");
  const Finished json = Run({"vm", "get", "demo", "-o", "json"});
  EXPECT_EQ(json.exit_code, 0);
  EXPECT_EQ(json.out.rfind("{\n \"name\": \"vms/demo\",\n \"memoryBytes\": \"67108864\",\n", 0), 0u)
      << json.out;
  EXPECT_NE(json.out.find("\"state\": \"STOPPED\""), std::string::npos);
  EXPECT_NE(json.out.find("\"stopReason\": \"TRIPLE_FAULT\""), std::string::npos);
  EXPECT_EQ(json.out.find("exitCode"), std::string::npos);
}

TEST_F(HvctlVm, ListShowsEveryPage) {
  for (const char* name : {"a", "b", "c", "d", "e"}) daemon_.AddVm(name);
  daemon_.Exit("b", 3);
  daemon_.Stop("c", "STOP_REQUESTED", "");
  EXPECT_EQ(Run({"vm", "list"}).out,
            "NAME  STATE    EXIT            BACKEND  MEMORY  VCPUS  POLICY  AGE\n"
            "a     DEFINED  -               SIM       64MiB      2  AUTO      -\n"
            "b     STOPPED  3               SIM       64MiB      2  AUTO      -\n"
            "c     STOPPED  STOP_REQUESTED  SIM       64MiB      2  AUTO      -\n"
            "d     DEFINED  -               SIM       64MiB      2  AUTO      -\n"
            "e     DEFINED  -               SIM       64MiB      2  AUTO      -\n");
  const Finished bare = Run({"--no-headers", "vm", "list"});
  EXPECT_EQ(bare.out.rfind("a  ", 0), 0u) << bare.out;
  const Finished json = Run({"-o", "json", "vm", "list"});
  EXPECT_EQ(json.out.rfind("{\n \"vms\": [\n", 0), 0u) << json.out;
  EXPECT_NE(json.out.find("\"name\": \"vms/e\""), std::string::npos);
  // The first page's: later ones could hide an event between the pages.
  EXPECT_NE(json.out.find("\"cursor\": \"e-0\""), std::string::npos);
}

TEST_F(HvctlVm, AnEmptyListIsAList) {
  EXPECT_EQ(Run({"vm", "list", "--no-headers"}).out, "");
  EXPECT_NE(Run({"vm", "list", "-o", "json"}).out.find("\"vms\": []"), std::string::npos);
}

TEST_F(HvctlVm, StartStopDeleteSayWhatIsNow) {
  daemon_.AddVm("demo");
  EXPECT_EQ(Run({"vm", "start", "demo"}).out, "vm demo is RUNNING\n");
  EXPECT_EQ(Run({"vm", "stop", "demo"}).out, "vm demo is STOPPED\n");
  EXPECT_EQ(Run({"vm", "delete", "demo"}).out, "vm demo is deleted\n");
  EXPECT_EQ(Run({"vm", "get", "demo"}).exit_code, 3);
}

TEST_F(HvctlVm, ANameMayBeAWordOfHvctl) {
  daemon_.AddVm("list");
  daemon_.AddVm("events");
  EXPECT_EQ(Run({"vm", "start", "list"}).out, "vm list is RUNNING\n");
  EXPECT_EQ(Run({"vm", "start", "events"}).out, "vm events is RUNNING\n");
}

TEST_F(HvctlVm, StartingTwiceIsAConflict) {
  daemon_.AddVm("demo");
  Run({"vm", "start", "demo"});
  const Finished again = Run({"vm", "start", "demo"});
  EXPECT_EQ(again.exit_code, 5);
  EXPECT_EQ(again.out, "");
  EXPECT_EQ(again.err,
            "hvctl: cannot start vm demo: vm 'demo' is not DEFINED\n"
            "hint: `hvctl vm get demo` shows its state\n");
}

TEST_F(HvctlVm, WaitExitsWithTheGuestsCode) {
  daemon_.AddVm("demo");
  HvctlOptions options;
  options.arguments = {"vm", "wait", "demo", "--endpoint", "unix:" + daemon_.socket()};
  HvctlProcess waiting(options);
  daemon_.Exit("demo", 42);
  const Finished run = waiting.Wait();
  EXPECT_EQ(run.exit_code, 42);
  EXPECT_EQ(run.out, "");
  EXPECT_EQ(run.err, "");

  daemon_.Exit("demo", 0);
  EXPECT_EQ(Run({"vm", "wait", "demo"}).exit_code, 0);
  const Finished json = Run({"vm", "wait", "demo", "-o", "json"});
  EXPECT_NE(json.out.find("\"exitCode\": 0"), std::string::npos);
}

TEST_F(HvctlVm, WaitNeverTurnsALargeCodeIntoSuccess) {
  daemon_.AddVm("demo");
  daemon_.Exit("demo", 256);
  EXPECT_EQ(Run({"vm", "wait", "demo"}).exit_code, 255);
}

TEST_F(HvctlVm, WaitSaysWhyAVmStopped) {
  daemon_.AddVm("demo");
  daemon_.Stop("demo", "CONVERSION_DENIED", "vCPU 1 touched 0x200000");
  const Finished run = Run({"vm", "wait", "demo"});
  EXPECT_EQ(run.exit_code, 125);
  EXPECT_EQ(run.err, "hvctl: vm demo stopped: CONVERSION_DENIED: vCPU 1 touched 0x200000\n");
}

TEST_F(HvctlVm, WaitGivesUpAfterItsTimeout) {
  daemon_.AddVm("demo");
  const Finished run = Run({"vm", "wait", "demo", "--timeout", "100ms"});
  EXPECT_EQ(run.exit_code, 124);
  EXPECT_EQ(run.err,
            "hvctl: vm demo did not stop within 100ms\n"
            "hint: `hvctl vm get demo` shows its state\n");
}

TEST_F(HvctlVm, ConsolePrintsTheGuestsBytesAsTheyAre) {
  daemon_.AddVm("demo");
  const std::string said("boot\r\n\033[1m\0\xff", 12);
  daemon_.Say(said);
  const Finished run = Run({"vm", "console", "demo"});
  EXPECT_EQ(run.exit_code, 0);
  EXPECT_EQ(run.out, said);
  EXPECT_EQ(Run({"vm", "console", "demo", "-o", "json"}).out,
            "{\"offset\":\"0\",\"data\":\"Ym9vdA0KG1sxbQD/\"}\n");
}

TEST_F(HvctlVm, ConsoleFollowsUntilTheVmStops) {
  daemon_.AddVm("demo");
  daemon_.Say("one\n");
  HvctlOptions options;
  options.arguments = {"vm", "console", "demo", "--follow", "--endpoint", daemon_.socket()};
  HvctlProcess console(options);
  ASSERT_TRUE(console.SeesOutput("one\n"));
  daemon_.Say("two\n");
  ASSERT_TRUE(console.SeesOutput("one\ntwo\n"));
  daemon_.Exit("demo", 0);
  EXPECT_EQ(console.Wait().exit_code, 0);
}

TEST_F(HvctlVm, AnInteractiveConsoleGoesOnWhenItsInputHasEnded) {
  daemon_.AddVm("demo");
  ASSERT_EQ(Run({"vm", "start", "demo"}).exit_code, 0);
  HvctlOptions options;
  options.arguments = {"vm", "console", "demo", "-i", "--endpoint", daemon_.socket()};
  HvctlProcess console(options);
  daemon_.Say("one\n");
  ASSERT_TRUE(console.SeesOutput("one\n"));
  daemon_.Exit("demo", 0);
  const Finished run = console.Wait();
  EXPECT_EQ(run.exit_code, 0) << run.err;
  EXPECT_EQ(run.out, "one\n");
}

TEST_F(HvctlVm, AnInteractiveConsoleNeedsAGuestThatRuns) {
  daemon_.AddVm("demo");
  const Finished run = Run({"vm", "console", "demo", "-i"});
  EXPECT_EQ(run.exit_code, 5);
  EXPECT_EQ(run.err,
            "hvctl: vm demo does not run: nobody reads what you type\n"
            "hint: `hvctl vm start demo` first\n");
  EXPECT_EQ(Run({"vm", "console", "demo", "-i", "-o", "json"}).exit_code, 2);
}

TEST_F(HvctlVm, CreateSendsTheInitrdToo) {
  const std::string kernel = daemon_.folder() + "/kernel", initrd = daemon_.folder() + "/initrd";
  std::ofstream(kernel) << "kernel";
  std::ofstream(initrd) << "disk";
  const Finished run = Run({"vm", "create", "demo", "--memory=64M", "--vcpus=1", "--image", kernel,
                            "--initrd", initrd, "--cmdline", "console=ttyS0"});
  EXPECT_EQ(run.exit_code, 0) << run.err;
  EXPECT_EQ(daemon_.last_create().vm().image(), "images/6");
  EXPECT_EQ(daemon_.last_create().vm().boot().initrd(), "images/4");
  std::ofstream(initrd, std::ios::trunc).close();
  EXPECT_NE(
      Run({"vm", "create", "b", "--memory=64M", "--vcpus=1", "--image", kernel, "--initrd", initrd})
          .err.find("is empty"),
      std::string::npos);
}

}  // namespace
}  // namespace twinroot::cli
