#include "mmu/vm/shadow_mmu.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "mmu/types/guest_word.h"
#include "mmu/vm/address_space_state.h"
#include "mmu/vm/fault_handler.h"
#include "mmu/vm/leaf_choice.h"

namespace twinroot::mmu {
namespace {

// A walk of the processor's that has five levels: every guest's tables fit under it.
constexpr Level kRootLevel = Level::k256T;
// A root that is loaded takes one at most, a fault kDeepestShadow; both may come together.
constexpr size_t kTablesInHand = kDeepestShadow + 2;
// A fault that finds no table takes so many pages from those that were used least recently.
constexpr size_t kReclaimed = 64;

GuestCpuFeatures FeaturesOf(const AddressSpaceState& vm) {
  return {.maxphyaddr = vm.config.layout.guest_maxphyaddr()};
}

}  // namespace

// Guest memory is read and written under this turn, for this vCPU; the figures follow.
class ShadowMmu::InTurn {
 public:
  InTurn(ShadowMmu& mmu, const Turn& turn, uint32_t vcpu = 0,
         const std::vector<PageWanted>* brought = nullptr)
      : mmu_(mmu) {
    mmu_.turn_ = &turn;
    mmu_.vcpu_ = vcpu;
    mmu_.hindrance_.reset();
    mmu_.brought_ = brought;
  }
  ~InTurn() {
    mmu_.turn_ = nullptr;
    mmu_.brought_ = nullptr;
    mmu_.CountPages();
  }
  InTurn(const InTurn&) = delete;
  InTurn& operator=(const InTurn&) = delete;

