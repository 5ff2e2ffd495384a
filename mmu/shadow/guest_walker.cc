#include "mmu/shadow/guest_walker.h"

#include <algorithm>
#include <optional>

namespace twinroot::mmu {
namespace {

// The entries down to the leaf, with what each means by itself.
template <typename Paging>
std::optional<GuestWalkOutcome> Descend(const Paging& paging, GuestMemory& memory,
                                        typename Paging::Request& access, GuestTranslation& found) {
  using Entry = typename Paging::Entry;
  Gpa table;
  if (auto end = paging.Start(memory, access, table)) return end;
  const int bytes = static_cast<int>(paging.entry_bytes());
  GuestRights rights = GuestRights::All();
  for (Level level = paging.top();; level = Below(level)) {
    const Gpa at = paging.SlotOf(table, access, level);
    const std::optional<uint64_t> word = memory.Read(at, bytes);
    if (!word) return GuestTableMissing{at};
    const Entry entry(*word);
    if (!paging.Present(entry)) return paging.NotPresent(access);
    if (paging.Malformed(entry, level)) return paging.Broken(access, level);
    rights = rights & paging.RightsOf(entry);
    found.steps[static_cast<size_t>(found.depth++)] = {at, *word, level, rights};
    table = paging.AddressOf(entry, level);
    if (paging.IsLeaf(entry, level)) break;
  }
  found.page = table;
  found.level = found.leaf().level;
  found.rights = rights;
  return paging.Refuse(access, rights, Entry(found.leaf().word));
}

enum class FlagsResult : uint8_t { kSet, kChanged };

template <typename Paging>
std::optional<GuestTableMissing> SetFlags(const Paging& paging, GuestMemory& memory,
                                          const typename Paging::Request& access,
                                          GuestTranslation& found, FlagsResult& result) {
  result = FlagsResult::kSet;
  for (int i = 0; i < found.depth; ++i) {
    GuestStep& step = found.steps[static_cast<size_t>(i)];
    const uint64_t flags = paging.FlagsOf(access, i == found.depth - 1);
    if ((step.word & flags) == flags) continue;
    switch (memory.CompareExchange(step.entry, static_cast<int>(paging.entry_bytes()), step.word,
                                   step.word | flags)) {
      case GuestMemory::Exchange::kDone:
        step.word |= flags;
        break;
      case GuestMemory::Exchange::kChanged:
        result = FlagsResult::kChanged;
        return std::nullopt;
      case GuestMemory::Exchange::kNothing:
        return GuestTableMissing{step.entry};
    }
  }
  return std::nullopt;
}

template <typename Paging>
GuestWalkOutcome Walk(const Paging& paging, GuestMemory& memory, typename Paging::Request access,
                      uint64_t address) {
  for (;;) {
    GuestTranslation found;
    if (auto end = Descend(paging, memory, access, found)) return *end;
    FlagsResult flags;
    if (auto missing = SetFlags(paging, memory, access, found, flags)) return *missing;
    if (flags == FlagsResult::kChanged) continue;
    found.gpa = found.page + (address & (paging.BytesOf(found.level) - 1));
    found.dirty = paging.DirtyIn(typename Paging::Entry(found.leaf().word));
    return found;
  }
}

}  // namespace

GuestWalkOutcome WalkGuest(const Ia32Paging& paging, GuestMemory& memory, LinearAccess access) {
  return Walk(paging, memory, access, access.address);
}

GuestWalkOutcome WalkGuest(const EptPaging& paging, GuestMemory& memory, NestedAccess access) {
  return Walk(paging, memory, access, access.gpa.value);
}

LoadPdptesOutcome LoadPdptes(GuestMemory& memory, uint64_t cr3, int maxphyaddr) {
  const Gpa table = PaePdpte::TableAt(cr3);
  Pdptes pdptes;
  for (size_t i = 0; i < pdptes.size(); ++i) {
    const Gpa at = table + i * sizeof(uint64_t);
    const std::optional<uint64_t> word = memory.Read(at, sizeof(uint64_t));
    if (!word) return GuestTableMissing{at};
    pdptes[i] = PaePdpte(*word);
  }
  if (std::any_of(pdptes.begin(), pdptes.end(),
                  [=](PaePdpte pdpte) { return pdpte.Malformed(maxphyaddr); })) {
    return PdptesMalformed{};
  }
  return pdptes;
}

}  // namespace twinroot::mmu
