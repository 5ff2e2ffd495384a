#include "mmu/vm/guest_address_space.h"

#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "mmu/engine/audit.h"
#include "mmu/tables/cursor.h"
#include "mmu/vm/address_space_state.h"
#include "mmu/vm/attribute_change.h"
#include "mmu/vm/dirty_tracking.h"
#include "mmu/vm/fault_handler.h"
#include "mmu/vm/invalidation.h"
#include "mmu/vm/mem_type_change.h"
#include "mmu/vm/page_sizes.h"

namespace twinroot::mmu {

class GuestAddressSpace::Impl : public AddressSpaceState {
 public:
  using AddressSpaceState::AddressSpaceState;

  absl::Status CheckLeaf(const MmuRead& read, MemoryKind kind, Gfn gfn, Level level,
                         EptEntry entry) const;
};

namespace {

absl::Status CheckConfig(const GuestAddressSpace::Config& config,
                         const GuestAddressSpace::Environment& env) {
  if (env.pool == nullptr || env.pages == nullptr) {
    return absl::InvalidArgumentError("an address space needs a table pool and a page source");
  }
  if (config.host_maxphyaddr < 39 || config.host_maxphyaddr > 52) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the host's physical address width is 39 to 52 bits, not ", config.host_maxphyaddr));
  }
  const int levels = config.layout.walk_bits() == 57 ? 5 : 4;
  if (!config.capabilities.Walks(levels)) {
    return absl::InvalidArgumentError(
        absl::StrCat("the processor's EPT has no walk of ", levels, " levels"));
  }
  if ((env.pool->base() + env.pool->pages() * kPageSize).value >> config.host_maxphyaddr != 0) {
    return absl::InvalidArgumentError("the table pool lies beyond the host's physical addresses");
  }
  if (config.layout.execute_only_bit() && !config.capabilities.execute_only) {
    return absl::InvalidArgumentError(
        "the processor's EPT has no execute-only pages, so no alias can be execute-only");
  }
  // A6.
  if (config.layout.has_stolen_bits() && config.legacy_guest_paging) {
    return absl::InvalidArgumentError(
        "stolen GPA bits do not go with 32-bit guest paging, whose tables cannot name them; use "
        "PAE or long mode, or a VM without stolen bits");
  }
  if (config.layout.has_stolen_bits() && config.nested_ept) {
    return absl::InvalidArgumentError(
        "stolen GPA bits do not go with nested EPT, whose entries would carry them as addresses; "
        "use a VM without stolen bits");
  }
  return absl::OkStatus();
}

}  // namespace

