#include "mmu/vm/fault_handler.h"

#include <algorithm>
#include <iterator>
#include <optional>
#include <type_traits>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "mmu/engine/map.h"
#include "mmu/engine/prune.h"
#include "mmu/engine/split.h"
#include "mmu/tables/descent.h"
#include "mmu/vm/invalidation.h"
#include "mmu/vm/leaf_choice.h"
#include "mmu/vm/mmio_cache.h"
#include "mmu/vm/page_sizes.h"
#include "mmu/vm/usual_fault.h"
#include "mmu/vm/zap_all.h"

namespace twinroot::mmu {
namespace {

// What is to be done after one look at a fault, inside a guard.
enum class Next : uint8_t {
  kDone,         // the outcome says it
  kResolvePage,  // the page source is to be asked
  kLoadTables,   // tables are missing
  kSplitInTurn,  // a large leaf of an external root must be small
  kPruneInTurn,  // an empty table stands where a large leaf could
  kLookAgain,
  kTellExternal,  // a slot was left frozen
};

class FaultHandler {
 public:
  enum class Why : uint8_t { kFault, kPopulate };  // kPopulate: no vCPU is behind it

  // `outcome`: where the answer goes; it holds a Fixed so far.
  FaultHandler(AddressSpaceState& vm, const Fault& fault, Why why, FaultOutcome& outcome)
      : vm_(vm),
        outcome_(outcome),
        why_(why),
        leave_mark_(why == Why::kFault),
        layout_(vm.config.layout),
        raw_(fault.gpa),
        access_(fault.access),
        vcpu_(fault.vcpu),
        gfn_(layout_.GfnOf(fault.gpa)),
        kind_(layout_.KindOf(fault.gpa)),
        root_(vm.roots.Of(kind_, layout_.IsExecuteOnly(fault.gpa))) {}

  void Handle() {
    Answer();
    if (made_small_) vm_.nx_record.Add(gfn_);
  }

 private:
  void Answer() {
    if (vm_.bugs.bugged()) return Answer(Failed{vm_.bugs.Check()});
    if (layout_.HasReservedBits(raw_)) return Answer(Failed{layout_.CheckReserved(raw_)});
    // Before anything is read: a change from here on makes the check of the frozen slot fail.
    snapshot_ = vm_.seq.Snapshot(gfn_);
    PreloadedTables preload(*vm_.env.pool);
    Next next = LookOnce(preload);
    while (next != Next::kDone) [[unlikely]] next = GoOn(next, preload);
  }

  void Answer(FaultOutcome outcome) { outcome_ = std::move(outcome); }
  Next Done(FaultOutcome outcome) {
    outcome_ = std::move(outcome);
    return Next::kDone;
  }
  // What most faults end with, without a look at what the outcome held.
  Next DoneFixed(Level level) {
    std::get_if<Fixed>(&outcome_)->level = level;
    return Next::kDone;
  }

  // Everything that needs more than a look, without a guard.
  Next GoOn(Next next, PreloadedTables& preload) {
    switch (next) {
      case Next::kResolvePage:
        if (std::optional<FaultOutcome> end = ResolvePage()) return Done(*std::move(end));
        break;
      case Next::kLoadTables: {
        absl::Status loaded = PreloadTables(vm_, tables_needed_, preload);
        if (!loaded.ok() && !need_is_for_mark_) return Done(Failed{std::move(loaded)});
        if (!loaded.ok()) leave_mark_ = false;  // it goes without
        break;
      }
      case Next::kSplitInTurn:
        if (std::optional<FaultOutcome> end = SplitInTurn()) return Done(*std::move(end));
        break;
      case Next::kPruneInTurn:
        pruned_ = true;
        PruneIfIdle(vm_, root_, LeafRange(gfn_, prune_at_));
        break;
      case Next::kTellExternal:
        return Done(TellExternal(frozen_));
      case Next::kLookAgain:
      case Next::kDone:
        break;
    }
    return LookOnce(preload);
  }

