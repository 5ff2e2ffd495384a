// Many VMs on kvm that convert all the time, while somebody pauses, resumes, logs, converts, stops,
// deletes and makes them at random: none gets stuck, audits are clean, and what they took is given
// back. Few VMs for some seconds; more by hand:
//   bazel test //tests/daemon/host:kvm_crowd_test --test_arg=--vms=200 --test_arg=--seconds=120
#include <dirent.h>
#include <gtest/gtest.h>
#include <malloc.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "daemon/events/journal.h"
#include "daemon/host/vm_registry.h"
#include "daemon/vcpu/program/compiler.h"
#include "google/protobuf/text_format.h"

namespace twinroot::host {
namespace {

using Clock = std::chrono::steady_clock;
using mmu::Gfn;
using mmu::GfnRange;
using mmu::MemoryKind;

int vms = 16;
int seconds = 5;
uint64_t seed = 0;

constexpr std::chrono::seconds kPatience(60);  // with 200 VMs each has a hundredth of a processor

// Two vCPUs, each in its own 2 MiB, in both ways of converting.
constexpr char kConverts[] = R"(
vcpus { steps { loop { count: 1000000000
  steps { write { gpa: 0x400000 alias: MEMORY_KIND_SHARED value: 1 } }
  steps { write { gpa: 0x400000 value: 2 } }
  steps { map_gpa { gpa: 0x410000 pages: 16 kind: MEMORY_KIND_SHARED } }
  steps { write { gpa: 0x410000 alias: MEMORY_KIND_SHARED value: 3 } }
  steps { map_gpa { gpa: 0x410000 pages: 16 kind: MEMORY_KIND_PRIVATE } }
  steps { write { gpa: 0x5ff000 value: 4 } }
} } }
vcpus { steps { loop { count: 1000000000
  steps { map_gpa { gpa: 0x600000 pages: 512 kind: MEMORY_KIND_SHARED } }
  steps { write { gpa: 0x7ff000 alias: MEMORY_KIND_SHARED value: 5 } }
  steps { map_gpa { gpa: 0x600000 pages: 512 kind: MEMORY_KIND_PRIVATE } }
  steps { write { gpa: 0x600000 value: 6 } }
  steps { read { gpa: 0x600000 expect: 6 } }
} } })";

// What this process holds.
struct Holdings {
  int fds = 0, threads = 0, vmas = 0, memory_vmas = 0;
  uint64_t heap = 0, shared_kib = 0;

  static int Entries(const char* folder) {
    DIR* const dir = opendir(folder);
    int count = 0;
    while (readdir(dir) != nullptr) ++count;
    closedir(dir);
    return count;
  }
  static Holdings Now() {
    Holdings now;
    now.fds = Entries("/proc/self/fd");
    now.threads = Entries("/proc/self/task");
    std::string line;
    for (std::ifstream maps("/proc/self/maps"); std::getline(maps, line);) {
      ++now.vmas;
      now.memory_vmas += absl::StrContains(line, "memfd:twinroot");
    }
    for (std::ifstream status("/proc/self/status"); std::getline(status, line);) {
      unsigned long kib;
      if (std::sscanf(line.c_str(), "RssShmem: %lu kB", &kib) == 1) now.shared_kib = kib;
    }
    now.heap = mallinfo2().uordblks;
    return now;
  }
};

// Threads that ended last may still be on their way out.
Holdings Settled(const Holdings& before) {
  Holdings after = Holdings::Now();
  for (const auto deadline = Clock::now() + std::chrono::seconds(10);
       (after.threads > before.threads || after.fds > before.fds) && Clock::now() < deadline;) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
    after = Holdings::Now();
  }
  return after;
}

// A lane gives the memory of its VM (the start-up probe's, too) back a moment after it is gone.
Holdings WithoutVms() {
  Holdings now = Holdings::Now();
  for (const auto end = Clock::now() + kPatience; now.memory_vmas != 0 && Clock::now() < end;) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
    now = Holdings::Now();
  }
  EXPECT_EQ(now.memory_vmas, 0);
  return now;
}

