#include "mmu/vm/fault_handler.h"

#include <optional>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "mmu/engine/map.h"
#include "mmu/engine/split.h"
#include "mmu/vm/invalidation.h"
#include "mmu/vm/leaf_choice.h"
#include "mmu/vm/mmio_cache.h"
#include "mmu/vm/page_sizes.h"
#include "mmu/vm/zap_all.h"

namespace twinroot::mmu {
namespace {

// One look at a fault, inside a guard, ends it, or says what it lacks.
struct NeedPage {};
struct NeedSplit {
  Level level;
};
struct Again {};
using Look = std::variant<FaultOutcome, NeedPage, NeedTables, NeedSplit, Again, FrozenSlot>;

class FaultHandler {
 public:
  enum class Why : uint8_t { kFault, kPopulate };  // kPopulate: no vCPU is behind it

  FaultHandler(AddressSpaceState& vm, const Fault& fault, Why why)
      : vm_(vm),
        why_(why),
        leave_mark_(why == Why::kFault),
        layout_(vm.config.layout),
        raw_(fault.gpa),
        access_(fault.access),
        vcpu_(fault.vcpu),
        gfn_(layout_.GfnOf(fault.gpa)),
        kind_(layout_.KindOf(fault.gpa)),
        root_(vm.roots.Of(kind_, layout_.IsExecuteOnly(fault.gpa))) {}

  FaultOutcome Handle() {
    if (vm_.bugs.bugged()) return Failed{vm_.bugs.Check()};
    if (absl::Status reserved = layout_.CheckReserved(raw_); !reserved.ok()) {
      return Failed{std::move(reserved)};
    }
    // Before anything is read: a change from here on makes the check of the frozen slot fail.
    snapshot_ = vm_.seq.Snapshot(gfn_);
    PreloadedTables preload(*vm_.env.pool);
    while (true) {
      Look look = LookOnce(preload);
      if (auto* outcome = std::get_if<FaultOutcome>(&look)) return *std::move(outcome);
      if (const auto* frozen = std::get_if<FrozenSlot>(&look)) return TellExternal(*frozen);
      if (const auto* need = std::get_if<NeedTables>(&look)) {
        absl::Status loaded = PreloadTables(vm_, need->count, preload);
        if (!loaded.ok() && need_is_for_mark_) {
          leave_mark_ = false;  // it goes without
        } else if (!loaded.ok()) {
          return Failed{std::move(loaded)};
        }
      } else if (std::holds_alternative<NeedPage>(look)) {
        if (std::optional<FaultOutcome> end = ResolvePage()) return *std::move(end);
      } else if (std::holds_alternative<NeedSplit>(look)) {
        if (std::optional<FaultOutcome> end = SplitInTurn()) return *std::move(end);
      }
    }
  }

 private:
  // Attribute, memslot, backing, rights, page, level, leaf: in this order (D1).
  Look LookOnce(PreloadedTables& preload) {
    const EpochGuard guard;
    need_is_for_mark_ = false;
    const Memslot* slot = vm_.slots.Find(guard, gfn_);
    // Without a shared bit there is no other kind to ask for: outside the slots all is MMIO.
    if (slot == nullptr && !layout_.shared_bit()) return MmioExit(guard, preload);
    const MemoryAttributes attributes = vm_.attributes.Get(guard, gfn_);
    // The attribute comes before the slot; outside the slots everything is shared.
    if (attributes.kind != kind_) return Exit(guard, MemoryFault());
    if (slot == nullptr) return MmioExit(guard, preload);
    const std::optional<Pfn> pfn = BackingOf(*slot, gfn_, kind_);
    if (!pfn) return Exit(guard, MemoryFault());  // D2
    const Access allowed = attributes.allowed() & root_.rights();
    if (!allowed.Includes(access_)) return Exit(guard, MemoryFault(access_.Without(allowed)));

    if (!backing_) backing_ = vm_.env.pages->Ready(gfn_, kind_);
    if (!backing_) {
      resolve_.emplace(guard, vm_.resolves, gfn_);
      return NeedPage{};
    }
    // Always on (D8): a frame of another kind, slot or VM never gets into a root. If the page was
    // resolved for a slot that is gone, or has moved, it is no bug.
    if (page_ && *page_ != *pfn) {
      if (!StillValid(guard, GfnRange{gfn_, 1})) return FaultOutcome(Retry{});
      return Bug("the page source gave a frame of another backing");
    }

    const DirtyLog* log = vm_.log.load(std::memory_order_acquire);
    if (log != nullptr && why_ == Why::kFault && log->SoftFull(vcpu_))
      return Exit(guard, DirtyRingFull{});
    const LeafWish wish{.gfn = gfn_,
                        .pfn = *pfn,
                        .slot = slot->range,
                        .attributes = attributes,
                        .backing = *backing_,
                        .access = access_,
                        .log = log};
    const LevelChoice choice = LevelFor(vm_, guard, root_, wish);
    const MapRequest request{.gfn = gfn_,
                             .pfn = *pfn,
                             .level = choice.level,
                             .access = access_,
                             .leaf = LeafOf(vm_, guard, root_, wish)};
    // The mark before the right to write: see dirty_log.h.
    if (log != nullptr && log->withholds_write() && access_.write()) log->Mark(gfn_, vcpu_);
    const MapOutcome outcome = Map(guard, *vm_.env.pool, vm_.change, root_, request, preload,
                                   [&](GfnRange leaf) { return StillValid(guard, leaf); });
    if (const auto* there = std::get_if<LeafInTheWay>(&outcome)) {
      return GiveRight(guard, *there, log, preload);
    }
    return Finish(guard, outcome);
  }

