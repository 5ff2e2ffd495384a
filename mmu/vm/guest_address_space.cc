#include "mmu/vm/guest_address_space.h"

#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "mmu/engine/audit.h"
#include "mmu/vm/address_space_state.h"
#include "mmu/vm/aging.h"
#include "mmu/vm/attribute_change.h"
#include "mmu/vm/attribute_plan.h"
#include "mmu/vm/dirty_tracking.h"
#include "mmu/vm/explain.h"
#include "mmu/vm/fault_handler.h"
#include "mmu/vm/invalidation.h"
#include "mmu/vm/mem_type_change.h"
#include "mmu/vm/memslot_change.h"
#include "mmu/vm/mmio_cache.h"
#include "mmu/vm/nx_mitigation.h"
#include "mmu/vm/page_sizes.h"
#include "mmu/vm/prefault.h"
#include "mmu/vm/table_dump.h"
#include "mmu/vm/zap_all.h"

namespace twinroot::mmu {

class GuestAddressSpace::Impl : public AddressSpaceState {
 public:
  using AddressSpaceState::AddressSpaceState;

  absl::Status CheckLeaf(const MmuRead& read, MemoryKind kind, Gfn gfn, Level level,
                         EptEntry entry) const;
};

namespace {

absl::Status CheckShadow(const GuestAddressSpace::Config& config,
                         const GuestAddressSpace::Environment& env) {
  if (config.layout.has_stolen_bits()) {
    return absl::InvalidArgumentError(
        "stolen GPA bits do not go with shadow tables: the guest's own tables cannot name them; "
        "use mmu tdp, or a VM without stolen bits");
  }
  if (env.external_private != nullptr || env.external_shared != nullptr) {
    return absl::InvalidArgumentError(
        "shadow tables do not go with external tables, which are by guest-physical address");
  }
  if (env.host_memory == nullptr) {
    return absl::InvalidArgumentError("shadow tables need the bytes of guest memory");
  }
  return absl::OkStatus();
}

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
  return config.mmu == MmuMode::kShadow ? CheckShadow(config, env) : absl::OkStatus();
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
  if (config.mmu == MmuMode::kShadow) impl->shadow = std::make_unique<ShadowMmu>(*impl);
  return std::unique_ptr<GuestAddressSpace>(new GuestAddressSpace(std::move(impl)));
}

absl::Status GuestAddressSpace::AddMemslot(const Memslot& slot) {
  return mmu::AddMemslot(*impl_, slot);
}

absl::Status GuestAddressSpace::RemoveMemslot(Gfn first) {
  return mmu::RemoveMemslot(*impl_, first);
}

absl::Status GuestAddressSpace::MoveMemslot(Gfn first, Gfn new_first) {
  return mmu::MoveMemslot(*impl_, first, new_first);
}

MmioOutcome GuestAddressSpace::HandleMisconfiguration(Gpa gpa) {
  return mmu::HandleMisconfiguration(*impl_, gpa);
}

absl::StatusOr<PrefaultResult> GuestAddressSpace::Prefault(
    GfnRange range, std::optional<MemoryKind> kind,
    const std::function<bool(uint64_t frames_done)>& progress) {
  return mmu::Prefault(*impl_, range, kind, progress);
}

absl::Status GuestAddressSpace::ZapAll() { return mmu::ZapAll(*impl_); }

size_t GuestAddressSpace::ReclaimTables(size_t max_tables) {
  return mmu::ReclaimTables(*impl_, max_tables);
}

absl::StatusOr<Hpa> GuestAddressSpace::LoadPaging(uint32_t vcpu, const GuestPaging& paging) {
  return impl_->shadow->Load(vcpu, paging);
}
LoadPdptesOutcome GuestAddressSpace::ReadPdptes(uint64_t cr3) {
  return impl_->shadow->ReadPdptes(cr3);
}
ShadowFaultOutcome GuestAddressSpace::HandleShadowFault(const ShadowFault& fault) {
  return impl_->shadow->HandleFault(fault);
}
void GuestAddressSpace::InvalidatePaging() { impl_->shadow->Sync(); }

FaultOutcome GuestAddressSpace::HandleFault(const Fault& fault) {
  return mmu::HandleFault(*impl_, fault);
}

absl::StatusOr<AttributeChangeResult> GuestAddressSpace::SetMemoryAttributes(
    const AttributeChange& change) {
  return ChangeAttributes(*impl_, change);
}

absl::StatusOr<AttributeChangePlan> GuestAddressSpace::PlanMemoryAttributes(
    const AttributeChange& change) const {
  return PlanAttributes(*impl_, change);
}

absl::Status GuestAddressSpace::CheckMemory(GfnRange range) const {
  const Turn turn(impl_->turn_mutex);
  return CheckRange(*impl_, turn, range);
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
  return TranslateAndExplain(*impl_, gpa, alias, execute_only);
}

absl::StatusOr<std::vector<TableImage>> GuestAddressSpace::DumpTables(MemoryKind root,
                                                                      const TableImage* after,
                                                                      size_t max) const {
  return mmu::DumpTables(*impl_, root, after, max);
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
  vm.slots.ForEachPart(turn, range, [&](GfnRange part) {  // checked before
    if (BackingOf(*vm.slots.Find(turn, part.first), part.first, kind)) parts.push_back(part);
  });
  Invalidation invalidation(turn, vm, {range});
  if (absl::Status status = invalidation.Zap({&kind, 1}); !status.ok()) return status;
  for (const GfnRange& part : parts) {
    // What the guest sees there has changed, by nobody's write.
    if (const DirtyLog* log = vm.log.load()) {
      vm.attributes.ForEachRun(turn, part, [&](GfnRange run, MemoryAttributes attributes) {
        if (attributes.kind == kind) log->MarkRange(run);
      });
    }
    vm.env.pages->Discard(part, kind);
  }
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
  // First, so that no table of the guest's is told by its old bytes once the caller goes on.
  if (impl_->shadow != nullptr) impl_->shadow->MemoryWritten(range);
  const EpochGuard guard;
  if (const DirtyLog* log = impl_->log.load()) log->MarkRange(range);
}
absl::StatusOr<SplitResult> GuestAddressSpace::SplitPages(GfnRange range, Level target) {
  return mmu::SplitPages(*impl_, range, target, VmCount::kSplitRequest);
}
absl::StatusOr<RecoverResult> GuestAddressSpace::RecoverPages(GfnRange range) {
  {
    const Turn turn(impl_->turn_mutex);
    if (absl::Status status = CheckRange(*impl_, turn, range); !status.ok()) return status;
  }
  return mmu::RecoverPages(*impl_, range, VmCount::kCollapseAttributes);
}
absl::StatusOr<RecoverResult> GuestAddressSpace::RecoverNxHugePages(uint64_t max) {
  return mmu::RecoverNxHugePages(*impl_, max);
}
absl::StatusOr<AgeResult> GuestAddressSpace::TestAndClearAccessed(GfnRange range) {
  return mmu::TestAndClearAccessed(*impl_, range);
}

absl::Status GuestAddressSpace::SetMemoryTypes(const MemTypes& types) {
  return ChangeMemTypes(*impl_, types);
}
std::vector<uint32_t> GuestAddressSpace::PageReady(Gfn gfn, MemoryKind kind) {
  return impl_->page_waiters.Take(gfn, kind);
}
std::vector<uint32_t> GuestAddressSpace::TakeWaiters(GfnRange range) {
  return impl_->page_waiters.TakeRange(range);
}

EptPointer GuestAddressSpace::ept_pointer(MemoryKind root) const {
  return impl_->roots.PointerTo(root, impl_->config.capabilities.accessed_dirty);
}

const GpaLayout& GuestAddressSpace::layout() const { return impl_->config.layout; }

AddressSpaceStats GuestAddressSpace::stats() const {
  const Impl& vm = *impl_;
  const auto sums = vm.counts.Sums();
  const auto sum = [&sums](VmCount count) { return sums[static_cast<size_t>(count)]; };
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
          sum(LeafCount(kind, level)) - vm.limbo.leaves(kind, level);
    }
  }
  if (vm.shadow != nullptr) {
    stats.shadow_pages = vm.shadow->pages();
    stats.shadow_leaves = vm.shadow->leaves();
  }
  stats.table_pages = sum(VmCount::kTables) + stats.shadow_pages;
  stats.table_pages_budget = vm.env.pool->pages();
  stats.flushes_range = sum(VmCount::kFlushRange);
  stats.flushes_full = sum(VmCount::kFlushFull);
  stats.invalidations = vm.seq.invalidations();
  stats.zap_generation = vm.limbo.generation();
  stats.detached_tables = vm.limbo.waiting();
  stats.mmio_cached = sum(VmCount::kMmioCached);
  stats.private_frames_attribute = frames(MemoryKind::kPrivate);
  stats.shared_frames_attribute = frames(MemoryKind::kShared);
  return stats;
}

uint64_t GuestAddressSpace::frames(MemoryKind kind) const {
  return impl_->frames[static_cast<int>(kind)];
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
  if (vm.shadow != nullptr) {
    if (const auto wrong = vm.shadow->Audit(turn)) return absl::InternalError(*wrong);
  }
  const TableLimbo::Recount detached =
      vm.limbo.Count(turn, [&totals](const Table& table) { totals.tables.insert(&table); });
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
      const uint64_t waiting = detached.leaves[k][static_cast<int>(level) - 1];
      if (waiting != vm.limbo.leaves(kind, level)) {
        return differ(absl::StrCat("detached ", name, " leaves of level ", static_cast<int>(level)),
                      waiting, vm.limbo.leaves(kind, level));
      }
      const uint64_t found = totals.leaves[k][static_cast<int>(level) - 1] + waiting;
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
