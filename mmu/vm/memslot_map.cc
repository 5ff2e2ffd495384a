#include "mmu/vm/memslot_map.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace twinroot::mmu {
namespace {

bool FramesOverlap(const std::optional<Pfn>& a, uint64_t a_count, const std::optional<Pfn>& b,
                   uint64_t b_count) {
  return a && b && *a < *b + b_count && *b < *a + a_count;
}

}  // namespace

std::optional<Pfn> BackingOf(const Memslot& slot, Gfn gfn, MemoryKind kind) {
  const std::optional<Pfn>& first =
      kind == MemoryKind::kPrivate ? slot.private_pfn : slot.shared_pfn;
  if (!first) return std::nullopt;
  return *first + (gfn - slot.range.first);
}

absl::Status MemslotMap::Check(const MmuLock::Held&, const Memslot& slot) const {
  const uint64_t count = slot.range.count;
  if (FramesOverlap(slot.private_pfn, count, slot.shared_pfn, count)) {
    return absl::InvalidArgumentError(
        "the private and the shared backing of the memslot have frames in common");
  }
  for (const Memslot& other : slots_) {
    if (other.range.Overlaps(slot.range)) {
      return absl::AlreadyExistsError(
          absl::StrCat("overlaps the memslot at 0x", absl::Hex(other.range.first.value << 12)));
    }
    for (const auto& mine : {slot.private_pfn, slot.shared_pfn}) {
      for (const auto& theirs : {other.private_pfn, other.shared_pfn}) {
        if (FramesOverlap(mine, count, theirs, other.range.count)) {
          return absl::InvalidArgumentError(
              absl::StrCat("has backing frames in common with the memslot at 0x",
                           absl::Hex(other.range.first.value << 12)));
        }
      }
    }
  }
  return absl::OkStatus();
}

void MemslotMap::Add(const MmuLock::Exclusive&, const Memslot& slot) {
  const auto behind = std::find_if(slots_.begin(), slots_.end(), [&slot](const Memslot& other) {
    return other.range.first > slot.range.first;
  });
  slots_.insert(behind, slot);
}

const Memslot* MemslotMap::Find(const MmuLock::Held&, Gfn gfn) const {
  const auto it = std::upper_bound(slots_.begin(), slots_.end(), gfn,
                                   [](Gfn g, const Memslot& slot) { return g < slot.range.end(); });
  return it != slots_.end() && it->range.Contains(gfn) ? &*it : nullptr;
}

std::optional<std::vector<GfnRange>> MemslotMap::Parts(const MmuLock::Held& lock,
                                                       GfnRange range) const {
  std::vector<GfnRange> parts;
  for (Gfn at = range.first; at < range.end();) {
    const Memslot* slot = Find(lock, at);
    if (slot == nullptr) return std::nullopt;
    const Gfn end = std::min(range.end(), slot->range.end());
    parts.push_back({at, end - at});
    at = end;
  }
  return parts;
}

}  // namespace twinroot::mmu