class KvmCrowd : public testing::Test {
 protected:
  void SetUp() override {
    auto registry = MakeVmRegistry({}, &journal_);
    ASSERT_TRUE(registry.ok()) << registry.status();
    registry_ = *std::move(registry);
    if (!registry_->capabilities().kvm_usable) {
      GTEST_SKIP() << "kvm: " << registry_->capabilities().reason;
    }
    v1::AccessProgram program;
    ASSERT_TRUE(google::protobuf::TextFormat::ParseFromString(kConverts, &program));
    spec_.memory_bytes = uint64_t{16} << 20;
    spec_.vcpus = 2;
    spec_.backend = BackendKind::kKvm;
    const auto blob = program::Compile(program, spec_.vcpus, spec_.memory_bytes);
    ASSERT_TRUE(blob.ok()) << blob.status();
    spec_.program = *blob;
  }

  void Launch(const std::string& name) {
    spec_.name = name;
    const auto vm = registry_->Create(spec_);
    ASSERT_TRUE(vm.ok()) << vm.status();
    const absl::Status started = (*vm)->Start();
    ASSERT_TRUE(started.ok()) << started;
  }
  void Delete(const std::string& name) {
    const absl::Status deleted = registry_->Delete(name);
    ASSERT_TRUE(deleted.ok()) << deleted;
  }
  std::shared_ptr<Vm> Get(const std::string& name) { return *registry_->Get(name); }

  // Something happens to a VM; what its state forbids may be refused.
  void Disturb(const std::string& name) {
    const std::shared_ptr<Vm> vm = Get(name);
    switch (random_() % 10) {
      case 0:
        vm->Pause().IgnoreError();
        break;
      case 1:
        vm->Resume().IgnoreError();
        break;
      case 2:
        vm->Pause().IgnoreError();
        vm->Resume().IgnoreError();
        break;
      case 3: {
        const MemoryKind kind = random_() % 2 == 0 ? MemoryKind::kShared : MemoryKind::kPrivate;
        const auto changed = vm->Convert({{Gfn(0x480), 64}}, kind, mmu::Content::kDestroy);
        EXPECT_TRUE(changed.ok()) << changed.status();
        break;
      }
      case 4: {
        mmu::DirtyLogOptions options;
        options.eager_split = random_() % 2 == 0;
        vm->EnableDirtyLog(options).IgnoreError();
        break;
      }
      case 5:
        vm->HarvestDirty(std::nullopt).IgnoreError();
        vm->DisableDirtyLog().IgnoreError();
        break;
      case 6:
        EXPECT_TRUE(vm->Audit().ok()) << vm->Audit();
        break;
      case 7: {
        const GfnRange slot = {Gfn(0x8000), 0x200};
        const absl::Status added = vm->AddMemslot(slot);
        EXPECT_TRUE(added.ok() || absl::IsUnavailable(added)) << added;
        if (!added.ok()) break;
        // All of its vCPUs were still a moment ago: sooner or later they are again.
        absl::Status removed;
        do {
          removed = vm->RemoveMemslot(slot.first);
        } while (absl::IsUnavailable(removed));
        EXPECT_TRUE(removed.ok()) << removed;
        break;
      }
      case 8:
        EXPECT_TRUE(vm->Stop(vcpu::StopReason::kStopRequested).ok());
        [[fallthrough]];
      default:
        Delete(name);
        Launch(name);
    }
  }

  // Their guests go on converting. All at once: each waits for the others' processors anyway.
  void ExpectMoves(const std::vector<std::string>& names) {
    std::vector<uint64_t> goals;
    for (const std::string& name : names) {
      const std::shared_ptr<Vm> vm = Get(name);
      vm->Resume().IgnoreError();
      const VmStatus status = vm->status();
      ASSERT_EQ(status.state, VmState::kRunning)
          << name << ": " << status.stop_reason << ": " << status.stop_message << "\n"
          << vm->ReadConsole(0, 1000).data;
      goals.push_back(vm->counters().memory.invalidations + 10);
    }
    const auto deadline = Clock::now() + kPatience;
    for (size_t i = 0; i < names.size(); ++i) {
      const std::shared_ptr<Vm> vm = Get(names[i]);
      while (vm->counters().memory.invalidations < goals[i]) {
        ASSERT_LT(Clock::now(), deadline) << names[i] << " is stuck";
        std::this_thread::sleep_for(std::chrono::milliseconds(2));
      }
      EXPECT_TRUE(vm->Audit().ok()) << vm->Audit();
    }
  }

