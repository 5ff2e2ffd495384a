// The life of a sim machine: start, stop, barriers, flushes, several vCPUs at once.
#include <atomic>
#include <chrono>
#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/daemon/vcpu/sim/sim_test_base.h"

namespace twinroot::sim {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using vcpu::MapGpaResult;
using vcpu::MapGpaVerdict;
using vcpu::VcpuIndex;
using vcpu::Verdict;

constexpr char kEndless[] = R"(vcpus { steps { loop { count: 0xFFFFFFFFFFFFFFFF
    steps { loop { count: 2 } } steps { write { gpa: 0x400000 value: 1 value_stride: 1 } } } } })";
constexpr char kAtBarrier[] = "vcpus { steps { barrier {} } steps { exit { code: 3 } } }";

absl::Status StartOf(const SimConfig& config, mmu::vmx::PhysicalMemory* memory, bool attach,
                     uint64_t eptp, std::optional<int> shared_bit = kSharedBit) {
  FakeClient client;
  SimMachine machine(config, memory, &client);
  if (attach) machine.LoadRoots(mmu::EptPointer(eptp), mmu::EptPointer(eptp), shared_bit);
  const absl::Status status = machine.Start();
  machine.Join();
  EXPECT_TRUE(status.ok() || client.notes().calls == 0);
  return status;
}

TEST_F(SimTest, StartRefusesWhatCannotRunAndLeavesNothingRunning) {
  SimConfig config;
  const uint64_t eptp = private_root_ | 0x1E;
  const absl::Status image = StartOf(config, &memory_, true, eptp);
  EXPECT_EQ(image.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(image.message()), HasSubstr("an image cannot run on sim"));
  config.program = CompileText("vcpus {}", 1);
  EXPECT_TRUE(StartOf(config, &memory_, true, eptp).ok());
  EXPECT_EQ(StartOf(config, &memory_, false, 0).code(), absl::StatusCode::kInternal);
  // Three levels; an address that is too wide.
  EXPECT_EQ(StartOf(config, &memory_, true, private_root_ | 0x16).code(),
            absl::StatusCode::kInternal);
  config.host_maxphyaddr = 39;
  EXPECT_EQ(StartOf(config, &memory_, true, uint64_t{1} << 39 | 0x1E).code(),
            absl::StatusCode::kInternal);
  config.vcpus = 2;
  EXPECT_EQ(StartOf(config, &memory_, true, eptp).code(), absl::StatusCode::kInvalidArgument);
  config.vcpus = 1;
  config.program =
      CompileText("vcpus { steps { read { gpa: 0x400000 alias: MEMORY_KIND_SHARED } } }", 1);
  EXPECT_EQ(StartOf(config, &memory_, true, eptp, std::nullopt).code(),
            absl::StatusCode::kFailedPrecondition);
}

