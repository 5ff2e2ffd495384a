// hvctl memory ..., conversion ..., host, version: the real binary against a fake daemon.
#include <gtest/gtest.h>

#include <ctime>
#include <fstream>

#include "tests/cli/fake_daemon.h"
#include "tests/cli/hvctl_process.h"

namespace twinroot::cli {
namespace {

class HvctlMemory : public testing::Test {
 protected:
  HvctlMemory() { daemon_.AddVm("demo"); }

  Finished Run(std::vector<std::string> arguments) {
    return Hvctl(daemon_.socket(), std::move(arguments));
  }

  FakeDaemon daemon_;
};

TEST_F(HvctlMemory, SetSendsRangesKindAndContent) {
  const Finished run = Run({"memory", "set", "demo", "--range", "0x200000:64KiB,4M:4k", "--range",
                            "8M:2M", "--private", "--preserve"});
  EXPECT_EQ(run.exit_code, 0) << run.err;
  EXPECT_EQ(run.out,
            "0x200000 +64KiB is now PRIVATE (conversion 9)\n"
            "0x400000 +4KiB is now PRIVATE (conversion 9)\n"
            "0x800000 +2MiB is now PRIVATE (conversion 9)\n");
  const v1::SetMemoryAttributesRequest sent = daemon_.last_set();
  EXPECT_EQ(sent.vm(), "demo");
  ASSERT_EQ(sent.ranges_size(), 3);
  EXPECT_EQ(sent.ranges(1).gpa(), 4u << 20);
  EXPECT_EQ(sent.ranges(1).size(), 4096u);
  EXPECT_EQ(sent.kind(), v1::MEMORY_KIND_PRIVATE);
  EXPECT_EQ(sent.content(), v1::SetMemoryAttributesRequest::CONTENT_PRESERVE);
}

TEST_F(HvctlMemory, SetDestroysByDefaultAndSaysWhenNothingChanged) {
  const Finished run = Run({"memory", "set", "demo", "--range", "0:4k", "--shared"});
  EXPECT_EQ(run.out, "nothing changed, all of it was SHARED\n");
  EXPECT_EQ(daemon_.last_set().content(), v1::SetMemoryAttributesRequest::CONTENT_DESTROY);
  const Finished json = Run({"memory", "set", "demo", "--range=2M:4k", "--shared", "-o", "json"});
  EXPECT_EQ(json.out.rfind("{\n \"converted\": [\n  {\n   \"gpa\": \"2097152\",\n   \"size\": "
                           "\"4096\"\n  }\n ],\n \"conversionId\": \"9\",\n \"redenied\": [],\n",
                           0),
            0u)
      << json.out;
}

TEST_F(HvctlMemory, SetDeniesAloneOrWithAKind) {
  const Finished alone = Run({"memory", "set", "demo", "--range", "2M:4k", "--deny", "wx"});
  EXPECT_EQ(alone.out, "0x200000 +4KiB now denies wx\n");
  EXPECT_EQ(daemon_.last_set().kind(), v1::MEMORY_KIND_UNSPECIFIED);
  EXPECT_EQ(daemon_.last_set().deny(), "wx");
  const Finished both =
      Run({"memory", "set", "demo", "--range", "2M:4k", "--shared", "--deny", "none", "--atomic"});
  EXPECT_EQ(both.out,
            "0x200000 +4KiB is now SHARED (conversion 9)\n0x200000 +4KiB now denies nothing\n");
  EXPECT_TRUE(daemon_.last_set().has_deny());
  EXPECT_EQ(daemon_.last_set().deny(), "");
  EXPECT_TRUE(daemon_.last_set().atomic());
  EXPECT_EQ(Run({"memory", "set", "demo", "--range", "2M:4k", "--deny", "all"}).exit_code, 2);
  EXPECT_EQ(Run({"memory", "set", "demo", "--range", "2M:4k"}).exit_code, 2);
  EXPECT_EQ(Run({"memory", "set", "demo", "--range", "2M:4k", "--shared", "--private"}).exit_code,
            2);
}

TEST_F(HvctlMemory, SetTellsWhichRangesWereRefused) {
  const Finished run = Run({"memory", "set", "demo", "--range", "2M:4k,2G:8k", "--shared"});
  EXPECT_EQ(run.exit_code, 1);
  EXPECT_EQ(run.out,
            "0x200000 +4KiB is now SHARED (conversion 9)\n"
            "0x80000000 +8KiB is refused: the host has no memory\n");
}

TEST_F(HvctlMemory, ADryRunShowsThePlan) {
  const Finished run = Run({"memory", "set", "demo", "--range", "2M:64k", "--shared", "--dry-run"});
  EXPECT_EQ(run.exit_code, 0) << run.err;
  EXPECT_TRUE(daemon_.last_set().validate_only());
  EXPECT_EQ(run.out,
            "0x200000 +64KiB would be SHARED\n"
            "Splits:           none\n"
            "Tables needed:    0\n"
            "Zapped:           16 of 4KiB PRIVATE\n"
            "Restricted:       none\n"
            "Recovered:        none\n"
            "Flushes:          1\n"
            "Bytes discarded:  64KiB\n"
            "Bytes copied:     0B\n");
}

TEST_F(HvctlMemory, SetExplainsWhatTheDaemonRefuses) {
  const Finished unaligned = Run({"memory", "set", "demo", "--range", "100:4k", "--shared"});
  EXPECT_EQ(unaligned.exit_code, 2);
  EXPECT_EQ(unaligned.err,
            "hvctl: cannot set memory of vm demo: range 100 is not aligned to 4096\n"
            "hint: addresses and sizes are multiples of 4KiB: see `hvctl memory get NAME`\n");
  const Finished disclose =
      Run({"memory", "set", "demo", "--range", "2M:4k", "--shared", "--preserve"});
  EXPECT_EQ(disclose.exit_code, 6);
  EXPECT_NE(disclose.err.find("hint: leave out --preserve"), std::string::npos);
}

TEST_F(HvctlMemory, GetJoinsTheChunksIntoMaximalRuns) {
  EXPECT_EQ(Run({"memory", "get", "demo"}).out,
            "     GPA  SIZE  KIND     DENIED\n"
            "     0x0  2MiB  PRIVATE  -\n"
            "0x200000  3MiB  SHARED   -\n"
            "0x500000  8MiB  PRIVATE  x\n");
  EXPECT_EQ(Run({"memory", "get", "demo", "-o", "wide"}).out,
            "     GPA  SIZE  KIND     DENIED       END  PAGES\n"
            "     0x0  2MiB  PRIVATE  -       0x200000    512\n"
            "0x200000  3MiB  SHARED   -       0x500000    768\n"
            "0x500000  8MiB  PRIVATE  x       0xd00000   2048\n");
  const Finished json = Run({"memory", "get", "demo", "-o", "json"});
  EXPECT_EQ(
      json.out.rfind("{\n \"runs\": [\n  {\n   \"gpa\": \"0\",\n   \"size\": \"2097152\",\n   "
                     "\"kind\": \"PRIVATE\",\n   \"denied\": \"\"\n  },\n",
                     0),
      0u)
      << json.out;
}

TEST_F(HvctlMemory, TranslateShowsTheWalk) {
  EXPECT_EQ(Run({"memory", "translate", "demo", "0x200010"}).out,
            "0x200010 is PRIVATE; the PRIVATE alias is mapped to hpa 0x40200010, 4KiB page, rw-\n"
            "4KiB page; 2MiB is vetoed by: attributes differ inside; denied: x; writes are "
            "logged\n"
            "EPT pointer 0x10001e\n"
            "LEVEL  INDEX  ENTRY AT               ENTRY  MEANING\n"
            "    4      0  0x100000  0x0000000000101007  rwx table\n");
  const Finished shared = Run({"memory", "translate", "demo", "2M", "--alias", "shared"});
  EXPECT_EQ(shared.out.rfind("0x200000 is PRIVATE; the SHARED alias is not mapped: an access is an "
                             "EPT violation\nno page: an access asks for a conversion\n",
                             0),
            0u)
      << shared.out;
  EXPECT_NE(
      Run({"memory", "translate", "demo", "2M", "-o", "json"}).out.find("\"outcome\": \"MAPPED\""),
      std::string::npos);
}

TEST_F(HvctlMemory, WrittenBytesReadBack) {
  EXPECT_EQ(Run({"memory", "write", "demo", "2M", "--data", "hello, guest and host"}).out,
            "21B written at 0x200000\n");
  EXPECT_EQ(Run({"memory", "read", "demo", "2M", "5"}).out, "hello");
  EXPECT_EQ(Run({"memory", "read", "demo", "2M", "21", "--hex"}).out,
            "00200000  68 65 6c 6c 6f 2c 20 67 75 65 73 74 20 61 6e 64  |hello, guest and|\n"
            "00200010  20 68 6f 73 74                                   | host|\n");
  EXPECT_EQ(Run({"memory", "read", "demo", "2M", "5", "-o", "json"}).out,
            "{\n \"data\": \"aGVsbG8=\"\n}\n");
}

TEST_F(HvctlMemory, LargeTransfersAreCutIntoCalls) {
  std::string bytes((2 << 20) + 123, '\0');
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<char>(i * 31 >> 3);
  const std::string path = daemon_.folder() + "/bytes";
  std::ofstream(path, std::ios::binary) << bytes;
  EXPECT_EQ(Run({"memory", "write", "demo", "2M", "--file", path}).exit_code, 0);
  EXPECT_EQ(daemon_.calls(), 3);
  const Finished read = Run({"memory", "read", "demo", "2M", std::to_string(bytes.size())});
  EXPECT_TRUE(read.out == bytes);
}

TEST_F(HvctlMemory, AWriteThatEndsHalfwaySaysHowFarItCame) {
  const std::string path = daemon_.folder() + "/bytes";
  std::ofstream(path, std::ios::binary) << std::string(4 << 20, 'x');
  const Finished run = Run({"memory", "write", "demo", "2M", "--file", path});
  EXPECT_EQ(run.exit_code, 6);
  EXPECT_EQ(run.err.rfind("hvctl: cannot write memory of vm demo (3MiB are written): ", 0), 0u)
      << run.err;
}

TEST_F(HvctlMemory, PrivateMemoryIsRefused) {
  const Finished run = Run({"memory", "read", "demo", "0x100000", "16"});
  EXPECT_EQ(run.exit_code, 6);
  EXPECT_EQ(run.out, "");
  EXPECT_NE(run.err.find("hint: `hvctl memory get NAME` shows which ranges are shared"),
            std::string::npos);
}

v1::ConversionRequest Waiting(uint64_t id) {
  v1::ConversionRequest request;
  request.set_id(id);
  request.set_vcpu(1);
  request.set_gpa(0x400000);
  request.set_size(4096);
  request.set_direction(v1::Conversion::DIRECTION_TO_SHARED);
  request.set_cause(v1::Conversion::CAUSE_IMPLICIT);
  request.set_state(v1::ConversionRequest::STATE_WAITING);
  request.mutable_deadline()->set_seconds(3661);
  return request;
}

TEST_F(HvctlMemory, WaitingConversionsAreListedAndDecided) {
  for (const uint64_t id : {7, 8, 9}) daemon_.Park(Waiting(id));
  EXPECT_EQ(Run({"conversion", "list", "demo", "--no-headers"}).out,
            "7  1  0x400000  4KiB  TO_SHARED  IMPLICIT  WAITING  01:01:01.000\n"
            "8  1  0x400000  4KiB  TO_SHARED  IMPLICIT  WAITING  01:01:01.000\n"
            "9  1  0x400000  4KiB  TO_SHARED  IMPLICIT  WAITING  01:01:01.000\n");
  EXPECT_EQ(Run({"conversion", "approve", "demo", "8", "5"}).out,
            "ID  OUTCOME  DECISION  DECIDER\n"
            " 8  DECIDED  APPLIED   ORCHESTRATOR\n"
            " 5  UNKNOWN  -         -\n");
  const Finished rest = Run({"conversion", "deny", "demo", "--all", "-o", "json"});
  EXPECT_EQ(rest.exit_code, 0);
  EXPECT_NE(rest.out.find("\"id\": \"7\",\n   \"outcome\": \"DECIDED\""), std::string::npos)
      << rest.out;
  EXPECT_EQ(Run({"conversion", "list", "demo", "-o", "json"}).out, "{\n \"conversions\": []\n}\n");
  // One that is applied already waits for nobody.
  v1::ConversionRequest applying = Waiting(10);
  applying.set_state(v1::ConversionRequest::STATE_APPLYING);
  applying.set_size(8 << 20);
  applying.set_done(2 << 20);
  daemon_.Park(applying);
  EXPECT_EQ(Run({"conversion", "list", "demo", "--no-headers"}).out,
            "10  1  0x400000  8MiB  TO_SHARED  IMPLICIT  APPLYING  2MiB done\n");
  EXPECT_EQ(Run({"conversion", "deny", "demo", "--all"}).out, "ID  OUTCOME  DECISION  DECIDER\n");
}

TEST_F(HvctlMemory, AWideListTellsHowLongADecisionMayTake) {
  daemon_.Park(Waiting(7));
  EXPECT_EQ(Run({"conversion", "list", "demo", "-o", "wide"}).out,
            "ID  VCPU       GPA  SIZE  DIRECTION  CAUSE     STATE    DEADLINE      PAGES  LEFT\n"
            " 7     1  0x400000  4KiB  TO_SHARED  IMPLICIT  WAITING  01:01:01.000      1     0\n");
  v1::ConversionRequest later = Waiting(8);
  later.set_size(8 << 20);
  later.mutable_deadline()->set_seconds(time(nullptr) + 3600);
  daemon_.Park(later);
  const std::string out = Run({"conversion", "list", "demo", "-o", "wide"}).out;
  EXPECT_NE(out.find("   2048  59m"), std::string::npos) << out;
}

TEST_F(HvctlMemory, HostShowSaysWhatTheHostCanDo) {
  EXPECT_EQ(Run({"host", "show"}).out,
            "Version:          9.8.7\n"
            "Default backend:  SIM\n"
            "Because:          there is no /dev/kvm\n"
            "Backends:         SIM\n"
            "Shared bit:       47\n"
            "CPUs:             2\n"
            "Memory:           23.4GiB\n"
            "VMs:              1 of 4096\n"
            "Largest VM:       64GiB, 64 vCPUs\n"
            "Metrics:          127.0.0.1:9464\n"
            "\n"
            "CHECK     RESULT   DETAIL\n"
            "/dev/kvm  MISSING  No such file or directory; VMs run on sim\n");
  const Finished json = Run({"host", "show", "-o", "json"});
  EXPECT_NE(json.out.find("\"defaultBackend\": \"SIM\""), std::string::npos);
  EXPECT_NE(json.out.find("\"backends\": [\n  \"SIM\"\n ]"), std::string::npos) << json.out;
}

TEST_F(HvctlMemory, VersionNamesBothSides) {
  EXPECT_EQ(Run({"version"}).out, "hvctl 0.1.0\nhvd 9.8.7\n");
  EXPECT_EQ(Run({"version", "-o", "json"}).out, "{\"hvctl\":\"0.1.0\",\"hvd\":\"9.8.7\"}\n");
}

}  // namespace
}  // namespace twinroot::cli
