// The life of real VMs on both backends: paused and resumed, changed, guarded by versions.
#include <sched.h>

#include <chrono>
#include <cstring>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "daemon/reasons.h"
#include "mmu/tables/entry_slot.h"
#include "tests/daemon/host/vm_fixture.h"

namespace twinroot::host {
namespace {

using mmu::Gfn;
using mmu::MemoryKind;

// Each vCPU counts in a shared page of its own.
std::string Counters(int vcpus) {
  std::string program;
  for (int i = 0; i < vcpus; ++i) {
    program += "vcpus { steps { loop { count: 1000000000 steps { write { gpa: " +
               std::to_string(0x400000 + 0x1000 * i) +
               " alias: MEMORY_KIND_SHARED value_stride: 1 } } } } }";
  }
  return program;
}
constexpr char kReads[] = R"(vcpus {
  steps { read { gpa: 0x400000 alias: MEMORY_KIND_SHARED } } steps { print { text: "read" } } })";
constexpr char kAsks[] = R"(vcpus {
  steps { map_gpa { gpa: 0x400000 pages: 2 kind: MEMORY_KIND_SHARED } }
  steps { expect { value: 0 } } steps { print { text: "asked" } } })";

void Orchestrated(VmSpec& spec) { spec.policy.mode = PolicyMode::kOrchestrator; }

class VmLife : public VmFixture {
 protected:
  // Both backends, or the one that this host has.
  std::vector<BackendKind> Backends() const {
    if (registry_->capabilities().kvm_usable) return {BackendKind::kSim, BackendKind::kKvm};
    return {BackendKind::kSim};
  }
  void Forget() {
    vm_.reset();
    ASSERT_TRUE(registry_->Delete("demo").ok());
  }
  std::vector<uint64_t> Counts(int vcpus) {
    std::vector<uint64_t> counts;
    for (int i = 0; i < vcpus; ++i) {
      const auto bytes = vm_->ReadMemory(0x400000 + 0x1000 * i, 8);
      uint64_t count = 0;
      if (bytes.ok()) std::memcpy(&count, bytes->data(), sizeof(count));
      counts.push_back(count);
    }
    return counts;
  }
  // Every vCPU has come on since `before`.
  bool AllMoved(const std::vector<uint64_t>& before) {
    const std::vector<uint64_t> now = Counts(static_cast<int>(before.size()));
    for (size_t i = 0; i < now.size(); ++i) {
      if (now[i] == before[i]) return false;
    }
    return true;
  }
  std::string Console() { return vm_->ReadConsole(0, 1000).data; }
  VmState state() { return vm_->status().state; }
  static void Rest() { std::this_thread::sleep_for(std::chrono::milliseconds(10)); }
  static void ExpectWrongState(const absl::Status& status) {
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << status;
    EXPECT_EQ(ReasonOf(status), reason::kWrongState) << status;
  }
};

TEST_F(VmLife, NoVcpuOfAPausedVmExecutes) {
  constexpr int kVcpus = 3;
  for (const BackendKind backend : Backends()) {
    Make(Counters(kVcpus), kVcpus, backend);
    ExpectWrongState(vm_->Pause());
    ExpectWrongState(vm_->Resume());
    Start();
    for (int round = 0; round < 10; ++round) {
      const auto started = Counts(kVcpus);
      Eventually([&] { return AllMoved(started); });
      ASSERT_TRUE(vm_->Pause().ok());
      EXPECT_EQ(state(), VmState::kPaused);
      const auto paused = Counts(kVcpus);
      Rest();
      EXPECT_EQ(Counts(kVcpus), paused);
      EXPECT_TRUE(vm_->Pause().ok());
      ExpectWrongState(vm_->Start());
      ASSERT_TRUE(vm_->Resume().ok());
      EXPECT_TRUE(vm_->Resume().ok());
      EXPECT_EQ(state(), VmState::kRunning);
    }
    ASSERT_TRUE(vm_->Pause().ok());
    ASSERT_TRUE(vm_->Stop(vcpu::StopReason::kStopRequested).ok());
    EXPECT_EQ(vm_->status().stop_reason, "STOP_REQUESTED");
    ExpectWrongState(vm_->Pause());
    ExpectWrongState(vm_->Resume());
    EXPECT_TRUE(vm_->Audit().ok()) << vm_->Audit();
    Forget();
  }
}