TEST_F(SimTest, MachineStartsOnce) {
  SimMachine& machine = Start("vcpus {}");
  EXPECT_EQ(machine.Start().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(client_.WaitForEnd());
  machine.Join();
  EXPECT_THAT(client_.notes().ended, SizeIs(1));
}

TEST_F(SimTest, VcpusWithoutAProgramEndAtOnce) {
  const FakeClient::Notes notes = Run("vcpus {}", 3);
  EXPECT_THAT(notes.ended, ElementsAre(0u, 1u, 2u));
}

TEST_F(SimTest, MachineThatNeverStartedStopsAndJoins) {
  SimMachine& machine = Make(kEndless);
  machine.RequestStop();
  machine.Join();
  EXPECT_EQ(client_.notes().calls, 0u);
}

struct StopCase {
  const char* what;
  const char* program;
  uint32_t vcpus;
};

// Whatever a vCPU does or waits for: a stop ends it promptly, and then the client hears nothing.
TEST_F(SimTest, StopEndsEveryWaitAndEveryLoop) {
  const StopCase cases[] = {
      {"endless loop", kEndless, 1},
      {"endless empty loop",
       "vcpus { steps { print { text: \"x\" } } steps { loop { count: 0xFFFFFFFFFFFFFFFF } } }", 1},
      {"parked fault", "vcpus { steps { write { gpa: 0x500000 } } }", 1},
      {"fault that is only ever resumed", "vcpus { steps { write { gpa: 0x600000 } } }", 1},
      {"parked MapGPA",
       "vcpus { steps { map_gpa { gpa: 0x500000 pages: 1 kind: MEMORY_KIND_SHARED } } }", 1},
      {"MapGPA that is only ever retried",
       "vcpus { steps { map_gpa { gpa: 0x600000 pages: 1 kind: MEMORY_KIND_SHARED } } }", 1},
      {"barrier",
       "vcpus { steps { print { text: \"x\" } } steps { barrier {} } steps { exit {} } } "
       "vcpus { steps { loop { count: 0xFFFFFFFFFFFFFFFF } } }",
       2},
  };
  for (const StopCase& c : cases) {
    SCOPED_TRACE(c.what);
    FakeClient client;
    client.on_violation = [&](VcpuIndex, const mmu::Fault& fault) {
      if (fault.gpa.value == 0x500000) return Verdict::kParked;
      if (fault.gpa.value != 0x600000) MapFresh(fault.gpa);
      return Verdict::kResume;
    };
    client.on_map_gpa = [&](VcpuIndex, const vcpu::MapGpaCall& call) {
      return call.gpa == 0x500000
                 ? MapGpaVerdict{Verdict::kParked, MapGpaResult::kOk}
                 : MapGpaVerdict{Verdict::kResume, {MapGpaResult::kRetry, call.gpa}};
    };
    SimConfig config;
    config.vcpus = c.vcpus;
    config.program = CompileText(c.program, c.vcpus);
    SimMachine machine(config, &memory_, &client);
    machine.LoadRoots(mmu::EptPointer(private_root_ | 0x1E), mmu::EptPointer(shared_root_ | 0x1E),
                      kSharedBit);
    ASSERT_TRUE(machine.Start().ok());
    ASSERT_TRUE(client.WaitFor([](const FakeClient::Notes& n) { return n.calls > 0; }));
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    const auto before = std::chrono::steady_clock::now();
    machine.RequestStop();
    machine.RequestStop();
    machine.Join();
    EXPECT_LT(std::chrono::steady_clock::now() - before, std::chrono::seconds(5));
    const FakeClient::Notes notes = client.notes();
    machine.AnswerMapGpa(0, MapGpaResult::kOk);
    EXPECT_EQ(client.notes().calls, notes.calls);
    EXPECT_THAT(notes.ended, IsEmpty());
    EXPECT_THAT(notes.exit_codes, IsEmpty());
    EXPECT_THAT(notes.fatal, IsEmpty());
  }
}

TEST_F(SimTest, ClientMayStopTheMachineFromInsideACall) {
  SimMachine* machine = nullptr;
  client_.on_map_gpa = [&](VcpuIndex, const vcpu::MapGpaCall&) {
    machine->RequestStop();
    return MapGpaVerdict{Verdict::kParked, MapGpaResult::kOk};
  };
  machine = &Make(R"(vcpus { steps { map_gpa { gpa: 0x400000 pages: 1 kind: MEMORY_KIND_SHARED } }
                             steps { exit { code: 1 } } })");
  ASSERT_TRUE(machine->Start().ok());
  ASSERT_TRUE(client_.WaitFor([](const FakeClient::Notes& n) { return n.calls > 0; }));
  machine->Join();
  EXPECT_EQ(client_.notes().calls, 1u);
}

TEST_F(SimTest, BarrierOrdersWhatVcpusDo) {
  // Vcpu 0 writes one page per round, vcpu 1 reads it in the same round, behind a barrier.
  const FakeClient::Notes notes = Run(R"(
      vcpus { steps { loop { count: 50
        steps { write { gpa: 0x400000 stride: 0x1000 value: 1 value_stride: 1 } }
        steps { barrier {} } steps { barrier {} } } } }
      vcpus { steps { loop { count: 50
        steps { barrier {} }
        steps { read { gpa: 0x400000 stride: 0x1000 } }
        steps { write { gpa: 0x500000 } }
        steps { barrier {} } } }
        steps { read { gpa: 0x431000 expect: 50 } } })",
                                      2);
  EXPECT_THAT(notes.fatal, IsEmpty());
  EXPECT_EQ(notes.console, "");
  EXPECT_THAT(notes.ended, ElementsAre(0u, 1u));
}

TEST_F(SimTest, BarrierDoesNotWaitForVcpusThatHaveEndedOrHaveNoProgram) {
  const FakeClient::Notes notes = Run(R"(
      vcpus { steps { barrier {} } steps { barrier {} } steps { barrier {} } }
      vcpus { steps { barrier {} } }
      vcpus { steps { loop { count: 10000 } } })",
                                      4);
  EXPECT_THAT(notes.ended, ElementsAre(0u, 1u, 2u, 3u));
}

TEST_F(SimTest, BarrierStaysClosedWhereAVcpuHasGivenAnExitCode) {
  const FakeClient::Notes notes =
      Run(std::string(kAtBarrier) + " vcpus { steps { exit { code: 4 } } }", 2);
  ASSERT_THAT(notes.exit_codes, SizeIs(1));
  EXPECT_EQ(notes.exit_codes[0].second, 4);
}

