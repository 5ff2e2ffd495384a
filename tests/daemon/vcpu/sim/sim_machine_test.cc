// What one program does on sim, exit by exit.
#include "daemon/vcpu/sim/sim_machine.h"

#include <atomic>
#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/daemon/vcpu/sim/sim_test_base.h"

namespace twinroot::sim {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pair;
using ::testing::SizeIs;
using ::testing::StartsWith;
using vcpu::MapGpaResult;
using vcpu::MapGpaVerdict;
using vcpu::StopReason;
using vcpu::VcpuIndex;
using vcpu::Verdict;

TEST_F(SimTest, ProgramRunsToItsEndAndFaultsCarryTheRawAddress) {
  const FakeClient::Notes notes = Run(R"(vcpus {
      steps { write { gpa: 0x400008 value: 0x1234 } }
      steps { read { gpa: 0x400008 expect: 0x1234 } }
      steps { write { gpa: 0x400010 size: 2 value: 0xABCD alias: MEMORY_KIND_SHARED } }
      steps { read { gpa: 0x400010 expect: 0 } }
      steps { read { gpa: 0x400010 size: 1 alias: MEMORY_KIND_SHARED expect: 0xCD } }
      steps { print { text: "done\n" } } })");
  EXPECT_THAT(notes.fatal, IsEmpty());
  EXPECT_THAT(notes.exit_codes, IsEmpty());
  EXPECT_THAT(notes.ended, ElementsAre(0u));
  EXPECT_EQ(notes.console, "done\n");
  ASSERT_THAT(notes.violations, SizeIs(2));
  EXPECT_EQ(notes.violations[0].second.gpa.value, 0x400008u);
  EXPECT_EQ(notes.violations[0].second.access, mmu::Access::Write());
  EXPECT_EQ(notes.violations[1].second.gpa.value, kSharedMask | 0x400010);
}

TEST_F(SimTest, LoopsStrideThroughMemoryAndNest) {
  const FakeClient::Notes notes = Run(R"(vcpus {
      steps { loop { count: 3 steps { loop { count: 4
        steps { write { gpa: 0x400000 stride: 0x1000 value: 100 value_stride: 3 } } } } } }
      steps { read { gpa: 0x403000 expect: 109 } }
      steps { loop { count: 0 steps { exit { code: 9 } } } }
      steps { exit { code: 7 } } })");
  EXPECT_THAT(notes.exit_codes, ElementsAre(Pair(0u, 7)));
  EXPECT_THAT(notes.ended, IsEmpty());
  EXPECT_THAT(notes.violations, SizeIs(4));
}

TEST_F(SimTest, FailedCheckSaysWhatWasExpectedAndEndsWithCode1) {
  FakeClient::Notes notes = Run(R"(vcpus {} vcpus {
      steps { loop { count: 1 steps { write { gpa: 0x400000 value: 0xBEEF } } } }
      steps { read { gpa: 0x400000 size: 2 expect: 0x0A } } })",
                                2);
  client_.WaitFor([](const FakeClient::Notes& n) { return !n.exit_codes.empty(); });
  notes = client_.notes();
  EXPECT_EQ(notes.console, "vcpu 1 step 3: expected 0xa, got 0xbeef\n");
  EXPECT_THAT(notes.exit_codes, ElementsAre(Pair(1u, 1)));
}

TEST_F(SimTest, FailedExpectStepSaysSoToo) {
  const FakeClient::Notes notes = Run("vcpus { steps { expect { value: 1 } } }");
  EXPECT_EQ(notes.console, "vcpu 0 step 1: expected 0x1, got 0x0\n");
  EXPECT_THAT(notes.exit_codes, ElementsAre(Pair(0u, 1)));
}

TEST_F(SimTest, FetchExecutesANearReturnAndNothingElse) {
  FakeClient::Notes notes = Run(R"(vcpus {
      steps { write { gpa: 0x400003 size: 1 value: 0xC3 } }
      steps { fetch { gpa: 0x400003 } }
      steps { fetch { gpa: 0x400004 } } })");
  ASSERT_THAT(notes.fatal, SizeIs(1));
  EXPECT_EQ(notes.fatal[0].first, StopReason::kTripleFault);
  EXPECT_THAT(notes.fatal[0].second, StartsWith("vcpu 0 step 3: "));
}

TEST_F(SimTest, FetchNeedsTheExecuteRight) {
  const uint64_t page = memory_.NewPage();
  memory_.Store(page, 0xC3);
  memory_.Map4K(private_root_, 0x400000, page, 1);
  client_.on_violation = [&](VcpuIndex, const mmu::Fault&) {
    memory_.Map4K(private_root_, 0x400000, page, 5);
    return Verdict::kResume;
  };
  const FakeClient::Notes notes = Run("vcpus { steps { fetch { gpa: 0x400000 } } }");
  ASSERT_THAT(notes.violations, SizeIs(1));
  EXPECT_EQ(notes.violations[0].second.access, mmu::Access::Fetch());
  EXPECT_THAT(notes.ended, ElementsAre(0u));
}

