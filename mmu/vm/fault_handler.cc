#include "mmu/vm/fault_handler.h"

#include <optional>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "mmu/engine/map.h"
#include "mmu/engine/max_level.h"
#include "mmu/vm/mmio_cache.h"
#include "mmu/vm/zap_all.h"

namespace twinroot::mmu {
namespace {

// One look at a fault, inside a guard, ends it, or says what it lacks.
struct NeedPage {};
using Look = std::variant<FaultOutcome, NeedPage, NeedTables, FrozenSlot>;

class FaultHandler {
 public:
  enum class MmioMarks : uint8_t { kLeave, kNone };

  FaultHandler(AddressSpaceState& vm, const Fault& fault, MmioMarks marks)
      : vm_(vm),
        marks_(marks),
        layout_(vm.config.layout),
        raw_(fault.gpa),
        access_(fault.access),
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
          marks_ = MmioMarks::kNone;  // it goes without
        } else if (!loaded.ok()) {
          return Failed{std::move(loaded)};
        }
      } else if (std::optional<FaultOutcome> failed = ResolvePage()) {
        return *std::move(failed);
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

    const LevelChoice choice = ChooseLevel(
        LevelLimits{
            .gfn = gfn_,
            .pfn = *pfn,
            .slot = slot->range,
            .backing = *backing_,
            .external = root_.external != nullptr ? root_.external->MaxLevel() : kLargestLeaf,
            .capabilities = vm_.config.capabilities},
        [&](Level level) { return vm_.attributes.UniformAt(guard, gfn_, level); },
        [](Level) { return true; });
    const MapRequest request{.gfn = gfn_,
                             .pfn = *pfn,
                             .level = choice.level,
                             .access = access_,
                             .leaf = {.allowed = allowed}};
    return Finish(guard, Map(guard, *vm_.env.pool, vm_.change, root_, request, preload,
                             [&](GfnRange leaf) { return StillValid(guard, leaf); }));
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
    const absl::StatusOr<PageSource::Page> page = vm_.env.pages->Resolve(gfn_, kind_);
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
    if (marks_ == MmioMarks::kLeave) {
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
  MmioMarks marks_;
  bool need_is_for_mark_ = false;  // the tables that the last look lacked
  const GpaLayout& layout_;
  const Gpa raw_;
  const Access access_;
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
    VmCount operator()(const Failed&) { return VmCount::kFaultFailed; }
  };
  return std::visit(Counter{}, outcome);
}

}  // namespace

FaultOutcome HandleFault(AddressSpaceState& vm, const Fault& fault) {
  FaultOutcome outcome = FaultHandler(vm, fault, FaultHandler::MmioMarks::kLeave).Handle();
  vm.counts.Add(CountOf(outcome));
  return outcome;
}

FaultOutcome PopulatePage(AddressSpaceState& vm, Gpa gpa) {
  const Fault nothing{gpa, Access::None()};
  return FaultHandler(vm, nothing, FaultHandler::MmioMarks::kNone).Handle();
}

}  // namespace twinroot::mmu
