// Shadow tables beside the direct engine and beside the bare work: a guest walk, a shadow fault, a
// huge page that is split, a leaf table that is brought into step.
#include <benchmark/benchmark.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "mmu/engine/make_entry.h"
#include "mmu/engine/split.h"
#include "mmu/hw/soft_bits.h"
#include "mmu/shadow/guest_walker.h"
#include "mmu/shadow/shadow_map.h"
#include "mmu/shadow/shadow_roots.h"
#include "mmu/shadow/shadow_split.h"
#include "mmu/tables/entry_change.h"
#include "mmu/tables/mutex.h"
#include "tests/bench/arena.h"

namespace twinroot::mmu {
namespace {

constexpr uint64_t kHuge = 512;  // 1 GiB of 2M pages
constexpr size_t kTables = 2048;
// Of the rows that split: more than 10,000 pages of 2M.
constexpr uint64_t kGiants = 20;
constexpr uint64_t kSplitPages = kGiants * kHuge;
constexpr size_t kSplitTables = kSplitPages + 64;

// Four levels of tables in the first 2M that map 1 GiB of 4K pages, or some GiB of 2M ones, to
// themselves, 2M further on.
class BenchGuest : public GuestMemory, public ShadowBacking, public TlbFlusher, public BugSink {
 public:
  explicit BenchGuest(bool large, uint64_t giants = 1)
      : tables_count_(giants == 1 ? kTables : kSplitTables), memory_(1024), arena_(tables_count_) {
    Entry(1, 0, Link(2));
    for (uint64_t giant = giants - 1; giant > 0; --giant) {
      Entry(2, giant, Link(3 + giant));
      for (uint64_t i = 0; i < kHuge; ++i) {
        Entry(3 + giant, i, (giant * kHuge + i + 1) * BytesPerEntry(Level::k2M) | 0xE7);
      }
    }
    Entry(2, 0, Link(3));
    for (uint64_t i = 0; i < kHuge; ++i) {
      const uint64_t page = (i + 1) * BytesPerEntry(Level::k2M);
      Entry(3, i, large ? page | 0xE7 : Link(4 + i));
      for (uint64_t j = 0; j < kHuge && !large; ++j) Entry(4 + i, j, (page + j * kPageSize) | 0x67);
    }
    registers_.cr0 = ControlRegisters::kCr0Pg | ControlRegisters::kCr0Wp;
    registers_.cr3 = kPageSize;
    registers_.cr4 = ControlRegisters::kCr4Pae;
    registers_.efer = ControlRegisters::kEferLma | ControlRegisters::kEferNxe;
    paging_.emplace(registers_, GuestCpuFeatures{});
    PreloadedTables preload(pool_);
    const bool ok = pool_.Preload(1, preload).ok();
    const auto loaded = roots_.Load(turn_, {GuestShape::Of(*paging_), Gpa(kPageSize)}, preload);
    if (!ok || !loaded.ok()) std::abort();
    root_ = loaded->root;
  }
  ~BenchGuest() override { roots_.DropAll(turn_); }

  std::optional<uint64_t> Read(Gpa word, int) override {
    uint64_t value;
    std::memcpy(&value, memory_.bytes() + word.value, sizeof(value));
    return value;
  }
  Exchange CompareExchange(Gpa word, int, uint64_t, uint64_t desired) override {
    std::memcpy(memory_.bytes() + word.value, &desired, sizeof(desired));
    return Exchange::kDone;
  }
  std::optional<Page> At(const Turn&, Gfn gfn) override {
    return Page{Pfn((uint64_t{1} << 30) + gfn.value), Level::k1G};
  }
  void FlushRange(MemoryKind, HwGfn, uint64_t) override {}
  void FlushAll() override {}
  void ReportBug(const std::string&) override { std::abort(); }

  GuestTranslation Walk(uint64_t address) {
    return std::get<GuestTranslation>(
        WalkGuest(*paging_, *this, {address, Access::Write(), LinearMode::kUser}));
  }
  void Fault(uint64_t address) {
    const GuestTranslation walk = Walk(address);
    if (preload_->size() < kDeepestShadow && !pool_.Preload(64, *preload_).ok()) std::abort();
    const ShadowOutcome outcome = mapper_.Map(turn_, *root_, GuestShape::Of(*paging_), walk,
                                              address, Access::Write(), *preload_);
    if (outcome != ShadowOutcome::kMapped) std::abort();
  }
  void Zap() {
    ShadowFlush flush = tables_.NewFlush();
    tables_.ZapRange(turn_, {Gfn(kHuge), kHuge * kHuge}, flush);
    flush.Finish(turn_);
  }
  // What faults hold in reserve.
  void ReturnTables() { preload_.emplace(pool_); }
  void Reset() {
    ShadowFlush flush = tables_.NewFlush();
    tables_.MakeRoom(turn_, tables_.config().most_pages - 1, flush);
    flush.Finish(turn_);
  }

  const Turn& turn() const { return turn_; }
  ShadowTables& tables() { return tables_; }
  ShadowMapper& mapper() { return mapper_; }

 private:
  static uint64_t Link(uint64_t frame) { return frame * kPageSize | 0x27; }
  void Entry(uint64_t frame, uint64_t index, uint64_t entry) {
    std::memcpy(memory_.bytes() + frame * kPageSize + index * 8, &entry, sizeof(entry));
  }

