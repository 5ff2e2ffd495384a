// Pausing a sim machine: nothing executes, what waits goes on waiting, decisions keep.
#include <chrono>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "tests/daemon/vcpu/sim/sim_test_base.h"

namespace twinroot::sim {
namespace {

using vcpu::MapGpaResult;
using vcpu::MapGpaVerdict;
using vcpu::VcpuIndex;
using vcpu::Verdict;

constexpr char kCounts[] = R"(vcpus { steps { loop { count: 1000000000
    steps { write { gpa: 0x400000 value_stride: 1 } } } } })";

class SimPauseTest : public SimTest {
 protected:
  SimPauseTest() { memory_.Map4K(private_root_, 0x400000, page_); }
  uint64_t count() { return memory_.Load(page_); }
  static void Rest() { std::this_thread::sleep_for(std::chrono::milliseconds(5)); }

  const uint64_t page_ = memory_.NewPage();
};

TEST_F(SimPauseTest, NothingExecutesUntilResume) {
  SimMachine& machine = Start(std::string(kCounts) + kCounts + kCounts, 3);
  for (int round = 0; round < 20; ++round) {
    const uint64_t started = count();
    while (count() == started) std::this_thread::yield();
    machine.Pause();
    const uint64_t before = count();
    Rest();
    EXPECT_EQ(count(), before);
    machine.Resume();
  }
  machine.RequestStop();
  machine.Join();
}

TEST_F(SimPauseTest, OneThatIsPausedBeforeItsThreadsRunWaits) {
  SimMachine& machine = Make(kCounts);
  ASSERT_TRUE(machine.Start().ok());
  machine.Pause();
  const uint64_t before = count();
  Rest();
  EXPECT_EQ(count(), before);
  machine.RequestStop();
  machine.Join();
}

TEST_F(SimPauseTest, ADecisionInAPauseTakesEffectAtResume) {
  client_.on_map_gpa = [](VcpuIndex, const vcpu::MapGpaCall&) {
    return MapGpaVerdict{Verdict::kParked, MapGpaResult::kOk};
  };
  SimMachine& machine =
      Start(R"(vcpus { steps { map_gpa { gpa: 0x500000 pages: 1 kind: MEMORY_KIND_SHARED } }
                       steps { expect { value: 0 } } steps { print { text: "went on" } } })");
  ASSERT_TRUE(client_.WaitFor([](const FakeClient::Notes& n) { return n.calls > 0; }));
  machine.Pause();
  machine.AnswerMapGpa(0, MapGpaResult::kOk);
  Rest();
  EXPECT_EQ(client_.notes().console, "");
  machine.Resume();
  EXPECT_TRUE(client_.WaitForEnd());
  EXPECT_EQ(client_.notes().console, "went on");
}

TEST_F(SimPauseTest, AParkedVcpuStaysParkedOverAPause) {
  client_.on_violation = [](VcpuIndex, const mmu::Fault&) { return Verdict::kParked; };
  SimMachine& machine = Start("vcpus { steps { write { gpa: 0x500000 } } }");
  ASSERT_TRUE(client_.WaitFor([](const FakeClient::Notes& n) { return n.calls > 0; }));
  machine.Pause();
  machine.Resume();
  Rest();
  EXPECT_EQ(client_.notes().calls, 1u);
  MapFresh(mmu::Gpa(0x500000));
  machine.ResumeFault(0);
  EXPECT_TRUE(client_.WaitForEnd());
}

TEST_F(SimPauseTest, VcpusAtABarrierDoNotHoldAPauseUp) {
  SimMachine& machine =
      Start(std::string("vcpus { steps { barrier {} } }") +
                "vcpus { steps { loop { count: 1000000000 "
                "steps { write { gpa: 0x400000 value_stride: 1 } } } } steps { barrier {} } }",
            2);
  while (count() == 0) std::this_thread::yield();
  machine.Pause();
  const uint64_t before = count();
  Rest();
  EXPECT_EQ(count(), before);
  machine.RequestStop();
  machine.Join();
}

// Pauses, decisions and faults at the same time: nothing is lost, and it can be stopped any time.
TEST_F(SimPauseTest, ManyPausesWhileVcpusParkAndGoOn) {
  constexpr uint32_t kVcpus = 4;
  std::string program;
  for (uint32_t i = 0; i < kVcpus; ++i) {
    program +=
        "vcpus { steps { loop { count: 300 "
        "steps { map_gpa { gpa: 0x500000 pages: 1 kind: MEMORY_KIND_SHARED } } "
        "steps { write { gpa: 0x400000 } } } } }";
  }
  std::mutex mutex;
  std::vector<VcpuIndex> parked;
  client_.on_map_gpa = [&](VcpuIndex vcpu, const vcpu::MapGpaCall&) {
    std::lock_guard lock(mutex);
    parked.push_back(vcpu);
    return MapGpaVerdict{Verdict::kParked, MapGpaResult::kOk};
  };
  SimMachine& machine = Make(program, kVcpus);
  ASSERT_TRUE(machine.Start().ok());
  while (client_.notes().ended.size() < kVcpus) {
    std::vector<VcpuIndex> now;
    machine.Pause();
    const size_t calls = client_.notes().calls;
    {
      std::lock_guard lock(mutex);
      now.swap(parked);
    }
    for (const VcpuIndex vcpu : now) machine.AnswerMapGpa(vcpu, MapGpaResult::kOk);
    EXPECT_EQ(client_.notes().calls, calls);
    machine.Resume();
  }
  EXPECT_THAT(client_.notes().fatal, ::testing::IsEmpty());
}

TEST_F(SimPauseTest, StopEndsAPause) {
  SimMachine& machine = Start(kCounts);
  machine.Pause();
  machine.RequestStop();
  machine.Join();
}

}  // namespace
}  // namespace twinroot::sim
