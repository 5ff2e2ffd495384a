// Runs the sample guests on the kvm backend through the registry and the journal: those that check
// themselves must be content, and those that misbehave must hurt nobody else. Skipped by name where
// kvm cannot work.
#include <gtest/gtest.h>

#include <chrono>
#include <fstream>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "daemon/host/vm_registry.h"
#include "daemon/host/wait_stopped.h"

namespace twinroot {
namespace {

using host::Vm;

constexpr uint64_t kMiB = uint64_t{1} << 20;
constexpr absl::Duration kPatience =
    absl::Seconds(120);  // a guest needs a second, sanitizers some more

std::shared_ptr<const std::string> ReadImage(const std::string& guest) {
  std::ifstream file("tests/guests/" + guest + ".elf", std::ios::binary);
  EXPECT_TRUE(file) << guest;
  std::stringstream bytes;
  bytes << file.rdbuf();
  return std::make_shared<const std::string>(bytes.str());
}

struct GuestCase {
  std::string name;
  std::string guest;
  std::string cmdline = {};
  uint32_t vcpus = 1;
  host::PolicyMode policy = host::PolicyMode::kAuto;
  std::optional<uint32_t> exit_code = 0;
  std::string stop_reason = {};  // when there is no exit code
  std::string says = {};         // part of the console
  uint64_t memory_bytes = 16 * kMiB;
};

void PrintTo(const GuestCase& guest, std::ostream* out) { *out << guest.name; }

class Guests : public testing::Test {
 protected:
  void SetUp() override {
    host::RegistryOptions options;
    absl::StatusOr<std::unique_ptr<host::VmRegistry>> registry =
        host::MakeVmRegistry(options, &journal_);
    ASSERT_TRUE(registry.ok()) << registry.status();
    registry_ = *std::move(registry);
    if (!registry_->capabilities().kvm_usable) {
      GTEST_SKIP() << "kvm: " << registry_->capabilities().reason;
    }
  }

  std::shared_ptr<Vm> Launch(const GuestCase& guest) {
    host::VmSpec spec;
    spec.name = absl::StrCat("vm-", ++launched_);
    spec.memory_bytes = guest.memory_bytes;
    spec.vcpus = guest.vcpus;
    spec.image = ReadImage(guest.guest);
    spec.cmdline = guest.cmdline;
    spec.backend = host::BackendKind::kKvm;
    spec.policy.mode = guest.policy;
    const absl::StatusOr<std::shared_ptr<Vm>> vm = registry_->Create(spec);
    EXPECT_TRUE(vm.ok()) << vm.status();
    if (!vm.ok()) return nullptr;
    const absl::Status started = (*vm)->Start();
    EXPECT_TRUE(started.ok()) << started;
    return *vm;
  }

  static std::string Console(const Vm& vm) { return vm.ReadConsole(0, 1 << 20).data; }

  static void ExpectEnd(Vm& vm, const GuestCase& guest) {
    ASSERT_TRUE(host::WaitStopped(vm, kPatience)) << guest.name << " does not end\n" << Console(vm);
    const host::VmStatus status = vm.status();
    EXPECT_EQ(status.exit_code, guest.exit_code)
        << guest.name << ": " << status.stop_reason << ": " << status.stop_message << "\n"
        << Console(vm);
    EXPECT_EQ(status.stop_reason, guest.stop_reason) << guest.name << ": " << status.stop_message;
    EXPECT_NE(Console(vm).find(guest.says), std::string::npos) << Console(vm);
  }

  std::vector<v1::Conversion> ConversionsOf(const std::string& vm) {
    std::vector<v1::Conversion> conversions;
    for (uint64_t position = 0;;) {
      const events::Journal::Page page = journal_.Read(position, 1000, {});
      EXPECT_EQ(page.missed, 0u);
      for (const events::SharedEvent& event : page.events) {
        if (event->vm() == vm && event->kind() == v1::Event::kConversion) {
          conversions.push_back(event->Parse().conversion());
        }
      }
      if (page.next == position) return conversions;
      position = page.next;
    }
  }

