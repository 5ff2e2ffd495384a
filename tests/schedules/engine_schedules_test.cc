// Pairs and triples of what happens to a VM, in every order of their atomic steps that has few
// preemptions. Every run ends with tables that pass the audit, in a state that some order of the
// whole operations gives, and with TLBs that give nothing more than the tables.
//
// TWINROOT_SCHEDULE='name: schedule', as a failure prints it, repeats one run.
// TWINROOT_PREEMPTIONS=N goes deeper, however long it takes.
#include <gtest/gtest.h>

#include <cstdlib>
#include <iostream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "tests/schedules/small_vm.h"

namespace twinroot::mmu {
namespace {

using schedules::Coverage;
using schedules::Explore;
using Program = VmScenario::Program;

constexpr MemoryKind kPrivate = MemoryKind::kPrivate;
constexpr MemoryKind kShared = MemoryKind::kShared;
const GfnRange kSlot = Frames(0, kSlotFrames);

Operation Convert(const std::string& name, GfnRange range, MemoryKind kind, Content content) {
  return {name, [=](SmallVm& at, uint32_t) {
            return SaidOf(at.vm.t().Convert({range}, kind, content, Requester::kGuest).status());
          }};
}
Operation Do(const std::string& name, std::function<absl::Status(GuestAddressSpace&)> run) {
  return {name, [run](SmallVm& at, uint32_t) { return SaidOf(run(at.space())); }};
}

// The guest's.
Operation Read() { return Touch("read", 5, kPrivate, Access::Read()); }
Operation Write() { return Touch("write", 5, kPrivate, Access::Write(), 0xA0); }
Operation WriteBeside() { return Touch("write beside", 6, kPrivate, Access::Write(), 0xB0); }
Operation WriteShared() { return Touch("write shared", 5, kShared, Access::Write(), 0xC0); }
Operation Fetch() { return Touch("fetch", 5, kPrivate, Access::Fetch()); }
// Nobody's access: somebody looks where the page is.
Operation LookUp() {
  return {"look up", [](SmallVm& at, uint32_t) -> Said {
            const auto walk = at.space().Translate(Gpa(5 << kPageShift), kPrivate);
            return walk.ok() && walk->mapped ? walk->hpa.value : 0;
          }};
}
// What takes away, or changes sizes.
Operation ToShared() { return Convert("to shared", Frames(5, 1), kShared, Content::kDestroy); }
Operation ToPrivate() { return Convert("to private", Frames(5, 1), kPrivate, Content::kDestroy); }
Operation Keep() { return Convert("to shared, kept", Frames(5, 1), kShared, Content::kPreserve); }
Operation Deny() {
  return Do("deny write", [](GuestAddressSpace& space) {
    return space.SetMemoryAttributes({.ranges = {Frames(5, 1)}, .deny = Access::Write()}).status();
  });
}
Operation DenyAll() {
  return Do("deny all writes", [](GuestAddressSpace& space) {
    return space.SetMemoryAttributes({.ranges = {kSlot}, .deny = Access::Write()}).status();
  });
}
Operation Split() {
  return Do("split",
            [](GuestAddressSpace& space) { return space.SplitPages(kSlot, Level::k4K).status(); });
}
Operation Collapse() {
  return Do("collapse",
            [](GuestAddressSpace& space) { return space.RecoverPages(kSlot).status(); });
}
Operation Zap() {
  return Do("zap", [](GuestAddressSpace& space) { return space.Zap(Frames(5, 1)); });
}
Operation ZapSlot() {
  return Do("zap slot", [](GuestAddressSpace& space) { return space.Zap(kSlot); });
}
Operation ZapPart() {
  return Do("zap part", [](GuestAddressSpace& space) { return space.Zap(Frames(64, 128)); });
}
Operation ZapAll() {
  return Do("zap all", [](GuestAddressSpace& space) { return space.ZapAll(); });
}
Operation PunchHole() {
  return Do("punch hole",
            [](GuestAddressSpace& space) { return space.PunchHole(Frames(5, 1), kPrivate); });
}
// When it returns, the backing is the caller's again.
Operation Remove() {
  return {"remove", [](SmallVm& at, uint32_t) {
            const absl::Status status = at.space().RemoveMemslot(Gfn(0));
            at.dropped = true;
            return SaidOf(status);
          }};
}
Operation Move() {
  return Do("move",
            [](GuestAddressSpace& space) { return space.MoveMemslot(Gfn(0), Gfn(kElsewhere)); });
}
Operation Age() {
  return {"age", [](SmallVm& at, uint32_t) -> Said {
            const auto aged = at.space().TestAndClearAccessed(kSlot);
            return aged.ok() ? aged->words[0] >> 5 & 1 : kBroken;
          }};
}
// What looks at everything, or tidies up.
Operation Audit() {
  return Do("audit", [](GuestAddressSpace& space) { return space.Audit(); });
}
Operation Reclaim() {
  return Do("reclaim", [](GuestAddressSpace& space) {
    space.ReclaimTables(8);
    return absl::OkStatus();
  });
}
// As a migration goes by the log: pages are copied once they were told.
void CopyDirty(SmallVm& at, const std::vector<uint64_t>& words) {
  for (size_t i = 0; i < std::size(kPages); ++i) {
    if (words[0] >> kPages[i] & 1) at.copy[i] = at.vm.t().pages.Mark(Gfn(kPages[i]), kPrivate);
  }
}
Operation Harvest() {
  return {"harvest", [](SmallVm& at, uint32_t) -> Said {
            const auto dirty = at.space().HarvestDirty(kSlot);
            if (!dirty.ok()) return kRefused;
            CopyDirty(at, dirty->words);
            return at.copy[0];
          }};
}
Operation StartLog() {
  return {"start log", [](SmallVm& at, uint32_t) {
            const absl::Status status = at.space().EnableDirtyLog({}).status();
            at.copies = true;
            CopyDirty(at, {~uint64_t{0}});
            return SaidOf(status);
          }};
}
Operation EndLog() {
  return {"end log", [](SmallVm& at, uint32_t) {
            at.copies = false;
            return SaidOf(at.space().DisableDirtyLog().status());
          }};
}

// Where it begins. TLBs know what was touched.
using Start = VmScenario::Start;
TestSpaceOptions Options(Level max_level = Level::k2M) {
  TestSpaceOptions options;
  options.frames = kSlotFrames;
  options.pool_pages = 24;
  options.max_level = max_level;
  return options;
}
void TouchAll(SmallVm& at) {
  for (uint32_t vcpu = 0; vcpu < at.vcpus; ++vcpu) {
    at.vm.Write(vcpu, 5, kPrivate, 0x15);
    at.vm.Write(vcpu, 6, kPrivate, 0x16);
  }
}
void SetUp(SmallVm& at) {
  at.vm.t().pages.ready = true;
  at.vm.t().pages.can_move = true;
}
void SetUpSmall(SmallVm& at) {
  SetUp(at);
  TouchAll(at);
  at.space().SplitPages(kSlot, Level::k4K).IgnoreError();
  TouchAll(at);
}
Start Empty() { return {"empty", Options(), SetUp}; }
// The whole handler, which asks for pages first.
Start NoPages() {
  return {"no pages", Options(), [](SmallVm& at) {
            at.vm.t().pages.on_resolve = [&at](Gfn, MemoryKind) {
              if (at.dropped) at.asked_too_late = true;
            };
          }};
}
Start Large() {
  return {"large", Options(), [](SmallVm& at) {
            SetUp(at);
            TouchAll(at);
          }};
}
Start Small() { return {"small", Options(), SetUpSmall}; }
// Mapped, but never accessed: processors set flags beside a change.
Start Fresh() {
  return {"fresh", Options(), [](SmallVm& at) {
            SetUp(at);
            at.space().Prefault(kSlot, kPrivate, nullptr).IgnoreError();
          }};
}
// The tables stand, and nothing is in them: the usual fault, of 2M.
Start Zapped() {
  return {"zapped", Options(), [](SmallVm& at) {
            SetUp(at);
            TouchAll(at);
            at.space().Zap(kSlot).IgnoreError();
          }};
}
// All of 2M in small pages but for one: it can be made large, and faults want to get in.
Start Hole() {
  return {"hole", Options(), [](SmallVm& at) {
            SetUpSmall(at);
            at.space().Zap(Frames(5, 1)).IgnoreError();
          }};
}
// A table that a zap of its leaves takes away; faults of 4K beside them.
Start Sparse() {
  return {"sparse", Options(Level::k4K), [](SmallVm& at) {
            SetUp(at);
            at.space().Prefault(Frames(64, 70), kPrivate, nullptr).IgnoreError();
          }};
}
Start Shared() {
  return {"shared", Options(), [](SmallVm& at) {
            SetUp(at);
            TouchAll(at);
            at.vm.t().Convert({Frames(5, 1)}, kShared).IgnoreError();
            for (uint32_t vcpu = 0; vcpu < at.vcpus; ++vcpu) at.vm.Write(vcpu, 5, kShared, 0x25);
          }};
}
Start Logged(bool eager = true, bool flags = true) {
  TestSpaceOptions vm_options = Options();
  vm_options.capabilities.accessed_dirty = flags;
  const char* name = !flags ? "logged, no flags" : eager ? "logged" : "logged, large";
  return {name, vm_options, [eager](SmallVm& at) {
            SetUp(at);
            TouchAll(at);
            at.copies = true;
            DirtyLogOptions options;
            options.eager_split = eager;
            at.space().EnableDirtyLog(options).IgnoreError();
            CopyDirty(at, {~uint64_t{0}});
            at.vm.Write(0, 6, kPrivate, 0x26);
          }};
}
Start External(Level max_level = Level::k4K) {
  TestSpaceOptions options = Options(max_level);
  options.external = true;
  return {max_level == Level::k4K ? "external" : "external, large", options, [](SmallVm& at) {
            SetUp(at);
            at.vm.t().external_private.can_split = true;
            at.vm.t().Touch(6, kPrivate, Access::Write());
          }};
}
Start ExternalLarge() { return External(Level::k2M); }
// Without a processor: those who walk external tables are elsewhere.
Operation FaultOnly(const std::string& name, uint64_t gfn, MemoryKind kind) {
  return {name, [=](SmallVm& at, uint32_t) -> Said {
            while (true) {
              const FaultOutcome outcome = at.vm.t().Touch(gfn, kind, Access::Write());
              if (std::holds_alternative<MemoryFaultExit>(outcome)) return kRefused;
              if (std::holds_alternative<Failed>(outcome)) return kBroken;
              if (!std::holds_alternative<Retry>(outcome)) return 0;
              std::this_thread::yield();
            }
          }};
}

class EngineSchedules : public testing::Test {
 protected:
  ~EngineSchedules() override {
    if (repeats_) return;
    std::cout << "in all " << runs_ << " schedules of " << scenarios_ << " scenarios\n";
  }

