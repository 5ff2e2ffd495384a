// Runs every scenario of list/ on every backend, through the registry and the journal, and compares
// all that it shows with what the file says. Where kvm cannot work, its half is skipped by name.
#include <fcntl.h>
#include <google/protobuf/io/zero_copy_stream_impl.h>
#include <google/protobuf/text_format.h>
#include <google/protobuf/util/message_differencer.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/time/clock.h"
#include "daemon/host/vm_registry.h"
#include "daemon/host/wait_stopped.h"
#include "daemon/reasons.h"
#include "daemon/status_reason.h"
#include "daemon/vcpu/program/compiler.h"
#include "daemon/vcpu/program/decoder.h"
#include "tests/fakes/kvm/fake_kvm.h"
#include "tests/scenarios/scenario.pb.h"

namespace twinroot {
namespace {

using host::BackendKind;
using tests::Scenario;

constexpr char kList[] = "tests/scenarios/list";
constexpr uint64_t kDefaultMemory = uint64_t{16} << 20;
constexpr absl::Duration kPatience = absl::Seconds(60);

// Where scenarios run.
struct Place {
  const char* name;
  BackendKind backend;
  bool fake_kernel;
  mmu::MmuMode mmu = mmu::MmuMode::kTdp;
};
constexpr Place kPlaces[] = {{"sim", BackendKind::kSim, false},
                             {"sim_shadow", BackendKind::kSim, false, mmu::MmuMode::kShadow},
                             {"kvm", BackendKind::kKvm, false},
                             {"kvm_native", BackendKind::kKvmNative, false},
                             {"kvm_of_the_fake_kernel", BackendKind::kKvm, true},
                             {"kvm_native_of_the_fake_kernel", BackendKind::kKvmNative, true}};

// One daemon's worth of VMs for all scenarios of a kernel: they must not disturb each other.
struct House {
  kvm::fake::FakeKvm fake_kernel;
  events::Journal journal;
  std::unique_ptr<host::VmRegistry> registry;
};

House& HouseOf(bool fake_kernel) {
  static const auto make = [](bool fake) {
    auto* h = new House;
    host::RegistryOptions options;
    if (fake) options.kvm = &h->fake_kernel;
    absl::StatusOr<std::unique_ptr<host::VmRegistry>> registry =
        host::MakeVmRegistry(options, &h->journal);
    EXPECT_TRUE(registry.ok()) << registry.status();
    h->registry = *std::move(registry);
    return h;
  };
  static House* const real = make(false);
  static House* const fake = make(true);
  return fake_kernel ? *fake : *real;
}

Scenario Read(const std::string& path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  Scenario scenario;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text.str(), &scenario)) << path;
  return scenario;
}

std::vector<std::string> Names() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(kList)) {
    if (entry.path().extension() == ".textproto") names.push_back(entry.path().stem());
  }
  std::sort(names.begin(), names.end());
  return names;
}

host::ConversionPolicy PolicyOf(const v1::ConversionPolicy& policy) {
  host::ConversionPolicy result;
  if (policy.mode() == v1::ConversionPolicy::MODE_ORCHESTRATOR) {
    result.mode = host::PolicyMode::kOrchestrator;
  } else if (policy.mode() == v1::ConversionPolicy::MODE_DENY) {
    result.mode = host::PolicyMode::kDeny;
  }
  if (policy.has_decision_timeout()) {
    result.decision_timeout = absl::Seconds(policy.decision_timeout().seconds()) +
                              absl::Nanoseconds(policy.decision_timeout().nanos());
  }
  if (policy.on_timeout() == v1::ConversionPolicy::ON_TIMEOUT_APPLY) {
    result.on_timeout = host::OnTimeout::kApply;
  }
  return result;
}

mmu::DirtyLogMode ModeOf(v1::EnableDirtyLogRequest::Mode mode) {
  if (mode == v1::EnableDirtyLogRequest::MODE_DIRTY_BIT) return mmu::DirtyLogMode::kDirtyBit;
  if (mode == v1::EnableDirtyLogRequest::MODE_PML) return mmu::DirtyLogMode::kPml;
  return mmu::DirtyLogMode::kWriteProtect;
}

// What harvests told of, page by page.
using Pages = std::set<uint64_t>;

// On kvm a guest's tables, image and stacks are pages of its memory too, and are written: they lie
// in its first and its last 2 MiB.
bool IsOfTheGuestItself(const host::Vm& vm, mmu::Gfn gfn) {
  constexpr uint64_t kFrames = mmu::FramesPerEntry(mmu::Level::k2M);
  return vm.backend() == BackendKind::kKvm &&
         (gfn.value < kFrames ||
          gfn.value >= (vm.spec().memory_bytes >> mmu::kPageShift) - kFrames);
}

