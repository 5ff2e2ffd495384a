// What happens to the small VM in these tests, and where it begins.
#ifndef TWINROOT_TESTS_SCHEDULES_OPERATIONS_H_
#define TWINROOT_TESTS_SCHEDULES_OPERATIONS_H_

#include <functional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "tests/schedules/small_vm.h"

namespace twinroot::mmu {

inline constexpr MemoryKind kPrivate = MemoryKind::kPrivate;
inline constexpr MemoryKind kShared = MemoryKind::kShared;
inline const GfnRange kSlot = Frames(0, kSlotFrames);

inline Operation Convert(const std::string& name, GfnRange range, MemoryKind kind,
                         Content content) {
  return {name, [=](SmallVm& at, uint32_t) {
            return SaidOf(at.vm.t().Convert({range}, kind, content, Requester::kGuest).status());
          }};
}
inline Operation Do(const std::string& name, std::function<absl::Status(GuestAddressSpace&)> run) {
  return {name, [run](SmallVm& at, uint32_t) { return SaidOf(run(at.space())); }};
}

// The guest's.
inline Operation Read() { return Touch("read", 5, kPrivate, Access::Read()); }
inline Operation Write() { return Touch("write", 5, kPrivate, Access::Write(), 0xA0); }
inline Operation WriteBeside() { return Touch("write beside", 6, kPrivate, Access::Write(), 0xB0); }
inline Operation WriteShared() { return Touch("write shared", 5, kShared, Access::Write(), 0xC0); }
inline Operation Fetch() { return Touch("fetch", 5, kPrivate, Access::Fetch()); }
// Nobody's access: somebody looks where the page is.
inline Operation LookUp() {
  return {"look up", [](SmallVm& at, uint32_t) -> Said {
            const auto walk = at.space().Translate(Gpa(5 << kPageShift), kPrivate);
            return walk.ok() && walk->mapped ? walk->hpa.value : 0;
          }};
}
// What takes away, or changes sizes.
inline Operation ToShared() {
  return Convert("to shared", Frames(5, 1), kShared, Content::kDestroy);
}
inline Operation ToPrivate() {
  return Convert("to private", Frames(5, 1), kPrivate, Content::kDestroy);
}
inline Operation Keep() {
  return Convert("to shared, kept", Frames(5, 1), kShared, Content::kPreserve);
}
inline Operation Deny() {
  return Do("deny write", [](GuestAddressSpace& space) {
    return space.SetMemoryAttributes({.ranges = {Frames(5, 1)}, .deny = Access::Write()}).status();
  });
}
inline Operation DenyAll() {
  return Do("deny all writes", [](GuestAddressSpace& space) {
    return space.SetMemoryAttributes({.ranges = {kSlot}, .deny = Access::Write()}).status();
  });
}
inline Operation DenyFetches() {
  return Do("deny all fetches", [](GuestAddressSpace& space) {
    return space.SetMemoryAttributes({.ranges = {kSlot}, .deny = Access::Fetch()}).status();
  });
}
inline Operation Split() {
  return Do("split",
            [](GuestAddressSpace& space) { return space.SplitPages(kSlot, Level::k4K).status(); });
}
inline Operation Collapse() {
  return Do("collapse",
            [](GuestAddressSpace& space) { return space.RecoverPages(kSlot).status(); });
}
// An access outside of memory, which leaves a mark, and what becomes of the next.
inline Operation Miss(MemoryKind kind = kShared) {
  return {kind == kShared ? "miss" : "miss private", [kind](SmallVm& at, uint32_t) -> Said {
            while (true) {
              const FaultOutcome outcome = at.vm.t().Touch(5, kind);
              if (std::holds_alternative<MemoryFaultExit>(outcome)) return kRefused;
              if (std::holds_alternative<Failed>(outcome)) return kBroken;
              if (!std::holds_alternative<Retry>(outcome)) {
                return std::holds_alternative<Mmio>(outcome) ? 1 : 0;
              }
              std::this_thread::yield();
            }
          }};
}
inline Operation MissAgain() {
  return {"miss again", [](SmallVm& at, uint32_t) -> Said {
            const Gpa gpa = at.space().layout().GpaOf(Gfn(5), kShared);
            const MmioOutcome outcome = at.space().HandleMisconfiguration(gpa);
            return std::holds_alternative<Failed>(outcome) ? kBroken : 0;
          }};
}
inline Operation AddSlot() {
  return {"add slot",
          [](SmallVm& at, uint32_t) { return SaidOf(at.space().AddMemslot(at.vm.t().Slot())); }};
}
inline Operation Zap() {
  return Do("zap", [](GuestAddressSpace& space) { return space.Zap(Frames(5, 1)); });
}
// Only what a fault gives is mapped afterwards, and who is told to try again was given nothing.
inline Operation ZapForGood() {
  return {"zap for good", [](SmallVm& at, uint32_t) {
            const absl::Status status = at.space().Zap(Frames(5, 1));
            at.zapped = true;
            return SaidOf(status);
          }};
}
inline Operation FaultOnce() {
  return {"fault once", [](SmallVm& at, uint32_t) -> Said {
            const FaultOutcome outcome = at.vm.t().Touch(5, kPrivate, Access::Write());
            at.given = !std::holds_alternative<Retry>(outcome);
            return 0;
          }};
}
inline Operation ZapSlot() {
  return Do("zap slot", [](GuestAddressSpace& space) { return space.Zap(kSlot); });
}
inline Operation ZapPart() {
  return Do("zap part", [](GuestAddressSpace& space) { return space.Zap(Frames(64, 128)); });
}
inline Operation ZapAll() {
  return Do("zap all", [](GuestAddressSpace& space) { return space.ZapAll(); });
}
inline Operation PunchHole() {
  return Do("punch hole",
            [](GuestAddressSpace& space) { return space.PunchHole(Frames(5, 1), kPrivate); });
}
// When it returns, the backing is the caller's again.
inline Operation Remove() {
  return {"remove", [](SmallVm& at, uint32_t) {
            const absl::Status status = at.space().RemoveMemslot(Gfn(0));
            at.dropped = true;
            return SaidOf(status);
          }};
}
inline Operation Move() {
  return Do("move",
            [](GuestAddressSpace& space) { return space.MoveMemslot(Gfn(0), Gfn(kElsewhere)); });
}
inline Operation Age() {
  return {"age", [](SmallVm& at, uint32_t) -> Said {
            const auto aged = at.space().TestAndClearAccessed(kSlot);
            return aged.ok() ? aged->words[0] >> 5 & 1 : kBroken;
          }};
}
// What looks at everything, or tidies up.
inline Operation Audit() {
  return Do("audit", [](GuestAddressSpace& space) { return space.Audit(); });
}
inline Operation Reclaim() {
  return Do("reclaim", [](GuestAddressSpace& space) {
    space.ReclaimTables(8);
    return absl::OkStatus();
  });
}
// As a migration goes by the log: pages are copied once they were told.
inline void CopyDirty(SmallVm& at, const std::vector<uint64_t>& words) {
  for (size_t i = 0; i < std::size(kPages); ++i) {
    if (words[0] >> kPages[i] & 1) at.copy[i] = at.vm.t().pages.Mark(Gfn(kPages[i]), kPrivate);
  }
}
inline Operation Harvest() {
  return {"harvest", [](SmallVm& at, uint32_t) -> Said {
            const auto dirty = at.space().HarvestDirty(kSlot);
            if (!dirty.ok()) return kRefused;
            CopyDirty(at, dirty->words);
            return at.copy[0];
          }};
}
inline Operation StartLog() {
  return {"start log", [](SmallVm& at, uint32_t) {
            const absl::Status status = at.space().EnableDirtyLog({}).status();
            at.copies = true;
            CopyDirty(at, {~uint64_t{0}});
            return SaidOf(status);
          }};
}
inline Operation EndLog() {
  return {"end log", [](SmallVm& at, uint32_t) {
            at.copies = false;
            return SaidOf(at.space().DisableDirtyLog().status());
          }};
}

// Where it begins. TLBs know what was touched.
using Start = VmScenario::Start;
inline TestSpaceOptions Options(Level max_level = Level::k2M) {
  TestSpaceOptions options;
  options.frames = kSlotFrames;
  options.pool_pages = 24;
  options.max_level = max_level;
  return options;
}
inline void TouchAll(SmallVm& at) {
  for (uint32_t vcpu = 0; vcpu < at.vcpus; ++vcpu) {
    at.vm.Write(vcpu, 5, kPrivate, 0x15);
    at.vm.Write(vcpu, 6, kPrivate, 0x16);
  }
}
inline void SetUp(SmallVm& at) {
  at.vm.t().pages.ready = true;
  at.vm.t().pages.can_move = true;
}
inline void SetUpSmall(SmallVm& at) {
  SetUp(at);
  TouchAll(at);
  at.space().SplitPages(kSlot, Level::k4K).IgnoreError();
  TouchAll(at);
}
inline Start Empty() { return {"empty", Options(), SetUp}; }
inline Start NoSlot() {
  TestSpaceOptions options = Options();
  options.add_slot = false;
  options.mmio_caching = MmioCaching::kMisconfiguration;
  return {"no slot", options, SetUp};
}
// A miss leaves no mark, so nothing asks for tables, and nothing is looked at a second time for
// them.
inline Start NoMarks() {
  Start start = NoSlot();
  start.name = "no slot, no marks";
  start.options.mmio_caching = MmioCaching::kNone;
  return start;
}
// Memory came where a mark stands.
inline Start StaleMark() {
  Start start = NoSlot();
  start.name = "stale mark";
  start.set_up = [](SmallVm& at) {
    SetUp(at);
    at.vm.t().Touch(5, kShared);
    at.space().AddMemslot(at.vm.t().Slot()).IgnoreError();
  };
  return start;
}
// The whole handler, which asks for pages first.
inline Start NoPages() {
  return {"no pages", Options(), [](SmallVm& at) {
            at.vm.t().pages.on_resolve = [&at](Gfn, MemoryKind) {
              if (at.dropped) at.asked_too_late = true;
            };
          }};
}
inline Start Large() {
  return {"large", Options(), [](SmallVm& at) {
            SetUp(at);
            TouchAll(at);
          }};
}
inline Start Small() { return {"small", Options(), SetUpSmall}; }
// Mapped, but never accessed: processors set flags beside a change.
inline Start Fresh() {
  return {"fresh", Options(), [](SmallVm& at) {
            SetUp(at);
            at.space().Prefault(kSlot, kPrivate, nullptr).IgnoreError();
          }};
}
// The tables stand, and nothing is in them: the usual fault, of 2M.
inline Start Zapped() {
  return {"zapped", Options(), [](SmallVm& at) {
            SetUp(at);
            TouchAll(at);
            at.space().Zap(kSlot).IgnoreError();
          }};
}
// All of 2M in small pages but for one: it can be made large, and faults want to get in.
inline Start Hole() {
  return {"hole", Options(), [](SmallVm& at) {
            SetUpSmall(at);
            at.space().Zap(Frames(5, 1)).IgnoreError();
          }};
}
// A table that a zap of its leaves takes away; faults of 4K beside them.
inline Start Sparse() {
  return {"sparse", Options(Level::k4K), [](SmallVm& at) {
            SetUp(at);
            at.space().Prefault(Frames(64, 70), kPrivate, nullptr).IgnoreError();
          }};
}
inline Start Shared() {
  return {"shared", Options(), [](SmallVm& at) {
            SetUp(at);
            TouchAll(at);
            at.vm.t().Convert({Frames(5, 1)}, kShared).IgnoreError();
            for (uint32_t vcpu = 0; vcpu < at.vcpus; ++vcpu) at.vm.Write(vcpu, 5, kShared, 0x25);
          }};
}
inline Start Logged(bool eager = true, bool flags = true) {
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
            if (eager) at.vm.Write(0, 6, kPrivate, 0x26);  // else it would be split here
          }};
}
inline Start External(Level max_level = Level::k4K) {
  TestSpaceOptions options = Options(max_level);
  options.external = true;
  return {max_level == Level::k4K ? "external" : "external, large", options, [](SmallVm& at) {
            SetUp(at);
            at.vm.t().external_private.can_split = true;
            at.vm.t().Touch(6, kPrivate, Access::Write());
          }};
}
inline Start ExternalLarge() { return External(Level::k2M); }
// A large leaf that the next write splits.
inline Start ExternalLogged() {
  Start start = ExternalLarge();
  start.name = "external, logged";
  start.set_up = [set_up = start.set_up](SmallVm& at) {
    set_up(at);
    TestSpace& t = at.vm.t();
    t.external_private.can_withhold_write = t.external_shared.can_withhold_write = true;
    at.space().EnableDirtyLog({.eager_split = false}).IgnoreError();
  };
  return start;
}
// Without a processor: those who walk external tables are elsewhere.
inline Operation FaultOnly(const std::string& name, uint64_t gfn, MemoryKind kind) {
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

}  // namespace twinroot::mmu

#endif  // TWINROOT_TESTS_SCHEDULES_OPERATIONS_H_