TEST_F(VmLife, MemoryOfAPausedVmMayBeChanged) {
  for (const BackendKind backend : Backends()) {
    Make(Counters(1), 1, backend);
    Start();
    Eventually([&] { return Counts(1)[0] > 0; });
    ASSERT_TRUE(vm_->Pause().ok());
    ASSERT_TRUE(vm_->Convert({{Gfn(0x400), 1}}, MemoryKind::kPrivate, mmu::Content::kDestroy).ok());
    Rest();
    EXPECT_FALSE(vm_->ReadMemory(0x400000, 8).ok());  // nobody has asked for it back
    ASSERT_TRUE(vm_->Resume().ok());
    Eventually([&] { return Counts(1)[0] > 0; });
    ASSERT_TRUE(vm_->Pause().ok());
    Forget();  // a paused VM may be deleted
  }
}

TEST_F(VmLife, ADecisionInAPauseTakesEffectAtResume) {
  for (const BackendKind backend : Backends()) {
    for (const char* program : {kReads, kAsks}) {
      Make(program, 1, backend, Orchestrated);
      Start();
      Eventually([&] { return vm_->Pending().size() == 1; });
      ASSERT_TRUE(vm_->Pause().ok());
      EXPECT_EQ(vm_->Resolve(vm_->Pending()[0].id, Resolution::kApply).outcome,
                ResolveResult::Outcome::kDecided);
      Rest();
      EXPECT_EQ(Console(), "");
      EXPECT_EQ(state(), VmState::kPaused);
      ASSERT_TRUE(vm_->Resume().ok());
      Finish();
      EXPECT_NE(Console(), "");
      Forget();
    }
  }
}

TEST_F(VmLife, AWaitForADecisionOutlastsAPause) {
  for (const BackendKind backend : Backends()) {
    for (const char* program : {kReads, kAsks}) {
      Make(program, 1, backend, Orchestrated);
      Start();
      Eventually([&] { return vm_->Pending().size() == 1; });
      for (int i = 0; i < 3; ++i) {
        ASSERT_TRUE(vm_->Pause().ok());
        ASSERT_TRUE(vm_->Resume().ok());
      }
      Rest();
      ASSERT_EQ(vm_->Pending().size(), 1u);
      EXPECT_EQ(vm_->Resolve(vm_->Pending()[0].id, Resolution::kApply).outcome,
                ResolveResult::Outcome::kDecided);
      Finish();
      Forget();
    }
  }
}

TEST_F(VmLife, ADeadlineInAPauseDecides) {
  for (const BackendKind backend : Backends()) {
    Make(kReads, 1, backend, [](VmSpec& spec) {
      Orchestrated(spec);
      spec.policy.decision_timeout = absl::Milliseconds(100);
      spec.policy.on_timeout = OnTimeout::kApply;
    });
    Start();
    ASSERT_TRUE(vm_->Pause().ok());  // perhaps before it asks
    if (vm_->Pending().empty()) {
      ASSERT_TRUE(vm_->Resume().ok());
      Eventually([&] { return vm_->Pending().size() == 1 || state() == VmState::kStopped; });
      (void)vm_->Pause();
    }
    Eventually([&] { return vm_->Pending().empty(); });
    Rest();
    if (state() == VmState::kPaused) {
      EXPECT_TRUE(vm_->Resume().ok());
    }
    Finish();
    Forget();
  }
}