void HarvestInto(host::Vm& vm, Pages& pages) {
  const auto runs = vm.HarvestDirty(std::nullopt);
  ASSERT_TRUE(runs.ok()) << runs.status();
  for (const mmu::GfnRange& run : *runs) {
    for (mmu::Gfn gfn = run.first; gfn < run.end(); gfn = gfn + 1) {
      if (!IsOfTheGuestItself(vm, gfn)) pages.insert(gfn.value);
    }
  }
}

// True: the log is on.
bool BeginLog(host::Vm& vm, const Scenario::DirtyLog& log) {
  mmu::DirtyLogOptions options;
  options.mode = ModeOf(log.mode());
  options.clear = log.manual_clear() ? mmu::DirtyClear::kManual : mmu::DirtyClear::kAtHarvest;
  options.initially_all_set = log.initially_all_set();
  options.eager_split = !log.no_eager_split();
  options.ring_entries = log.ring_entries();
  const auto split = vm.EnableDirtyLog(options);
  const bool write_protect = ModeOf(log.mode()) == mmu::DirtyLogMode::kWriteProtect;
  if (vm.backend() == BackendKind::kKvmNative ||
      (vm.backend() == BackendKind::kKvm && !write_protect) ||
      (vm.spec().mmu == mmu::MmuMode::kShadow && !write_protect)) {
    EXPECT_EQ(ReasonOf(split.status()), reason::kDirtyLogUnsupported) << split.status();
    return false;
  }
  EXPECT_TRUE(split.ok()) << split.status();
  if (log.initially_all_set()) {
    const auto all = vm.HarvestDirty(std::nullopt);
    EXPECT_TRUE(all.ok() && vm.ClearDirty(*all).ok());
  }
  return split.ok();
}

bool UsesSharedAlias(const program::DecodedProgram& program) {
  for (const auto& ops : program.ops) {
    for (const program::Op& op : ops) {
      if (op.flags & program::kFlagShared) return true;
    }
  }
  return false;
}

Pages PagesOf(const google::protobuf::RepeatedPtrField<v1::MemoryRange>& runs) {
  Pages pages;
  for (const v1::MemoryRange& run : runs) {
    for (uint64_t gpa = run.gpa(); gpa < run.gpa() + run.size(); gpa += mmu::kPageSize) {
      pages.insert(gpa >> mmu::kPageShift);
    }
  }
  return pages;
}

// What happens to the memslot while the guest runs. A vCPU that is in an access is waited for.
void ChangeMemslot(host::Vm& vm, const Scenario& scenario) {
  const mmu::GfnRange slot = {mmu::Gfn(scenario.memslot().gpa() >> mmu::kPageShift),
                              scenario.memslot().size() >> mmu::kPageShift};
  if (scenario.then_memslot() == Scenario::THEN_MEMSLOT_MOVES) {
    EXPECT_EQ(vm.MoveMemslot(slot.first, slot.end()), absl::OkStatus());
    return;
  }
  EXPECT_EQ(vm.RemoveMemslot(slot.first), absl::OkStatus());
  if (scenario.then_memslot() != Scenario::THEN_MEMSLOT_COMES_AND_GOES) return;
  for (int rounds = 0; rounds < 3 || !host::WaitStopped(vm, absl::ZeroDuration()); ++rounds) {
    EXPECT_EQ(vm.AddMemslot(slot), absl::OkStatus());
    EXPECT_EQ(vm.MoveMemslot(slot.first, slot.end()), absl::OkStatus());
    EXPECT_EQ(vm.RemoveMemslot(slot.end()), absl::OkStatus());
    if (testing::Test::HasFailure()) return;
  }
}

