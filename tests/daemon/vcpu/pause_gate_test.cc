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
    gate.Pause([] {});
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
  gate.Pause([] {});
  EXPECT_FALSE(gate.Release(1));
  gate.Resume();
  EXPECT_TRUE(gate.Release(1));
}

TEST(PauseGateTest, OfSeveralPausesTheLastResumeCounts) {
  PauseGate gate(1);
  gate.Enter(0);
  gate.Hold(0);
  gate.Pause([] {});
  gate.Pause([] {});
  gate.Resume();
  EXPECT_FALSE(gate.Release(0));
  gate.Resume();
  EXPECT_TRUE(gate.Release(0));
}

TEST(PauseGateTest, PauseWaitsForAReleasedVcpu) {
  PauseGate gate(1);
  gate.Enter(0);
  gate.Hold(0);
  EXPECT_TRUE(gate.Release(0));
  std::atomic<bool> paused{false};
  std::thread pauser([&] {
    gate.Pause([] {});
    paused = true;
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(5));
  EXPECT_FALSE(paused);
  gate.Leave(0);
  pauser.join();
  EXPECT_TRUE(paused);
}

TEST(PauseGateTest, TheKickComesWhenTheGateIsClosed) {
  PauseGate gate(1);
  std::atomic<bool> kicked{false};
  std::thread vcpu([&] {
    gate.Enter(0);
    while (!kicked) std::this_thread::yield();
    gate.Pass(0);  // waits
    gate.Leave(0);
  });
  gate.Pause([&] { kicked = true; });
  gate.Resume();
  vcpu.join();
}

TEST(PauseGateTest, StopEndsEveryWait) {
  PauseGate gate(2);
  gate.Enter(0);
  std::thread pauser([&] { gate.Pause([] {}); });
  while (gate.Release(1)) std::this_thread::yield();  // until the gate is closed
  std::thread vcpu([&] { gate.Enter(1); });
  std::this_thread::sleep_for(std::chrono::milliseconds(5));
  gate.Stop();
  pauser.join();
  vcpu.join();
  EXPECT_TRUE(gate.Release(0));
}

}  // namespace
}  // namespace twinroot::vcpu