  // Up to `bound` preemptions; of those with more than one as many as time allows.
  void Add(const Start& start, std::vector<Program> programs, int bound) {
    if (HasFailure()) return;  // the first says enough
    VmScenario scenario(start, std::move(programs));
    if (repeats_) return Repeat(scenario, std::getenv("TWINROOT_SCHEDULE"));
    int64_t most = 1500;
    if (const char* deeper = std::getenv("TWINROOT_PREEMPTIONS")) {
      bound = std::atoi(deeper);
      most = int64_t{1} << 62;
    }
    const Coverage coverage = Explore(scenario, bound, most);
    std::cout << coverage.schedules << " schedules of up to " << coverage.bound
              << (coverage.part ? " preemptions and a part of those with more, " : " preemptions, ")
              << coverage.decisions << " choices, " << coverage.states
              << " ends: " << scenario.name() << std::endl;
    EXPECT_EQ(coverage.failure, "") << scenario.name();
    // Two threads that change the same words meet somewhere.
    EXPECT_GE(coverage.bound, 1) << scenario.name();
    EXPECT_GT(coverage.schedules, coverage.serial) << scenario.name();
    runs_ += coverage.schedules;
    ++scenarios_;
  }
  void Pairs(const std::vector<Start>& starts, const std::vector<Operation>& some,
             const std::vector<Operation>& others, int bound = 2) {
    for (const Start& start : starts) {
      for (const Operation& one : some) {
        for (const Operation& other : others) Add(start, {{one}, {other}}, bound);
      }
    }
  }
  // So that none of it gets lost unseen.
  void ExpectAtLeast(int64_t runs) const {
    if (!repeats_ && !HasFailure()) {
      EXPECT_GE(runs_, runs);
    }
  }

