// Rows of bytes: tables, attributes, an idle VM; and of many VMs in one process.
#include <memory>
#include <vector>

#include "tests/bench/bench_space.h"
#include "tests/bench/clock.h"
#include "tests/bench/engine_tables.h"
#include "tests/bench/frames.h"
#include "tests/bench/heap_count.h"
#include "tests/bench/row.h"

namespace twinroot::bench {
namespace {

using mmu::Gfn;
using mmu::Level;
using mmu::MemoryKind;

// The floor is a page of entries for each 512 pages.
double WordBytes() { return static_cast<double>(mmu::kPageSize) / mmu::kEntriesPerTable; }

Trial TableBytesTrial(Effort effort) {
  const uint64_t frames = Pick(effort, kFramesOfGiB, 256 * kFramesOf2M);
  Trial trial;
  trial.measured = [=] {
    BenchSpace space({.frames = frames});
    const Frames all = FramesOf({Gfn(0), frames}, Order::kSequential);
    Require(space.FaultEach(all) == frames, "a fault for every page");
    const uint64_t tables = space->stats().table_pages;
    return static_cast<double>(tables * BytesOfATable()) / static_cast<double>(frames);
  };
  trial.floor = WordBytes;
  return trial;
}

// A guest of 256 MiB with the table budget that the daemon gives it, nothing mapped.
constexpr uint64_t kSmallGuest = kFramesOfGiB / 4;
constexpr size_t kSmallBudget = 2 * (kSmallGuest / kFramesOf2M + 4) + 36;

BenchSpaceOptions SmallVm() {
  return {
      .frames = kSmallGuest, .table_pages = kSmallBudget, .table_memory = Arena::Pages::kUntouched};
}

// All that the engine allocated, and the table pages that it uses.
Trial IdleVmTrial(Effort) {
  Trial trial;
  trial.measured = [] {
    const HeapCount heap;
    const BenchSpace space(SmallVm());
    return static_cast<double>(heap.bytes()) +
           static_cast<double>(space->stats().table_pages * mmu::kPageSize);
  };
  // Two roots.
  trial.floor = [] { return 2.0 * mmu::kPageSize; };
  return trial;
}

// The same with 4,096 of them alive, each of which has served a fault.
Trial ManyVmsTrial(Effort effort) {
  const uint64_t count = Pick(effort, 4096, 64);
  Trial trial;
  trial.measured = [=] {
    const HeapCount heap;
    std::vector<std::unique_ptr<BenchSpace>> spaces;
    uint64_t table_pages = 0;
    for (uint64_t i = 0; i < count; ++i) spaces.push_back(std::make_unique<BenchSpace>(SmallVm()));
    for (const auto& space : spaces) {
      Require(space->FaultEach({Gfn(0)}) == 1, "a fault in every VM");
      table_pages += (*space)->stats().table_pages;
    }
    const double bytes =
        static_cast<double>(heap.bytes()) + static_cast<double>(table_pages * mmu::kPageSize);
    return bytes / static_cast<double>(count);
  };
  // Two roots and the three tables of one page.
  trial.floor = [] { return 5.0 * mmu::kPageSize; };
  return trial;
}

Trial CreateVmTrial(Effort effort) {
  const uint64_t count = Pick(effort, 256, 16);
  Trial trial;
  trial.measured = [=] {
    std::vector<std::unique_ptr<BenchSpace>> spaces(count);
    return WallNs(count, [&] {
      for (auto& space : spaces) space = std::make_unique<BenchSpace>(SmallVm());
    });
  };
  return trial;
}

// One page of each 2M page shared: as few runs in a node as there can be.
Trial AttributeBytesTrial(Effort effort) {
  const uint64_t frames = Pick(effort, 4 * kFramesOfGiB, kFramesOfGiB);
  Trial trial;
  trial.measured = [=] {
    BenchSpace space({.frames = frames, .table_pages = 64});
    std::vector<mmu::GfnRange> ranges;
    for (uint64_t i = 1; i < frames; i += kFramesOf2M) ranges.push_back({Gfn(i), 1});
    const HeapCount heap;
    Require(space.Convert(ranges, MemoryKind::kShared) == ranges.size(), "a change of every page");
    const size_t runs = space->GetMemoryAttributes().size();
    Require(runs == 2 * ranges.size() + 1, "two runs in each 2M page");
    return static_cast<double>(heap.bytes()) / static_cast<double>(runs);
  };
  return trial;
}

}  // namespace

void AddSizeRows(Rows& rows) {
  rows.push_back({"table_bytes_per_4k_page", "bytes", Target::AtMost(8.4), TableBytesTrial});
  rows.push_back({"attribute_bytes_per_run", "bytes", Target::AtMost(64), AttributeBytesTrial});
  rows.push_back({"idle_vm_bytes", "bytes", Target::AtMost(65536), IdleVmTrial});
  rows.push_back({"many_vms_bytes_each", "bytes", Target::AtMost(65536), ManyVmsTrial});
  rows.push_back({"create_vm", "ns/vm", Target::Report(), CreateVmTrial});
}

}  // namespace twinroot::bench