// The flusher reaches the TLBs of all vCPUs and returns when no access uses an old translation.
TEST_F(SimTest, FlushIsSynchronousForEveryVcpu) {
  const uint64_t pages[] = {memory_.NewPage(), memory_.NewPage()};
  memory_.Map4K(private_root_, 0x400000, pages[0]);
  SimMachine& machine = Start(std::string(kEndless) + kEndless, 2);
  // On a busy machine the rounds are over before a vCPU has begun.
  while (memory_.Load(pages[0]) == 0) std::this_thread::yield();
  int late_stores = 0;
  for (int round = 0; round < 1000; ++round) {
    const uint64_t away = pages[round % 2];
    memory_.Map4K(private_root_, 0x400000, pages[(round + 1) % 2]);
    if (round % 16 == 0) {
      machine.flusher()->FlushAll();
    } else {
      machine.flusher()->FlushRange(mmu::MemoryKind::kPrivate, mmu::HwGfn(0x400), 1);
    }
    const uint64_t seen = memory_.Load(away);
    std::this_thread::yield();
    if (memory_.Load(away) != seen) ++late_stores;
  }
  machine.RequestStop();
  machine.Join();
  EXPECT_EQ(late_stores, 0);
  EXPECT_EQ(client_.notes().calls, 0u);
}

// Before a vCPU runs and after all have ended the engine may flush too.
TEST_F(SimTest, FlushIsAllowedAtAnyTime) {
  SimMachine& machine = Make("vcpus { steps { write { gpa: 0x400000 } } }");
  machine.flusher()->FlushAll();
  machine.flusher()->FlushRange(mmu::MemoryKind::kShared, mmu::HwGfn(0), ~uint64_t{0});
  ASSERT_TRUE(machine.Start().ok());
  ASSERT_TRUE(client_.WaitForEnd());
  machine.Join();
  machine.flusher()->FlushAll();
  EXPECT_EQ(machine.external(mmu::MemoryKind::kPrivate), nullptr);
  EXPECT_EQ(machine.external(mmu::MemoryKind::kShared), nullptr);
}

// Faults that park, decisions from another thread, pages that are taken away: nothing is lost.
TEST_F(SimTest, ManyVcpusParkAndGoOnWhileTheirPagesAreTakenAway) {
  constexpr uint32_t kVcpus = 4;
  std::string program;
  for (uint32_t i = 0; i < kVcpus; ++i) {
    program +=
        "vcpus { steps { loop { count: 200 steps { loop { count: 4 "
        "steps { write { gpa: 0x400000 stride: 0x1000 } } "
        "steps { read { gpa: 0x400000 stride: 0x1000 alias: MEMORY_KIND_SHARED } } } } } } }";
  }
  SimMachine* machine = nullptr;
  std::mutex mutex;
  std::vector<std::pair<VcpuIndex, mmu::Gpa>> parked;
  client_.on_violation = [&](VcpuIndex vcpu, const mmu::Fault& fault) {
    std::lock_guard lock(mutex);
    parked.emplace_back(vcpu, fault.gpa);
    return Verdict::kParked;
  };
  const uint64_t page = memory_.NewPage();
  machine = &Make(program, kVcpus);
  ASSERT_TRUE(machine->Start().ok());
  std::atomic<bool> stop{false};
  std::thread orchestrator([&] {
    for (uint64_t round = 0; !stop; ++round) {
      std::vector<std::pair<VcpuIndex, mmu::Gpa>> now;
      {
        std::lock_guard lock(mutex);
        now.swap(parked);
      }
      for (const auto& [vcpu, gpa] : now) {
        memory_.Map4K(RootOf(gpa.value), gpa.value & ~uint64_t{0xFFF}, page);
        machine->AnswerMapGpa(vcpu, MapGpaResult::kOk);
      }
      if (round % 8 == 0 && round < 4000) {
        const uint64_t gpa = 0x400000 + (round / 8 % 4) * 0x1000;
        memory_.Unmap4K(private_root_, gpa);
        machine->flusher()->FlushRange(mmu::MemoryKind::kPrivate, mmu::HwGfn(gpa >> 12), 1);
      }
      std::this_thread::yield();
    }
  });
  EXPECT_TRUE(client_.WaitFor([](const FakeClient::Notes& n) { return n.ended.size() == kVcpus; }));
  stop = true;
  orchestrator.join();
  EXPECT_THAT(client_.notes().fatal, IsEmpty());
}

}  // namespace
}  // namespace twinroot::sim
