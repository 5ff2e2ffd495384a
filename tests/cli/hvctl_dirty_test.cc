// hvctl dirty ..., memory split|recover|stats, host audit: the real binary against a fake daemon.
#include <gtest/gtest.h>

#include "tests/cli/fake_daemon.h"
#include "tests/cli/hvctl_process.h"

namespace twinroot::cli {
namespace {

class HvctlDirty : public testing::Test {
 protected:
  HvctlDirty() { daemon_.AddVm("demo"); }

  Finished Run(std::vector<std::string> arguments) {
    return Hvctl(daemon_.socket(), std::move(arguments));
  }

  FakeDaemon daemon_;
};

TEST_F(HvctlDirty, EnableSaysWhatWasSplit) {
  const Finished run = Run({"dirty", "enable", "demo"});
  EXPECT_EQ(run.exit_code, 0) << run.err;
  EXPECT_EQ(run.out,
            "the dirty log of vm demo is on; 3 pages of 2MiB and 0 of 1GiB were split, 1 stay "
            "large\n");
  EXPECT_EQ(daemon_.last_enable().mode(), v1::EnableDirtyLogRequest::MODE_WRITE_PROTECT);
  EXPECT_EQ(daemon_.last_enable().ring_entries(), 0u);
}

TEST_F(HvctlDirty, EnableSendsEveryChoice) {
  const Finished run =
      Run({"dirty", "enable", "demo", "--mode", "pml", "--manual-clear", "--initially-all-set",
           "--no-eager-split", "--ring-entries", "4096", "-o", "json"});
  EXPECT_EQ(run.out,
            "{\n \"splits\": {\n  \"split1g\": \"0\",\n  \"split2m\": \"3\",\n  \"kept\": \"0\"\n "
            "}\n}\n");
  const v1::EnableDirtyLogRequest sent = daemon_.last_enable();
  EXPECT_EQ(sent.mode(), v1::EnableDirtyLogRequest::MODE_PML);
  EXPECT_TRUE(sent.manual_clear());
  EXPECT_TRUE(sent.initially_all_set());
  EXPECT_TRUE(sent.no_eager_split());
  EXPECT_EQ(sent.ring_entries(), 4096u);
}

TEST_F(HvctlDirty, EnableRefusesWordsItDoesNotKnow) {
  EXPECT_EQ(Run({"dirty", "enable", "demo", "--mode", "magic"}).exit_code, 2);
  EXPECT_EQ(Run({"dirty", "enable", "demo", "--ring-entries", "many"}).exit_code, 2);
  EXPECT_EQ(daemon_.calls(), 0);
}

TEST_F(HvctlDirty, HarvestListsTheRuns) {
  Run({"dirty", "enable", "demo"});
  EXPECT_EQ(Run({"dirty", "harvest", "demo"}).out,
            "     GPA   SIZE  PAGES\n"
            "0x200000   4KiB      1\n"
            "0x600000  12KiB      3\n");
  EXPECT_EQ(Run({"dirty", "harvest", "demo", "-o", "json"}).out,
            "{\n \"runs\": [\n  {\n   \"gpa\": \"2097152\",\n   \"size\": \"4096\"\n  },\n  {\n   "
            "\"gpa\": \"6291456\",\n   \"size\": \"12288\"\n  }\n ]\n}\n");
  EXPECT_EQ(Run({"dirty", "harvest", "demo", "--range", "1M:8k,4M:4k", "--no-headers"}).out,
            "0x100000  8KiB  2\n"
            "0x400000  4KiB  1\n");
}

TEST_F(HvctlDirty, RefusalsSayTheNextStep) {
  const Finished off = Run({"dirty", "harvest", "demo"});
  EXPECT_EQ(off.exit_code, 5);
  EXPECT_EQ(off.err,
            "hvctl: cannot harvest the dirty log of vm demo: the dirty log is off\n"
            "hint: `hvctl dirty enable demo` begins one\n");
  Run({"dirty", "enable", "demo"});
  const Finished on = Run({"dirty", "enable", "demo"});
  EXPECT_EQ(on.exit_code, 5);
  EXPECT_NE(on.err.find("hint: `hvctl dirty disable demo` ends it"), std::string::npos) << on.err;
  const Finished clear = Run({"dirty", "clear", "demo", "--range", "0:4k"});
  EXPECT_EQ(clear.exit_code, 5);
  EXPECT_NE(clear.err.find("hint: enable it with --manual-clear"), std::string::npos) << clear.err;
}

TEST_F(HvctlDirty, ClearAndDisable) {
  Run({"dirty", "enable", "demo", "--manual-clear"});
  EXPECT_EQ(Run({"dirty", "clear", "demo", "--range", "2M:64k"}).out, "0x200000 +64KiB is clean\n");
  EXPECT_EQ(Run({"dirty", "clear", "demo"}).exit_code, 2);
  EXPECT_EQ(Run({"dirty", "disable", "demo"}).out,
            "the dirty log of vm demo is off; 3 tables became large pages\n");
  EXPECT_EQ(Run({"dirty", "disable", "nobody"}).exit_code, 3);
}

TEST_F(HvctlDirty, SplitAndRecoverSayHowManyPages) {
  EXPECT_EQ(Run({"memory", "split", "demo", "--range", "0:2M,4M:2M"}).out,
            "2 pages of 2MiB and 0 of 1GiB were split\n");
  EXPECT_EQ(Run({"memory", "split", "demo", "--range", "0:1G", "--page-size", "2MiB"}).out,
            "0 pages of 2MiB and 1 of 1GiB were split\n");
  EXPECT_EQ(Run({"memory", "recover", "demo", "--range", "0:4M"}).out,
            "2 tables became large pages\n");
  EXPECT_EQ(Run({"memory", "split", "demo"}).exit_code, 2);
}

TEST_F(HvctlDirty, PrefaultSaysHowMuchIsMapped) {
  EXPECT_EQ(Run({"memory", "prefault", "demo"}).out, "40MiB of vm demo are mapped\n");
  EXPECT_EQ(Run({"memory", "prefault", "demo", "--range", "0:2M,4M:1M", "-o", "json"}).out,
            "{\n \"bytesDone\": \"3145728\",\n \"bytesTotal\": \"3145728\",\n \"outcome\": "
            "\"COMPLETE\",\n \"detail\": \"\"\n}\n");
  const Finished stopped = Run({"memory", "prefault", "demo", "--kind", "shared"});
  EXPECT_EQ(stopped.exit_code, 5);
  EXPECT_EQ(stopped.out, "");
  EXPECT_EQ(stopped.err.rfind(
                "hvctl: cannot prefault vm demo (20MiB are mapped): a page is private\n", 0),
            0u)
      << stopped.err;
}

TEST_F(HvctlDirty, MemoryIsAddedMovedAndRemoved) {
  EXPECT_EQ(Run({"memory", "add", "demo", "4G", "64M"}).out,
            "vm demo has 64MiB more at 0x100000000\n");
  EXPECT_EQ(Run({"memory", "move", "demo", "4G", "8G"}).out,
            "the memory at 0x100000000 of vm demo is at 0x200000000\n");
  EXPECT_EQ(Run({"memory", "remove", "demo", "8G"}).out,
            "the memory at 0x200000000 of vm demo is gone\n");
  const Finished taken = Run({"memory", "add", "demo", "0", "2M"});
  EXPECT_EQ(taken.exit_code, 5);
  EXPECT_NE(taken.err.find("hint: `hvctl memory get"), std::string::npos) << taken.err;
  EXPECT_EQ(Run({"memory", "remove", "demo", "0"}).exit_code, 3);
  const Finished kvm = Run({"memory", "move", "demo", "4G", "0"});
  EXPECT_EQ(kvm.exit_code, 5);
  EXPECT_NE(kvm.err.find("hint: create the VM with --backend sim"), std::string::npos) << kvm.err;
  EXPECT_EQ(Run({"memory", "add", "demo", "4G"}).exit_code, 2);
}

TEST_F(HvctlDirty, StatsAreASheet) {
  EXPECT_EQ(Run({"memory", "stats", "demo"}).out,
            "Private:        64MiB, 2MiB allocated\n"
            "Shared:         0B, 0B allocated\n"
            "Private pages:  5 of 4KiB, 1 of 2MiB\n"
            "Shared pages:   none\n"
            "Table pages:    7 of 100\n"
            "Faults:         6 fixed (2 fast), 0 spurious, 0 retried, 1 of the other kind, 0 MMIO, "
            "0 failed\n"
            "Splits:         3 dirty log, 0 request, 0 conversion, 0 fault, 0 kept\n"
            "Collapses:      0 dirty log, 0 attributes, 0 NX recovery\n"
            "Flushes:        4 of a range, 0 full\n"
            "Changes:        9\n"
            "Dirty log:      ON, 8 pages harvested, 1 vCPUs wait for a harvest\n");
  const Finished json = Run({"memory", "stats", "demo", "-o", "json"});
  EXPECT_NE(json.out.find("\"dirtyLog\": {\n  \"state\": \"ON\",\n  \"pagesHarvested\": \"8\""),
            std::string::npos)
      << json.out;
}

TEST_F(HvctlDirty, AuditFailsIfAVmIsBroken) {
  daemon_.AddVm("other");
  const Finished good = Run({"host", "audit", "demo"});
  EXPECT_EQ(good.exit_code, 0);
  EXPECT_EQ(good.out, "VM    VERDICT  DETAIL\ndemo  SOUND    -\n");
  const Finished all = Run({"host", "audit", "-o", "json"});
  EXPECT_EQ(all.exit_code, 1);
  EXPECT_EQ(all.out,
            "{\"vm\":\"demo\",\"verdict\":\"SOUND\",\"detail\":\"\"}\n"
            "{\"vm\":\"other\",\"verdict\":\"BROKEN\",\"detail\":\"a table is lost\"}\n");
  EXPECT_EQ(Run({"host", "audit", "nobody"}).exit_code, 3);
}

}  // namespace
}  // namespace twinroot::cli
