#include "mmu/vm/guest_address_space.h"

#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "mmu/engine/audit.h"
#include "mmu/tables/cursor.h"
#include "mmu/vm/address_space_state.h"
#include "mmu/vm/attribute_change.h"
#include "mmu/vm/fault_handler.h"
#include "mmu/vm/invalidation.h"

namespace twinroot::mmu {

class GuestAddressSpace::Impl : public AddressSpaceState {
 public:
  using AddressSpaceState::AddressSpaceState;

  absl::Status CheckLeaf(const MmuLock::Held& lock, MemoryKind kind, Gfn gfn, Level level,
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
  // A6.
  if (config.layout.shared_bit() && config.legacy_guest_paging) {
    return absl::InvalidArgumentError(
        "stolen GPA bits do not go with 32-bit guest paging, whose tables cannot name them; use "
        "PAE or long mode, or a VM without a shared bit");
  }
  if (config.layout.shared_bit() && config.nested_ept) {
    return absl::InvalidArgumentError(
        "stolen GPA bits do not go with nested EPT, whose entries would carry them as addresses; "
        "use a VM without a shared bit");
  }
  return absl::OkStatus();
}

uint64_t Relaxed(const std::atomic<uint64_t>& counter) {
  return counter.load(std::memory_order_relaxed);
}

}  // namespace

GuestAddressSpace::GuestAddressSpace(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
GuestAddressSpace::~GuestAddressSpace() = default;

absl::StatusOr<std::unique_ptr<GuestAddressSpace>> GuestAddressSpace::Create(
    const Config& config, const Environment& environment) {
  if (absl::Status status = CheckConfig(config, environment); !status.ok()) return status;
  auto impl = std::make_unique<Impl>(config, environment);
  if (absl::Status status = impl->roots.Create(config.layout, environment.external_private,
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

  const MutexLock turn(vm.turn);
  {
    const MmuLock::Shared lock(vm.mmu_lock);
    if (absl::Status status = vm.slots.Check(lock, slot); !status.ok()) {
      return absl::Status(status.code(), absl::StrCat(name, " ", status.message()));
    }
  }
  absl::Status prepared = vm.attributes.Prepare(slot.range);
  const MmuLock::Exclusive lock(vm.mmu_lock);
  if (!prepared.ok()) {
    vm.attributes.Collapse(lock, slot.range);
    return prepared;
  }
  vm.slots.Add(lock, slot);
  vm.attributes.Set(lock, slot.range, MemoryKind::kPrivate);
  vm.frames[static_cast<int>(MemoryKind::kPrivate)] += slot.range.count;
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
  const MmuLock::Shared lock(vm.mmu_lock);
  if (absl::Status status = CheckRange(vm, lock, range); !status.ok()) return status;
  std::vector<AttributeRun> runs;
  vm.attributes.ForEachRun(lock, range, [&runs](GfnRange run, MemoryKind kind) {
    runs.push_back({run, kind});
  });
  return runs;
}

std::vector<AttributeRun> GuestAddressSpace::GetMemoryAttributes() const {
  const Impl& vm = *impl_;
  const MmuLock::Shared lock(vm.mmu_lock);
  std::vector<AttributeRun> runs;
  for (const Memslot& slot : vm.slots.all(lock)) {
    vm.attributes.ForEachRun(lock, slot.range, [&runs](GfnRange run, MemoryKind kind) {
      // Slots may be neighbours.
      if (!runs.empty() && runs.back().kind == kind && runs.back().range.end() == run.first) {
        runs.back().range.count += run.count;
      } else {
        runs.push_back({run, kind});
      }
    });
  }
  return runs;
}

absl::StatusOr<Translation> GuestAddressSpace::Translate(Gpa gpa, MemoryKind alias) const {
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
  const Gfn gfn = layout.GfnOf(gpa);
  const Root& root = vm.roots.Of(alias);
  Translation translation;
  translation.ept_pointer = ept_pointer(alias);
  const MmuLock::Shared lock(vm.mmu_lock);
  translation.attribute = vm.attributes.Get(lock, gfn);
  Cursor at(lock, *vm.env.pool, root, GfnRange{gfn, 1});
  while (true) {
    const EptEntry entry = at.entry();
    translation.steps.push_back({.level = at.level(),
                                 .index = at.index(),
                                 .entry_hpa = vm.env.pool->AddressOf(&at.table().slots[at.index()]),
                                 .entry = entry.raw()});
    if (entry.present() && entry.IsLeaf(at.level())) {
      translation.mapped = true;
      translation.hpa = entry.address() + gpa.value % BytesPerEntry(at.level());
      translation.level = at.level();
      translation.access = entry.access();
      return translation;
    }
    Table* child = at.Child(entry);
    if (child == nullptr) return translation;
    at.Descend(*child);
  }
}

absl::Status GuestAddressSpace::WithSharedPages(GfnRange range,
                                                const std::function<void()>& access) {
  Impl& vm = *impl_;
  while (true) {
    if (absl::Status status = vm.bugs.Check(); !status.ok()) return status;
    {
      const MmuLock::Shared lock(vm.mmu_lock);
      if (absl::Status status = CheckRange(vm, lock, range); !status.ok()) return status;
      // Pages of a change under way are neither the one nor the other: wait for its end.
      if (!vm.seq.UnderWay(lock, range)) {
        std::optional<Gfn> first_private;
        vm.attributes.ForEachRun(lock, range, [&](GfnRange run, MemoryKind kind) {
          if (kind == MemoryKind::kPrivate && !first_private) first_private = run.first;
        });
        if (first_private) {
          return absl::PermissionDeniedError(
              absl::StrCat("address 0x", absl::Hex(first_private->value << kPageShift),
                           " is private memory; only shared memory can be read or written"));
        }
        access();
        return absl::OkStatus();
      }
    }
    const MutexLock after_the_change(vm.turn);
  }
}

absl::Status GuestAddressSpace::Zap(GfnRange range) {
  Impl& vm = *impl_;
  const MutexLock turn(vm.turn);
  if (absl::Status status = vm.bugs.Check(); !status.ok()) return status;
  {
    const MmuLock::Shared lock(vm.mmu_lock);
    if (absl::Status status = CheckRange(vm, lock, range); !status.ok()) return status;
  }
  return Invalidation(vm, {range}).Zap(kAllKinds);
}

absl::Status GuestAddressSpace::PunchHole(GfnRange range, MemoryKind kind) {
  Impl& vm = *impl_;
  const MutexLock turn(vm.turn);
  if (absl::Status status = vm.bugs.Check(); !status.ok()) return status;
  std::vector<GfnRange> parts;
  {
    const MmuLock::Shared lock(vm.mmu_lock);
    if (absl::Status status = CheckRange(vm, lock, range); !status.ok()) return status;
    const auto in_slots = vm.slots.Parts(lock, range);  // checked before
    for (const GfnRange& part : *in_slots) {
      if (BackingOf(*vm.slots.Find(lock, part.first), part.first, kind)) parts.push_back(part);
    }
  }
  Invalidation invalidation(vm, {range});
  if (absl::Status status = invalidation.Zap({&kind, 1}); !status.ok()) return status;
  for (const GfnRange& part : parts) vm.env.pages->Discard(part, kind);
  return absl::OkStatus();
}

EptPointer GuestAddressSpace::ept_pointer(MemoryKind root) const {
  return impl_->roots.PointerTo(root, impl_->config.capabilities.accessed_dirty);
}

const GpaLayout& GuestAddressSpace::layout() const { return impl_->config.layout; }

AddressSpaceStats GuestAddressSpace::stats() const {
  const Impl& vm = *impl_;
  AddressSpaceStats stats;
  stats.faults_fixed = Relaxed(vm.faults.fixed);
  stats.faults_spurious = Relaxed(vm.faults.spurious);
  stats.faults_retry = Relaxed(vm.faults.retry);
  stats.faults_mmio = Relaxed(vm.faults.mmio);
  stats.faults_memory = Relaxed(vm.faults.memory);
  stats.faults_failed = Relaxed(vm.faults.failed);
  for (int kind = 0; kind < 2; ++kind) {
    for (int level = 0; level < 3; ++level) {
      stats.leaves[kind][level] = Relaxed(vm.counts.leaves[kind][level]);
    }
  }
  stats.table_pages = Relaxed(vm.counts.tables);
  stats.table_pages_budget = vm.env.pool->pages();
  stats.flushes_range = Relaxed(vm.flushes.range);
  stats.invalidations = vm.seq.invalidations();
  stats.private_frames_attribute = Relaxed(vm.frames[static_cast<int>(MemoryKind::kPrivate)]);
  stats.shared_frames_attribute = Relaxed(vm.frames[static_cast<int>(MemoryKind::kShared)]);
  return stats;
}

absl::Status GuestAddressSpace::Audit() const {
  const Impl& vm = *impl_;
  // Not in the middle of a change: nodes of the attribute map may be split ahead of it.
  const MutexLock turn(vm.turn);
  const MmuLock::Exclusive lock(vm.mmu_lock);
  AuditTotals totals;
  for (const MemoryKind kind : kAllKinds) {
    if (!vm.roots.Has(kind)) continue;
    const absl::Status status = AuditRoot(
        lock, *vm.env.pool, vm.roots.Of(kind), vm.config.capabilities, vm.config.host_maxphyaddr,
        [&](Gfn gfn, Level level, EptEntry entry) {
          return vm.CheckLeaf(lock, kind, gfn, level, entry);
        },
        totals);
    if (!status.ok()) return status;
  }
  if (totals.tables.size() != Relaxed(vm.counts.tables)) {
    return absl::InternalError(absl::StrCat("found ", totals.tables.size(), " tables, counted ",
                                            Relaxed(vm.counts.tables)));
  }
  uint64_t frames[2] = {};
  for (const Memslot& slot : vm.slots.all(lock)) {
    vm.attributes.ForEachRun(lock, slot.range, [&frames](GfnRange run, MemoryKind kind) {
      frames[static_cast<int>(kind)] += run.count;
    });
  }
  for (const MemoryKind kind : kAllKinds) {
    const int k = static_cast<int>(kind);
    if (frames[k] != Relaxed(vm.frames[k])) {
      return absl::InternalError(absl::StrCat("found ", frames[k], " frames of kind ", k,
                                              ", counted ", Relaxed(vm.frames[k])));
    }
    for (int level = 0; level < 3; ++level) {
      if (totals.leaves[k][level] == Relaxed(vm.counts.leaves[k][level])) continue;
      return absl::InternalError(absl::StrCat("found ", totals.leaves[k][level], " leaves of kind ",
                                              k, " at level ", level + 1, ", counted ",
                                              Relaxed(vm.counts.leaves[k][level])));
    }
  }
  return absl::OkStatus();
}

// D8, and D3's "never a huge page over mixed attributes".
absl::Status GuestAddressSpace::Impl::CheckLeaf(const MmuLock::Held& lock, MemoryKind kind, Gfn gfn,
                                                Level level, EptEntry entry) const {
  const std::string name =
      absl::StrCat(kind == MemoryKind::kPrivate ? "private" : "shared", " leaf at gfn 0x",
                   absl::Hex(gfn.value), " of level ", static_cast<int>(level));
  const Memslot* slot = slots.Find(lock, gfn);
  if (slot == nullptr || !slot->range.Contains(GfnRange{gfn, FramesPerEntry(level)})) {
    return absl::InternalError(name + " reaches outside its memslot");
  }
  const std::optional<Pfn> backing = BackingOf(*slot, gfn, kind);
  if (!backing || PfnOf(entry.address()) != *backing) {
    return absl::InternalError(name + " maps a frame of another backing");
  }
  if (!attributes.UniformAt(lock, gfn, level)) {
    return absl::InternalError(name + " stands over mixed attributes");
  }
  if (attributes.Get(lock, gfn) != kind) {
    return absl::InternalError(name + " contradicts the attribute");
  }
  return absl::OkStatus();
}

std::string GuestAddressSpace::bugged() const { return impl_->bugs.what(); }

}  // namespace twinroot::mmu
