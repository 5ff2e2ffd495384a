// The shadow tables of one VM: who stands in for what, who links whom, which leaves map a frame.
// What is done with them, a fault, a sync, a split, stands in files of its own.
//
// Not thread-safe: all of it is the Turn's; processors set flags in leaves beside it. 1. A page is
// found again only under exactly its identity (B1). 2. Every leaf is in the reverse map under the
// frame that its page names (B3), every link among the parents of its child. 3. A frame that holds
// a table with a shadow is not writable through any leaf, but where all its shadows are unsync.
// 4. No large leaf reaches over such a frame. 5. Roots are pages like others (C4).
#ifndef TWINROOT_MMU_SHADOW_SHADOW_TABLES_H_
#define TWINROOT_MMU_SHADOW_SHADOW_TABLES_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "mmu/hw/shadow_entry.h"
#include "mmu/shadow/guest_rights.h"
#include "mmu/shadow/reverse_map.h"
#include "mmu/shadow/shadow_flush.h"
#include "mmu/shadow/shadow_page.h"
#include "mmu/tables/bug_sink.h"
#include "mmu/tables/entry_change.h"
#include "mmu/tables/table_pool.h"
#include "mmu/types/address.h"
#include "mmu/types/gfn_range.h"
#include "mmu/types/level.h"

namespace twinroot::mmu {

class ShadowTables {
 public:
  struct Config {
    ShadowFormat format = ShadowFormat::kPaging;
    // Of the processor's own walk: 1G is PAE, with roots of 4 entries below 4 GiB.
    Level root_level = Level::k512G;
    size_t most_pages = 1024;  // beyond them the least recently used go
  };
  // Not owned.
  struct Parts {
    TablePool* pool;
    EntryChange* change;
    TlbFlusher* flusher;  // may be null
    BugSink* bugs;
  };
  // Private: one vCPU's alone, never found by identity (what its entries are stands in registers).
  enum class Sharing : uint8_t { kShared, kPrivate };

  ShadowTables(const Config& config, const Parts& parts) : config_(config), parts_(parts) {}
  // No processor walks any more; kept roots need not have been dropped.
  ~ShadowTables();
  ShadowTables(const ShadowTables&) = delete;
  ShadowTables& operator=(const ShadowTables&) = delete;

  const Config& config() const { return config_; }
  const Parts& parts() const { return parts_; }
  const ReverseMap& reverse_map() const { return reverse_map_; }
  ShadowFlush NewFlush() const { return ShadowFlush(*parts_.pool, parts_.flusher, *parts_.bugs); }

  // The page of that identity; null: there is none.
  ShadowPage* Find(const Turn&, const TableIdentity& identity);
  // It is now the most recently used.
  void Touch(const Turn&, ShadowPage& page) { pages_.splice(pages_.end(), pages_, page.self); }
  // A new one. If it is indirect, its guest table loses W in every leaf: the flush comes before the
  // guest's entries are read.
  ShadowPage& Make(const Turn&, const TableIdentity& identity, Sharing sharing, Table& table,
                   ShadowFlush& flush);
  // What the slot links, or null.
  ShadowPage* ChildAt(const ShadowPage& page, unsigned index) const;
  // The slot is empty.
  void Link(const Turn&, ShadowPage& parent, unsigned index, ShadowPage& child);

  struct Leaf {
    Gfn gfn;  // first frame
    GuestRights rights;
    Hpa page;
    ShadowGrant grant;
  };
  // Whatever stood there goes, unless it maps the same page; flushed only if rights shrink. False:
  // it stood there already.
  bool SetLeaf(const Turn&, ShadowPage& page, unsigned index, const Leaf& leaf, ShadowFlush& flush);
  // All leaves of a direct page that was just made, from its own first frame on, behind `hpa`.
  void Fill(const Turn&, ShadowPage& page, Hpa hpa, const ShadowGrant& grant);
  void Clear(const Turn&, ShadowPage& page, unsigned index, ShadowFlush& flush);
  // The leaf there becomes a link to what maps the same (or part of it, and nothing else).
  void ReplaceByLink(const Turn&, ShadowPage& page, unsigned index, ShadowPage& child);
  // Takes it out of everything. A page that is kept as a root stays, empty and never found, until
  // it is dropped.
  void Zap(const Turn&, ShadowPage& page, ShadowFlush& flush);

  // Roots.
  void Keep(ShadowPage& root) { ++root.roots; }
  void Drop(const Turn&, ShadowPage& root, ShadowFlush& flush);

