// How a VM's memory lies: its attributes, and over them the leaves of its page tables, as runs and
// as the cells of a picture. Reads EPT entries as a processor does (SDM: "Format of an EPT
// Page-Table Entry"). Not thread-safe.
#ifndef TWINROOT_CLI_MEMORY_MAP_H_
#define TWINROOT_CLI_MEMORY_MAP_H_

#include <cstdint>
#include <vector>

#include "twinroot/v1/memory.pb.h"
#include "twinroot/v1/tables.pb.h"

namespace twinroot::cli {

enum class Pages { kNotKnown, kNotMapped, kSmall, kLarge };
// What of a leaf tells that its page was written: nothing, that the log gave W back, the D bit.
enum class WriteMark { kNone, kWritable, kDirty };

struct MapRun {
  uint64_t gpa = 0;
  uint64_t size = 0;
  v1::MemoryKind kind = v1::MEMORY_KIND_UNSPECIFIED;
  Pages pages = Pages::kNotKnown;
  bool written = false;
};

class MemoryMap {
 public:
  // In the order of addresses.
  void AddAttributes(const v1::MemoryRun& run);
  void AddTables(const v1::DumpTablesResponse& tables, WriteMark mark);
  // Without tables nothing is known of pages.
  void TablesAreKnown() { tables_known_ = true; }

  bool tables_known() const { return tables_known_; }
  // Maximal runs by address. Pages count as mapped by the root of the kind that they have.
  std::vector<MapRun> Runs() const;

 private:
  // Alike neighbours are one run; the tables of a large VM have millions of leaves.
  void AddLeaf(v1::MemoryKind root, const MapRun& leaf);

  std::vector<MapRun> attributes_;
  std::vector<MapRun> private_leaves_;
  std::vector<MapRun> shared_leaves_;
  bool tables_known_ = false;
};

// A piece of the picture: what is in it at all.
struct MapCell {
  bool is_private = false;
  bool is_shared = false;
  bool small = false;
  bool large = false;
  bool known = false;  // how its pages are mapped
  bool written = false;
  bool memory() const { return is_private || is_shared; }
  bool operator==(const MapCell&) const = default;
};

// The cells of `cell` bytes, a power of two, from `begin` (a multiple of it) to the last run's end.
std::vector<MapCell> CellsOf(const std::vector<MapRun>& runs, uint64_t begin, uint64_t cell);

// The smallest power of two of at least a page, so that no more than `most` cells are needed.
uint64_t CellSize(uint64_t bytes, uint64_t most);

// Bytes by kind, pages and whether they are written.
struct MapTotals {
  struct Kind {
    uint64_t all = 0;
    uint64_t large = 0;
    uint64_t small = 0;
    uint64_t not_mapped = 0;
    uint64_t written = 0;
  };
  Kind private_memory;
  Kind shared_memory;
};
MapTotals TotalsOf(const std::vector<MapRun>& runs);

}  // namespace twinroot::cli

#endif  // TWINROOT_CLI_MEMORY_MAP_H_
