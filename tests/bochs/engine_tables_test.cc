// The engine's tables on a processor that nobody here has written: every probe of a guest on Bochs
// ends as `Translate` says and as the software processor (mmu/vmx) does on the same tables, and
// afterwards every word of every table is the same, accessed and dirty flags with it.
//
// They are the same tables: bochs_space.h says why nothing has to be relocated.
//
// Not compared, for Bochs 2.7 does not have it: physical addresses beyond 40 bits; walks of 5
// levels; mode-based execute control; exit qualification bits 11:9; and what GuestKit's
// WithoutBochsLimits says of bit 0. Two roots: the test loads the
// root that the shared bit selects, as TDX's processor does by itself. Addresses of Bochs beyond
// its own width cannot be probed.
#include <gtest/gtest.h>

#include <cstdint>
#include <iostream>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "mmu/vmx/ept_walker.h"
#include "tests/bochs/bochs_space.h"
#include "tests/bochs/guest_kit.h"
#include "tests/bochs/life.h"
#include "tests/properties/engine_operations.h"

namespace twinroot::bochs {
namespace {

using mmu::Gfn;
using mmu::Gpa;
using mmu::Hpa;
using mmu::Level;
using mmu::MemoryKind;

constexpr Gfn kKitFrames[] = {Gfn(0), Gfn(8)};  // by kind
constexpr int kSnapshots = 40, kProbes = 64;    // of one VM; of one snapshot

struct Expected {
  size_t result;
  Ending ending;
  std::optional<uint64_t> word;  // what stands at the address afterwards
  Level level;                   // of its leaf, if it has one
  std::string text;
};
struct ExpectedPage {
  size_t page;
  Hpa hpa;
  Level level;
  PageWords words;
  std::string text;
};

// One VM on one machine, which other VMs have had before.
class Subject {
 public:
  Subject(std::string name, const BochsSpaceOptions& options, BochsMachine& machine,
          std::mt19937_64& random)
      : name_(std::move(name)),
        options_(options),
        machine_(machine),
        random_(random),
        vm_(options),
        walker_(&vm_, vm_.capabilities, kBochsMaxphyaddr),
        life_(vm_, options, random) {}

  void Live() {
    ASSERT_TRUE(vm_.status.ok()) << vm_.status;
    ASSERT_TRUE(vm_.space
                    ->SetMemoryAttributes({.ranges = {{kKitFrames[1], GuestKit::kPages}},
                                           .kind = MemoryKind::kShared})
                    .ok());
    for (const MemoryKind kind : mmu::kAllKinds) KitOf(kind).LoadInto(machine_);
    for (int snapshot = 0; snapshot < kSnapshots; ++snapshot) {
      life_.Go();
      // A guest whose own pages are not there cannot probe others; now and then it is so.
      if (random_() % 16 != 0) TouchKits();
      const std::vector<mmu::TableImage> tables = Tables();
      for (const mmu::TableImage& table : tables) machine_.Load(table.hpa.value, table.entries);
      for (int probe = 0; probe < kProbes; ++probe) ASSERT_NO_FATAL_FAILURE(ProbeSomewhere());
      // The probes have set flags, and nothing else has changed.
      for (const mmu::TableImage& table : Tables()) {
        pages_.push_back({machine_.Dump(table.hpa.value), table.hpa, table.level, table.entries,
                          name_ + " snapshot " + std::to_string(snapshot)});
      }
      ASSERT_EQ(Tables().size(), tables.size());
    }
    ASSERT_TRUE(vm_.space->Audit().ok()) << vm_.space->Audit();
  }