  const size_t tables_count_;
  bench::Arena memory_;
  bench::Arena arena_;
  TablePool pool_{Hpa(uint64_t{1} << 40), arena_.bytes(), tables_count_};
  VmCounts counts_;
  EntryChange change_{counts_};
  Mutex mutex_;
  const Turn turn_{mutex_};
  ShadowTables tables_{{.most_pages = tables_count_}, {&pool_, &change_, this, this}};
  ShadowMapper mapper_{tables_, *this, *this, {}};
  ShadowRoots roots_{tables_};
  std::optional<PreloadedTables> preload_{pool_};
  ControlRegisters registers_;
  std::optional<Ia32Paging> paging_;
  ShadowPage* root_ = nullptr;
};

void GuestWalk(benchmark::State& state) {
  BenchGuest guest(false);
  uint64_t page = 0;
  for (auto _ : state) {
    benchmark::DoNotOptimize(guest.Walk(page * kPageSize).gpa);
    page = (page + 7919) % (kHuge * kHuge);
  }
}
BENCHMARK(GuestWalk);

// Pages whose tables stand, walk included.
void ShadowFault(benchmark::State& state) {
  BenchGuest guest(false);
  constexpr uint64_t kPages = 64 * kHuge;
  for (auto _ : state) {
    for (uint64_t page = 0; page < kPages; ++page) guest.Fault(page * kPageSize);
    state.PauseTiming();
    guest.Zap();
    state.ResumeTiming();
  }
  state.SetItemsProcessed(state.iterations() * static_cast<int64_t>(kPages));
}
BENCHMARK(ShadowFault)->Unit(benchmark::kMillisecond);

void SplitShadow(benchmark::State& state) {
  BenchGuest guest(true, kGiants);
  for (auto _ : state) {
    state.PauseTiming();
    guest.Reset();
    for (uint64_t i = 0; i < kSplitPages; ++i) guest.Fault(i * BytesPerEntry(Level::k2M));
    guest.ReturnTables();
    state.ResumeTiming();
    const ShadowSplitResult result = SplitShadowPages(
        guest.turn(), guest.tables(), {Gfn(kHuge), kSplitPages * kHuge}, Level::k4K, ~size_t{0});
    if (result.split_2m != kSplitPages || result.flushes != 0) std::abort();
  }
  state.SetItemsProcessed(state.iterations() * static_cast<int64_t>(kSplitPages));
}
// What comes between two rounds takes longer than they do.
BENCHMARK(SplitShadow)->Unit(benchmark::kMicrosecond)->Iterations(5);

// The direct engine's: the same tables without reverse maps.
void SplitDirect(benchmark::State& state) {
  bench::Arena arena(kSplitTables);
  TablePool pool(Hpa(uint64_t{1} << 40), arena.bytes(), kSplitTables);
  VmCounts counts;
  EntryChange change(counts);
  Mutex mutex;
  const Turn turn(mutex);
  PreloadedTables preload(pool);
  if (!pool.Preload(1 + kGiants, preload).ok()) std::abort();
  Root root;
  root.table = &preload.Take();
  TableIdentity identity;
  identity.role.level = Level::k1G;
  change.AdoptRoot(*root.table, identity);
  std::vector<Table*> directories;
  for (uint64_t giant = 0; giant < kGiants; ++giant) {
    directories.push_back(&preload.Take());
    change.Link(turn, root, *root.table, root.table->slots[giant], kEmptyEntry, *directories.back(),
                Gfn(giant * kHuge * kHuge));
  }
  std::vector<Table*> children;
  for (auto _ : state) {
    state.PauseTiming();
    for (Table* child : children) pool.Free(*child);
    children.clear();
    if (!pool.Preload(kSplitPages, preload).ok()) std::abort();
    const EptEntry leaf =
        WithMmuPresent(EptEntry::Leaf(Hpa(0), Level::k2M, Access::All(), MemType::kWriteBack));
    for (Table* directory : directories) {
      for (uint64_t i = 0; i < kHuge; ++i) change.Exchange(turn, directory->slots[i], leaf);
    }
    state.ResumeTiming();
    for (uint64_t i = 0; i < kSplitPages; ++i) {
      Table& child = preload.Take();
      Table& directory = *directories[i / kHuge];
      children.push_back(&child);
      SplitLeaf(turn, change, root, directory, directory.slots[i % kHuge], leaf, child,
                Gfn(i * kHuge));
    }
  }
  for (Table* child : children) pool.Free(*child);
  state.SetItemsProcessed(state.iterations() * static_cast<int64_t>(kSplitPages));
}
BENCHMARK(SplitDirect)->Unit(benchmark::kMicrosecond)->Iterations(20);

// 512 entries that are as they were.
void SyncPage(benchmark::State& state) {
  BenchGuest guest(false);
  for (uint64_t page = 0; page < kHuge; ++page) guest.Fault(page * kPageSize);
  for (auto _ : state) {
    if (!guest.tables().MakeUnsync(guest.turn(), Gfn(4))) std::abort();
    guest.mapper().SyncAll(guest.turn());
  }
}
BENCHMARK(SyncPage);

}  // namespace
}  // namespace twinroot::mmu
