// hvctl vm pause|resume|update, host drain|metrics, memory dump-tables|age|recover-nx, and the
// options of calls that are guarded or made once: the real binary against a fake daemon.
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

#include "tests/cli/fake_daemon.h"
#include "tests/cli/hvctl_process.h"
#include "twinroot/v1/host.pb.h"

namespace twinroot::cli {
namespace {

class HvctlChange : public testing::Test {
 protected:
  HvctlChange() { daemon_.AddVm("demo"); }
  Finished Run(std::vector<std::string> arguments) {
    return Hvctl(daemon_.socket(), std::move(arguments));
  }
  static std::vector<std::string> Paths(const v1::UpdateVmRequest& request) {
    return {request.update_mask().paths().begin(), request.update_mask().paths().end()};
  }

  FakeDaemon daemon_;
};

TEST_F(HvctlChange, PauseAndResumeSayTheState) {
  EXPECT_EQ(Run({"vm", "pause", "demo"}).out, "vm demo is PAUSED\n");
  EXPECT_EQ(Run({"vm", "resume", "demo", "--etag", "e"}).out, "vm demo is RUNNING\n");
  EXPECT_EQ(daemon_.last<v1::ResumeVmRequest>().etag(), "e");
  const Finished stale = Run({"vm", "pause", "demo", "--etag", "old"});
  EXPECT_EQ(stale.exit_code, 5);
  EXPECT_EQ(stale.err,
            "hvctl: cannot pause vm demo: the VM has changed\n"
            "hint: `hvctl vm get demo -o json` shows it as it is, with its etag\n");
}

TEST_F(HvctlChange, UpdateSendsWhatWasGivenAndNoMore) {
  EXPECT_EQ(Run({"vm", "update", "demo", "--policy", "deny"}).out, "vm demo is changed\n");
  v1::UpdateVmRequest sent = daemon_.last<v1::UpdateVmRequest>();
  EXPECT_EQ(sent.vm().name(), "vms/demo");
  EXPECT_EQ(Paths(sent), (std::vector<std::string>{"conversion_policy.mode"}));
  EXPECT_EQ(sent.vm().conversion_policy().mode(), v1::ConversionPolicy::MODE_DENY);

  EXPECT_EQ(
      Run({"vm", "update", "demo", "--decision-timeout", "1500ms", "--on-timeout", "apply",
           "--label", "a=1", "--label", "b=x=y", "--etag", "e", "--request-id", "r", "--dry-run"})
          .out,
      "vm demo could be changed so\n");
  sent = daemon_.last<v1::UpdateVmRequest>();
  EXPECT_EQ(Paths(sent), (std::vector<std::string>{"conversion_policy.decision_timeout",
                                                   "conversion_policy.on_timeout", "labels"}));
  EXPECT_EQ(sent.vm().conversion_policy().decision_timeout().nanos(), 500'000'000);
  EXPECT_EQ(sent.vm().labels().at("a"), "1");
  EXPECT_EQ(sent.vm().labels().at("b"), "x=y");
  EXPECT_EQ(sent.vm().etag(), "e");
  EXPECT_EQ(sent.request_id(), "r");
  EXPECT_TRUE(sent.validate_only());

  EXPECT_EQ(Run({"vm", "update", "demo", "--no-labels"}).exit_code, 0);
  sent = daemon_.last<v1::UpdateVmRequest>();
  EXPECT_EQ(Paths(sent), (std::vector<std::string>{"labels"}));
  EXPECT_EQ(sent.vm().labels_size(), 0);
}

TEST_F(HvctlChange, ProcessorTimeIsGivenInProcessorsAndWeights) {
  EXPECT_EQ(Run({"vm", "update", "demo", "--cpu-weight", "200", "--max-cpus", "1.5"}).exit_code, 0);
  v1::UpdateVmRequest sent = daemon_.last<v1::UpdateVmRequest>();
  EXPECT_EQ(Paths(sent),
            (std::vector<std::string>{"placement.cpu_weight", "placement.max_millicpus"}));
  EXPECT_EQ(sent.vm().placement().cpu_weight(), 200u);
  EXPECT_EQ(sent.vm().placement().max_millicpus(), 1500u);

  EXPECT_EQ(Run({"vm", "update", "demo", "--max-cpus", "0"}).exit_code, 0);
  sent = daemon_.last<v1::UpdateVmRequest>();
  EXPECT_EQ(Paths(sent), (std::vector<std::string>{"placement.max_millicpus"}));
  EXPECT_EQ(sent.vm().placement().max_millicpus(), 0u);

  EXPECT_EQ(Run({"vm", "create", "new", "--memory", "16M", "--vcpus", "1", "--cpus", "0,2",
                 "--max-cpus", "0.05", "--cpu-weight", "50"})
                .exit_code,
            0);
  EXPECT_EQ(daemon_.last_create().vm().placement().max_millicpus(), 50u);
  EXPECT_EQ(daemon_.last_create().vm().placement().cpu_weight(), 50u);
  const std::string shown = Run({"vm", "get", "new"}).out;
  EXPECT_NE(shown.find("0.05 CPUs at most, weight 50"), std::string::npos) << shown;
  EXPECT_NE(shown.find("0, 2"), std::string::npos) << shown;
}

TEST_F(HvctlChange, UpdateRefusesWhatMakesNoSense) {
  const int calls = daemon_.calls();
  for (const std::vector<std::string>& bad : {std::vector<std::string>{},
                                              {"--label", "x"},
                                              {"--label", "=x"},
                                              {"--policy", "never"},
                                              {"--cpu-weight", "10001"},
                                              {"--max-cpus", "-1"},
                                              {"--max-cpus", "0.0004"},
                                              {"--max-cpus", "1001"},
                                              {"--max-cpus", "half"},
                                              {"--label", "a=b", "--no-labels"},
                                              {"--etag", ""}}) {
    std::vector<std::string> arguments = {"vm", "update", "demo"};
    arguments.insert(arguments.end(), bad.begin(), bad.end());
    EXPECT_EQ(Run(arguments).exit_code, 2);
  }
  EXPECT_EQ(daemon_.calls(), calls);
}

TEST_F(HvctlChange, IdsAndEtagsAreSent) {
  EXPECT_EQ(Run({"vm", "start", "demo", "--etag", "e", "--request-id", "r1"}).exit_code, 0);
  EXPECT_EQ(daemon_.last<v1::StartVmRequest>().etag(), "e");
  EXPECT_EQ(daemon_.last<v1::StartVmRequest>().request_id(), "r1");
  EXPECT_EQ(Run({"memory", "set", "demo", "--range", "2M:4K", "--shared", "--request-id", "r2"})
                .exit_code,
            0);
  EXPECT_EQ(daemon_.last_set().request_id(), "r2");
  EXPECT_EQ(Run({"vm", "delete", "demo", "--yes", "--etag", "e", "--request-id", "r3"}).exit_code,
            0);
  EXPECT_EQ(daemon_.last<v1::DeleteVmRequest>().etag(), "e");
  EXPECT_EQ(daemon_.last<v1::DeleteVmRequest>().request_id(), "r3");
  EXPECT_EQ(Run({"vm", "create", "new", "--memory", "16M", "--vcpus", "1", "--request-id", "r4",
                 "--label", "tier=gold", "--nx-huge-pages", "on", "--mmu", "shadow", "--dry-run"})
                .out,
            "vm new could be DEFINED on backend SIM\n");
  const v1::CreateVmRequest created = daemon_.last_create();
  EXPECT_EQ(created.request_id(), "r4");
  EXPECT_TRUE(created.validate_only());
  EXPECT_EQ(created.vm().labels().at("tier"), "gold");
  EXPECT_EQ(created.vm().nx_huge_pages(), v1::Vm::NX_HUGE_PAGES_ON);
  EXPECT_EQ(created.vm().mmu(), v1::Vm::MMU_SHADOW);
}

TEST_F(HvctlChange, DrainMayBeUndone) {
  EXPECT_EQ(Run({"host", "drain"}).out, "the host takes no new VMs; 3 run still\n");
  EXPECT_EQ(daemon_.last<v1::DrainRequest>().admission(), v1::Host::ADMISSION_DRAINING);
  EXPECT_EQ(Run({"host", "drain", "--undo"}).out, "the host takes new VMs\n");
  EXPECT_EQ(daemon_.last<v1::DrainRequest>().admission(), v1::Host::ADMISSION_OPEN);
}

TEST_F(HvctlChange, MetricsAreTheText) {
  EXPECT_EQ(Run({"host", "metrics"}).out,
            "twinroot_build_info 1\ntwinroot_conversions_total{vm=\"demo\"} 7\n");
}

TEST_F(HvctlChange, ADumpHasALineAndAPageForEachTable) {
  const std::string path = daemon_.folder() + "/tables";
  EXPECT_EQ(Run({"memory", "dump-tables", "demo", "--file", path}).out,
            "ROOT     LEVEL  GPA      AT  ENTRIES\n"
            "PRIVATE      4  0x0  0x1000        1\n"
            "SHARED       4  0x0  0x1000        1\n");
  std::ostringstream bytes;
  bytes << std::ifstream(path, std::ios::binary).rdbuf();
  EXPECT_EQ(bytes.str().size(), 8192u);
  EXPECT_EQ(bytes.str()[4096], '\x07');
  const Finished one = Run({"memory", "dump-tables", "demo", "--root", "shared", "-o", "json"});
  EXPECT_NE(one.out.find("\"root\":\"SHARED\""), std::string::npos) << one.out;
  EXPECT_EQ(Run({"memory", "dump-tables", "demo", "--file", "/nowhere/x"}).exit_code, 2);
  EXPECT_EQ(Run({"memory", "dump-tables", "nobody"}).exit_code, 3);
}

TEST_F(HvctlChange, AgesAreRuns) {
  EXPECT_EQ(Run({"memory", "age", "demo", "--range", "4M:8K", "--range", "8M:4K"}).out,
            "     GPA  SIZE  PAGES\n"
            "0x400000  8KiB      2\n"
            "0x800000  4KiB      1\n");
  EXPECT_EQ(Run({"memory", "recover-nx", "demo", "--max", "7"}).out,
            "7 tables became large pages\n");
}

}  // namespace
}  // namespace twinroot::cli