  // Attribute, memslot, backing, rights, page, level, leaf: in this order (D1).
  Next LookOnce(PreloadedTables& preload) {
    const EpochGuard guard;
    need_is_for_mark_ = false;
    // Nothing is written, not even a table on the way, while a change of this frame is under way:
    // so after Begin and an epoch nothing below its ranges moves but by the change (Quiet).
    if (!StillValid(guard, GfnRange{gfn_, 1})) return Done(Retry{});
    const Memslot* slot = vm_.slots.Find(guard, gfn_);
    // Without a shared bit there is no other kind to ask for: outside the slots all is MMIO.
    if (slot == nullptr && !layout_.shared_bit()) return MmioExit(guard, preload);
    // Between the last frame that an unaliased address can name and the guest's width nothing is.
    const MemoryAttributes attributes =
        gfn_ < vm_.gfn_limit ? vm_.attributes.Get(guard, gfn_) : MemoryAttributes{};
    // The attribute comes before the slot; outside the slots everything is shared.
    if (attributes.kind != kind_) return Exit(guard, MemoryFault());
    if (slot == nullptr) return MmioExit(guard, preload);
    const std::optional<Pfn> pfn = BackingOf(*slot, gfn_, kind_);
    if (!pfn) return Exit(guard, MemoryFault());  // D2
    const Access allowed = attributes.allowed() & root_.rights();
    if (!allowed.Includes(access_)) return Exit(guard, MemoryFault(access_.Without(allowed)));

    if (!backing_) backing_ = vm_.env.pages->Ready(gfn_, kind_);
    if (!backing_) {
      wanted_ = Wanted(guard, *slot, *pfn, attributes);
      resolve_.emplace(guard, vm_.resolves, gfn_);
      return Next::kResolvePage;
    }
    // Always on (D8): a frame of another kind, slot or VM never gets into a root. If the page was
    // resolved for a slot that is gone, or has moved, it is no bug.
    if (page_ && *page_ != *pfn) {
      if (!StillValid(guard, GfnRange{gfn_, 1})) return Done(Retry{});
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
    const LevelChoice choice =
        IsSmallAnyway(wish) ? LevelChoice{} : LevelFor(vm_, guard, root_, wish);
    if (choice.level > Level::k4K && !pruned_ &&
        EmptyTableAt(guard, *vm_.env.pool, root_, gfn_, choice.level)) {
      prune_at_ = choice.level;
      return Next::kPruneInTurn;
    }
    const MapRequest request{.gfn = gfn_,
                             .pfn = *pfn,
                             .level = choice.level,
                             .access = access_,
                             .leaf = LeafOf(vm_, guard, root_, wish)};
    const size_t tables = preload.size();
    const MapOutcome outcome = Map(guard, *vm_.env.pool, vm_.change, root_, request, preload,
                                   [&](GfnRange leaf) { return MarkIfValid(guard, leaf, log); });
    if (const auto* there = std::get_if<LeafInTheWay>(&outcome)) [[unlikely]] {
      return GiveRight(guard, *there, log, preload);
    }
    if (preload.size() < tables && !std::holds_alternative<Mapped>(outcome)) [[unlikely]] {
      // What it linked may stay empty.
      vm_.counts.Add(VmCount::kTablesLeft);
    }
    // The first small page where a large one would stand but for its fetches.
    if (choice.veto == LevelVeto::kNxMitigation && preload.size() < tables) {
      made_small_ = true;
    }
    return Finish(guard, outcome);
  }

  // A leaf stands there that does not grant the access, which attributes and alias allow: the right
  // was withheld, and comes back by one exchange, or by splitting a page that is too large for it.
  Next GiveRight(const EpochGuard& guard, const LeafInTheWay& there, const DirtyLog* log,
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
      if (!StillValid(guard, GfnRange{gfn_, 1})) return Done(Retry{});
      return Bug(absl::StrCat("the leaf at gfn 0x", absl::Hex(gfn_.value),
                              " denies what its attributes allow"));
    }
    if (root_.external != nullptr) {
      return Finish(
          guard, Install(guard, vm_.change, root_, *there.slot, gfn_, there.level, there.leaf, leaf,
                         [&](GfnRange range) { return MarkIfValid(guard, range, log); }));
    }
    MarkWrite(log);
    if (vm_.change.ChangeRights(guard, *there.slot, there.leaf, leaf) == ChangeResult::kRaced) {
      return Done(Retry{});
    }
    vm_.counts.Add(VmCount::kFaultFast);
    return DoneFixed(there.level);
  }

