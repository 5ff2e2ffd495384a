#include "daemon/vcpu/pause_gate.h"

#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#include "gtest/gtest.h"

namespace twinroot::vcpu {
namespace {

TEST(PauseGateTest, NobodyPassesUntilResume) {
  constexpr uint32_t kVcpus = 4;
  PauseGate gate(kVcpus);
  std::atomic<bool> stop{false};
  std::atomic<uint64_t> steps{0};
  std::vector<std::thread> threads;
  for (VcpuIndex vcpu = 0; vcpu < kVcpus; ++vcpu) {
    threads.emplace_back([&, vcpu] {
      gate.Enter(vcpu);
      while (!stop) {
        gate.Pass(vcpu);
        ++steps;
      }
      gate.Leave(vcpu);
    });
  }
  for (int round = 0; round < 100; ++round) {
    gate.Pause([](VcpuIndex) {});
    const uint64_t before = steps;
    std::this_thread::sleep_for(std::chrono::microseconds(200));
    EXPECT_EQ(steps, before);
    gate.Resume();
    while (steps == before) std::this_thread::yield();
  }
  stop = true;
  for (std::thread& thread : threads) thread.join();
}

TEST(PauseGateTest, OneThatIsOutsideOrHeldNeedsNoWait) {
  PauseGate gate(3);  // one that never came
  gate.Enter(0);
  gate.Enter(1);
  gate.Leave(0);
  gate.Hold(1);
  gate.Pause([](VcpuIndex) {});
  EXPECT_FALSE(gate.Release({1}));
  gate.Resume();
  EXPECT_TRUE(gate.Release({1}));
}

TEST(PauseGateTest, OfSeveralPausesTheLastResumeCounts) {
  PauseGate gate(1);
  gate.Enter(0);
  gate.Hold(0);
  gate.Pause([](VcpuIndex) {});
  gate.Pause([](VcpuIndex) {});
  gate.Resume();
  EXPECT_FALSE(gate.Release({0}));
  gate.Resume();
  EXPECT_TRUE(gate.Release({0}));
}

// Pause waits for this vCPU, the only one that executes.
void ExpectAPauseWaitsFor(PauseGate& gate, VcpuIndex vcpu) {
  std::atomic<bool> paused{false};
  std::thread pauser([&] {
    gate.Pause([](VcpuIndex) {});
    paused = true;
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(5));
  EXPECT_FALSE(paused);
  gate.Leave(vcpu);
  pauser.join();
}

TEST(PauseGateTest, PauseWaitsForAReleasedVcpu) {
  PauseGate gate(1);
  gate.Enter(0);
  gate.Hold(0);
  EXPECT_TRUE(gate.Release({0}));
  ExpectAPauseWaitsFor(gate, 0);
}

TEST(PauseGateTest, PauseWaitsForEveryVcpuThatWasWokenWithAnother) {
  PauseGate gate(2);
  for (const VcpuIndex vcpu : {0u, 1u}) {
    gate.Enter(vcpu);
    gate.Hold(vcpu);
  }
  EXPECT_TRUE(gate.Release({0, 1}));
  gate.Leave(0);
  ExpectAPauseWaitsFor(gate, 1);
}

TEST(PauseGateTest, AVcpuThatASignalTookOutOfItsFaultIsHeldNoMore) {
  PauseGate gate(1);
  gate.Enter(0);
  gate.Hold(0);
  gate.Pause([](VcpuIndex) {});
  gate.Leave(0);
  EXPECT_FALSE(gate.AnyHeld());
  gate.Hold(0);  // too late
  gate.Resume();
  gate.Enter(0);
  ExpectAPauseWaitsFor(gate, 0);
}

TEST(PauseGateTest, NoneIsWokenInAPauseWithOneThatIsHeld) {
  PauseGate gate(2);
  gate.Enter(0);
  gate.Enter(1);
  gate.Hold(1);
  std::thread pauser([&] { gate.Pause([](VcpuIndex) {}); });
  while (!gate.paused()) std::this_thread::yield();
  EXPECT_FALSE(gate.Release({0, 1}));
  EXPECT_TRUE(gate.AnyHeld());
  EXPECT_TRUE(gate.Release({0})) << "it comes to the gate by itself";
  gate.Leave(0);
  pauser.join();
}

TEST(PauseGateTest, OnlyVcpusThatExecuteAreKicked) {
  PauseGate gate(3);  // one that never came
  gate.Enter(0);
  gate.Enter(1);
  gate.Hold(1);
  std::vector<VcpuIndex> kicked;
  gate.Pause([&](VcpuIndex vcpu) {
    kicked.push_back(vcpu);
    gate.Leave(vcpu);
  });
  EXPECT_EQ(kicked, std::vector<VcpuIndex>{0});
}

TEST(PauseGateTest, TheKickComesWhenTheGateIsClosed) {
  PauseGate gate(1);
  std::atomic<bool> kicked{false}, inside{false};
  std::thread vcpu([&] {
    gate.Enter(0);
    inside = true;
    while (!kicked) std::this_thread::yield();
    gate.Pass(0);  // waits
    gate.Leave(0);
  });
  while (!inside) std::this_thread::yield();
  gate.Pause([&](VcpuIndex) { kicked = true; });
  gate.Resume();
  vcpu.join();
}

TEST(PauseGateTest, StopEndsEveryWait) {
  PauseGate gate(2);
  gate.Enter(0);
  std::thread pauser([&] { gate.Pause([](VcpuIndex) {}); });
  while (!gate.paused()) std::this_thread::yield();
  std::thread vcpu([&] { gate.Enter(1); });
  std::this_thread::sleep_for(std::chrono::milliseconds(5));
  gate.Stop();
  pauser.join();
  vcpu.join();
  EXPECT_TRUE(gate.Release({0}));
}

}  // namespace
}  // namespace twinroot::vcpu