  void Compare(const BochsMachine::Report& report, std::map<std::string, uint64_t>& seen) const {
    for (const Expected& expected : probes_) {
      const ProbeResult& result = report.results[expected.result];
      const Ending ending = GuestKit::OnBochs(result);
      ASSERT_EQ(ending, GuestKit::WithoutBochsLimits(expected.ending))
          << expected.text << "\nBochs: " << ending.Text() << "\nours:  " << expected.ending.Text();
      if (expected.word) {
        ASSERT_EQ(result.words[GuestKit::kProbedWord], *expected.word) << expected.text;
      }
      ++seen[ending.reason == kReasonViolation          ? "violation"
             : ending.reason == kReasonMisconfiguration ? "misconfiguration"
             : expected.level == Level::k4K             ? "through 4K"
             : expected.level == Level::k2M             ? "through 2M"
                                                        : "through 1G"];
    }
    for (const ExpectedPage& expected : pages_) {
      const PageWords& words = report.pages[expected.page];
      for (size_t i = 0; i < words.size(); ++i) {
        ASSERT_EQ(words[i], expected.words[i])
            << expected.text << ": entry " << i << " of the table at 0x" << std::hex
            << expected.hpa.value << ", level " << static_cast<int>(expected.level) << ", is 0x"
            << words[i] << " on Bochs, 0x" << expected.words[i] << " on the software processor";
      }
    }
    seen["tables"] += pages_.size();
  }

 private:
  GuestKit KitOf(MemoryKind kind) const {
    const Gfn gfn = kKitFrames[static_cast<int>(kind)];
    const mmu::Memslot slot = MachinePages::SlotOf(gfn);
    const mmu::Pfn first = kind == MemoryKind::kPrivate ? *slot.private_pfn : *slot.shared_pfn;
    return GuestKit(vm_.space->layout().GpaOf(gfn, kind), mmu::HpaOf(first + gfn.value));
  }
  void TouchKits() {
    for (const MemoryKind kind : mmu::kAllKinds) {
      for (uint64_t i = 0; i < GuestKit::kPages; ++i) {
        for (const mmu::Access access :
             {mmu::Access::Read(), mmu::Access::Write(), mmu::Access::Fetch()}) {
          life_.Touch(kKitFrames[static_cast<int>(kind)] + i, kind, false, access);
        }
      }
    }
  }
  // Of every root, each once.
  std::vector<mmu::TableImage> Tables() const {
    std::vector<mmu::TableImage> tables;
    for (const MemoryKind kind : mmu::kAllKinds) {
      if (kind == MemoryKind::kShared && options_.arrangement == mmu::RootArrangement::kOneRoot) {
        continue;
      }
      auto dump = vm_.space->DumpTables(kind, nullptr, BochsSpace::kPoolPages);
      if (!dump.ok()) ADD_FAILURE() << dump.status();
      if (dump.ok()) tables.insert(tables.end(), dump->begin(), dump->end());
    }
    return tables;
  }

  void ProbeSomewhere() {
    const auto [gfn, kind, execute_only] = life_.AnyAlias();
    const uint64_t offset = random_() % 512 * 8;
    const Doing doing = kAllDoings[random_() % 4];
    const uint64_t value = random_() & 0xFFFF'FFFF;
    const mmu::HwGfn frame = vm_.space->layout().HwGfnOf(gfn, kind, execute_only);
    const Gpa gpa((frame.value << mmu::kPageShift) + offset);
    const mmu::EptPointer eptp = vm_.space->ept_pointer(kind);
    const auto walk =
        vm_.space->Translate(Gpa((gfn.value << mmu::kPageShift) + offset), kind, execute_only);
    ASSERT_TRUE(walk.ok()) << walk.status();

    const std::optional<Hpa> at = walk->mapped ? std::optional<Hpa>(walk->hpa) : std::nullopt;
    const GuestKit kit = KitOf(kind);
    Expected expected;
    expected.result = machine_.Run(kit.Make(eptp, gpa, doing, at, value));
    expected.ending = kit.OnSoftware(walker_, eptp, gpa, doing, value);
    expected.text = absl::StrFormat(
        "%s: %s at 0x%x, which Translate says is %s, rights %d, level %d", name_,
        doing == Doing::kRead    ? "read"
        : doing == Doing::kWrite ? "write"
        : doing == Doing::kFetch ? "fetch"
                                 : "page walk",
        gpa.value, at ? absl::StrFormat("at 0x%x", at->value) : std::string("nowhere"),
        walk->access.bits(), static_cast<int>(walk->level));
    // The guest's own pages were reached, so the end is the probed address's.
    if (expected.ending.reason == kReasonVmcall || expected.ending.gpa == gpa.value) {
      ASSERT_EQ(expected.ending, FromTranslate(*walk, gpa, doing, eptp, value)) << expected.text;
    }
    expected.level = walk->level;
    if (at) {
      expected.word = kit.Put(doing, value);
      if (doing == Doing::kWrite && expected.ending.reason == kReasonVmcall) expected.word = value;
    }
    probes_.push_back(std::move(expected));
  }