TEST_F(VmLife, AVmMayBeStoppedWhileItIsBeingPaused) {
  for (const BackendKind backend : Backends()) {
    for (int round = 0; round < 10; ++round) {
      Make(Counters(2), 2, backend);
      Start();
      std::thread stopper(
          [this] { EXPECT_TRUE(vm_->Stop(vcpu::StopReason::kStopRequested).ok()); });
      const absl::Status paused = vm_->Pause();
      if (!paused.ok()) ExpectWrongState(paused);
      stopper.join();
      EXPECT_EQ(state(), VmState::kStopped);
      Forget();
    }
  }
}

TEST_F(VmLife, PausesAreEvents) {
  Make(Counters(1));
  Start();
  ASSERT_TRUE(vm_->Pause().ok());
  ASSERT_TRUE(vm_->Resume().ok());
  ASSERT_TRUE(vm_->Stop(vcpu::StopReason::kStopRequested).ok());
  std::vector<v1::Vm::State> states;
  for (const auto& event : journal_.Read(0, 10000, {}).events) {
    if (event->has_vm_state()) states.push_back(event->vm_state().state());
  }
  EXPECT_EQ(states, (std::vector<v1::Vm::State>{v1::Vm::STATE_DEFINED, v1::Vm::STATE_RUNNING,
                                                v1::Vm::STATE_PAUSED, v1::Vm::STATE_RUNNING,
                                                v1::Vm::STATE_STOPPED}));
}

TEST_F(VmLife, ANewPolicyDecidesTheNextRequest) {
  Make(kReads, 1, BackendKind::kSim, [](VmSpec& spec) { spec.policy.mode = PolicyMode::kDeny; });
  VmSettings settings = vm_->settings();
  settings.policy.mode = PolicyMode::kOrchestrator;
  settings.labels["tier"] = "gold";
  ASSERT_TRUE(vm_->Update(settings, vm_->status().version).ok());
  EXPECT_EQ(vm_->settings().labels.at("tier"), "gold");
  Start();
  Eventually([&] { return vm_->Pending().size() == 1; });
  EXPECT_EQ(vm_->Resolve(vm_->Pending()[0].id, Resolution::kApply).outcome,
            ResolveResult::Outcome::kDecided);
  Finish();
}

TEST_F(VmLife, AnotherVersionRefusesEveryChange) {
  Make(Counters(1));
  const uint64_t stale = vm_->status().version;
  ASSERT_TRUE(vm_->Update(vm_->settings(), stale).ok());
  EXPECT_NE(vm_->status().version, stale);
  const auto refused = [](const absl::Status& status) {
    return absl::IsAborted(status) && ReasonOf(status) == reason::kEtagMismatch;
  };
  EXPECT_TRUE(refused(vm_->Check(stale)));
  EXPECT_TRUE(refused(vm_->Update(vm_->settings(), stale)));
  EXPECT_TRUE(refused(vm_->Start(stale)));
  EXPECT_TRUE(refused(registry_->Delete("demo", stale)));
  ASSERT_TRUE(vm_->Start(vm_->status().version).ok());
  EXPECT_TRUE(refused(vm_->Pause(stale)));
  EXPECT_TRUE(refused(vm_->Resume(stale)));
  EXPECT_TRUE(refused(vm_->Stop(vcpu::StopReason::kStopRequested, stale)));
  EXPECT_EQ(state(), VmState::kRunning);
  EXPECT_TRUE(registry_->Delete("demo", vm_->status().version).ok());
  const uint64_t last = vm_->status().version;
  Make(Counters(1));
  EXPECT_GT(vm_->status().version, last);
}

