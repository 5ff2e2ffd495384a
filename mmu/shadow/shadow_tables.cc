#include "mmu/shadow/shadow_tables.h"

#include <algorithm>
#include <cassert>
#include <utility>

#include "absl/strings/str_cat.h"

namespace twinroot::mmu {
namespace {

constexpr Level kLeafLevels[] = {Level::k4K, Level::k2M, Level::k1G};

// A leaf grants what another does not.
bool Shrinks(const ShadowGrant& before, const ShadowGrant& after) {
  return (before.read && !after.read) || (before.write && !after.write) ||
         (before.user && !after.user) || (before.execute && !after.execute);
}

}  // namespace

ShadowTables::~ShadowTables() {
  while (!pages_.empty()) {
    Table& table = pages_.front().table;
    table.shadow = nullptr;
    parts_.pool->Free(table);
    pages_.pop_front();
  }
}

ShadowPage* ShadowTables::Find(const Turn&, const TableIdentity& identity) {
  const auto [begin, end] = by_gfn_.equal_range(identity.gfn);
  const auto it = std::find_if(begin, end, [&](const ShadowPage* page) {
    return page->identity() == identity && !Obsolete(*page);
  });
  return it != end ? *it : nullptr;
}

ShadowPage& ShadowTables::Make(const Turn& turn, const TableIdentity& identity, Sharing sharing,
                               Table& table, ShadowFlush& flush) {
  ShadowPage& page = pages_.emplace_back(table, identity);
  page.self = std::prev(pages_.end());
  page.generation = generation_;
  table.shadow = &page;
  page.shared = sharing == Sharing::kShared;
  if (page.shared) by_gfn_.insert(&page);
  if (page.indirect()) {
    assert(page.shared);
    CountShadowed(page.gfn(), 1);
    WriteProtect(turn, page.gfn(), flush);
  }
  return page;
}

SlotState ShadowTables::StateAt(const ShadowPage& page, unsigned index) const {
  const EptEntry entry = page.slot(index).Load();
  if (page.role().pae_root) return IsEmpty(entry) ? SlotState::kEmpty : SlotState::kLink;
  return StateOf(entry, page.level());
}

ShadowPage* ShadowTables::ChildAt(const ShadowPage& page, unsigned index) const {
  if (StateAt(page, index) != SlotState::kLink) return nullptr;
  const Table* const table = parts_.pool->At(page.slot(index).Load().address());
  return table != nullptr ? table->shadow : nullptr;
}

void ShadowTables::Link(const Turn& turn, ShadowPage& parent, unsigned index, ShadowPage& child) {
  EntrySlot& slot = parent.slot(index);
  assert(StateAt(parent, index) == SlotState::kEmpty && index < parent.slots());
  child.parents.Add(slot);
  parts_.change->Exchange(
      turn, slot,
      IsHardwarePaeRoot(parent) ? PaeRootLinkTo(child.table.hpa) : LinkTo(child.table.hpa));
}

bool ShadowTables::SetLeaf(const Turn& turn, ShadowPage& page, unsigned index, const Leaf& leaf,
                           ShadowFlush& flush) {
  EntrySlot& slot = page.slot(index);
  const EptEntry entry = MakeShadowLeaf(config_.format, leaf.page, page.level(), leaf.grant);
  const EptEntry before = slot.Load();
  const uint64_t flags = ShadowFlagsMask(config_.format);
  const bool same = StateAt(page, index) == SlotState::kLeaf &&
                    before.address() == entry.address() && page.GfnAt(index) == leaf.gfn;
  if (!same && !IsEmpty(before)) Clear(turn, page, index, flush);
  const TranslationMismatch mismatch = page.SetTranslation(index, leaf.gfn, leaf.rights);
  if (mismatch.any()) Bug(page.Describe(mismatch, index, leaf.gfn, leaf.rights));
  if (same && (before.raw() & ~flags) == entry.raw()) return false;
  // The key is what Clear will ask for (B3).
  if (!same) reverse_map_.Add(page.level(), page.GfnAt(index), slot);
  const EptEntry last = parts_.change->Exchange(turn, slot, entry);
  if (same && Shrinks(GrantOf(config_.format, last), leaf.grant)) flush.Add();
  return true;
}

void ShadowTables::Fill(const Turn& turn, ShadowPage& page, Hpa hpa, const ShadowGrant& grant) {
  assert(page.role().direct && page.parents.empty());
  parts_.change->FillUnlinked(turn, page.table,
                              MakeShadowLeaf(config_.format, hpa, page.level(), grant),
                              BytesPerEntry(page.level()));
  reverse_map_.AddTable(page.level(), page.gfn(), page.table.slots);
}

void ShadowTables::ReplaceByLink(const Turn& turn, ShadowPage& page, unsigned index,
                                 ShadowPage& child) {
  EntrySlot& slot = page.slot(index);
  if (!reverse_map_.Remove(page.level(), page.GfnAt(index), slot)) {
    Bug(absl::StrCat("no reverse mapping of gfn 0x", absl::Hex(page.GfnAt(index).value),
                     " names the large leaf that maps it"));
  }
  child.parents.Add(slot);
  parts_.change->Exchange(turn, slot, LinkTo(child.table.hpa));
}

void ShadowTables::Clear(const Turn& turn, ShadowPage& page, unsigned index, ShadowFlush& flush) {
  EntrySlot& slot = page.slot(index);
  switch (StateAt(page, index)) {
    case SlotState::kLeaf:
      if (!reverse_map_.Remove(page.level(), page.GfnAt(index), slot)) {
        Bug(absl::StrCat("no reverse mapping of gfn 0x", absl::Hex(page.GfnAt(index).value),
                         " names the slot that maps it"));
      }
      break;
    case SlotState::kLink: {
      ShadowPage* const child = ChildAt(page, index);
      if (child == nullptr || !child->parents.Remove(slot)) {
        Bug(absl::StrCat("a shadow of gfn 0x", absl::Hex(page.gfn().value),
                         " links a table that does not know it"));
      }
      break;
    }
    default:
      return;
  }
  parts_.change->Exchange(turn, slot, kEmptyEntry);
  flush.Add();
}

void ShadowTables::ClearSlot(const Turn& turn, EntrySlot& slot, ShadowFlush& flush) {
  if (ShadowPage* page = PageOf(slot)) Clear(turn, *page, page->IndexOf(slot), flush);
}

void ShadowTables::Zap(const Turn& turn, ShadowPage& page, ShadowFlush& flush) {
  for (unsigned i = 0; i < page.slots(); ++i) Clear(turn, page, i, flush);
  while (!page.parents.empty()) {
    EntrySlot& slot = *page.parents.slots().front();
    const size_t before = page.parents.size();
    ClearSlot(turn, slot, flush);
    if (page.parents.size() < before) continue;
    Bug(absl::StrCat("a parent of the shadow of gfn 0x", absl::Hex(page.gfn().value),
                     " does not link it"));
    break;
  }
  Unhash(page);
  page.obsolete = true;
  if (page.roots == 0) Free(page, flush);
}

void ShadowTables::Drop(const Turn& turn, ShadowPage& root, ShadowFlush& flush) {
  assert(root.roots > 0);
  if (--root.roots > 0) return;
  if (root.obsolete) {
    Free(root, flush);
  } else if (!root.shared) {
    Zap(turn, root, flush);
  }
}

void ShadowTables::Unhash(ShadowPage& page) {
  if (page.obsolete) return;
  if (page.indirect()) CountShadowed(page.gfn(), -1);
  unsync_.erase(&page);
  const auto [begin, end] = by_gfn_.equal_range(page.gfn());
  const auto it = std::find(begin, end, &page);
  if (it != end) by_gfn_.erase(it);
}

void ShadowTables::Free(ShadowPage& page, ShadowFlush& flush) {
  page.table.shadow = nullptr;
  flush.Retire(page.table);
  pages_.erase(page.self);
}

void ShadowTables::CountShadowed(Gfn gfn, int by) {
  for (const Level level : {Level::k2M, Level::k1G}) {
    auto& counts = shadowed_[Around(level)];
    const uint64_t number = gfn.value / FramesPerEntry(level);
    if ((counts[number] += static_cast<uint32_t>(by)) == 0) counts.erase(number);
  }
}

bool ShadowTables::Shadowed(Gfn gfn, Level level) const {
  if (level != Level::k4K) {
    return shadowed_[Around(level)].contains(gfn.value / FramesPerEntry(level));
  }
  const auto [begin, end] = by_gfn_.equal_range(gfn);
  return std::any_of(begin, end, [](const ShadowPage* page) { return page->indirect(); });
}

std::vector<ShadowPage*> ShadowTables::PagesOf(Gfn gfn) const {
  std::vector<ShadowPage*> pages;
  const auto [begin, end] = by_gfn_.equal_range(gfn);
  std::copy_if(begin, end, std::back_inserter(pages),
               [](const ShadowPage* page) { return page->indirect(); });
  return pages;
}

bool ShadowTables::Protected(Gfn gfn) const {
  if (!Shadowed(gfn)) return false;
  const std::vector<ShadowPage*> pages = PagesOf(gfn);
  return std::any_of(pages.begin(), pages.end(), [](const auto* page) { return !page->unsync; });
}

bool ShadowTables::MakeUnsync(const Turn&, Gfn gfn) {
  const std::vector<ShadowPage*> pages = PagesOf(gfn);
  // A nested EPT is only told by INVEPT, which need not name what it means: kept in step.
  if (config_.format == ShadowFormat::kEpt ||
      std::any_of(pages.begin(), pages.end(),
                  [](const auto* page) { return page->level() != Level::k4K; })) {
    return false;
  }
  for (ShadowPage* page : pages) page->unsync = true;
  unsync_.insert(pages.begin(), pages.end());
  return true;
}

bool ShadowTables::WriteProtectLeaves(Level level, Gfn gfn, const Turn& turn, ShadowFlush& flush) {
  const SlotList* const slots = reverse_map_.Find(level, gfn);
  if (slots == nullptr) return false;
  bool had_it = false;
  for (EntrySlot* slot : slots->slots()) {
    ShadowGrant grant = GrantOf(config_.format, slot->Load());
    if (!grant.write) continue;
    had_it = true;
    grant.write = false;
    parts_.change->Exchange(turn, *slot,
                            MakeShadowLeaf(config_.format, slot->Load().address(), level, grant));
    flush.Add();
  }
  return had_it;
}

bool ShadowTables::WriteProtect(const Turn& turn, Gfn gfn, ShadowFlush& flush) {
  bool had_it = false;
  for (const Level level : kLeafLevels) had_it |= WriteProtectLeaves(level, gfn, turn, flush);
  return had_it;
}

void ShadowTables::WriteProtectRange(const Turn& turn, GfnRange range, Level smallest,
                                     ShadowFlush& flush) {
  for (const Level level : kLeafLevels) {
    if (level < smallest) continue;
    for (const Gfn gfn : reverse_map_.MappedIn(level, range)) {
      WriteProtectLeaves(level, gfn, turn, flush);
    }
  }
}

void ShadowTables::TestAndClearAccessed(const Turn& turn, GfnRange range,
                                        const std::function<void(GfnRange)>& accessed,
                                        ShadowFlush& flush) {
  const uint64_t flag =
      config_.format == ShadowFormat::kEpt ? EptEntry::kAccessed : GuestPte::kAccessed;
  for (const Level level : kLeafLevels) {
    for (const Gfn gfn : reverse_map_.MappedIn(level, range)) {
      bool had_it = false;
      for (EntrySlot* slot : reverse_map_.Find(level, gfn)->slots()) {
        const EptEntry leaf = slot->Load();
        if (!(leaf.raw() & flag)) continue;
        parts_.change->Exchange(turn, *slot, EptEntry(leaf.raw() & ~flag));
        had_it = true;
      }
      if (!had_it) continue;
      flush.Add();
      accessed({gfn, FramesPerEntry(level)});
    }
  }
}

void ShadowTables::ZapRange(const Turn& turn, GfnRange range, ShadowFlush& flush) {
  for (const Level level : kLeafLevels) {
    for (const Gfn at : reverse_map_.MappedIn(level, range)) {
      while (const SlotList* slots = reverse_map_.Find(level, at)) {
        EntrySlot& slot = *slots->slots().front();
        const uint64_t before = reverse_map_.mappings();
        ClearSlot(turn, slot, flush);
        if (reverse_map_.mappings() < before) continue;
        Bug(absl::StrCat("a slot in the reverse map of gfn 0x", absl::Hex(at.value),
                         " does not map it"));
        break;
      }
    }
  }
}

void ShadowTables::ZapTablesIn(const Turn& turn, GfnRange range, ShadowFlush& flush) {
  if (range.count < pages_.size()) {
    for (Gfn gfn = range.first; gfn < range.end(); gfn = gfn + 1) {
      for (ShadowPage* page : PagesOf(gfn)) Zap(turn, *page, flush);
    }
    return;
  }
  for (auto it = pages_.begin(); it != pages_.end();) {
    ShadowPage& page = *it++;
    if (page.indirect() && !page.obsolete && range.Contains(page.gfn())) Zap(turn, page, flush);
  }
}

void ShadowTables::InvalidateAll(const Turn& turn, ShadowFlush& flush) {
  ++generation_;
  for (ShadowPage& page : pages_) {
    if (page.roots == 0) continue;
    for (unsigned i = 0; i < page.slots(); ++i) Clear(turn, page, i, flush);
  }
}

bool ShadowTables::MakeRoom(const Turn& turn, size_t more, ShadowFlush& flush) {
  const auto fits = [&] { return pages_.size() + more <= config_.most_pages; };
  for (auto it = pages_.begin(); it != pages_.end() && !fits();) {
    ShadowPage& page = *it++;
    if (page.roots == 0) Zap(turn, page, flush);
  }
  return fits();
}

bool ShadowTables::ZapObsolete(const Turn& turn, size_t most, ShadowFlush& flush) {
  size_t zapped = 0;
  for (auto it = pages_.begin(); it != pages_.end();) {
    ShadowPage& page = *it++;
    if (page.obsolete || !Obsolete(page)) continue;
    if (zapped++ == most) return true;
    Zap(turn, page, flush);
  }
  return false;
}

}  // namespace twinroot::mmu
