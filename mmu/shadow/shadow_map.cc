#include "mmu/shadow/shadow_map.h"

#include <algorithm>
#include <optional>

namespace twinroot::mmu {
namespace {

// So many writes to a guest table by hand, and its shadow goes: it is no table any more, or is
// being made.
constexpr uint8_t kFlood = 3;

}  // namespace

unsigned ShadowMapper::IndexOf(const ShadowPage& page, uint64_t address) {
  const unsigned shift = kPageShift + kIndexBits * (static_cast<unsigned>(page.level()) - 1);
  return static_cast<unsigned>(address >> shift) &
         (page.role().pae_root ? 3 : static_cast<unsigned>(kEntriesPerTable) - 1);
}

ShadowGrant ShadowMapper::GrantFor(const ShadowBacking::Page& page, Level level, GuestRights rights,
                                   bool writable) const {
  const bool may_write = rights.write() && page.allowed.write() && writable;
  const bool may_fetch = rights.execute() && page.allowed.fetch();
  const bool strip = page.withhold_fetch && level != Level::k4K;
  return {.read = tables_.config().format == ShadowFormat::kPaging || rights.user(),
          .write = may_write && !page.withhold_write,
          .user = rights.user(),
          .execute = may_fetch && !strip,
          .nx_huge_page = may_fetch && strip && tables_.config().root_level > Level::k1G};
}

bool ShadowMapper::StillThere(const GuestTranslation& walk, Level level, int entry_bytes) {
  for (int i = 0; i < walk.depth; ++i) {
    const GuestStep& step = walk.steps[static_cast<size_t>(i)];
    if (step.level == level) return memory_.Read(step.entry, entry_bytes) == step.word;
  }
  return true;
}

ShadowOutcome ShadowMapper::Map(const Turn& turn, ShadowPage& root, const GuestShape& shape,
                                const GuestTranslation& walk, uint64_t address, Access needed,
                                PreloadedTables& preload) {
  if (tables_.Obsolete(root)) return ShadowOutcome::kReloadRoot;
  const Gfn gfn(walk.gpa.value >> kPageShift);
  const std::optional<ShadowBacking::Page> backing = backing_.At(turn, gfn);
  if (!backing || !backing->allowed.Includes(needed)) return ShadowOutcome::kNoMemory;
  // CR0.WP is 0: a leaf that let this write through would let others through.
  if (needed.write() && !walk.rights.write()) return ShadowOutcome::kEmulate;
  if (preload.size() < kDeepestShadow) return ShadowOutcome::kNeedTables;
  ShadowFlush flush = tables_.NewFlush();
  const bool room = tables_.MakeRoom(turn, kDeepestShadow, flush);
  flush.Finish(turn);
  if (!room) return ShadowOutcome::kNoRoom;

  // The first write has to come by, to set the guest's dirty flag.
  const GuestRights rights =
      walk.dirty ? walk.rights : walk.rights & (GuestRights::User() | GuestRights::Execute());
  Level target = std::min({walk.level, backing->largest, tables_.config().root_level});
  if (root.role().pae_root) target = std::min(target, Level::k2M);
  // A large leaf would not grant it.
  if (needed.fetch() && backing->withhold_fetch) target = Level::k4K;
  while (target > Level::k4K && tables_.Shadowed(gfn, target)) target = Below(target);
  const int entry_bytes = shape.quadrants ? 4 : 8;

  ShadowPage* page = &root;
  while (true) {
    page->floods = 0;
    tables_.Touch(turn, *page);
    // Written since it was walked, before this page's table was protected.
    if (page->indirect() && !StillThere(walk, page->level(), entry_bytes)) {
      return ShadowOutcome::kRetry;
    }
    if (page->level() <= target) break;
    const unsigned index = IndexOf(*page, address);
    const TableIdentity identity = shape.Child(page->identity(), walk, address, rights);
    ShadowPage* child = tables_.ChildAt(*page, index);
    // B2: the same guest table in the same role, or none at all.
    if (child != nullptr && (child->identity() != identity || tables_.Obsolete(*child))) {
      child = nullptr;
    }
    if (child == nullptr) {
      tables_.Clear(turn, *page, index, flush);
      const bool own = !page->shared && (identity.role.promoted || identity.role.pae_root);
      if (!own) child = tables_.Find(turn, identity);
      if (child == nullptr) {
        child = &tables_.Make(
            turn, identity, own ? ShadowTables::Sharing::kPrivate : ShadowTables::Sharing::kShared,
            preload.Take(), flush);
      }
      flush.Finish(turn);
      if (child->unsync) SyncPage(turn, *child);
      tables_.Link(turn, *page, index, *child);
      // A frame just protected may be what the leaf was to cover.
      while (target > Level::k4K && tables_.Shadowed(gfn, target)) target = Below(target);
    }
    page = child;
  }

  const uint64_t frames = FramesPerEntry(page->level());
  const Gfn first = gfn - gfn.value % frames;
  bool writable = true;
  if (rights.write() && tables_.Protected(gfn)) {
    writable = needed.write() && tables_.MakeUnsync(turn, gfn);
  }
  ShadowBacking::Page memory = *backing;
  // A write that is here has been logged by the caller.
  if (needed.write()) memory.withhold_write = false;
  const ShadowTables::Leaf leaf{first, rights, HpaOf(backing->pfn - (gfn - first)),
                                GrantFor(memory, page->level(), rights, writable)};
  const bool changed = tables_.SetLeaf(turn, *page, IndexOf(*page, address), leaf, flush);
  flush.Finish(turn);
  if (needed.write() && !leaf.grant.write) return ShadowOutcome::kEmulate;
  return changed ? ShadowOutcome::kMapped : ShadowOutcome::kSpurious;
}

void ShadowMapper::GuestWrote(const Turn& turn, Gpa gpa, uint64_t bytes) {
  ShadowFlush flush = tables_.NewFlush();
  const uint64_t first_byte = gpa.value & kPageOffsetMask;
  for (ShadowPage* page : tables_.PagesOf(Gfn(gpa.value >> kPageShift))) {
    if (++page->floods > kFlood) {
      tables_.Zap(turn, *page, flush);
      continue;
    }
    const TableRole& role = page->role();
    const uint64_t entry_bytes = role.cr4_pae ? 8 : 4;
    const uint64_t last = (first_byte + bytes - 1) / entry_bytes;
    for (uint64_t entry = first_byte / entry_bytes; entry <= last; ++entry) {
      if (entry_bytes == 8) {
        tables_.Clear(turn, *page, static_cast<unsigned>(entry), flush);
      } else if (page->level() == Level::k4K) {
        // Half of a guest's table.
        if (entry / kEntriesPerTable == role.quadrant) {
          tables_.Clear(turn, *page, static_cast<unsigned>(entry % kEntriesPerTable), flush);
        }
      } else if (entry / 256 == role.quadrant) {
        // A quarter of its directory; each entry covers two of ours.
        const unsigned index = static_cast<unsigned>(entry % 256) * 2;
        tables_.Clear(turn, *page, index, flush);
        tables_.Clear(turn, *page, index + 1, flush);
      }
    }
  }
  flush.Finish(turn);
}

void ShadowMapper::SyncAll(const Turn& turn) {
  for (ShadowPage* page : tables_.UnsyncPages()) SyncPage(turn, *page);
}

void ShadowMapper::SyncPage(const Turn& turn, ShadowPage& page) {
  ShadowFlush flush = tables_.NewFlush();
  // Protected first: what is read below is what stands until the next write comes by.
  tables_.MakeSynced(turn, page);
  tables_.WriteProtect(turn, page.gfn(), flush);
  flush.Finish(turn);
  const TableRole& role = page.role();
  ControlRegisters registers;
  registers.cr0 = ControlRegisters::kCr0Pg;
  registers.cr4 = (role.cr4_pae ? ControlRegisters::kCr4Pae : 0) |
                  (role.cr4_pse ? ControlRegisters::kCr4Pse : 0);
  registers.efer = (role.efer_nx ? ControlRegisters::kEferNxe : 0) |
                   (role.efer_lma ? ControlRegisters::kEferLma : 0);
  const Ia32Paging paging(registers, features_);
  for (unsigned i = 0; i < kEntriesPerTable; ++i) {
    if (tables_.StateAt(page, i) == SlotState::kLeaf) SyncEntry(turn, paging, page, i, flush);
  }
  flush.Finish(turn);
}

void ShadowMapper::SyncEntry(const Turn& turn, const Ia32Paging& paging, ShadowPage& page,
                             unsigned index, ShadowFlush& flush) {
  const TableRole& role = page.role();
  const unsigned bytes = paging.entry_bytes();
  const uint64_t at = index + (bytes == 4 ? kEntriesPerTable * role.quadrant : 0);
  const std::optional<uint64_t> word =
      memory_.Read(Gpa(page.gfn().value << kPageShift) + at * bytes, static_cast<int>(bytes));
  const GuestPte entry(word.value_or(0));
  const bool gone = !entry.present() || paging.Malformed(entry, Level::k4K) ||
                    !(entry.raw() & GuestPte::kAccessed);
  const Gfn gfn(paging.AddressOf(entry, Level::k4K).value >> kPageShift);
  // B7: gone, or another frame: dropped.
  if (gone || gfn != page.GfnAt(index)) return tables_.Clear(turn, page, index, flush);
  GuestRights rights = RightsOf(role) & paging.RightsOf(entry);
  if (!entry.dirty()) rights = rights & (GuestRights::User() | GuestRights::Execute());
  if (rights == page.RightsAt(index)) return;
  const std::optional<ShadowBacking::Page> backing = backing_.At(turn, gfn);
  if (!backing) return tables_.Clear(turn, page, index, flush);
  tables_.SetLeaf(turn, page, index,
                  {gfn, rights, HpaOf(backing->pfn),
                   GrantFor(*backing, Level::k4K, rights, !tables_.Protected(gfn))},
                  flush);
}

}  // namespace twinroot::mmu
