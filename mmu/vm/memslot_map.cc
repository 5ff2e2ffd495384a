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

absl::Status MemslotMap::Check(const Turn&, const Memslot& slot, std::optional<Gfn> but_for) const {
  const uint64_t count = slot.range.count;
  if (FramesOverlap(slot.private_pfn, count, slot.shared_pfn, count)) {
    return absl::InvalidArgumentError(
        "the private and the shared backing of the memslot have frames in common");
  }
  for (const Memslot& other : *Now()) {
    if (but_for == other.range.first) continue;
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

std::unique_ptr<const MemslotMap::Slots> MemslotMap::After(
    const Turn&, std::optional<Gfn> gone, const std::optional<Memslot>& added) const {
  auto slots = std::make_unique<Slots>();
  slots->reserve(Now()->size() + 1);
  for (const Memslot& slot : *Now()) {
    if (gone != slot.range.first) slots->push_back(slot);
  }
  if (added) {
    const auto behind = std::find_if(slots->begin(), slots->end(), [&](const Memslot& other) {
      return other.range.first > added->range.first;
    });
    slots->insert(behind, *added);
  }
  return slots;
}

}  // namespace twinroot::mmu