  // The next look finds the small pages.
  Next Split(const EpochGuard& guard, const LeafInTheWay& there, PreloadedTables& preload) {
    if (root_.external != nullptr) {
      // Its owner is told by the holder of the Turn only.
      return Next::kSplitInTurn;
    }
    if (preload.empty()) return NeedTablesNow(1);
    Table& child = preload.Take();
    if (SplitLeaf(guard, vm_.change, root_, *there.table, *there.slot, there.leaf, child, gfn_) ==
        ChangeResult::kRaced) {
      preload.Return(child);
    } else {
      vm_.counts.Add(VmCount::kSplitFault);
      made_small_ = made_small_ || IsNxHugePage(there.leaf);
    }
    return Next::kLookAgain;
  }

  Next Finish(const EpochGuard&, const MapOutcome& outcome) {
    if (const auto* mapped = std::get_if<Mapped>(&outcome)) return DoneFixed(mapped->level);
    if (std::holds_alternative<AlreadyMapped>(outcome)) return Done(Spurious{});
    if (const auto* need = std::get_if<NeedTables>(&outcome)) return NeedTablesNow(need->count);
    if (const auto* frozen = std::get_if<FrozenSlot>(&outcome)) {
      vm_.external_sets.fetch_add(1, std::memory_order_relaxed);
      frozen_ = *frozen;
      return Next::kTellExternal;
    }
    if (const auto* broken = std::get_if<BrokenTables>(&outcome)) {
      return Bug(absl::StrCat("an entry links table 0x", absl::Hex(broken->table.value),
                              ", which is not in the pool"));
    }
    return Done(Retry{});  // Raced
  }