// Plays the orchestrator until the VM has stopped.
void Accompany(host::Vm& vm, const Scenario& scenario, Pages* harvested) {
  const absl::Time deadline = absl::Now() + kPatience;
  bool changes_memslot = scenario.then_memslot() != Scenario::THEN_MEMSLOT_UNSPECIFIED;
  for (;;) {
    if (changes_memslot && !vm.ReadConsole(0, 1).data.empty()) {
      ChangeMemslot(vm, scenario);
      changes_memslot = false;
    }
    if (host::WaitStopped(vm, absl::Milliseconds(2))) return;
    ASSERT_LT(absl::Now(), deadline) << "the guest does not end";
    // Each harvest takes from the guest's own pages, too, the right to be written: one after the
    // other would leave a slow host's guest no time for anything else.
    if (harvested != nullptr && vm.counters().vcpus_waiting_for_harvest != 0) {
      HarvestInto(vm, *harvested);
    }
    const std::vector<host::PendingConversion> pending = vm.Pending();
    if (scenario.stop_when_waiting() != 0 && pending.size() >= scenario.stop_when_waiting()) {
      EXPECT_TRUE(vm.Stop(vcpu::StopReason::kStopRequested).ok());
    }
    for (const host::PendingConversion& conversion : pending) {
      const mmu::MemoryKind kind = conversion.direction == host::Direction::kToShared
                                       ? mmu::MemoryKind::kShared
                                       : mmu::MemoryKind::kPrivate;
      if (scenario.on_request() == Scenario::ON_REQUEST_APPLY) {
        vm.Resolve(conversion.id, host::Resolution::kApply);
      } else if (scenario.on_request() == Scenario::ON_REQUEST_DENY) {
        vm.Resolve(conversion.id, host::Resolution::kDeny);
      } else if (scenario.on_request() == Scenario::ON_REQUEST_SET_ATTRIBUTES) {
        EXPECT_TRUE(
            vm.Convert({{mmu::Gfn(conversion.gpa >> 12), conversion.size >> 12}}, kind, {}).ok());
      }
    }
  }
}

std::vector<v1::Conversion> ConversionsOf(const events::Journal& journal, const std::string& vm,
                                          uint64_t from) {
  std::vector<v1::Conversion> conversions;
  v1::EventFilter of_vm;
  of_vm.set_vm(vm);
  const events::Filter filter(of_vm);
  for (uint64_t position = from;;) {
    const events::Journal::Page page = journal.Read(position, 1000, filter);
    for (const events::SharedEvent& event : page.events) {
      if (event->kind() == v1::Event::kConversion) {
        conversions.push_back(event->Parse().conversion());
      }
    }
    if (page.next == position) return conversions;
    position = page.next;
  }
}

class Scenarios : public testing::TestWithParam<std::tuple<std::string, Place>> {};