TEST_F(SimTest, AddressThatNoGuestTableNamesIsAnException) {
  const FakeClient::Notes notes = Run("vcpus { steps { read { gpa: 0x400000000000 } } }");
  ASSERT_THAT(notes.fatal, SizeIs(1));
  EXPECT_EQ(notes.fatal[0].first, StopReason::kTripleFault);
  EXPECT_THAT(notes.violations, IsEmpty());
}

TEST_F(SimTest, AddressOutsideMemoryIsTheClientsToDecide) {
  client_.on_violation = {};  // stops
  SimMachine& machine = Start("vcpus { steps { read { gpa: 0x3FFFFFFFFFF8 } } }");
  EXPECT_TRUE(client_.WaitFor([](const FakeClient::Notes& n) { return !n.violations.empty(); }));
  machine.RequestStop();
  machine.Join();
  EXPECT_EQ(client_.notes().violations[0].second.gpa.value, 0x3FFFFFFFFFF8u);
  EXPECT_EQ(client_.notes().calls, 1u);
}

TEST_F(SimTest, WrongTableEntryIsAnEngineBug) {
  // Write without read.
  memory_.Map4K(private_root_, 0x400000, memory_.NewPage(), 2);
  const FakeClient::Notes notes = Run("vcpus { steps { read { gpa: 0x400000 } } }");
  ASSERT_THAT(notes.fatal, SizeIs(1));
  EXPECT_EQ(notes.fatal[0].first, StopReason::kEngineBug);
  EXPECT_THAT(notes.fatal[0].second, HasSubstr("EPT misconfiguration for 0x400000 at level 1"));
}

TEST_F(SimTest, LeafThatLeadsNowhereIsAnEngineBug) {
  memory_.Map4K(private_root_, 0x400000, uint64_t{1} << 40);
  const FakeClient::Notes notes = Run("vcpus { steps { read { gpa: 0x400000 } } }");
  ASSERT_THAT(notes.fatal, SizeIs(1));
  EXPECT_EQ(notes.fatal[0].first, StopReason::kEngineBug);
  EXPECT_THAT(notes.fatal[0].second, HasSubstr("0x10000000000"));
}

TEST_F(SimTest, MapGpaGivesTheRegistersAndItsResultIsTheLastResult) {
  int call = 0;
  client_.on_map_gpa = [&](VcpuIndex, const vcpu::MapGpaCall&) {
    const MapGpaResult results[] = {MapGpaResult::kOk, MapGpaResult::kDenied,
                                    MapGpaResult::kInvalid};
    return MapGpaVerdict{Verdict::kResume, results[call++]};
  };
  const FakeClient::Notes notes = Run(R"(vcpus {
      steps { map_gpa { gpa: 0x400000 pages: 2 kind: MEMORY_KIND_SHARED } }
      steps { expect { value: 0 } }
      steps { map_gpa { gpa: 0x400000 pages: 2 kind: MEMORY_KIND_PRIVATE preserve: true } }
      steps { expect { value: 0xFFFFFFFFFFFFFFFF } }
      steps { map_gpa { gpa: 0xFFFFFFFFFFFFFFFF kind: MEMORY_KIND_PRIVATE } }
      steps { expect { value: 0xFFFFFFFFFFFFFFEA } } })");
  EXPECT_THAT(notes.ended, ElementsAre(0u));
  ASSERT_THAT(notes.map_gpa_calls, SizeIs(3));
  EXPECT_EQ(notes.map_gpa_calls[0].gpa, 0x400000u);
  EXPECT_EQ(notes.map_gpa_calls[0].pages, 2u);
  EXPECT_EQ(notes.map_gpa_calls[0].attributes, 0u);
  EXPECT_EQ(notes.map_gpa_calls[1].attributes, 0x30u);
  EXPECT_EQ(notes.map_gpa_calls[2].gpa, ~uint64_t{0});
}

TEST_F(SimTest, MapGpaRetriesAreFollowedBeforeTheNextStep) {
  int call = 0;
  client_.on_map_gpa = [&](VcpuIndex, const vcpu::MapGpaCall& asked) {
    // Once from the same place, once from the next page.
    switch (++call) {
      case 1:
        return MapGpaVerdict{Verdict::kResume, {MapGpaResult::kRetry, asked.gpa}};
      case 2:
        return MapGpaVerdict{Verdict::kResume, {MapGpaResult::kRetry, asked.gpa + 0x1000}};
      default:
        return MapGpaVerdict{Verdict::kResume, MapGpaResult::kOk};
    }
  };
  const FakeClient::Notes notes = Run(R"(vcpus {
      steps { map_gpa { gpa: 0x400000 pages: 3 kind: MEMORY_KIND_SHARED } }
      steps { expect { value: 0 } } })");
  EXPECT_THAT(notes.ended, ElementsAre(0u));
  ASSERT_THAT(notes.map_gpa_calls, SizeIs(3));
  EXPECT_EQ(notes.map_gpa_calls[1].gpa, 0x400000u);
  EXPECT_EQ(notes.map_gpa_calls[1].pages, 3u);
  EXPECT_EQ(notes.map_gpa_calls[2].gpa, 0x401000u);
  EXPECT_EQ(notes.map_gpa_calls[2].pages, 2u);
}

