// VMs and their shares of processor time.
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>
#include <string>

#include "daemon/host/cpu_groups.h"
#include "daemon/reasons.h"
#include "tests/daemon/host/vm_fixture.h"

namespace twinroot::host {
namespace {

namespace fs = std::filesystem;

// Asks for a conversion, which nobody decides, so that it stays where it is.
constexpr char kWaits[] =
    "vcpus { steps { write { gpa: 0x400000 alias: MEMORY_KIND_SHARED value: 1 } } }";

class CpuShares : public VmFixture {
 protected:
  void SetUp() override { Open(true); }
  void Open(bool groups) {
    RegistryOptions options;
    options.cpu_groups = groups;
    auto registry = MakeVmRegistry(options, &journal_);
    ASSERT_TRUE(registry.ok()) << registry.status();
    registry_ = *std::move(registry);
  }
  std::string WhyNot() {
    if (!registry_->capabilities().kvm_usable) return registry_->capabilities().reason;
    for (const HostCheck& check : registry_->capabilities().checks) {
      if (check.name == "control groups of the cpu controller" &&
          check.result != HostCheck::Result::kOk) {
        return check.detail;
      }
    }
    return "";
  }
  void MakeWaiting(const CpuShare& share) {
    Make(kWaits, 2, BackendKind::kKvm, [&share](VmSpec& spec) {
      spec.policy.mode = PolicyMode::kOrchestrator;
      spec.cpu_share = share;
    });
  }
  // Of this process's VM named demo: other tests may have theirs beside it.
  fs::path Group() {
    const std::string folder = Folder();
    for (const auto& entry : fs::directory_iterator(folder)) {
      const std::string name = entry.path().filename();
      const std::string mine = "." + std::to_string(getpid());
      if (name.rfind("vm-demo.", 0) == 0 && name.ends_with(mine)) return entry.path();
    }
    return {};
  }
  std::string Folder() {
    for (const HostCheck& check : registry_->capabilities().checks) {
      const size_t at = check.detail.find("in /");
      if (check.name == "control groups of the cpu controller" && at != std::string::npos) {
        return check.detail.substr(at + 3);
      }
    }
    return "/nowhere";
  }
  static std::string Read(const fs::path& path) {
    std::ifstream file(path);
    return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  }
  static std::string Weight(const fs::path& group) {
    return fs::exists(group / "cpu.weight") ? Read(group / "cpu.weight")
                                            : Read(group / "cpu.shares");
  }
  // Without the one that KVM itself has a vCPU make for the VM: "kvm-nx-lpage-recovery".
  static size_t Threads(const fs::path& group) {
    std::istringstream tids(
        Read(group / (fs::exists(group / "tasks") ? "tasks" : "cgroup.threads")));
    size_t threads = 0;
    for (std::string tid; tids >> tid;) {
      threads += Read("/proc/self/task/" + tid + "/comm").rfind("kvm-nx-lpage", 0) != 0;
    }
    return threads;
  }
};

TEST_F(CpuShares, TheVcpusOfAVmAndNoOtherThreadsAreInItsGroupWhichGoesWithIt) {
  if (const std::string why = WhyNot(); !why.empty()) GTEST_SKIP() << why;
  MakeWaiting({});
  const fs::path group = Group();
  ASSERT_FALSE(group.empty());
  EXPECT_EQ(Threads(group), 0u);
  Start();
  Eventually([&] { return vm_->Pending().size() == 1; });
  Eventually([&] { return Threads(group) >= 1; });
  EXPECT_LE(Threads(group), 2u);  // the second vCPU has no program, and may have ended
  ASSERT_TRUE(vm_->Stop(vcpu::StopReason::kStopRequested).ok());
  vm_.reset();
  ASSERT_TRUE(registry_->Delete("demo").ok());
  Eventually([&] {
    const auto another = registry_->Create({});  // looks again for what is left; is refused
    return !fs::exists(group) || another.ok();
  });
  EXPECT_FALSE(fs::exists(group));
}

TEST_F(CpuShares, AShareChangesWhileTheVmRuns) {
  if (const std::string why = WhyNot(); !why.empty()) GTEST_SKIP() << why;
  MakeWaiting({.weight = 200});
  const std::string at_first = Weight(Group());
  Start();
  Eventually([&] { return vm_->Pending().size() == 1; });
  VmSettings settings = vm_->settings();
  EXPECT_EQ(settings.cpu_share.weight, 200u);
  settings.cpu_share = {.weight = 400, .max_millicpus = 500};
  const std::string cursor = journal_.Cursor();
  ASSERT_TRUE(vm_->Update(settings, std::nullopt).ok());
  EXPECT_NE(Weight(Group()), at_first);
  EXPECT_EQ(vm_->settings().cpu_share.max_millicpus, 500u);
  EXPECT_NE(journal_.Cursor(), cursor);
  // What the kernel refuses changes nothing.
  settings.cpu_share = {.weight = 1, .max_millicpus = 1};
  settings.labels = {{"new", "1"}};
  const std::string weight = Weight(Group());
  EXPECT_FALSE(vm_->Update(settings, std::nullopt).ok());
  EXPECT_EQ(Weight(Group()), weight);
  EXPECT_TRUE(vm_->settings().labels.empty());
  ASSERT_TRUE(vm_->Stop(vcpu::StopReason::kStopRequested).ok());
}

TEST_F(CpuShares, AreRefusedWithTheReasonWhereTheyCannotBe) {
  VmSpec spec;
  spec.name = "demo";
  spec.memory_bytes = uint64_t{2} << 20;
  spec.vcpus = 1;
  spec.program = "unused";
  spec.backend = BackendKind::kSim;
  spec.cpu_share.weight = 200;
  EXPECT_EQ(ReasonOf(registry_->Create(spec).status()), reason::kNotOnThisBackend);
  Make(kWaits, 1);
  VmSettings settings = vm_->settings();
  settings.cpu_share.max_millicpus = 100;
  EXPECT_EQ(ReasonOf(vm_->Update(settings, std::nullopt)), reason::kNotOnThisBackend);
  vm_.reset();
  Open(false);
  if (!registry_->capabilities().kvm_usable) {
    GTEST_SKIP() << "kvm: " << registry_->capabilities().reason;
  }
  spec.backend = BackendKind::kKvm;
  const absl::Status refused = registry_->Create(spec).status();
  EXPECT_EQ(ReasonOf(refused), reason::kCpuGroupsUnavailable) << refused;
  Make(kWaits, 1, BackendKind::kKvm);
  EXPECT_EQ(ReasonOf(vm_->Update(settings, std::nullopt)), reason::kCpuGroupsUnavailable);
}

}  // namespace
}  // namespace twinroot::host