TEST_P(Scenarios, ShowWhatTheirFileSays) {
  const auto& [name, place] = GetParam();
  const BackendKind backend = place.backend;
  House& house = HouseOf(place.fake_kernel);
  const host::HostCapabilities& can = house.registry->capabilities();
  if (backend == BackendKind::kKvm && !can.kvm_usable) GTEST_SKIP() << "kvm: " << can.reason;
  if (backend == BackendKind::kKvmNative && !can.native_usable) {
    GTEST_SKIP() << "kvm-native: " << can.native_reason;
  }
  const Scenario scenario = Read(std::string(kList) + "/" + name + ".textproto");
  if (backend == BackendKind::kKvmNative && scenario.needs_preserve()) {
    GTEST_SKIP() << "kvm-native: only the guest reaches its private bytes, so no conversion keeps "
                    "them";
  }
  host::VmSpec spec;
  spec.name = "scenario";
  spec.memory_bytes = scenario.memory_bytes() != 0 ? scenario.memory_bytes() : kDefaultMemory;
  spec.vcpus = scenario.vcpus() != 0 ? scenario.vcpus()
                                     : static_cast<uint32_t>(scenario.program().vcpus_size());
  spec.backend = backend;
  spec.policy = PolicyOf(scenario.policy());
  const absl::StatusOr<std::string> blob =
      program::Compile(scenario.program(), spec.vcpus, spec.memory_bytes);
  ASSERT_TRUE(blob.ok()) << blob.status();
  spec.program = *blob;
  spec.mmu = place.mmu;
  const absl::StatusOr<program::DecodedProgram> decoded = program::Decode(*blob, spec.vcpus);
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  if (spec.mmu == mmu::MmuMode::kShadow && UsesSharedAlias(*decoded)) {
    GTEST_SKIP() << "on shadow tables no address names the shared alias";
  }
  if (backend != BackendKind::kSim && program::NeedsSim(*decoded)) {
    const auto refused = house.registry->Create(spec);
    EXPECT_EQ(ReasonOf(refused.status()), reason::kNotOnThisBackend) << refused.status();
    return;
  }

  const uint64_t from = *house.journal.PositionOf("", events::Journal::IfEmpty::kNow);
  const absl::StatusOr<std::shared_ptr<host::Vm>> vm = house.registry->Create(spec);
  ASSERT_TRUE(vm.ok()) << vm.status();
  if (scenario.has_memslot()) {
    ASSERT_EQ((*vm)->AddMemslot({mmu::Gfn(scenario.memslot().gpa() >> mmu::kPageShift),
                                 scenario.memslot().size() >> mmu::kPageShift}),
              absl::OkStatus());
  }
  Pages harvested;
  const bool logs = scenario.has_dirty_log() && BeginLog(**vm, scenario.dirty_log());
  ASSERT_TRUE((*vm)->Start().ok());
  Accompany(**vm, scenario, logs ? &harvested : nullptr);

  const host::VmStatus status = (*vm)->status();
  const bool on_shadow = spec.mmu == mmu::MmuMode::kShadow;
  if (on_shadow ? scenario.keys() : scenario.legacy_paging()) {
    EXPECT_EQ(status.stop_reason, on_shadow ? "TRIPLE_FAULT" : "UNHANDLED_EXIT");
    EXPECT_TRUE(house.registry->Delete(spec.name).ok());
    return;
  }
  const std::string console = (*vm)->ReadConsole(0, 1 << 20).data;
  EXPECT_EQ(status.exit_code.has_value(), scenario.has_exit_code())
      << status.stop_reason << ": " << status.stop_message << "\n"
      << console;
  EXPECT_EQ(status.exit_code.value_or(0), scenario.exit_code()) << console;
  // A real KVM emulates an access outside memory: it would read the guest's page tables for it, and
  // cannot where they are private. The fake one does not read them.
  const bool emulated = backend == BackendKind::kKvmNative &&
                        scenario.stop_reason() == "MMIO_OUTSIDE_MEMORY" &&
                        absl::StrContains(status.stop_message, "KVM emulates an access");
  EXPECT_EQ(status.stop_reason, emulated ? "UNHANDLED_EXIT" : scenario.stop_reason())
      << status.stop_message;
  EXPECT_EQ(console, scenario.console());

  const std::vector<v1::Conversion> seen = ConversionsOf(house.journal, spec.name, from);
  if (scenario.has_conversions_exactly()) {
    EXPECT_EQ(seen.size(), scenario.conversions_exactly());
  } else if (scenario.has_conversions_at_least()) {
    EXPECT_GE(seen.size(), scenario.conversions_at_least());
  } else {
    std::vector<std::string> seen_texts, expected_texts;
    for (const v1::Conversion& conversion : seen) {
      Scenario::ExpectedConversion expected;
      expected.set_gpa(conversion.gpa());
      expected.set_size(conversion.size());
      expected.set_direction(conversion.direction());
      expected.set_cause(conversion.cause());
      expected.set_decision(conversion.decision());
      expected.set_decider(conversion.decider());
      seen_texts.push_back(expected.ShortDebugString());
      EXPECT_GT(conversion.latency().seconds() * 1000000000 + conversion.latency().nanos(), 0);
    }
    for (const auto& conversion : scenario.conversions()) {
      expected_texts.push_back(conversion.ShortDebugString());
    }
    EXPECT_EQ(seen_texts, expected_texts);
  }
  if (scenario.runs_size() != 0) {
    const auto runs = (*vm)->Attributes(std::nullopt);
    ASSERT_TRUE(runs.ok());
    std::vector<std::string> seen_runs, expected_runs;
    for (const mmu::AttributeRun& run : *runs) {
      v1::MemoryRun text;
      text.set_gpa(run.range.first.value << 12);
      text.set_size(run.range.count << 12);
      text.set_kind(run.kind == mmu::MemoryKind::kShared ? v1::MEMORY_KIND_SHARED
                                                         : v1::MEMORY_KIND_PRIVATE);
      seen_runs.push_back(text.ShortDebugString());
    }
    for (const v1::MemoryRun& run : scenario.runs())
      expected_runs.push_back(run.ShortDebugString());
    EXPECT_EQ(seen_runs, expected_runs);
  }
  if (logs) {
    HarvestInto(**vm, harvested);
    EXPECT_EQ(harvested, PagesOf(scenario.dirty_log().runs()));
    EXPECT_TRUE((*vm)->DisableDirtyLog().ok());
  }
  EXPECT_TRUE((*vm)->Audit().ok()) << (*vm)->Audit();
  EXPECT_TRUE(house.registry->Delete(spec.name).ok());
}

std::string NameOf(const testing::TestParamInfo<Scenarios::ParamType>& info) {
  return std::get<0>(info.param) + "_on_" + std::get<1>(info.param).name;
}

INSTANTIATE_TEST_SUITE_P(List, Scenarios,
                         testing::Combine(testing::ValuesIn(Names()), testing::ValuesIn(kPlaces)),
                         NameOf);

}  // namespace
}  // namespace twinroot
