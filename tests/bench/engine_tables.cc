#include "tests/bench/engine_tables.h"

#include <variant>

#include "mmu/engine/map.h"
#include "mmu/engine/zap.h"
#include "mmu/tables/cursor.h"
#include "mmu/tables/entry_change.h"
#include "mmu/tables/epoch.h"
#include "mmu/tables/flush_batch.h"
#include "mmu/tables/root.h"
#include "mmu/tables/table_pool.h"
#include "mmu/vm/invalidation_seq.h"
#include "tests/bench/bench_space.h"

namespace twinroot::bench {
namespace {

using mmu::EpochGuard;
using mmu::EptEntry;
using mmu::Level;
using mmu::SlotState;
using mmu::Turn;
using mmu::VmCount;

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

  uint64_t leaves() const { return counts.Sum(VmCount::kLeaf); }
  mmu::FlushBatch Batch() { return mmu::FlushBatch(pool, change, nullptr, counts, bugs); }

  Arena arena;
  mmu::TablePool pool;
  mmu::VmCounts counts;
  mmu::EntryChange change;
  BugsEndTheRun bugs;
  mmu::Mutex turn_mutex;
  mmu::InvalidationSeq seq;
  mmu::Root root;
};

EngineTables::EngineTables(size_t pages) : parts_(std::make_unique<Parts>(pages)) {}
EngineTables::~EngineTables() = default;

uint64_t EngineTables::MapEach(const Frames& frames) {
  Parts& p = *parts_;
  mmu::PreloadedTables preload(p.pool);
  return HowMany(frames, [&](mmu::Gfn gfn) {
    // As a fault does: straight down, and the whole map where a table is missing.
    const mmu::LeafRequest leaf{};
    const uint64_t snapshot = p.seq.Snapshot(gfn);
    const auto map_empty = [&] {
      const EpochGuard guard;
      return mmu::MapEmpty(
          guard, p.pool, p.change, p.root, gfn,
          [&](Level level) {
            return level == Level::k4K ? mmu::MakeLeaf(PrivatePfn(gfn), level, leaf)
                                       : mmu::kEmptyEntry;
          },
          [&](mmu::GfnRange range) { return p.seq.StillValid(guard, range, snapshot); });
    };
    if (map_empty()) return true;
    const mmu::MapRequest request{.gfn = gfn,
                                  .pfn = PrivatePfn(gfn),
                                  .level = Level::k4K,
                                  .access = mmu::Access::Read(),
                                  .leaf = leaf};
    const auto map = [&] {
      const EpochGuard guard;
      return mmu::Map(guard, p.pool, p.change, p.root, request, preload, [&](mmu::GfnRange range) {
        return p.seq.StillValid(guard, range, snapshot);
      });
    };
    mmu::MapOutcome outcome = map();
    if (const auto* need = std::get_if<mmu::NeedTables>(&outcome)) {
      Require(p.pool.Preload(need->count, preload).ok(), "a table page");
      outcome = map();
    }
    return std::holds_alternative<mmu::Mapped>(outcome);
  });
}

uint64_t EngineTables::ZapEach(const Frames& frames) {
  Parts& p = *parts_;
  const uint64_t before = p.leaves();
  mmu::FlushBatch batch = p.Batch();
  const Turn turn(p.turn_mutex);
  HowMany(frames, [&](mmu::Gfn gfn) {
    mmu::Zap(turn, p.pool, p.change, p.root, mmu::GfnRange{gfn, 1}, batch);
    return true;
  });
  Require(batch.Finish(turn).ok(), "the end of a flush batch");
  return before - p.leaves();
}

uint64_t EngineTables::ZapRange(mmu::GfnRange range) {
  Parts& p = *parts_;
  const uint64_t before = p.leaves();
  mmu::FlushBatch batch = p.Batch();
  const Turn turn(p.turn_mutex);
  mmu::Zap(turn, p.pool, p.change, p.root, range, batch);
  Require(batch.Finish(turn).ok(), "the end of a flush batch");
  return before - p.leaves();
}

uint64_t EngineTables::LookUpEach(const Frames& frames) {
  Parts& p = *parts_;
  return HowMany(frames, [&](mmu::Gfn gfn) {
    const EpochGuard guard;
    const mmu::Descent at = mmu::Descend(guard, p.pool, p.root, gfn);
    return at.slot != nullptr && mmu::PfnOf(at.entry.address()) == PrivatePfn(gfn);
  });
}

void EngineTables::ClearLeaves(mmu::GfnRange range) {
  Parts& p = *parts_;
  const Turn turn(p.turn_mutex);
  for (mmu::Cursor at(turn, p.pool, p.root, range); at.valid();) {
    const EptEntry entry = at.entry();
    const SlotState state = mmu::StateOf(entry, at.level());
    if (!at.returned() && state == SlotState::kLink && at.Descend(entry)) continue;
    if (state == SlotState::kLeaf) p.change.ClearLeaf(turn, p.root, at.slot(), at.level());
    at.Next();
  }
}

void EngineTables::GuardRepeatedly(uint64_t times) {
  for (uint64_t i = 0; i < times; ++i) {
    const EpochGuard guard;
    Keep(i);
  }
}

void EngineTables::CountRepeatedly(uint64_t times) {
  for (uint64_t i = 0; i < times; ++i) {
    parts_->counts.Add(VmCount::kFaultFixed);
    Keep(i);
  }
}

const Arena& EngineTables::arena() const { return parts_->arena; }

uint64_t BytesOfATable() { return mmu::kPageSize + sizeof(mmu::Table); }

}  // namespace twinroot::bench