  // A large leaf of an external root that must be small now: in its turn.
  std::optional<FaultOutcome> SplitInTurn() {
    const absl::StatusOr<SplitResult> split =
        SplitPages(vm_, LeafRange(gfn_, Level::k4K), Level::k4K, VmCount::kSplitFault);
    if (const EpochGuard guard; !StillValid(guard, GfnRange{gfn_, 1})) return Retry{};
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
    absl::StatusOr<PageSource::Page> page = vm_.env.pages->Resolve(gfn_, kind_, wanted_);
    if (absl::IsUnavailable(page.status())) {
      if (why_ == Why::kPopulate) return PagePending{layout_.GpaOf(gfn_, MemoryKind::kPrivate), {}};
      // Waits first, then asks once more: the page may have come in between.
      vm_.page_waiters.Add(gfn_, kind_, vcpu_);
      if (const EpochGuard guard; !StillValid(guard, GfnRange{gfn_, 1})) {
        vm_.page_waiters.Remove(gfn_, kind_, vcpu_);
        return Retry{};
      }
      page = vm_.env.pages->Resolve(gfn_, kind_, wanted_);
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

  // The leaf that would stand if the page source brought all that it can.
  Level Wanted(const EpochGuard& guard, const Memslot& slot, Pfn pfn,
               const MemoryAttributes& attributes) const {
    const LeafWish wish{.gfn = gfn_,
                        .pfn = pfn,
                        .slot = slot.range,
                        .attributes = attributes,
                        .backing = vm_.env.pages->LargestLeaf(gfn_, kind_),
                        .access = access_,
                        .log = vm_.log.load(std::memory_order_acquire)};
    if (IsSmallAnyway(wish)) return Level::k4K;
    const Descent at = Descend(guard, *vm_.env.pool, root_, gfn_);
    if (at.slot == nullptr) return Level::k4K;
    return std::min(at.level, LevelFor(vm_, guard, root_, wish).level);
  }

  bool StillValid(const EpochGuard& guard, GfnRange range) const {
    return vm_.seq.StillValid(guard, range, snapshot_);
  }
  // The mark before the right to write: see dirty_log.h.
  void MarkWrite(const DirtyLog* log) const {
    if (log != nullptr && log->withholds_write() && access_.write()) log->Mark(gfn_, vcpu_);
  }
  // Asked with the slot frozen, so that a write which does not come about is not marked.
  bool MarkIfValid(const EpochGuard& guard, GfnRange range, const DirtyLog* log) const {
    if (!StillValid(guard, range)) return false;
    MarkWrite(log);
    return true;
  }
  // What was read says that the guest must leave: only if it still holds.
  Next Exit(const EpochGuard& guard, FaultOutcome outcome) {
    if (!StillValid(guard, GfnRange{gfn_, 1})) return Done(Retry{});
    return Done(std::move(outcome));
  }
  Next NeedTablesNow(size_t count) {
    tables_needed_ = count;
    return Next::kLoadTables;
  }

  Next MmioExit(const EpochGuard& guard, PreloadedTables& preload) {
    if (leave_mark_) {
      const std::optional<NeedTables> need =
          MarkMmio(vm_, guard, root_, gfn_, preload,
                   [&](GfnRange range) { return StillValid(guard, range); });
      need_is_for_mark_ = need.has_value();
      if (need) return NeedTablesNow(need->count);
    }
    return Exit(guard, Mmio{UnaliasedGpa()});
  }

  Next Bug(const std::string& what) {
    vm_.bugs.ReportBug(what);
    return Done(Failed{vm_.bugs.Check()});
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
  FaultOutcome& outcome_;
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
  Level wanted_ = Level::k4K;     // of Resolve
  std::optional<Level> backing_;  // the page is there; the largest leaf around it
  std::optional<Pfn> page_;       // as Resolve named it
  std::optional<PageResolves::Resolve> resolve_;
  size_t tables_needed_ = 0;
  Level prune_at_ = Level::k4K;
  bool pruned_ = false;  // once is enough
  FrozenSlot frozen_;
  bool made_small_ = false;  // because of the NX-huge-page mitigation
};

// In the order of FaultOutcome.
constexpr VmCount kCounts[] = {
    VmCount::kFaultFixed,  VmCount::kFaultSpurious, VmCount::kFaultRetry,   VmCount::kFaultMmio,
    VmCount::kFaultMemory, VmCount::kFaultPending,  VmCount::kFaultPending, VmCount::kFaultFailed};
static_assert(std::size(kCounts) == std::variant_size_v<FaultOutcome>);
static_assert(std::is_same_v<std::variant_alternative_t<0, FaultOutcome>, Fixed> &&
              std::is_same_v<std::variant_alternative_t<1, FaultOutcome>, Spurious> &&
              std::is_same_v<std::variant_alternative_t<2, FaultOutcome>, Retry> &&
              std::is_same_v<std::variant_alternative_t<3, FaultOutcome>, Mmio> &&
              std::is_same_v<std::variant_alternative_t<4, FaultOutcome>, MemoryFaultExit> &&
              std::is_same_v<std::variant_alternative_t<7, FaultOutcome>, Failed>);

[[gnu::noinline]] FaultOutcome HandleUnusual(AddressSpaceState& vm, const Fault& fault) {
  FaultOutcome outcome;
  FaultHandler(vm, fault, FaultHandler::Why::kFault, outcome).Handle();
  vm.counts.Add(CountOf(outcome));
  return outcome;
}

}  // namespace

VmCount CountOf(const FaultOutcome& outcome) { return kCounts[outcome.index()]; }

FaultOutcome HandleFault(AddressSpaceState& vm, const Fault& fault) {
  if (const std::optional<Level> level = HandleUsual(vm, fault.gpa, fault.access)) [[likely]] {
    vm.counts.Add(VmCount::kFaultFixed);
    return Fixed{*level};
  }
  return HandleUnusual(vm, fault);
}

FaultOutcome PopulatePage(AddressSpaceState& vm, Gpa gpa) {
  if (const std::optional<Level> level = HandleUsual(vm, gpa, Access::None())) return Fixed{*level};
  FaultOutcome outcome;
  FaultHandler(vm, {gpa, Access::None()}, FaultHandler::Why::kPopulate, outcome).Handle();
  return outcome;
}

}  // namespace twinroot::mmu