  // The guest's table at `gfn` has a shadow; with a level: some table under the leaf there has.
  bool Shadowed(Gfn gfn, Level level = Level::k4K) const;
  // A leaf of `gfn` must not be writable.
  bool Protected(Gfn gfn) const;
  // Lets the guest write the table at `gfn`, if all its shadows are of leaf tables. False: not so.
  bool MakeUnsync(const Turn&, Gfn gfn);
  // It is in step again; protected again already.
  void MakeSynced(const Turn&, ShadowPage& page) {
    page.unsync = false;
    unsync_.erase(&page);
  }
  // The indirect pages that stand in for the guest's table at `gfn`.
  std::vector<ShadowPage*> PagesOf(Gfn gfn) const;
  std::vector<ShadowPage*> UnsyncPages() const { return {unsync_.begin(), unsync_.end()}; }

  // W goes from every leaf over the frame; true: some had it.
  bool WriteProtect(const Turn&, Gfn gfn, ShadowFlush& flush);
  // The same for every leaf that touches the range, of `smallest` or larger.
  void WriteProtectRange(const Turn&, GfnRange range, Level smallest, ShadowFlush& flush);
  // Calls `accessed` for every leaf that touches the range and had its accessed flag, which it
  // loses.
  void TestAndClearAccessed(const Turn&, GfnRange range,
                            const std::function<void(GfnRange)>& accessed, ShadowFlush& flush);
  // Every leaf that touches the range goes: its memory, attributes or backing change.
  void ZapRange(const Turn&, GfnRange range, ShadowFlush& flush);
  // Everything that stands in for a guest's table in the range goes: somebody other than the guest
  // has changed its bytes.
  void ZapTablesIn(const Turn&, GfnRange range, ShadowFlush& flush);
  // Zaps the least recently used until `more` fit below the cap. Roots stay: false, if not enough.
  bool MakeRoom(const Turn&, size_t more, ShadowFlush& flush);
  // Everything becomes obsolete at once: nothing is found again, roots are to be loaded anew, and
  // processors that still walk them find nothing in them. The pages go by and by, in MakeRoom and
  // ZapObsolete.
  void InvalidateAll(const Turn&, ShadowFlush& flush);
  bool Obsolete(const ShadowPage& page) const {
    return page.obsolete || page.generation != generation_;
  }
  // At most `most` of them. False: none is left but kept roots.
  bool ZapObsolete(const Turn&, size_t most, ShadowFlush& flush);

  size_t pages() const { return pages_.size(); }
  // Least recently used first.
  const std::list<ShadowPage>& all() const { return pages_; }
  ShadowPage* PageOf(const EntrySlot& slot) const { return parts_.pool->TableOf(slot).shadow; }
  // Of an entry in a page's table.
  SlotState StateAt(const ShadowPage& page, unsigned index) const;
  // In PDPTE format.
  bool IsHardwarePaeRoot(const ShadowPage& page) const {
    return page.role().pae_root && config_.root_level == Level::k1G;
  }

 private:
  // Pages are found by their gfn alone; a set of them holds no copies of it.
  struct HashOfGfn {
    using is_transparent = void;
    size_t operator()(Gfn gfn) const { return std::hash<uint64_t>()(gfn.value); }
    size_t operator()(const ShadowPage* page) const { return (*this)(page->gfn()); }
  };
  struct SameGfn {
    using is_transparent = void;
    static Gfn Of(Gfn gfn) { return gfn; }
    static Gfn Of(const ShadowPage* page) { return page->gfn(); }
    bool operator()(const auto& a, const auto& b) const { return Of(a) == Of(b); }
  };

  void ClearSlot(const Turn& turn, EntrySlot& slot, ShadowFlush& flush);
  bool WriteProtectLeaves(Level level, Gfn gfn, const Turn& turn, ShadowFlush& flush);
  void CountShadowed(Gfn gfn, int by);
  // 2M or 1G.
  static size_t Around(Level level) {
    return static_cast<size_t>(level) - static_cast<size_t>(Level::k2M);
  }
  void Unhash(ShadowPage& page);
  void Free(ShadowPage& page, ShadowFlush& flush);
  void Bug(const std::string& what) { parts_.bugs->ReportBug(what); }

  const Config config_;
  const Parts parts_;
  ReverseMap reverse_map_;
  std::list<ShadowPage> pages_;
  std::unordered_multiset<ShadowPage*, HashOfGfn, SameGfn> by_gfn_;  // those that can be found
  std::unordered_set<ShadowPage*> unsync_;
  // Indirect pages by the 2M and the 1G around their guest table.
  std::array<std::unordered_map<uint64_t, uint32_t>, 2> shadowed_;
  uint64_t generation_ = 0;
};

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_SHADOW_SHADOW_TABLES_H_
