#include "cli/memory_map.h"

#include <algorithm>
#include <cstring>

namespace twinroot::cli {
namespace {

constexpr uint64_t kPageSize = 4096;
constexpr unsigned kPageShift = 12;
constexpr unsigned kIndexBits = 9;

// Of an EPT entry.
constexpr uint64_t kRights = 7;      // R, W, X: none of them, not present
constexpr uint64_t kWrite = 1 << 1;  // W
constexpr uint64_t kLargePage = 1 << 7;
constexpr uint64_t kDirtyBit = 1 << 9;  // D

uint64_t End(const MapRun& run) { return run.gpa + run.size; }

bool Alike(const MapRun& a, const MapRun& b) {
  return a.kind == b.kind && a.pages == b.pages && a.written == b.written;
}

void Append(const MapRun& run, std::vector<MapRun>* runs) {
  if (run.size == 0) return;
  if (!runs->empty() && End(runs->back()) == run.gpa && Alike(runs->back(), run)) {
    runs->back().size += run.size;
  } else {
    runs->push_back(run);
  }
}

bool Written(uint64_t entry, WriteMark mark) {
  return (mark == WriteMark::kWritable && (entry & kWrite) != 0) ||
         (mark == WriteMark::kDirty && (entry & kDirtyBit) != 0);
}

}  // namespace

void MemoryMap::AddAttributes(const v1::MemoryRun& run) {
  Append({run.gpa(), run.size(), run.kind(), Pages::kNotKnown, false}, &attributes_);
}

void MemoryMap::AddLeaf(v1::MemoryKind root, const MapRun& leaf) {
  Append(leaf, root == v1::MEMORY_KIND_SHARED ? &shared_leaves_ : &private_leaves_);
}

void MemoryMap::AddTables(const v1::DumpTablesResponse& tables, WriteMark mark) {
  for (const v1::DumpTablesResponse::Table& table : tables.tables()) {
    const uint64_t span = kPageSize << (kIndexBits * (table.level() - 1));
    const std::string& entries = table.entries();
    for (size_t at = 0; at + sizeof(uint64_t) <= entries.size(); at += sizeof(uint64_t)) {
      uint64_t entry = 0;
      std::memcpy(&entry, entries.data() + at, sizeof(entry));
      const bool leaf = table.level() == 1 || (entry & kLargePage) != 0;
      if ((entry & kRights) == 0 || !leaf) continue;
      AddLeaf(tables.root(),
              {table.gpa() + at / sizeof(uint64_t) * span, span, tables.root(),
               table.level() == 1 ? Pages::kSmall : Pages::kLarge, Written(entry, mark)});
    }
  }
}

std::vector<MapRun> MemoryMap::Runs() const {
  std::vector<MapRun> result;
  const auto by_address = [](const MapRun& a, const MapRun& b) { return a.gpa < b.gpa; };
  std::vector<MapRun> sorted[] = {private_leaves_, shared_leaves_};
  for (std::vector<MapRun>& leaves : sorted) {
    std::stable_sort(leaves.begin(), leaves.end(), by_address);
  }
  for (const MapRun& run : attributes_) {
    MapRun bare = run;
    bare.pages = tables_known_ ? Pages::kNotMapped : Pages::kNotKnown;
    const std::vector<MapRun>& leaves = sorted[run.kind == v1::MEMORY_KIND_SHARED];
    uint64_t at = run.gpa;
    const auto append = [&](const MapRun& like, uint64_t end) {
      if (end <= at) return;
      Append({at, end - at, run.kind, like.pages, like.written}, &result);
      at = end;
    };
    auto leaf = std::upper_bound(leaves.begin(), leaves.end(), run, by_address);
    // One that begins before the run may reach into it.
    if (leaf != leaves.begin()) --leaf;
    for (; leaf != leaves.end() && leaf->gpa < End(run); ++leaf) {
      if (End(*leaf) <= at) continue;
      append(bare, std::max(leaf->gpa, at));
      append(*leaf, std::min(End(*leaf), End(run)));
    }
    append(bare, End(run));
  }
  return result;
}

std::vector<MapCell> CellsOf(const std::vector<MapRun>& runs, uint64_t begin, uint64_t cell) {
  std::vector<MapCell> cells;
  for (const MapRun& run : runs) {
    const uint64_t last = (End(run) - 1 - begin) / cell;
    cells.resize(std::max<size_t>(cells.size(), last + 1));
    for (uint64_t i = (run.gpa - begin) / cell; i <= last; ++i) {
      MapCell& piece = cells[i];
      (run.kind == v1::MEMORY_KIND_SHARED ? piece.is_shared : piece.is_private) = true;
      piece.known |= run.pages != Pages::kNotKnown;
      piece.small |= run.pages == Pages::kSmall;
      piece.large |= run.pages == Pages::kLarge;
      piece.written |= run.written;
    }
  }
  return cells;
}

uint64_t CellSize(uint64_t bytes, uint64_t most) {
  unsigned shift = kPageShift;
  while (shift < 63 && (bytes >> shift) + ((bytes & ((uint64_t{1} << shift) - 1)) != 0) > most) {
    ++shift;
  }
  return uint64_t{1} << shift;
}

MapTotals TotalsOf(const std::vector<MapRun>& runs) {
  MapTotals totals;
  for (const MapRun& run : runs) {
    MapTotals::Kind& kind =
        run.kind == v1::MEMORY_KIND_SHARED ? totals.shared_memory : totals.private_memory;
    kind.all += run.size;
    kind.large += run.pages == Pages::kLarge ? run.size : 0;
    kind.small += run.pages == Pages::kSmall ? run.size : 0;
    kind.not_mapped += run.pages == Pages::kNotMapped ? run.size : 0;
    kind.written += run.written ? run.size : 0;
  }
  return totals;
}

}  // namespace twinroot::cli