  events::Journal journal_;
  std::unique_ptr<VmRegistry> registry_;
  VmSpec spec_;
  std::mt19937_64 random_{seed};
};

TEST_F(KvmCrowd, NoneIsStuckAndNothingIsLeftBehind) {
  std::printf("%d VMs, %d s, --seed=%lu\n", vms, seconds, static_cast<unsigned long>(seed));
  // What is kept for good by the first VM.
  Launch("first");
  ExpectMoves({"first"});
  Delete("first");
  const Holdings before = WithoutVms();

  std::vector<std::string> names;
  for (int i = 0; i < vms; ++i) {
    names.push_back(absl::StrCat("vm-", i));
    Launch(names.back());
  }
  uint64_t actions = 0;
  std::chrono::duration<double> longest{0};
  for (const auto end = Clock::now() + std::chrono::seconds(seconds); Clock::now() < end;) {
    const auto begin = Clock::now();
    Disturb(names[random_() % names.size()]);
    if (HasFatalFailure()) return;
    longest = std::max<std::chrono::duration<double>>(longest, Clock::now() - begin);
    ++actions;
  }
  EXPECT_LT(longest, kPatience);
  std::printf("%lu actions, the longest %.0f ms\n", static_cast<unsigned long>(actions),
              longest.count() * 1000);
  ExpectMoves(names);
  if (HasFatalFailure()) return;
  // For each kind a window and the daemon's own view: nothing that happens splits them, so that the
  // host's vm.max_map_count limits how many VMs there are, and not what they do.
  const Holdings full = Holdings::Now();
  EXPECT_EQ(full.memory_vmas, before.memory_vmas + 4 * vms);
  std::printf("a VM of 2 vCPUs takes %d mappings\n", (full.vmas - before.vmas) / vms);
  for (const std::string& name : names) Delete(name);

  const Holdings after = Settled(before);
  EXPECT_LE(after.fds, before.fds);
  // A lane may have left a thread that the next task joins.
  EXPECT_LE(after.threads, before.threads);
  EXPECT_EQ(after.memory_vmas, before.memory_vmas);
  EXPECT_LE(after.shared_kib, before.shared_kib + 1024);
  // The journal keeps what happened.
  std::printf("heap: %lu KiB more\n", static_cast<unsigned long>((after.heap - before.heap) >> 10));
}

TEST_F(KvmCrowd, AShutdownInTheMiddleEndsThemAll) {
  const Holdings before = WithoutVms();
  for (int i = 0; i < vms; ++i) {
    Launch(absl::StrCat("vm-", i));
    if (HasFatalFailure()) return;
  }
  for (int i = 0; i < vms; i += 3) {
    Get(absl::StrCat("vm-", i))->Pause().IgnoreError();
    Get(absl::StrCat("vm-", i))->EnableDirtyLog({}).IgnoreError();
  }
  const auto begin = Clock::now();
  registry_->Shutdown();
  EXPECT_LT(Clock::now() - begin, kPatience);
  registry_.reset();
  const Holdings after = Settled(before);
  EXPECT_LE(after.fds, before.fds);
  EXPECT_LE(after.threads, before.threads);
  EXPECT_EQ(after.memory_vmas, before.memory_vmas);
}

}  // namespace

// False: what is it?
bool Parse(const std::string& argument) {
  unsigned long value;
  if (std::sscanf(argument.c_str(), "--vms=%lu", &value) == 1) {
    vms = static_cast<int>(value);
  } else if (std::sscanf(argument.c_str(), "--seconds=%lu", &value) == 1) {
    seconds = static_cast<int>(value);
  } else if (std::sscanf(argument.c_str(), "--seed=%lu", &value) == 1) {
    seed = value;
  } else {
    return false;
  }
  return true;
}

}  // namespace twinroot::host

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  twinroot::host::seed = std::random_device{}();
  for (int i = 1; i < argc; ++i) {
    if (twinroot::host::Parse(argv[i])) continue;
    std::fprintf(stderr, "what is '%s'? --vms=N, --seconds=N and --seed=N are taken\n", argv[i]);
    return 2;
  }
  return RUN_ALL_TESTS();
}