 private:
  static void Repeat(VmScenario& scenario, const std::string& one) {
    const std::string name = scenario.name() + ": ";
    if (one.compare(0, name.size(), name) != 0) return;
    const auto end = schedules::Repeat(scenario, one.substr(name.size()));
    std::cout << name << end.broken << "\n  " << scenario.TextOf(end.state) << "\n";
    EXPECT_EQ(end.broken, "");
  }

  const bool repeats_ = std::getenv("TWINROOT_SCHEDULE") != nullptr;
  int64_t runs_ = 0;
  int scenarios_ = 0;
};

TEST_F(EngineSchedules, AnAccessBesideAConversion) {
  Pairs({Empty(), NoPages(), Zapped(), Sparse(), Large(), Small()},
        {Write(), WriteBeside(), WriteShared()}, {ToShared()});
  Pairs({Zapped(), Large()}, {Write(), WriteShared()}, {Keep()});
  Pairs({Shared()}, {Write(), WriteBeside(), WriteShared()}, {ToPrivate()});
  Pairs({Fresh()}, {Read(), Write()}, {ToShared()});
  ExpectAtLeast(18'000);
}

TEST_F(EngineSchedules, AnAccessBesideADenial) {
  Pairs({Empty(), NoPages(), Zapped(), Sparse()}, {Write(), WriteBeside()}, {Deny()});
  Pairs({Large(), Small()}, {Read(), Write(), WriteBeside()}, {Deny()});
  Pairs({Logged(false)}, {Write(), WriteBeside()}, {Deny()});
  Pairs({Fresh()}, {Read(), Write()}, {Deny(), DenyAll()});
  ExpectAtLeast(10'000);
}

TEST_F(EngineSchedules, AnAccessBesideASplitOrACollapse) {
  Pairs({Empty(), NoPages(), Zapped(), Large()}, {Write(), Fetch()}, {Split()});
  Pairs({Small(), Hole()}, {Write(), WriteBeside()}, {Collapse()});
  ExpectAtLeast(1'400);
}

TEST_F(EngineSchedules, AnAccessBesideAZap) {
  Pairs({Zapped(), Large(), Small(), Hole()}, {Write(), WriteBeside()},
        {Zap(), ZapSlot(), ZapAll(), PunchHole()});
  Pairs({Empty(), NoPages(), Sparse()}, {Write()}, {ZapPart(), ZapAll()});
  ExpectAtLeast(17'000);
}

// Tables that were taken down serve the other root.
TEST_F(EngineSchedules, ALookUpBesideTablesThatGo) {
  Add(Small(), {{LookUp()}, {ZapAll(), Reclaim(), ToShared(), WriteShared()}}, 2);
  Add(Small(), {{LookUp()}, {ZapSlot(), ToShared(), WriteShared()}}, 2);
  ExpectAtLeast(100);
}

TEST_F(EngineSchedules, AnAccessBesideAMemslotThatGoesOrMoves) {
  Pairs({Empty(), NoPages(), Zapped(), Sparse(), Large(), Small()}, {Read(), WriteShared()},
        {Remove()});
  Pairs({Zapped(), Sparse(), Large(), Small()}, {Read()}, {Move()});
  ExpectAtLeast(7'000);
}

TEST_F(EngineSchedules, AnAccessBesideTheDirtyLog) {
  Pairs({Logged(), Logged(false)}, {Write(), WriteBeside(), Harvest()}, {Harvest()});
  Pairs({Logged()}, {Write()}, {ToShared(), Keep(), Zap(), Remove(), EndLog()});
  // Every write that was complete when the harvest began is in it, or was in an earlier one.
  for (const Start& start : {Logged(), Logged(false)}) {
    Add(start, {{Write()}, {Write(), Harvest()}}, 2);
  }
  Pairs({Zapped(), Fresh(), Large(), Small()}, {Write()}, {StartLog()});
  Add(Fresh(), {{Read(), Write()}, {StartLog()}}, 2);
  ExpectAtLeast(9'000);
}

// The fault splits the leaf that a change has found.
TEST_F(EngineSchedules, AnAccessBesideASplitUnderTheLog) {
  Pairs({Logged(false)}, {Write()}, {Zap(), ZapSlot(), DenyAll(), ToShared(), Split()});
  ExpectAtLeast(3'300);
}

TEST_F(EngineSchedules, AgingWithoutAccessedFlags) {
  Pairs({Logged(true, false)}, {Write(), Read()}, {Age()});
  ExpectAtLeast(190);
}

TEST_F(EngineSchedules, TwoAccesses) {
  Pairs({Empty(), NoPages(), Zapped(), Sparse(), Hole(), Logged(), Logged(false)},
        {Write(), Read()}, {Write(), WriteBeside(), WriteShared()});
  ExpectAtLeast(7'000);
}

TEST_F(EngineSchedules, AnAccessBesideAnAudit) {
  Pairs({Empty(), NoPages(), Zapped(), Sparse(), Hole()}, {Write()}, {Audit()});
  ExpectAtLeast(1'700);
}

TEST_F(EngineSchedules, TwoChanges) {
  const std::vector<Operation> changes = {ToShared(), Deny(),   Split(),  Collapse(),
                                          Zap(),      ZapAll(), Remove(), Reclaim()};
  for (const Start& start : {Small(), Large()}) {
    for (size_t i = 0; i < changes.size(); ++i) {
      for (size_t j = i; j < changes.size(); ++j) Add(start, {{changes[i]}, {changes[j]}}, 1);
    }
  }
  Pairs({Logged()}, {Harvest()}, {ToShared(), Zap(), Remove(), Move()}, 1);
  ExpectAtLeast(15'000);
}

TEST_F(EngineSchedules, AnExternalTableBesideAChange) {
  Pairs({External()},
        {FaultOnly("fault", 5, kPrivate), FaultOnly("fault mapped", 6, kPrivate),
         FaultOnly("fault shared", 5, kShared)},
        {ToShared(), Zap(), ZapAll(), Audit(), Remove()});
  Pairs({ExternalLarge()}, {FaultOnly("fault mapped", 6, kPrivate)}, {Split(), ToShared(), Zap()});
  ExpectAtLeast(6'300);
}

// Both of an access's neighbours at once, and a guest that goes on.
TEST_F(EngineSchedules, Triples) {
  for (const Start& start : {Large(), Small()}) {
    Add(start, {{Write()}, {WriteShared()}, {ToShared()}}, 2);
    Add(start, {{Write()}, {Split()}, {Collapse()}}, 1);
    Add(start, {{Write()}, {ToShared()}, {ToPrivate()}}, 1);
    Add(start, {{Write()}, {WriteBeside()}, {Zap()}}, 1);
    Add(start, {{Write(), Write()}, {ToShared()}}, 2);
    Add(start, {{Read(), Write()}, {ZapSlot()}}, 2);
    Add(start, {{Write()}, {ZapAll(), Reclaim()}, {WriteShared()}}, 1);
  }
  Add(Hole(), {{Write()}, {Zap()}, {Collapse()}}, 1);
  Add(Fresh(), {{Read(), Write()}, {ToShared()}}, 2);
  Add(Logged(), {{Write()}, {WriteBeside()}, {Harvest()}}, 2);
  Add(Logged(), {{Write(), Write()}, {Harvest(), Harvest()}}, 2);
  Add(Logged(), {{Write()}, {Harvest()}, {ToShared()}}, 1);
  ExpectAtLeast(11'000);
}

}  // namespace
}  // namespace twinroot::mmu
