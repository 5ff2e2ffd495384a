#include "mmu/vm/fault_handler.h"

#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "mmu/engine/map.h"
#include "mmu/engine/max_level.h"
#include "mmu/engine/zap.h"

namespace twinroot::mmu {
namespace {

// What a fault asks for, as the layout reads its address.
struct Wanted {
  Gfn gfn;
  MemoryKind kind;
};

// What the first look, under the lock, says of it.
struct Target {
  GfnRange slot;
  Pfn pfn;  // where the frame must be (D8)
};

class FaultHandler {
 public:
  FaultHandler(AddressSpaceState& vm, const Fault& fault)
      : vm_(vm),
        layout_(vm.config.layout),
        raw_(fault.gpa),
        wanted_{layout_.GfnOf(fault.gpa), layout_.KindOf(fault.gpa)} {}

  FaultOutcome Handle() {
    if (absl::Status bugged = vm_.bugs.Check(); !bugged.ok()) return Failed{std::move(bugged)};
    if (absl::Status reserved = layout_.CheckReserved(raw_); !reserved.ok()) {
      return Failed{std::move(reserved)};
    }

    // Before anything is read: what changes from here on makes the check under the lock fail.
    const uint64_t snapshot = vm_.seq.Snapshot(wanted_.gfn);
    Target target;
    if (std::optional<FaultOutcome> exit = Look(snapshot, target)) return *std::move(exit);

    const absl::StatusOr<PageSource::Page> page = vm_.env.pages->Resolve(wanted_.gfn, wanted_.kind);
    if (!page.ok()) {
      if (absl::IsFailedPrecondition(page.status())) return MemoryFault();
      return Failed{page.status()};
    }
    // Always on (D8): a frame of another kind, slot or VM never gets into a root.
    if (page->pfn != target.pfn) return Bug("the page source gave a frame of another backing");

    PreloadedTables preload(*vm_.env.pool);
    while (true) {
      MapOutcome outcome = MapUnderLock(snapshot, target, *page, preload);
      if (const auto* need = std::get_if<NeedTables>(&outcome)) {
        const absl::Status loaded = vm_.env.pool->Preload(need->count, preload);
        if (!loaded.ok()) return Failed{loaded};
        continue;
      }
      return Finish(std::move(outcome));
    }
  }

 private:
  // Attribute, memslot, backing. An outcome if the fault ends here.
  std::optional<FaultOutcome> Look(uint64_t snapshot, Target& target) {
    const MmuLock::Shared lock(vm_.mmu_lock);
    if (vm_.seq.MustRetry(lock, wanted_.gfn, snapshot)) return Retry{};
    const Memslot* slot = vm_.slots.Find(lock, wanted_.gfn);
    // Without a shared bit there is no other kind to ask for: outside the slots all is MMIO.
    if (slot == nullptr && !layout_.shared_bit()) return Mmio{UnaliasedGpa()};
    // The attribute comes before the slot (D1); outside the slots everything is shared.
    if (vm_.attributes.Get(lock, wanted_.gfn) != wanted_.kind) return MemoryFault();
    if (slot == nullptr) return Mmio{UnaliasedGpa()};
    const std::optional<Pfn> pfn = BackingOf(*slot, wanted_.gfn, wanted_.kind);
    if (!pfn) return MemoryFault();  // D2
    target = {slot->range, *pfn};
    return std::nullopt;
  }

  MapOutcome MapUnderLock(uint64_t snapshot, const Target& target, const PageSource::Page& page,
                          PreloadedTables& preload) {
    const Root& root = vm_.roots.Of(wanted_.kind);
    const Level external = root.external != nullptr ? root.external->MaxLevel() : kLargestLeaf;
    const MmuLock::Shared lock(vm_.mmu_lock);
    if (vm_.seq.MustRetry(lock, wanted_.gfn, snapshot)) return Raced{};
    const LevelLimits limits{.gfn = wanted_.gfn,
                             .pfn = page.pfn,
                             .slot = target.slot,
                             .backing = page.max_level,
                             .external = external,
                             .capabilities = vm_.config.capabilities};
    const Level level =
        MaxLevel(limits, [&](Level at) { return vm_.attributes.UniformAt(lock, wanted_.gfn, at); });
    return Map(lock, *vm_.env.pool, vm_.change, root,
               MapRequest{.gfn = wanted_.gfn, .pfn = page.pfn, .level = level}, preload);
  }

  FaultOutcome Finish(MapOutcome outcome) {
    if (const auto* mapped = std::get_if<Mapped>(&outcome)) return Fixed{mapped->level};
    if (std::holds_alternative<AlreadyMapped>(outcome)) return Spurious{};
    if (auto* failed = std::get_if<ExternalFailed>(&outcome)) {
      if (absl::Status pruned = Prune(); !pruned.ok()) return Failed{std::move(pruned)};
      return Failed{std::move(failed->status)};
    }
    if (const auto* broken = std::get_if<BrokenTables>(&outcome)) {
      return Bug(absl::StrCat("an entry links table 0x", absl::Hex(broken->table.value),
                              ", which is not in the pool"));
    }
    return Retry{};  // Raced
  }

  // A map that the external table refused leaves no trace: tables made for it go again.
  absl::Status Prune() {
    FlushBatch batch = vm_.NewBatch();
    const MmuLock::Exclusive lock(vm_.mmu_lock);
    PruneEmptyTables(lock, *vm_.env.pool, vm_.change, vm_.roots.Of(wanted_.kind),
                     GfnRange{wanted_.gfn, 1}, batch);
    return batch.Finish(lock);
  }

  FaultOutcome Bug(const std::string& what) {
    vm_.bugs.ReportBug(what);
    return Failed{vm_.bugs.Check()};
  }

  Gpa UnaliasedGpa() const {
    return layout_.GpaOf(wanted_.gfn, MemoryKind::kPrivate, raw_.value & kPageOffsetMask);
  }
  MemoryFaultExit MemoryFault() const {
    return {.gpa = layout_.GpaOf(wanted_.gfn, MemoryKind::kPrivate),
            .size = kPageSize,
            .wanted = wanted_.kind};
  }

  AddressSpaceState& vm_;
  const GpaLayout& layout_;
  const Gpa raw_;
  const Wanted wanted_;
};

void Count(FaultCounts& counts, const FaultOutcome& outcome) {
  struct Counter {
    FaultCounts& counts;
    std::atomic<uint64_t>& operator()(const Fixed&) { return counts.fixed; }
    std::atomic<uint64_t>& operator()(const Spurious&) { return counts.spurious; }
    std::atomic<uint64_t>& operator()(const Retry&) { return counts.retry; }
    std::atomic<uint64_t>& operator()(const Mmio&) { return counts.mmio; }
    std::atomic<uint64_t>& operator()(const MemoryFaultExit&) { return counts.memory; }
    std::atomic<uint64_t>& operator()(const Failed&) { return counts.failed; }
  };
  std::visit(Counter{counts}, outcome).fetch_add(1, std::memory_order_relaxed);
}

}  // namespace

FaultOutcome HandleFault(AddressSpaceState& vm, const Fault& fault) {
  FaultOutcome outcome = FaultHandler(vm, fault).Handle();
  Count(vm.faults, outcome);
  return outcome;
}

}  // namespace twinroot::mmu