  // By what the engine tells its users of the tables, without a walk.
  static Ending FromTranslate(const mmu::Translation& walk, Gpa gpa, Doing doing,
                              mmu::EptPointer eptp, uint64_t value) {
    const uint64_t needed = doing == Doing::kWrite                           ? 2
                            : doing == Doing::kFetch                         ? 4
                            : doing == Doing::kWalk && eptp.accessed_dirty() ? 3
                                                                             : 1;
    const uint64_t granted = walk.mapped ? walk.access.bits() : 0;
    if ((granted & needed) == needed) {
      return {kReasonVmcall, 0, 0, GuestKit::Value(doing, value)};
    }
    if (!walk.mapped && (walk.steps.back().entry & 7) == 6) {  // W and X without R
      return {kReasonMisconfiguration, 0, gpa.value, 0};
    }
    const uint64_t whose = doing == Doing::kWalk ? 0x80 : 0x180;
    return {kReasonViolation, needed | granted << 3 | whose, gpa.value, 0};
  }

  const std::string name_;
  const BochsSpaceOptions options_;
  BochsMachine& machine_;
  std::mt19937_64& random_;
  BochsSpace vm_;
  const mmu::vmx::EptWalker walker_;
  Life life_;
  std::vector<Expected> probes_;
  std::vector<ExpectedPage> pages_;
};

TEST(EngineTablesOnBochs, EveryProbeEndsAsTranslateAndTheSoftwareProcessorSay) {
  const uint64_t seed = mmu::TestSeed();
  std::cout << "TWINROOT_TEST_SEED=" << seed << "\n";
  std::mt19937_64 random(seed);
  const std::pair<const char*, BochsSpaceOptions> kVms[] = {
      {"two roots", {}},
      {"two roots, 4K and 2M, eager dirty logs", {.large_slot = false}},
      {"one root, execute-only aliases",
       {.arrangement = mmu::RootArrangement::kOneRoot, .execute_only_alias = true}},
      {"two roots, execute-only aliases, no flags", {.execute_only_alias = true, .flags = false}},
      {"no flags, 4K only", {.flags = false, .large_slot = false, .largest = Level::k4K}},
      {"no executable large pages, marks of devices",
       {.nx_huge_pages = true, .mmio = mmu::MmioCaching::kMisconfiguration}},
  };
  BochsMachine machine(kSpaceMemoryMib);
  std::vector<std::unique_ptr<Subject>> subjects;
  for (const auto& [name, options] : kVms) {
    subjects.push_back(std::make_unique<Subject>(name, options, machine, random));
    ASSERT_NO_FATAL_FAILURE(subjects.back()->Live());
  }
  const auto report = machine.Boot();
  ASSERT_TRUE(report.ok()) << report.status();
  std::map<std::string, uint64_t> seen;
  for (const auto& subject : subjects) ASSERT_NO_FATAL_FAILURE(subject->Compare(*report, seen));
  for (const auto& [what, count] : seen) std::cout << what << ": " << count << "\n";
  // Each of them often enough to mean something.
  for (const char* what : {"through 4K", "through 2M", "through 1G", "violation"}) {
    EXPECT_GT(seen[what], 100u) << what;
  }
  EXPECT_GT(seen["misconfiguration"], 5u);
}

}  // namespace
}  // namespace twinroot::bochs