 private:
  ShadowMmu& mmu_;
};

ShadowMmu::ShadowMmu(AddressSpaceState& vm)
    : vm_(vm),
      // The rest of the pool is what faults hold in their hands.
      tables_({.root_level = kRootLevel, .most_pages = vm.env.pool->pages() / 4 * 3},
              {vm.env.pool, &vm.change, vm.env.flusher, &vm.bugs}),
      mapper_(tables_, *this, *this, FeaturesOf(vm)) {}

ShadowMmu::~ShadowMmu() = default;

ShadowMmu::Vcpu& ShadowMmu::VcpuOf(uint32_t vcpu) {
  return vcpus_.try_emplace(vcpu, tables_).first->second;
}

ShadowRoots::Request ShadowMmu::RequestOf(const GuestPaging& paging) {
  if (!paging.on()) return {GuestShape::Unpaged(), Gpa(0)};
  const GuestShape shape = GuestShape::Of(Ia32Paging(paging.registers, {}, paging.pdptes));
  const Gpa top = shape.own_registers ? PaePdpte::TableAt(paging.registers.cr3)
                                      : Gpa(paging.registers.cr3 & GuestPte::kAddressMask);
  return {shape, top, paging.pdptes};
}

absl::Status ShadowMmu::LoadTables(PreloadedTables& preload) {
  const absl::Status loaded = vm_.env.pool->Preload(kTablesInHand, preload);
  if (!absl::IsResourceExhausted(loaded)) return loaded;
  {
    const Turn turn(vm_.turn_mutex);
    const InTurn in(*this, turn);
    ShadowFlush flush = tables_.NewFlush();
    const size_t most = tables_.config().most_pages;
    tables_.MakeRoom(turn, most - std::min(most, tables_.pages()) + kReclaimed, flush);
    flush.Finish(turn);
  }
  return vm_.env.pool->Preload(kTablesInHand, preload);
}

absl::StatusOr<Hpa> ShadowMmu::LoadRoot(const Turn& turn, Vcpu& vcpu, PreloadedTables& preload) {
  const auto loaded = vcpu.roots.Load(turn, RequestOf(vcpu.paging), preload);
  if (!loaded.ok()) return loaded.status();
  return loaded->root->table.hpa;
}

absl::StatusOr<Hpa> ShadowMmu::Load(uint32_t vcpu, const GuestPaging& paging) {
  PreloadedTables preload(*vm_.env.pool);
  if (absl::Status status = LoadTables(preload); !status.ok()) return status;
  const Turn turn(vm_.turn_mutex);
  if (absl::Status status = vm_.bugs.Check(); !status.ok()) return status;
  const InTurn in(*this, turn, vcpu);
  mapper_.SyncAll(turn);
  Vcpu& of = VcpuOf(vcpu);
  of.paging = paging;
  return LoadRoot(turn, of, preload);
}

LoadPdptesOutcome ShadowMmu::ReadPdptes(uint64_t cr3) {
  std::vector<PageWanted> brought;
  for (;;) {
    std::optional<PageWanted> wanted;
    {
      const Turn turn(vm_.turn_mutex);
      const InTurn in(*this, turn, 0, &brought);
      LoadPdptesOutcome outcome = LoadPdptes(*this, cr3, FeaturesOf(vm_).maxphyaddr);
      const bool missing = std::holds_alternative<GuestTableMissing>(outcome);
      if (missing && hindrance_ && std::holds_alternative<PageWanted>(*hindrance_)) {
        wanted = std::get<PageWanted>(*hindrance_);
      } else {
        return outcome;
      }
    }
    if (Resolve(*wanted, std::nullopt)) {
      return GuestTableMissing{Gpa(wanted->gfn.value << kPageShift)};
    }
    brought.push_back(*wanted);
  }
}

void ShadowMmu::Sync() {
  const Turn turn(vm_.turn_mutex);
  const InTurn in(*this, turn);
  mapper_.SyncAll(turn);
}

ShadowFaultOutcome ShadowMmu::HandleFault(const ShadowFault& fault) {
  PreloadedTables preload(*vm_.env.pool);
  std::vector<PageWanted> brought;
  for (;;) {
    Step step = TablesWanted{};
    {
      const Turn turn(vm_.turn_mutex);
      step = FaultOnce(turn, fault, brought, preload);
    }
    if (auto* outcome = std::get_if<ShadowFaultOutcome>(&step)) {
      if (const auto* exit = std::get_if<FaultOutcome>(outcome)) {
        vm_.counts.Add(CountOf(*exit));
      } else if (!std::holds_alternative<GuestPageFault>(*outcome)) {
        vm_.counts.Add(VmCount::kFaultFixed);
      }
      return std::move(*outcome);
    }
    if (auto* page = std::get_if<PageWanted>(&step)) {
      if (std::optional<FaultOutcome> end = Resolve(*page, fault.vcpu)) {
        vm_.counts.Add(CountOf(*end));
        return *std::move(end);
      }
      brought.push_back(*page);
    } else if (absl::Status status = LoadTables(preload); !status.ok()) {
      vm_.counts.Add(VmCount::kFaultFailed);
      return FaultOutcome(Failed{std::move(status)});
    }
  }
}

GuestWalkOutcome ShadowMmu::Walk(const Vcpu& vcpu, const LinearAccess& access) {
  if (vcpu.paging.on()) {
    return WalkGuest(Ia32Paging(vcpu.paging.registers, FeaturesOf(vm_), vcpu.paging.pdptes), *this,
                     access);
  }
  GuestTranslation walk;
  walk.gpa = walk.page = Gpa(access.address);
  walk.level = kLargestLeaf;
  walk.rights = GuestRights::All();
  walk.dirty = true;
  return walk;
}

ShadowMmu::Step ShadowMmu::FaultOnce(const Turn& turn, const ShadowFault& fault,
                                     const std::vector<PageWanted>& brought,
                                     PreloadedTables& preload) {
  if (vm_.bugs.bugged()) return ShadowFaultOutcome(Failed{vm_.bugs.Check()});
  if (preload.size() < kTablesInHand) return TablesWanted{};
  const InTurn in(*this, turn, fault.vcpu, &brought);
  const auto hindered = [&]() -> Step {
    if (hindrance_ && std::holds_alternative<PageWanted>(*hindrance_)) {
      return std::get<PageWanted>(*hindrance_);
    }
    if (hindrance_) return ShadowFaultOutcome(std::get<FaultOutcome>(*std::move(hindrance_)));
    return ShadowFaultOutcome(Retry{});
  };
  Vcpu& vcpu = VcpuOf(fault.vcpu);
  LinearAccess access = fault.access;
  access.address &= vcpu.paging.LinearMask();
  GuestWalkOutcome walked = Walk(vcpu, access);
  if (const auto* refused = std::get_if<GuestPageFault>(&walked)) {
    return ShadowFaultOutcome(GuestPageFault{fault.access.address, refused->error_code});
  }
  if (!std::holds_alternative<GuestTranslation>(walked)) return hindered();
  const auto& walk = std::get<GuestTranslation>(walked);
  const Gfn gfn(walk.gpa.value >> kPageShift);
  if (!FrameFor(turn, walk.gpa, access.needed)) return hindered();
  const DirtyLog* log = vm_.log.load();
  if (log != nullptr && log->SoftFull(fault.vcpu)) return ShadowFaultOutcome(DirtyRingFull{});

  ShadowPage* root = vcpu.roots.current();
  const absl::StatusOr<Hpa> loaded = root == nullptr || tables_.Obsolete(*root)
                                         ? LoadRoot(turn, vcpu, preload)
                                         : absl::StatusOr<Hpa>(root->table.hpa);
  if (!loaded.ok()) return ShadowFaultOutcome(Failed{loaded.status()});
  switch (mapper_.Map(turn, *vcpu.roots.current(), RequestOf(vcpu.paging).shape, walk,
                      access.address, access.needed, preload)) {
    case ShadowOutcome::kMapped:
    case ShadowOutcome::kSpurious:
      if (access.needed.write()) MarkWritten(gfn);
      return ShadowFaultOutcome(ShadowRunOn{*loaded});
    case ShadowOutcome::kEmulate:
      return WriteByHand(turn, fault, walk.gpa);
    case ShadowOutcome::kNeedTables:
      return TablesWanted{};
    case ShadowOutcome::kRetry:
    // Room was made, and the root, or its page's memory, was part of it.
    case ShadowOutcome::kReloadRoot:
      return ShadowFaultOutcome(Retry{});
    case ShadowOutcome::kNoRoom:
      return ShadowFaultOutcome(
          Failed{absl::ResourceExhaustedError("all shadow pages of this VM are in use")});
    case ShadowOutcome::kNoMemory:
      break;
  }
  vm_.bugs.ReportBug(absl::StrCat("gfn 0x", absl::Hex(gfn.value), " may not be mapped as it may"));
  return ShadowFaultOutcome(Failed{vm_.bugs.Check()});
}

ShadowMmu::Step ShadowMmu::WriteByHand(const Turn& turn, const ShadowFault& fault, Gpa gpa) {
  std::byte* const at = BytesFor(gpa, static_cast<size_t>(fault.bytes), Access::Write());
  if (at == nullptr) return ShadowFaultOutcome(Retry{});
  StoreGuestWord(at, fault.bytes, fault.value);
  MarkWritten(Gfn(gpa.value >> kPageShift));
  mapper_.GuestWrote(turn, gpa, static_cast<uint64_t>(fault.bytes));
  return ShadowFaultOutcome(ShadowWriteMade{});
}

std::optional<FaultOutcome> ShadowMmu::Resolve(PageWanted& page, std::optional<uint32_t> vcpu) {
  std::optional<PageResolves::Resolve> resolve;
  {
    const EpochGuard guard;
    const Memslot* slot = vm_.slots.Find(guard, page.gfn);
    // Gone, or moved: the next look says what it is now.
    if (slot == nullptr || BackingOf(*slot, page.gfn, page.kind) != page.pfn) return std::nullopt;
    resolve.emplace(guard, vm_.resolves, page.gfn);
  }
  const Level wanted = vm_.env.pages->LargestLeaf(page.gfn, page.kind);
  absl::StatusOr<PageSource::Page> found = vm_.env.pages->Resolve(page.gfn, page.kind, wanted);
  if (absl::IsUnavailable(found.status())) {
    const Gpa gpa(page.gfn.value << kPageShift);
    if (!vcpu) return PagePending{gpa, false};
    // Waits first, then asks once more: the page may have come in between.
    vm_.page_waiters.Add(page.gfn, page.kind, *vcpu);
    found = vm_.env.pages->Resolve(page.gfn, page.kind, wanted);
    if (absl::IsUnavailable(found.status())) return PagePending{gpa, false};
    vm_.page_waiters.Remove(page.gfn, page.kind, *vcpu);
  }
  if (!found.ok()) return Failed{found.status()};
  page.level = found->max_level;
  return std::nullopt;
}

absl::Status ShadowMmu::Populate(Gfn gfn, MemoryKind kind) {
  PageWanted page{.gfn = gfn, .kind = kind, .pfn = Pfn(0), .seq = 0};
  {
    const EpochGuard guard;
    const Memslot* slot = vm_.slots.Find(guard, gfn);
    const std::optional<Pfn> pfn = slot ? BackingOf(*slot, gfn, kind) : std::nullopt;
    if (!pfn) return absl::FailedPreconditionError("no backing of this kind there");
    if (vm_.env.pages->Ready(gfn, kind)) return absl::OkStatus();
    page.pfn = *pfn;
  }
  const std::optional<FaultOutcome> hindrance = Resolve(page, std::nullopt);
  if (!hindrance) return absl::OkStatus();
  if (const auto* failed = std::get_if<Failed>(&*hindrance)) return failed->status;
  return absl::UnavailableError("the page is on its way; try again later");
}

std::optional<Pfn> ShadowMmu::FrameFor(const Turn& turn, Gpa gpa, Access access) {
  const Gfn gfn(gpa.value >> kPageShift);
  const Gpa page(gpa.value & ~kPageOffsetMask);
  const Memslot* slot = gfn < vm_.gfn_limit ? vm_.slots.Find(turn, gfn) : nullptr;
  if (slot == nullptr) {
    hindrance_ = FaultOutcome(Mmio{gpa});
    return std::nullopt;
  }
  const MemoryAttributes attributes = vm_.attributes.Get(turn, gfn);
  const std::optional<Pfn> pfn = BackingOf(*slot, gfn, attributes.kind);
  const Access denied = access.Without(attributes.allowed());
  if (!pfn || !denied.empty()) {
    hindrance_ = FaultOutcome(MemoryFaultExit{page, kPageSize, attributes.kind, denied});
    return std::nullopt;
  }
  if (!ReadyLevel(gfn, attributes.kind, *pfn)) {
    hindrance_ = PageWanted{gfn, attributes.kind, *pfn, vm_.seq.Snapshot(gfn)};
    return std::nullopt;
  }
  return pfn;
}

std::optional<Level> ShadowMmu::ReadyLevel(Gfn gfn, MemoryKind kind, Pfn pfn) const {
  if (const std::optional<Level> ready = vm_.env.pages->Ready(gfn, kind)) return ready;
  if (brought_ == nullptr) return std::nullopt;
  for (const PageWanted& page : *brought_) {
    if (page.gfn == gfn && page.kind == kind && page.pfn == pfn &&
        page.seq == vm_.seq.Snapshot(gfn)) {
      return page.level;
    }
  }
  return std::nullopt;
}

std::byte* ShadowMmu::BytesFor(Gpa gpa, size_t bytes, Access access) {
  const std::optional<Pfn> pfn = FrameFor(*turn_, gpa, access);
  if (!pfn) return nullptr;
  return vm_.env.host_memory->At(HpaOf(*pfn) + (gpa.value & kPageOffsetMask), bytes);
}

void ShadowMmu::MarkWritten(Gfn gfn) {
  if (const DirtyLog* log = vm_.log.load()) log->Mark(gfn, vcpu_);
}

std::optional<uint64_t> ShadowMmu::Read(Gpa word, int bytes) {
  std::byte* const at = BytesFor(word, static_cast<size_t>(bytes), Access::Read());
  if (at == nullptr) return std::nullopt;
  return LoadGuestWord(at, bytes);
}

GuestMemory::Exchange ShadowMmu::CompareExchange(Gpa word, int bytes, uint64_t expected,
                                                 uint64_t desired) {
  std::byte* const at = BytesFor(word, static_cast<size_t>(bytes), Access::Write());
  if (at == nullptr) return Exchange::kNothing;
  if (ExchangeGuestWord(at, bytes, expected, desired) != expected) return Exchange::kChanged;
  MarkWritten(Gfn(word.value >> kPageShift));
  return Exchange::kDone;
}

std::optional<ShadowBacking::Page> ShadowMmu::At(const Turn& turn, Gfn gfn) {
  const Memslot* slot = gfn < vm_.gfn_limit ? vm_.slots.Find(turn, gfn) : nullptr;
  if (slot == nullptr) return std::nullopt;
  const MemoryAttributes attributes = vm_.attributes.Get(turn, gfn);
  const std::optional<Pfn> pfn = BackingOf(*slot, gfn, attributes.kind);
  // Every leaf of ours is readable.
  if (!pfn || !attributes.allowed().read()) return std::nullopt;
  const std::optional<Level> backing = ReadyLevel(gfn, attributes.kind, *pfn);
  if (!backing) return std::nullopt;
  const DirtyLog* log = vm_.log.load();
  const LeafWish wish{.gfn = gfn,
                      .pfn = *pfn,
                      .slot = slot->range,
                      .attributes = attributes,
                      .backing = *backing,
                      .log = log};
  Page page{*pfn};
  if (!IsSmallAnyway(wish)) {
    page.largest = LevelFor(vm_, turn, vm_.roots.Of(MemoryKind::kPrivate), wish).level;
  }
  page.allowed = attributes.allowed();
  page.withhold_write = log != nullptr;
  page.withhold_fetch = vm_.config.nx_huge_pages;
  return page;
}

}  // namespace twinroot::mmu
