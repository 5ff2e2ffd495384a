// hvctl events: the real binary against a fake daemon.
#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>

#include "tests/cli/fake_daemon.h"
#include "tests/cli/hvctl_process.h"

namespace twinroot::cli {
namespace {

class HvctlEvents : public testing::Test {
 protected:
  void AddState(const std::string& vm, v1::Vm::State state) {
    v1::Event event;
    event.set_vm(vm);
    event.mutable_time()->set_seconds(3661);
    event.mutable_vm_state()->set_state(state);
    daemon_.AddEvent(event);
  }

  Finished Run(std::vector<std::string> arguments) {
    return Hvctl(daemon_.socket(), std::move(arguments));
  }

  HvctlOptions Following(std::vector<std::string> more = {}) {
    HvctlOptions options;
    options.arguments = {"events", "--follow", "--endpoint", daemon_.socket()};
    options.arguments.insert(options.arguments.end(), more.begin(), more.end());
    return options;
  }

  FakeDaemon daemon_;
};

TEST_F(HvctlEvents, WithoutFollowPrintsWhatIsKeptAndEnds) {
  AddState("a", v1::Vm::STATE_DEFINED);
  AddState("b", v1::Vm::STATE_RUNNING);
  const Finished run = Run({"events"});
  EXPECT_EQ(run.exit_code, 0) << run.err;
  EXPECT_EQ(run.out, "01:01:01.000 a     DEFINED\n01:01:01.000 b     RUNNING\n");
  EXPECT_EQ(Run({"events", "--vm", "b"}).out, "01:01:01.000 b     RUNNING\n");
  EXPECT_EQ(Run({"events", "--vm", "b", "--vm", "none"}).out, "01:01:01.000 b     RUNNING\n");
  EXPECT_EQ(Run({"events", "--kind", "memory-fault"}).out, "");
  EXPECT_EQ(Run({"events", "--kind", "memory-fault", "--kind", "vm-state"}).out, run.out);
  EXPECT_EQ(Run({"events", "--since", "e-1"}).out, "01:01:01.000 b     RUNNING\n");
  EXPECT_EQ(Run({"events", "--since", "now"}).out, "");
}

TEST_F(HvctlEvents, JsonIsOneObjectALine) {
  AddState("a", v1::Vm::STATE_DEFINED);
  const Finished run = Run({"events", "-o", "json"});
  EXPECT_EQ(run.out,
            R"({"cursor":"e-1","vm":"a","vmSequence":"0","vmState":{"state":"DEFINED",)"
            R"("stopReason":"","stopMessage":"","deleted":false},"time":"1970-01-01T01:01:01Z"})"
            "\n");
}

TEST_F(HvctlEvents, EveryPageIsPrinted) {
  for (int i = 0; i < 2500; ++i) AddState("a", v1::Vm::STATE_RUNNING);
  const Finished run = Run({"events"});
  EXPECT_EQ(std::count(run.out.begin(), run.out.end(), '\n'), 2500);
}

TEST_F(HvctlEvents, AGapIsPrinted) {
  v1::Event event;
  event.mutable_gap()->set_count(12);
  daemon_.AddEvent(event);
  EXPECT_NE(Run({"events"}).out.find("GAP 12 events missed"), std::string::npos);
}

TEST_F(HvctlEvents, FollowGoesOnFromWhatIsKeptWithoutAHole) {
  AddState("kept", v1::Vm::STATE_RUNNING);
  HvctlProcess events(Following());
  ASSERT_TRUE(events.SeesOutput("kept"));
  for (int i = 0; i < 100; ++i) AddState("live", v1::Vm::STATE_RUNNING);
  AddState("last", v1::Vm::STATE_STOPPED);
  ASSERT_TRUE(events.SeesOutput("last"));
  events.Signal(SIGINT);
  const Finished run = events.Wait();
  EXPECT_EQ(run.exit_code, 130);
  EXPECT_EQ(run.err, "");
  EXPECT_EQ(std::count(run.out.begin(), run.out.end(), '\n'), 102);
}

TEST_F(HvctlEvents, FollowOfOneVmShowsNoOther) {
  HvctlProcess events(Following({"--vm", "mine", "-o", "json"}));
  AddState("other", v1::Vm::STATE_RUNNING);
  AddState("mine", v1::Vm::STATE_RUNNING);
  ASSERT_TRUE(events.SeesOutput("mine"));
  events.Signal(SIGINT);
  EXPECT_EQ(events.Wait().out.find("other"), std::string::npos);
}

TEST_F(HvctlEvents, FollowSaysWhereToGoOnWhenTheDaemonStops) {
  AddState("a", v1::Vm::STATE_RUNNING);
  HvctlProcess events(Following());
  ASSERT_TRUE(events.SeesOutput("RUNNING"));
  daemon_.Drain();
  const Finished run = events.Wait();
  EXPECT_EQ(run.exit_code, 4);
  EXPECT_EQ(run.err,
            "hvctl: the event stream ended: hvd is shutting down\n"
            "hint: go on with --since e-1 when it serves again\n");
}

TEST_F(HvctlEvents, AReaderThatGoesAwayEndsItQuietly) {
  AddState("a", v1::Vm::STATE_RUNNING);
  HvctlProcess events(Following());
  ASSERT_TRUE(events.SeesOutput("RUNNING"));
  events.CloseOutput();
  AddState("a", v1::Vm::STATE_STOPPED);
  const Finished run = events.Wait();
  EXPECT_EQ(run.exit_code, 0);
  EXPECT_EQ(run.err, "");
}

TEST_F(HvctlEvents, ACursorOfAnotherJournalSaysWhereToBegin) {
  const Finished run = Run({"events", "--since", "x-9"});
  EXPECT_EQ(run.exit_code, 1);
  EXPECT_EQ(run.err,
            "hvctl: cannot read events: cursor 'x-9' is of another journal\n"
            "hint: the oldest event kept is at --since e-0\n");
}

}  // namespace
}  // namespace twinroot::cli