TEST_F(VmLife, PagesThatWereFetchedFromBecomeLargeAgain) {
  constexpr char kExecutes[] = R"(vcpus {
    steps { write { gpa: 0x400000 size: 1 value: 0xc3 } } steps { fetch { gpa: 0x400000 } } })";
  Make(kExecutes, 1, BackendKind::kSim, [](VmSpec& spec) { spec.nx_huge_pages = true; });
  Start();
  Finish();
  EXPECT_EQ(vm_->counters().memory.splits_fault, 1u);
  const auto recovered = vm_->RecoverNxPages(10);
  ASSERT_TRUE(recovered.ok()) << recovered.status();
  EXPECT_EQ(recovered->collapsed, 1u);
  EXPECT_TRUE(vm_->Audit().ok()) << vm_->Audit();
  Forget();
  Make(kExecutes);
  const absl::Status off = vm_->RecoverNxPages(1).status();
  EXPECT_EQ(ReasonOf(off), reason::kNxHugePagesOff) << off;
}

TEST_F(VmLife, AccessedPagesAreToldOnce) {
  Make("vcpus { steps { write { gpa: 0x400000 value: 1 } } }");
  Start();
  Finish();
  const mmu::GfnRange all = {Gfn(0), 4096};
  const auto runs = vm_->AgePages(all);
  ASSERT_TRUE(runs.ok()) << runs.status();
  ASSERT_EQ(runs->size(), 1u);
  EXPECT_TRUE(runs->front().Contains(Gfn(0x400)));
  EXPECT_TRUE(vm_->AgePages(all)->empty());
  EXPECT_FALSE(vm_->AgePages({Gfn(4096), 1}).ok());
}

TEST_F(VmLife, KvmCountsHowOftenVcpusLeaveTheGuest) {
  if (!registry_->capabilities().kvm_usable) {
    GTEST_SKIP() << "kvm: " << registry_->capabilities().reason;
  }
  Make(kAsks, 1, BackendKind::kKvm);
  EXPECT_EQ(vm_->counters().kvm_exits, 0u);
  Start();
  Finish();
  EXPECT_GT(vm_->counters().kvm_exits, 0u);
}

TEST_F(VmLife, VcpusRunOnTheProcessorsThatTheyWereGiven) {
  constexpr uint32_t kNoProcessor = 1023;
  VmSpec spec;
  spec.name = "elsewhere";
  spec.memory_bytes = uint64_t{2} << 20;
  spec.vcpus = 1;
  spec.program = "unused";
  spec.cpus = {0};
  spec.backend = BackendKind::kSim;
  EXPECT_EQ(ReasonOf(registry_->Create(spec).status()), reason::kNotOnThisBackend);
  if (!registry_->capabilities().kvm_usable) {
    GTEST_SKIP() << "kvm: " << registry_->capabilities().reason;
  }
  spec.backend = BackendKind::kKvm;
  spec.cpus = {kNoProcessor};
  EXPECT_EQ(ReasonOf(registry_->Create(spec).status()), reason::kInvalidField);
  cpu_set_t allowed;
  ASSERT_EQ(sched_getaffinity(0, sizeof allowed, &allowed), 0);
  uint32_t first = 0;
  while (!CPU_ISSET(first, &allowed)) ++first;
  Make(kAsks, 1, BackendKind::kKvm, [first](VmSpec& own) { own.cpus = {first}; });
  Start();
  Finish();
}

TEST_F(VmLife, ADumpHasAllTables) {
  for (const BackendKind backend : Backends()) {
    Make(kAsks, 1, backend);
    Start();
    Finish();
    std::set<uint64_t> tables;
    for (const MemoryKind root : mmu::kAllKinds) {
      const auto dump = vm_->DumpTables(root, nullptr, 1000);
      ASSERT_TRUE(dump.ok()) << dump.status();
      EXPECT_EQ(dump->front().hpa, vm_->ept_pointer(root).root());
      for (const mmu::TableImage& table : *dump) tables.insert(table.hpa.value);
    }
    EXPECT_EQ(tables.size(), vm_->counters().memory.table_pages);
    Forget();
  }
}

}  // namespace
}  // namespace twinroot::host
