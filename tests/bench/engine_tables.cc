#include "tests/bench/engine_tables.h"

#include <variant>

#include "mmu/engine/map.h"
#include "mmu/engine/zap.h"
#include "mmu/tables/cursor.h"
#include "mmu/tables/entry_change.h"
#include "mmu/tables/flush_batch.h"
#include "mmu/tables/mmu_lock.h"
#include "mmu/tables/root.h"
#include "mmu/tables/table_pool.h"
#include "tests/bench/bench_space.h"

namespace twinroot::bench {
namespace {

using mmu::EptEntry;
using mmu::MmuLock;

class BugsEndTheRun : public mmu::BugSink {
 public:
  void ReportBug(const std::string& what) override { Require(false, what.c_str()); }
};

}  // namespace

struct EngineTables::Parts {
  explicit Parts(size_t pages)
      : arena(pages), pool(kTablesAt, arena.bytes(), pages), change(counts) {
    mmu::PreloadedTables preload(pool);
    Require(pool.Preload(1, preload).ok(), "a root");
    root.table = &preload.Take();
    mmu::TableRole role;
    role.level = mmu::Level::k512G;
    change.AdoptRoot(*root.table, {mmu::Gfn(0), role});
  }

  uint64_t leaves() const { return counts.leaves[0][0].load(std::memory_order_relaxed); }

  Arena arena;
  mmu::TablePool pool;
  mmu::TableCounts counts;
  mmu::EntryChange change;
  mmu::FlushCounts flushes;
  BugsEndTheRun bugs;
  MmuLock lock;
  mmu::Root root;
};

EngineTables::EngineTables(size_t pages) : parts_(std::make_unique<Parts>(pages)) {}
EngineTables::~EngineTables() = default;

uint64_t EngineTables::MapEach(const Frames& frames) {
  Parts& p = *parts_;
  const MmuLock::Shared lock(p.lock);
  mmu::PreloadedTables preload(p.pool);
  return HowMany(frames, [&](mmu::Gfn gfn) {
    const mmu::MapRequest request{.gfn = gfn, .pfn = PrivatePfn(gfn), .level = mmu::Level::k4K};
    mmu::MapOutcome outcome = mmu::Map(lock, p.pool, p.change, p.root, request, preload);
    if (const auto* need = std::get_if<mmu::NeedTables>(&outcome)) {
      Require(p.pool.Preload(need->count, preload).ok(), "a table page");
      outcome = mmu::Map(lock, p.pool, p.change, p.root, request, preload);
    }
    return std::holds_alternative<mmu::Mapped>(outcome);
  });
}

uint64_t EngineTables::ZapEach(const Frames& frames) {
  Parts& p = *parts_;
  const uint64_t before = p.leaves();
  mmu::FlushBatch batch(p.pool, nullptr, p.flushes, p.bugs);
  const MmuLock::Exclusive lock(p.lock);
  HowMany(frames, [&](mmu::Gfn gfn) {
    mmu::Zap(lock, p.pool, p.change, p.root, mmu::GfnRange{gfn, 1}, batch);
    return true;
  });
  Require(batch.Finish(lock).ok(), "the end of a flush batch");
  return before - p.leaves();
}

uint64_t EngineTables::ZapRange(mmu::GfnRange range) {
  Parts& p = *parts_;
  const uint64_t before = p.leaves();
  mmu::FlushBatch batch(p.pool, nullptr, p.flushes, p.bugs);
  const MmuLock::Exclusive lock(p.lock);
  mmu::Zap(lock, p.pool, p.change, p.root, range, batch);
  Require(batch.Finish(lock).ok(), "the end of a flush batch");
  return before - p.leaves();
}

uint64_t EngineTables::LookUpEach(const Frames& frames) {
  Parts& p = *parts_;
  const MmuLock::Shared lock(p.lock);
  return HowMany(frames, [&](mmu::Gfn gfn) {
    mmu::Cursor at(lock, p.pool, p.root, mmu::GfnRange{gfn, 1});
    EptEntry entry = at.entry();
    while (mmu::Table* child = at.Child(entry)) {
      at.Descend(*child);
      entry = at.entry();
    }
    return entry.raw() == mmu::EptEntry::Leaf(mmu::HpaOf(PrivatePfn(gfn)), mmu::Level::k4K,
                                              mmu::Access::All(), mmu::MemType::kWriteBack)
                              .raw();
  });
}

void EngineTables::ClearLeaves(mmu::GfnRange range) {
  Parts& p = *parts_;
  const MmuLock::Exclusive lock(p.lock);
  for (mmu::Cursor at(lock, p.pool, p.root, range); at.valid();) {
    const EptEntry entry = at.entry();
    mmu::Table* const child = at.returned() ? nullptr : at.Child(entry);
    if (child != nullptr) {
      at.Descend(*child);
      continue;
    }
    if (entry.present() && entry.IsLeaf(at.level())) {
      p.change.ClearLeaf(lock, at.table(), at.index());
    }
    at.Next();
  }
}

void EngineTables::GuardRepeatedly(uint64_t times) {
  for (uint64_t i = 0; i < times; ++i) {
    const MmuLock::Shared guard(parts_->lock);
    Keep(i);
  }
}

void EngineTables::CountRepeatedly(uint64_t times) {
  for (uint64_t i = 0; i < times; ++i) {
    parts_->counts.leaves[0][0].fetch_add(1, std::memory_order_relaxed);
  }
}

const Arena& EngineTables::arena() const { return parts_->arena; }

uint64_t BytesOfATable() { return mmu::kPageSize + sizeof(mmu::Table) + sizeof(mmu::Table*); }

}  // namespace twinroot::bench
