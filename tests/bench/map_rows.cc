// Rows of one root without a VM: map, a new table, look-up, guard, count.
#include <cstring>
#include <memory>

#include "mmu/tables/epoch.h"
#include "tests/bench/clock.h"
#include "tests/bench/engine_tables.h"
#include "tests/bench/floor_tables.h"
#include "tests/bench/frames.h"
#include "tests/bench/row.h"

namespace twinroot::bench {
namespace {

using mmu::Gfn;
using mmu::GfnRange;
using mmu::Level;

GfnRange GuestOf(Effort effort) { return {Gfn(0), Pick(effort, kFramesOfGiB, 64 * kFramesOf2M)}; }
size_t TablePagesOf(GfnRange guest) { return guest.count / kFramesOf2M + 8; }

// The engine's tables and the floor's, and the frames of a round.
struct Both {
  Both(GfnRange the_guest, Frames the_frames)
      : guest(the_guest),
        frames(std::move(the_frames)),
        engine(TablePagesOf(guest)),
        floor(guest, Level::k4K) {}

  uint64_t MapFloor() {
    return HowMany(frames, [this](Gfn gfn) {
      return FloorTables::Map(floor.Slot(gfn), FloorTables::LeafOf(gfn));
    });
  }
  void ClearFloor() {
    for (const Gfn gfn : frames) FloorTables::Unmap(floor.Slot(gfn));
  }

  const GfnRange guest;
  const Frames frames;
  EngineTables engine;
  FloorTables floor;
};

Trial MapTrial(Effort effort, Order order) {
  const GfnRange guest = GuestOf(effort);
  auto both = std::make_shared<Both>(guest, FramesOf(guest, order));
  // The path is there from now on.
  Require(both->engine.MapEach(both->frames) == both->frames.size(), "the first map of all pages");
  both->engine.ClearLeaves(guest);
  Trial trial;
  trial.measured = [both] {
    uint64_t mapped = 0;
    const double ns =
        EachNs(both->frames.size(), [&] { mapped = both->engine.MapEach(both->frames); });
    Require(mapped == both->frames.size(), "a map of every page");
    both->engine.ClearLeaves(both->guest);
    return ns;
  };
  trial.floor = [both] {
    uint64_t mapped = 0;
    const double ns = EachNs(both->frames.size(), [&] { mapped = both->MapFloor(); });
    Require(mapped == both->frames.size(), "the floor's map of every page");
    both->ClearFloor();
    return ns;
  };
  return trial;
}

// What a new table costs at least: 4 KiB filled that no cache holds, linked, and one leaf in it.
class ColdFill {
 public:
  // A table for each of the frames.
  ColdFill(GfnRange guest, const Frames& tables)
      : arena_(tables.size()), links_(guest, Level::k2M), tables_(tables) {}

  double Run() {
    arena_.Evict();
    uint64_t linked = 0;
    const double ns = EachNs(tables_.size(), [&] {
      std::byte* page = arena_.bytes();
      linked = HowMany(tables_, [&](Gfn gfn) {
        std::memset(page, 0, mmu::kPageSize);
        auto* const words = reinterpret_cast<FloorTables::Word*>(page);
        page += mmu::kPageSize;
        return FloorTables::Map(links_.Slot<Level::k2M>(gfn),
                                reinterpret_cast<uint64_t>(words) | FloorTables::kPresent) &&
               FloorTables::Map(words[0], FloorTables::LeafOf(gfn));
      });
    });
    Require(linked == tables_.size(), "the floor's link of every table");
    for (const Gfn gfn : tables_) FloorTables::Unmap(links_.Slot<Level::k2M>(gfn));
    return ns;
  }

 private:
  Arena arena_;
  FloorTables links_;
  const Frames tables_;
};

Trial NewTableTrial(Effort effort) {
  const uint64_t tables = Pick(effort, 16384, 512);
  const GfnRange guest{Gfn(0), tables * kFramesOf2M};
  const Frames frames = FramesOf(guest, Order::kSequential, kFramesOf2M);
  auto engine = std::make_shared<EngineTables>(tables + tables / mmu::kEntriesPerTable + 8);
  auto floor = std::make_shared<ColdFill>(guest, frames);
  Trial trial;
  trial.measured = [=] {
    engine->arena().Evict();
    uint64_t mapped = 0;
    const double ns = EachNs(tables, [&] { mapped = engine->MapEach(frames); });
    Require(mapped == tables, "a map in every new table");
    Require(engine->ZapRange(guest) == tables, "a zap of every new table");
    return ns;
  };
  trial.floor = [floor] { return floor->Run(); };
  return trial;
}

Trial LookUpTrial(Effort effort) {
  const GfnRange guest = GuestOf(effort);
  auto both = std::make_shared<Both>(guest, FramesOf(guest, Order::kRandom));
  Require(both->engine.MapEach(both->frames) == guest.count, "a map of every page");
  Require(both->MapFloor() == guest.count, "the floor's map of every page");
  Trial trial;
  trial.measured = [both] {
    uint64_t found = 0;
    const double ns =
        EachNs(both->frames.size(), [&] { found = both->engine.LookUpEach(both->frames); });
    Require(found == both->frames.size(), "a look-up of every page");
    return ns;
  };
  trial.floor = [both] {
    uint64_t found = 0;
    const double ns = EachNs(both->frames.size(), [&] {
      found = HowMany(both->frames, [&](Gfn gfn) {
        return both->floor.Slot(gfn).load(std::memory_order_acquire) == FloorTables::LeafOf(gfn);
      });
    });
    Require(found == both->frames.size(), "the floor's look-up of every page");
    return ns;
  };
  return trial;
}

Trial GuardTrial(Effort effort) {
  const uint64_t times = Pick(effort, 2'000'000, 100'000);
  auto engine = std::make_shared<EngineTables>(8);
  const mmu::EpochGuard registers_this_thread;
  Trial trial;
  trial.measured = [=] { return CpuNs(times, [&] { engine->GuardRepeatedly(times); }); };
  trial.floor = [=] {
    return CpuNs(times, [&] {
      for (uint64_t i = 0; i < times; ++i) {
        urcu_memb_read_lock();
        Keep(i);
        urcu_memb_read_unlock();
      }
    });
  };
  return trial;
}

Trial CountTrial(Effort effort) {
  const uint64_t times = Pick(effort, 2'000'000, 100'000);
  auto engine = std::make_shared<EngineTables>(8);
  Trial trial;
  trial.measured = [=] { return CpuNs(times, [&] { engine->CountRepeatedly(times); }); };
  trial.floor = [=] {
    static thread_local uint64_t count = 0;
    return CpuNs(times, [&] {
      for (uint64_t i = 0; i < times; ++i) {
        ++count;
        Keep(count);
      }
    });
  };
  return trial;
}

}  // namespace

void AddMapRows(Rows& rows) {
  rows.push_back({"map_4k_sequential", "ns/page", Target::Ratio(1.75),
                  [](Effort e) { return MapTrial(e, Order::kSequential); }});
  rows.push_back({"map_4k_random", "ns/page", Target::Ratio(1.75),
                  [](Effort e) { return MapTrial(e, Order::kRandom); }});
  rows.push_back({"new_leaf_table_cold", "ns/table", Target::Ratio(1.3), NewTableTrial});
  rows.push_back({"look_up_random", "ns/page", Target::Ratio(1.3), LookUpTrial});
  rows.push_back({"fault_read_guard", "ns", Target::AtMost(2.5), GuardTrial});
  rows.push_back({"fault_count", "ns", Target::AtMost(1), CountTrial});
}

}  // namespace twinroot::bench