  // A leaf stands there that does not grant the access, which attributes and alias allow: the right
  // was withheld, and comes back by one exchange, or by splitting a page that is too large for it.
  Look GiveRight(const EpochGuard& guard, const LeafInTheWay& there, const DirtyLog* log,
                 PreloadedTables& preload) {
    EptEntry leaf = there.leaf;
    if (HasSavedAccess(leaf)) leaf = WithRestoredAccess(leaf);
    const bool large = there.level != Level::k4K;
    const bool split = large && ((access_.fetch() && IsNxHugePage(leaf)) ||
                                 (access_.write() && !leaf.access().write() && log != nullptr));
    if (split) return Split(guard, there, preload);
    if (access_.write() && !leaf.access().write() && MayWrite(leaf)) leaf = WithWrite(leaf);
    if (!leaf.access().Includes(access_)) {
      // Only if what was read still holds: a change of attributes may have just made it so.
      if (!StillValid(guard, GfnRange{gfn_, 1})) return FaultOutcome(Retry{});
      return Bug(absl::StrCat("the leaf at gfn 0x", absl::Hex(gfn_.value),
                              " denies what its attributes allow"));
    }
    if (root_.external != nullptr) {
      return Finish(
          guard, Install(guard, vm_.change, root_, *there.slot, gfn_, there.level, there.leaf, leaf,
                         [&](GfnRange range) { return StillValid(guard, range); }));
    }
    if (vm_.change.ChangeRights(guard, *there.slot, there.leaf, leaf) == ChangeResult::kRaced) {
      return FaultOutcome(Retry{});
    }
    vm_.counts.Add(VmCount::kFaultFast);
    return FaultOutcome(Fixed{there.level});
  }

  // The next look finds the small pages.
  Look Split(const EpochGuard& guard, const LeafInTheWay& there, PreloadedTables& preload) {
    if (root_.external != nullptr) {
      // Its owner is told by the holder of the Turn only.
      return NeedSplit{there.level};
    }
    if (preload.empty()) return NeedTables{1};
    Table& child = preload.Take();
    if (SplitLeaf(guard, vm_.change, root_, *there.table, *there.slot, there.leaf, child, gfn_) ==
        ChangeResult::kRaced) {
      preload.Return(child);
    } else {
      vm_.counts.Add(VmCount::kSplitFault);
    }
    return Again{};
  }

  Look Finish(const EpochGuard&, const MapOutcome& outcome) {
    if (const auto* mapped = std::get_if<Mapped>(&outcome))
      return FaultOutcome(Fixed{mapped->level});
    if (std::holds_alternative<AlreadyMapped>(outcome)) return FaultOutcome(Spurious{});
    if (const auto* need = std::get_if<NeedTables>(&outcome)) return *need;
    if (const auto* frozen = std::get_if<FrozenSlot>(&outcome)) {
      vm_.external_sets.fetch_add(1, std::memory_order_relaxed);
      return *frozen;
    }
    if (const auto* broken = std::get_if<BrokenTables>(&outcome)) {
      return Bug(absl::StrCat("an entry links table 0x", absl::Hex(broken->table.value),
                              ", which is not in the pool"));
    }
    return FaultOutcome(Retry{});  // Raced
  }

  // A large leaf of an external root that must be small now: in its turn.
  std::optional<FaultOutcome> SplitInTurn() {
    const absl::StatusOr<SplitResult> split =
        SplitPages(vm_, LeafRange(gfn_, Level::k4K), Level::k4K);
    if (!split.ok()) return Failed{split.status()};
    if (split->kept == 0) return std::nullopt;
    // It cannot be split: it goes, and comes back small.
    const Turn turn(vm_.turn_mutex);
    absl::Status zapped = Invalidation(turn, vm_, {{gfn_, 1}}).Zap({&kind_, 1});
    if (!zapped.ok()) return Failed{std::move(zapped)};
    return Retry{};
  }

  // E1: the slot is this thread's until the external table has answered, and pins its table, so no
  // guard is held.
  FaultOutcome TellExternal(const FrozenSlot& frozen) {
    const absl::Status set = root_.external->Set(frozen.gfn, frozen.level, frozen.leaf.access(),
                                                 PfnOf(frozen.leaf.address()));
    if (set.ok()) {
      vm_.change.Publish(root_, *frozen.slot, frozen.level, frozen.before, frozen.leaf);
    } else {
      vm_.change.Restore(*frozen.slot, frozen.before);
    }
    vm_.external_sets.fetch_sub(1, std::memory_order_release);
    if (!set.ok()) return Failed{set};
    if (frozen.before == frozen.leaf) return Spurious{};
    return Fixed{frozen.level};
  }