TEST_F(SimTest, ParkedFaultWaitsUntilItIsResumedAndTriesAgain) {
  std::atomic<bool> parked{false};
  client_.on_violation = [&](VcpuIndex, const mmu::Fault&) {
    parked = true;
    return Verdict::kParked;
  };
  SimMachine& machine = Start("vcpus { steps { write { gpa: 0x400000 value: 1 } } }");
  ASSERT_TRUE(client_.WaitFor([](const FakeClient::Notes& n) { return !n.violations.empty(); }));
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_EQ(client_.notes().calls, 1u);  // it does not move
  MapFresh(mmu::Gpa(0x400000));
  machine.ResumeFault(0);
  EXPECT_TRUE(client_.WaitForEnd());
  EXPECT_THAT(client_.notes().violations, SizeIs(1));
}

TEST_F(SimTest, ParkedMapGpaGetsItsAnswer) {
  client_.on_map_gpa = [&](VcpuIndex, const vcpu::MapGpaCall&) {
    return MapGpaVerdict{Verdict::kParked, MapGpaResult::kOk};
  };
  SimMachine& machine = Start(R"(vcpus {} vcpus {
      steps { map_gpa { gpa: 0x400000 pages: 1 kind: MEMORY_KIND_SHARED } }
      steps { expect { value: 0xFFFFFFFFFFFFFFFF } } steps { exit { code: 5 } } })",
                              2);
  ASSERT_TRUE(client_.WaitFor([](const FakeClient::Notes& n) { return !n.map_gpa_calls.empty(); }));
  machine.AnswerMapGpa(0, MapGpaResult::kInvalid);  // another vCPU, which is not parked
  machine.AnswerMapGpa(7, MapGpaResult::kInvalid);  // none
  machine.AnswerMapGpa(1, MapGpaResult::kDenied);
  ASSERT_TRUE(client_.WaitFor([](const FakeClient::Notes& n) { return !n.exit_codes.empty(); }));
  EXPECT_THAT(client_.notes().exit_codes, ElementsAre(Pair(1u, 5)));
}

TEST_F(SimTest, AReleaseThatOvertakesTheVerdictParkedIsNotLost) {
  SimMachine* machine = nullptr;
  client_.on_violation = [&](VcpuIndex vcpu, const mmu::Fault& fault) {
    MapFresh(fault.gpa);
    std::thread([&] { machine->AnswerMapGpa(vcpu, MapGpaResult::kOk); }).join();
    return Verdict::kParked;
  };
  client_.on_map_gpa = [&](VcpuIndex vcpu, const vcpu::MapGpaCall&) {
    machine->AnswerMapGpa(vcpu, MapGpaResult::kDenied);
    return MapGpaVerdict{Verdict::kParked, MapGpaResult::kOk};
  };
  machine = &Make(R"(vcpus {
      steps { write { gpa: 0x400000 value: 1 } }
      steps { map_gpa { gpa: 0x400000 pages: 1 kind: MEMORY_KIND_SHARED } }
      steps { expect { value: 0xFFFFFFFFFFFFFFFF } } })");
  ASSERT_TRUE(machine->Start().ok());
  ASSERT_TRUE(client_.WaitForEnd());
  EXPECT_THAT(client_.notes().ended, ElementsAre(0u));
}

// A decision for a vCPU that has not asked must not answer its next question.
TEST_F(SimTest, AReleaseOfAVcpuThatRunsChangesNothing) {
  client_.on_map_gpa = [&](VcpuIndex, const vcpu::MapGpaCall&) {
    return MapGpaVerdict{Verdict::kParked, MapGpaResult::kOk};
  };
  SimMachine& machine = Make(R"(vcpus {
      steps { map_gpa { gpa: 0x400000 pages: 1 kind: MEMORY_KIND_SHARED } }
      steps { expect { value: 0 } } })");
  machine.AnswerMapGpa(0, MapGpaResult::kDenied);
  ASSERT_TRUE(machine.Start().ok());
  ASSERT_TRUE(client_.WaitFor([](const FakeClient::Notes& n) { return !n.map_gpa_calls.empty(); }));
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_EQ(client_.notes().calls, 1u);
  machine.AnswerMapGpa(0, MapGpaResult::kOk);
  ASSERT_TRUE(client_.WaitForEnd());
  EXPECT_THAT(client_.notes().ended, ElementsAre(0u));
}

}  // namespace
}  // namespace twinroot::sim