  events::Journal journal_;
  std::unique_ptr<host::VmRegistry> registry_;
  int launched_ = 0;
};

class GuestsThatEnd : public Guests, public testing::WithParamInterface<GuestCase> {};

TEST_P(GuestsThatEnd, EndAsTheyShould) {
  const std::shared_ptr<Vm> vm = Launch(GetParam());
  ASSERT_NE(vm, nullptr);
  ExpectEnd(*vm, GetParam());
}

constexpr auto kDeny = host::PolicyMode::kDeny;
constexpr auto kAuto = host::PolicyMode::kAuto;

INSTANTIATE_TEST_SUITE_P(
    List, GuestsThatEnd,
    testing::ValuesIn(std::vector<GuestCase>{
        {"Hello", "hello", "", 3, kAuto, 0, "", "3 vCPUs, 16 MiB"},
        {"HelloBeyondLowMemory", "hello", "", 1, kAuto, 0, "", " 5120 MiB", 5120 * kMiB},
        {"Ports", "ports", "", 1, kAuto, 0, "", "ports: ok"},
        {"Touch", "touch", "", 1, kAuto, 0, "", "checksum 0xf76ebdd505c9658c"},
        {"TouchEveryWord", "touch", "bytes=0x100000 stride=8 rounds=2", 1, kAuto, 0, "", "ok"},
        {"TouchRefusesNonsense", "touch", "bytes=12x", 1, kAuto, 2, "", "needs a number"},
        {"Convert", "convert", "", 1, kAuto, 0, "", "convert: ok"},
        {"ConvertAgain", "convert", "rounds=3", 2, kAuto, 0, "", "convert: ok"},
        {"ConvertSeesADenial", "convert", "", 1, kDeny, std::nullopt, "CONVERSION_DENIED"},
        {"Smp1", "smp", "rounds=2000", 1, kAuto, 0, "", "smp: ok"},
        {"Smp2", "smp", "", 2, kAuto, 0, "", "smp: ok"},
        {"Smp5", "smp", "seed=5", 5, kAuto, 0, "", "smp: ok"},
        {"Smp16", "smp", "rounds=200", 16, kAuto, 0, "", "smp: ok"},
        {"OrchestratedApplied", "orchestrated", "expect=applied", 1, kAuto, 0, "", "done"},
        {"OrchestratedDenied", "orchestrated", "only=explicit expect=denied", 1, kDeny, 0, "",
         "denied\norchestrated: done"},
        {"OrchestratedNotDenied", "orchestrated", "expect=denied", 1, kAuto, 1, "", "FAILED"},
        {"HostileException", "hostile", "mode=exception others=spin", 2, kAuto, std::nullopt,
         "TRIPLE_FAULT"},
        {"HostileNowhere", "hostile", "mode=nowhere", 1, kAuto, std::nullopt, "TRIPLE_FAULT"},
        {"HostileWander", "hostile", "mode=wander", 1, kAuto, std::nullopt, "MMIO_OUTSIDE_MEMORY"},
        {"HostileOutside", "hostile", "mode=outside", 1, kAuto, std::nullopt, "TRIPLE_FAULT"},
        {"HostileOutsideGpa", "hostile", "mode=outside-gpa", 1, kAuto, std::nullopt,
         "MMIO_OUTSIDE_MEMORY"},
        {"HostileLoaderPages", "hostile", "mode=loader-pages", 1, kAuto, std::nullopt,
         "TRIPLE_FAULT"},
        {"HostileRefusedLoop", "hostile", "mode=refused-loop count=500", 1, kDeny},
        {"HostilePingPong", "hostile", "mode=ping-pong count=500", 1, kAuto},
        {"HostileDoorStorm", "hostile", "mode=door-storm seed=3", 1, kAuto, 0, "", "door-storm"},
        {"HostileDoorStormDenied", "hostile", "mode=door-storm seed=4", 1, kDeny, 0, "",
         "door-storm"},
    }),
    [](const auto& info) { return info.param.name; });

TEST_F(Guests, EventsAddUpToWhatConvertAskedFor) {
  const GuestCase guest = {"Convert", "convert", "rounds=2"};
  const std::shared_ptr<Vm> vm = Launch(guest);
  ASSERT_NE(vm, nullptr);
  ExpectEnd(*vm, guest);
  uint64_t implicit = 0, to_shared = 0, to_private = 0;
  for (const v1::Conversion& conversion : ConversionsOf(vm->spec().name)) {
    EXPECT_EQ(conversion.decision(), v1::Conversion::DECISION_APPLIED);
    if (conversion.cause() == v1::Conversion::CAUSE_IMPLICIT) ++implicit;
    (conversion.direction() == v1::Conversion::DIRECTION_TO_SHARED ? to_shared : to_private) +=
        conversion.size() / 4096;
  }
  const std::string console = Console(*vm);
  for (const std::string& said :
       {absl::StrCat("implicit conversions ", implicit, ", "),
        absl::StrCat("pages to shared ", to_shared, ", to private ", to_private, "\n")}) {
    EXPECT_NE(console.find(said), std::string::npos) << said << "in\n" << console;
  }
}

TEST_F(Guests, AGuestDoesNotMoveUntilItsConversionIsResolved) {
  GuestCase guest = {"Orchestrated", "orchestrated", "expect=applied"};
  guest.policy = host::PolicyMode::kOrchestrator;
  guest.says = "orchestrated: done";
  const std::shared_ptr<Vm> vm = Launch(guest);
  ASSERT_NE(vm, nullptr);
  for (const std::string kind : {"implicit", "explicit"}) {
    std::vector<host::PendingConversion> pending;
    for (int i = 0; i < 10000 && pending.empty(); ++i) {
      absl::SleepFor(absl::Milliseconds(1));
      pending = vm->Pending();
    }
    ASSERT_EQ(pending.size(), 1u) << kind;
    EXPECT_FALSE(host::WaitStopped(*vm, absl::Milliseconds(50)));
    EXPECT_NE(Console(*vm).find("before the " + kind), std::string::npos) << Console(*vm);
    EXPECT_EQ(Console(*vm).find("after the " + kind), std::string::npos) << Console(*vm);
    EXPECT_EQ(vm->Resolve(pending[0].id, host::Resolution::kApply).outcome,
              host::ResolveResult::Outcome::kDecided);
  }
  ExpectEnd(*vm, guest);
}

TEST_F(Guests, EndlessOnesStopWhenAskedAndDisturbNobody) {
  std::vector<std::shared_ptr<Vm>> endless;
  for (const char* mode : {"spin", "console-flood", "ping-pong"}) {
    const GuestCase guest = {mode, "hostile", absl::StrCat("mode=", mode, " others=spin"), 2};
    endless.push_back(Launch(guest));
    ASSERT_NE(endless.back(), nullptr);
  }
  const GuestCase convert = {"Convert", "convert", "", 2};
  const std::shared_ptr<Vm> vm = Launch(convert);
  ASSERT_NE(vm, nullptr);
  ExpectEnd(*vm, convert);
  for (const std::shared_ptr<Vm>& hostile : endless) {
    EXPECT_EQ(hostile->status().state, host::VmState::kRunning) << hostile->spec().cmdline;
    const absl::Time asked = absl::Now();
    EXPECT_TRUE(hostile->Stop(vcpu::StopReason::kStopRequested).ok());
    EXPECT_LT(absl::Now() - asked, absl::Seconds(10)) << hostile->spec().cmdline;
    EXPECT_EQ(hostile->status().stop_reason, "STOP_REQUESTED") << hostile->spec().cmdline;
  }
}

TEST_F(Guests, SixtyFourVmsOfTwoVcpusConvertAtOnce) {
  const GuestCase guest = {"Convert", "convert", "", 2, kAuto, 0, "", "convert: ok"};
  std::vector<std::shared_ptr<Vm>> vms;
  for (int i = 0; i < 64; ++i) {
    vms.push_back(Launch(guest));
    ASSERT_NE(vms.back(), nullptr);
  }
  for (const std::shared_ptr<Vm>& vm : vms) ExpectEnd(*vm, guest);
}

}  // namespace
}  // namespace twinroot