  // Without a guard: may block. The frame is compared with the memslot's in the next look.
  std::optional<FaultOutcome> ResolvePage() {
    absl::StatusOr<PageSource::Page> page = vm_.env.pages->Resolve(gfn_, kind_);
    if (absl::IsUnavailable(page.status())) {
      if (why_ == Why::kPopulate) return PagePending{layout_.GpaOf(gfn_, MemoryKind::kPrivate), {}};
      // Waits first, then asks once more: the page may have come in between.
      vm_.page_waiters.Add(gfn_, kind_, vcpu_);
      page = vm_.env.pages->Resolve(gfn_, kind_);
      if (absl::IsUnavailable(page.status())) {
        return PagePending{layout_.GpaOf(gfn_, MemoryKind::kPrivate),
                           kind_ == MemoryKind::kShared || vm_.config.tell_private_pending};
      }
      vm_.page_waiters.Remove(gfn_, kind_, vcpu_);
    }
    resolve_.reset();
    if (page.ok()) {
      page_ = page->pfn;
      backing_ = page->max_level;
      return std::nullopt;
    }
    const EpochGuard guard;
    // A slot that went, or moved, has no pages here.
    if (!StillValid(guard, GfnRange{gfn_, 1})) return Retry{};
    if (absl::IsFailedPrecondition(page.status())) return MemoryFault();
    return Failed{page.status()};
  }

  bool StillValid(const EpochGuard& guard, GfnRange range) const {
    return vm_.seq.StillValid(guard, range, snapshot_);
  }
  // What was read says that the guest must leave: only if it still holds.
  FaultOutcome Exit(const EpochGuard& guard, FaultOutcome outcome) const {
    if (!StillValid(guard, GfnRange{gfn_, 1})) return Retry{};
    return outcome;
  }

  Look MmioExit(const EpochGuard& guard, PreloadedTables& preload) {
    if (leave_mark_) {
      const std::optional<NeedTables> need =
          MarkMmio(vm_, guard, root_, gfn_, preload,
                   [&](GfnRange range) { return StillValid(guard, range); });
      need_is_for_mark_ = need.has_value();
      if (need) return *need;
    }
    return Exit(guard, Mmio{UnaliasedGpa()});
  }

  FaultOutcome Bug(const std::string& what) {
    vm_.bugs.ReportBug(what);
    return Failed{vm_.bugs.Check()};
  }

  Gpa UnaliasedGpa() const {
    return layout_.GpaOf(gfn_, MemoryKind::kPrivate, raw_.value & kPageOffsetMask);
  }
  MemoryFaultExit MemoryFault(Access denied = Access::None()) const {
    return {.gpa = layout_.GpaOf(gfn_, MemoryKind::kPrivate),
            .size = kPageSize,
            .wanted = kind_,
            .denied = denied};
  }

  AddressSpaceState& vm_;
  const Why why_;
  bool leave_mark_;
  bool need_is_for_mark_ = false;  // the tables that the last look lacked
  const GpaLayout& layout_;
  const Gpa raw_;
  const Access access_;
  const uint32_t vcpu_;
  const Gfn gfn_;
  const MemoryKind kind_;
  const Root& root_;
  uint64_t snapshot_ = 0;
  std::optional<Level> backing_;  // the page is there; the largest leaf around it
  std::optional<Pfn> page_;       // as Resolve named it
  std::optional<PageResolves::Resolve> resolve_;
};

VmCount CountOf(const FaultOutcome& outcome) {
  struct Counter {
    VmCount operator()(const Fixed&) { return VmCount::kFaultFixed; }
    VmCount operator()(const Spurious&) { return VmCount::kFaultSpurious; }
    VmCount operator()(const Retry&) { return VmCount::kFaultRetry; }
    VmCount operator()(const Mmio&) { return VmCount::kFaultMmio; }
    VmCount operator()(const MemoryFaultExit&) { return VmCount::kFaultMemory; }
    VmCount operator()(const PagePending&) { return VmCount::kFaultPending; }
    VmCount operator()(const DirtyRingFull&) { return VmCount::kFaultPending; }
    VmCount operator()(const Failed&) { return VmCount::kFaultFailed; }
  };
  return std::visit(Counter{}, outcome);
}

}  // namespace

FaultOutcome HandleFault(AddressSpaceState& vm, const Fault& fault) {
  FaultOutcome outcome = FaultHandler(vm, fault, FaultHandler::Why::kFault).Handle();
  vm.counts.Add(CountOf(outcome));
  return outcome;
}

FaultOutcome PopulatePage(AddressSpaceState& vm, Gpa gpa) {
  const Fault nothing{gpa, Access::None()};
  return FaultHandler(vm, nothing, FaultHandler::Why::kPopulate).Handle();
}

}  // namespace twinroot::mmu