GuestAddressSpace::GuestAddressSpace(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
GuestAddressSpace::~GuestAddressSpace() = default;

absl::StatusOr<std::unique_ptr<GuestAddressSpace>> GuestAddressSpace::Create(
    const Config& config, const Environment& environment) {
  if (absl::Status status = CheckConfig(config, environment); !status.ok()) return status;
  auto impl = std::make_unique<Impl>(config, environment);
  if (absl::Status status =
          impl->roots.Create(config.layout, config.arrangement, environment.external_private,
                             environment.external_shared);
      !status.ok()) {
    return status;
  }
  return std::unique_ptr<GuestAddressSpace>(new GuestAddressSpace(std::move(impl)));
}

absl::Status GuestAddressSpace::AddMemslot(const Memslot& slot) {
  Impl& vm = *impl_;
  if (absl::Status status = vm.bugs.Check(); !status.ok()) return status;
  const std::string name = absl::StrCat("memslot at 0x", absl::Hex(slot.range.first.value << 12));
  const uint64_t limit = vm.config.layout.gfn_limit().value;
  if (slot.range.empty()) return absl::InvalidArgumentError(name + " is empty");
  if (slot.range.first.value >= limit || slot.range.count > limit - slot.range.first.value) {
    return absl::InvalidArgumentError(
        absl::StrCat(name, " ends beyond the last guest address 0x", absl::Hex((limit << 12) - 1)));
  }
  if (!slot.private_pfn && !slot.shared_pfn) {
    return absl::InvalidArgumentError(name + " has no backing");
  }
  const uint64_t frames = uint64_t{1} << (vm.config.host_maxphyaddr - kPageShift);
  for (const std::optional<Pfn>& pfn : {slot.private_pfn, slot.shared_pfn}) {
    if (!pfn) continue;
    if (pfn->value >= frames || slot.range.count > frames - pfn->value) {
      return absl::InvalidArgumentError(
          absl::StrCat(name, " has a backing beyond the host's physical address width of ",
                       vm.config.host_maxphyaddr));
    }
    const Pfn tables = PfnOf(vm.env.pool->base());
    if (*pfn < tables + vm.env.pool->pages() && tables < *pfn + slot.range.count) {
      return absl::InvalidArgumentError(name + " has page-table pages as backing");
    }
  }

  const Turn turn(vm.turn_mutex);
  if (absl::Status status = vm.slots.Check(turn, slot); !status.ok()) {
    return absl::Status(status.code(), absl::StrCat(name, " ", status.message()));
  }
  constexpr MemoryAttributes kNew{MemoryKind::kPrivate, Access::None()};
  if (absl::Status prepared = vm.attributes.Prepare(turn, slot.range, kNew); !prepared.ok()) {
    vm.attributes.Collapse(turn, slot.range);
    return prepared;
  }
  std::vector<GfnRange> slots = {slot.range};
  for (const Memslot& other : vm.slots.all(turn)) slots.push_back(other.range);
  if (absl::Status logged = LogSlots(turn, vm, std::move(slots)); !logged.ok()) {
    vm.attributes.Collapse(turn, slot.range);
    return logged;
  }
  // Accesses there were MMIO so far: what was found out before is out of date.
  Invalidation invalidation(turn, vm, {slot.range});
  invalidation.Commit([&] {
    vm.attributes.Set(turn, slot.range, kNew);
    vm.slots.Add(turn, slot);
    vm.frames[static_cast<int>(MemoryKind::kPrivate)] += slot.range.count;
  });
  vm.attributes.Collapse(turn, slot.range);
  return absl::OkStatus();
}

FaultOutcome GuestAddressSpace::HandleFault(const Fault& fault) {
  return mmu::HandleFault(*impl_, fault);
}

absl::StatusOr<AttributeChangeResult> GuestAddressSpace::SetMemoryAttributes(
    const AttributeChange& change) {
  return ChangeAttributes(*impl_, change);
}

absl::StatusOr<std::vector<AttributeRun>> GuestAddressSpace::GetMemoryAttributes(
    GfnRange range) const {
  const Impl& vm = *impl_;
  if (absl::Status status = vm.bugs.Check(); !status.ok()) return status;
  // Not in the middle of a change.
  const Turn turn(vm.turn_mutex);
  if (absl::Status status = CheckRange(vm, turn, range); !status.ok()) return status;
  std::vector<AttributeRun> runs;
  vm.attributes.ForEachRun(turn, range, [&runs](GfnRange run, MemoryAttributes attributes) {
    runs.push_back({run, attributes.kind, attributes.denied});
  });
  return runs;
}

std::vector<AttributeRun> GuestAddressSpace::GetMemoryAttributes() const {
  const Impl& vm = *impl_;
  const Turn turn(vm.turn_mutex);
  std::vector<AttributeRun> runs;
  for (const Memslot& slot : vm.slots.all(turn)) {
    vm.attributes.ForEachRun(turn, slot.range, [&runs](GfnRange run, MemoryAttributes attributes) {
      // Slots may be neighbours.
      if (!runs.empty() && runs.back().kind == attributes.kind &&
          runs.back().denied == attributes.denied && runs.back().range.end() == run.first) {
        runs.back().range.count += run.count;
      } else {
        runs.push_back({run, attributes.kind, attributes.denied});
      }
    });
  }
  return runs;
}

absl::StatusOr<Translation> GuestAddressSpace::Translate(Gpa gpa, MemoryKind alias,
                                                         bool execute_only) const {
  const Impl& vm = *impl_;
  const GpaLayout& layout = vm.config.layout;
  if (layout.HasStolenBits(gpa)) {
    return absl::InvalidArgumentError(
        absl::StrCat("address 0x", absl::Hex(gpa.value),
                     " carries the shared bit; give the address without it, and the alias"));
  }
  if (absl::Status status = layout.CheckReserved(gpa); !status.ok()) return status;
  if (!vm.roots.Has(alias)) {
    return absl::InvalidArgumentError("this VM has no shared bit, hence no shared alias");
  }
  if (execute_only && !layout.execute_only_bit()) {
    return absl::InvalidArgumentError("this VM has no execute-only alias");
  }
  const Gfn gfn = layout.GfnOf(gpa);
  const Root& root = vm.roots.Of(alias, execute_only);
  Translation translation;
  translation.ept_pointer = ept_pointer(alias);
  const EpochGuard guard;
  translation.attribute = vm.attributes.Get(guard, gfn).kind;
  Cursor at(guard, *vm.env.pool, root, GfnRange{gfn, 1});
  while (true) {
    const EptEntry entry = at.entry();
    translation.steps.push_back({.level = at.level(),
                                 .index = at.index(),
                                 .entry_hpa = vm.env.pool->AddressOf(&at.slot()),
                                 .entry = entry.raw()});
    const SlotState state = StateOf(entry, at.level());
    if (state == SlotState::kLeaf) {
      translation.mapped = true;
      translation.hpa = entry.address() + gpa.value % BytesPerEntry(at.level());
      translation.level = at.level();
      translation.access = entry.access();
      return translation;
    }
    if (state != SlotState::kLink || !at.Descend(entry)) return translation;
  }
}

absl::Status GuestAddressSpace::WithSharedPages(GfnRange range,
                                                const std::function<void()>& access) {
  Impl& vm = *impl_;
  // Nothing is converted while it is held.
  const Turn turn(vm.turn_mutex);
  if (absl::Status status = vm.bugs.Check(); !status.ok()) return status;
  if (absl::Status status = CheckRange(vm, turn, range); !status.ok()) return status;
  std::optional<Gfn> first_private;
  vm.attributes.ForEachRun(turn, range, [&](GfnRange run, MemoryAttributes attributes) {
    if (attributes.kind == MemoryKind::kPrivate && !first_private) first_private = run.first;
  });
  if (first_private) {
    return absl::PermissionDeniedError(
        absl::StrCat("address 0x", absl::Hex(first_private->value << kPageShift),
                     " is private memory; only shared memory can be read or written"));
  }
  access();
  return absl::OkStatus();
}

absl::Status GuestAddressSpace::Zap(GfnRange range) {
  Impl& vm = *impl_;
  const Turn turn(vm.turn_mutex);
  if (absl::Status status = vm.bugs.Check(); !status.ok()) return status;
  if (absl::Status status = CheckRange(vm, turn, range); !status.ok()) return status;
  return Invalidation(turn, vm, {range}).Zap(kAllKinds);
}

absl::Status GuestAddressSpace::PunchHole(GfnRange range, MemoryKind kind) {
  Impl& vm = *impl_;
  const Turn turn(vm.turn_mutex);
  if (absl::Status status = vm.bugs.Check(); !status.ok()) return status;
  if (absl::Status status = CheckRange(vm, turn, range); !status.ok()) return status;
  std::vector<GfnRange> parts;
  const auto in_slots = vm.slots.Parts(turn, range);  // checked before
  for (const GfnRange& part : *in_slots) {
    if (BackingOf(*vm.slots.Find(turn, part.first), part.first, kind)) parts.push_back(part);
  }
  Invalidation invalidation(turn, vm, {range});
  if (absl::Status status = invalidation.Zap({&kind, 1}); !status.ok()) return status;
  for (const GfnRange& part : parts) vm.env.pages->Discard(part, kind);
  return absl::OkStatus();
}

absl::StatusOr<SplitResult> GuestAddressSpace::EnableDirtyLog(const DirtyLogOptions& options) {
  return mmu::EnableDirtyLog(*impl_, options);
}
absl::StatusOr<RecoverResult> GuestAddressSpace::DisableDirtyLog() {
  return mmu::DisableDirtyLog(*impl_);
}
bool GuestAddressSpace::dirty_log_enabled() const { return impl_->log.load() != nullptr; }
absl::StatusOr<DirtyPages> GuestAddressSpace::HarvestDirty(GfnRange range) {
  return mmu::HarvestDirty(*impl_, range);
}
absl::StatusOr<std::vector<Gfn>> GuestAddressSpace::HarvestDirtyRing(uint32_t vcpu, size_t max) {
  return mmu::HarvestDirtyRing(*impl_, vcpu, max);
}
absl::Status GuestAddressSpace::ClearDirty(const DirtyPages& pages) {
  return mmu::ClearDirty(*impl_, pages);
}
void GuestAddressSpace::MarkDirty(GfnRange range) {
  const EpochGuard guard;
  if (const DirtyLog* log = impl_->log.load()) log->MarkRange(range);
}
absl::StatusOr<SplitResult> GuestAddressSpace::SplitPages(GfnRange range, Level target) {
  return mmu::SplitPages(*impl_, range, target);
}
absl::StatusOr<RecoverResult> GuestAddressSpace::RecoverPages(GfnRange range) {
  {
    const Turn turn(impl_->turn_mutex);
    if (absl::Status status = CheckRange(*impl_, turn, range); !status.ok()) return status;
  }
  return mmu::RecoverPages(*impl_, range, VmCount::kCollapseAttributes);
}

absl::Status GuestAddressSpace::SetMemoryTypes(const MemTypes& types) {
  return ChangeMemTypes(*impl_, types);
}
std::vector<uint32_t> GuestAddressSpace::PageReady(Gfn gfn, MemoryKind kind) {
  return impl_->page_waiters.Take(gfn, kind);
}

EptPointer GuestAddressSpace::ept_pointer(MemoryKind root) const {
  return impl_->roots.PointerTo(root, impl_->config.capabilities.accessed_dirty);
}

const GpaLayout& GuestAddressSpace::layout() const { return impl_->config.layout; }

AddressSpaceStats GuestAddressSpace::stats() const {
  const Impl& vm = *impl_;
  const auto sum = [&vm](VmCount count) { return vm.counts.Sum(count); };
  AddressSpaceStats stats;
  stats.faults_fixed = sum(VmCount::kFaultFixed);
  stats.faults_fast = sum(VmCount::kFaultFast);
  stats.splits_dirty_log = sum(VmCount::kSplitDirtyLog);
  stats.splits_request = sum(VmCount::kSplitRequest);
  stats.splits_conversion = sum(VmCount::kSplitConversion);
  stats.splits_fault = sum(VmCount::kSplitFault);
  stats.splits_kept = sum(VmCount::kSplitKeptForTables);
  stats.collapses_dirty_log = sum(VmCount::kCollapseDirtyLog);
  stats.collapses_attributes = sum(VmCount::kCollapseAttributes);
  stats.collapses_nx = sum(VmCount::kCollapseNxRecovery);
  stats.faults_spurious = sum(VmCount::kFaultSpurious);
  stats.faults_retry = sum(VmCount::kFaultRetry);
  stats.faults_mmio = sum(VmCount::kFaultMmio);
  stats.faults_memory = sum(VmCount::kFaultMemory);
  stats.faults_failed = sum(VmCount::kFaultFailed);
  for (const MemoryKind kind : kAllKinds) {
    for (const Level level : {Level::k4K, Level::k2M, Level::k1G}) {
      stats.leaves[static_cast<int>(kind)][static_cast<int>(level) - 1] =
          sum(LeafCount(kind, level));
    }
  }
  stats.table_pages = sum(VmCount::kTables);
  stats.table_pages_budget = vm.env.pool->pages();
  stats.flushes_range = sum(VmCount::kFlushRange);
  stats.flushes_full = sum(VmCount::kFlushFull);
  stats.invalidations = vm.seq.invalidations();
  stats.private_frames_attribute = vm.frames[static_cast<int>(MemoryKind::kPrivate)];
  stats.shared_frames_attribute = vm.frames[static_cast<int>(MemoryKind::kShared)];
  return stats;
}

absl::Status GuestAddressSpace::Audit() const {
  Impl& vm = *impl_;
  const Turn turn(vm.turn_mutex);
  const Quiet quiet(turn, vm);
  AuditTotals totals;
  for (const std::vector<Root>& aliases : vm.roots.ByTable()) {
    const absl::Status status = AuditRoot(
        turn, *vm.env.pool, aliases, vm.config.capabilities, vm.config.host_maxphyaddr,
        [&](const Root& root, Gfn gfn, Level level, EptEntry entry) {
          return vm.CheckLeaf(turn, root.kind, gfn, level, entry);
        },
        totals);
    if (!status.ok()) return status;
  }
  const auto differ = [](const std::string& what, uint64_t found, uint64_t counted) {
    return absl::InternalError(absl::StrCat("found ", found, " ", what, ", counted ", counted));
  };
  const uint64_t tables = vm.counts.Sum(VmCount::kTables);
  if (totals.tables.size() != tables) return differ("tables", totals.tables.size(), tables);
  uint64_t frames[2] = {};
  for (const Memslot& slot : vm.slots.all(turn)) {
    vm.attributes.ForEachRun(turn, slot.range, [&frames](GfnRange run, MemoryAttributes of) {
      frames[static_cast<int>(of.kind)] += run.count;
    });
  }
  for (const MemoryKind kind : kAllKinds) {
    const int k = static_cast<int>(kind);
    const std::string name = kind == MemoryKind::kPrivate ? "private" : "shared";
    if (frames[k] != vm.frames[k]) return differ(name + " frames", frames[k], vm.frames[k].load());
    for (const Level level : {Level::k4K, Level::k2M, Level::k1G}) {
      const uint64_t found = totals.leaves[k][static_cast<int>(level) - 1];
      const uint64_t counted = vm.counts.Sum(LeafCount(kind, level));
      if (found != counted) {
        return differ(absl::StrCat(name, " leaves of level ", static_cast<int>(level)), found,
                      counted);
      }
    }
  }
  return absl::OkStatus();
}

// D8, and D3's "never a huge page over mixed attributes".
absl::Status GuestAddressSpace::Impl::CheckLeaf(const MmuRead& read, MemoryKind kind, Gfn gfn,
                                                Level level, EptEntry entry) const {
  const std::string name =
      absl::StrCat(kind == MemoryKind::kPrivate ? "private" : "shared", " leaf at gfn 0x",
                   absl::Hex(gfn.value), " of level ", static_cast<int>(level));
  const Memslot* slot = slots.Find(read, gfn);
  if (slot == nullptr || !slot->range.Contains(GfnRange{gfn, FramesPerEntry(level)})) {
    return absl::InternalError(name + " reaches outside its memslot");
  }
  const std::optional<Pfn> backing = BackingOf(*slot, gfn, kind);
  if (!backing || PfnOf(entry.address()) != *backing) {
    return absl::InternalError(name + " maps a frame of another backing");
  }
  if (!attributes.UniformAt(read, gfn, level)) {
    return absl::InternalError(name + " stands over mixed attributes");
  }
  const MemoryAttributes of = attributes.Get(read, gfn);
  if (of.kind != kind || !of.allowed().Includes(entry.access())) {
    return absl::InternalError(name + " contradicts the attribute");
  }
  return absl::OkStatus();
}

std::string GuestAddressSpace::bugged() const { return impl_->bugs.what(); }

}  // namespace twinroot::mmu
