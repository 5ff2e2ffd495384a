// What a guest's memory is, without tables: for each frame its kind and one word of content in
// each backing. Small enough to be believed; the engine must agree with it. Kept as runs and as
// words that are not zero, so its size is that of what happened, not that of the memory.
#ifndef TWINROOT_TESTS_MODEL_MEMORY_MODEL_H_
#define TWINROOT_TESTS_MODEL_MEMORY_MODEL_H_

#include <algorithm>
#include <cstdint>
#include <map>
#include <optional>
#include <vector>

#include "mmu/types/gfn_range.h"
#include "mmu/types/memory_kind.h"
#include "mmu/vm/guest_address_space.h"

namespace twinroot::mmu {

class MemoryModel {
 public:
  explicit MemoryModel(uint64_t frames)
      : frames_(frames), kinds_{{0, MemoryKind::kPrivate}, {frames, MemoryKind::kPrivate}} {}

  bool Inside(GfnRange range) const {
    return !range.empty() && range.count <= frames_ && range.first.value <= frames_ - range.count;
  }
  MemoryKind KindOf(Gfn gfn) const { return std::prev(kinds_.upper_bound(gfn.value))->second; }

  // What a guest reads through an alias; nullopt: a memory fault.
  std::optional<uint64_t> Read(Gfn gfn, MemoryKind alias) const {
    if (KindOf(gfn) != alias) return std::nullopt;
    const auto& words = words_[static_cast<int>(alias)];
    const auto it = words.find(gfn.value);
    return it == words.end() ? 0 : it->second;
  }
  // False: a memory fault.
  bool Write(Gfn gfn, MemoryKind alias, uint64_t value) {
    if (KindOf(gfn) != alias) return false;
    words_[static_cast<int>(alias)][gfn.value] = value;
    return true;
  }

  absl::StatusCode Convert(const AttributeChange& change) {
    for (size_t i = 0; i < change.ranges.size(); ++i) {
      if (!Inside(change.ranges[i])) return absl::StatusCode::kInvalidArgument;
      for (size_t j = 0; j < i; ++j) {
        if (change.ranges[i].Overlaps(change.ranges[j])) return absl::StatusCode::kInvalidArgument;
      }
    }
    if (change.content == Content::kPreserve && change.kind == MemoryKind::kShared &&
        change.requester == Requester::kHost) {
      return absl::StatusCode::kPermissionDenied;
    }
    for (const GfnRange& range : change.ranges) {
      // A word stands in the backing of its frame's kind, so what is left in the other is what
      // changes its kind here.
      Words& from = words_[static_cast<int>(Other(*change.kind))];
      Words& to = words_[static_cast<int>(*change.kind)];
      const auto first = from.lower_bound(range.first.value);
      const auto end = from.lower_bound(range.end().value);
      if (change.content == Content::kPreserve) to.insert(first, end);
      from.erase(first, end);
      SetKind(range, *change.kind);
    }
    return absl::StatusCode::kOk;
  }

  absl::StatusCode Zap(GfnRange range) const {
    return Inside(range) ? absl::StatusCode::kOk : absl::StatusCode::kInvalidArgument;
  }

  absl::StatusCode PunchHole(GfnRange range, MemoryKind kind) {
    if (!Inside(range)) return absl::StatusCode::kInvalidArgument;
    Words& words = words_[static_cast<int>(kind)];
    words.erase(words.lower_bound(range.first.value), words.lower_bound(range.end().value));
    return absl::StatusCode::kOk;
  }

  // Maximal runs of everything.
  std::vector<AttributeRun> Runs() const {
    std::vector<AttributeRun> runs;
    for (auto it = kinds_.begin(); it->first < frames_; ++it) {
      const uint64_t end = std::next(it)->first;
      runs.push_back({{Gfn(it->first), end - it->first}, it->second, Access::None()});
    }
    return runs;
  }

 private:
  using Words = std::map<uint64_t, uint64_t>;  // not zero, by gfn

  void SetKind(GfnRange range, MemoryKind kind) {
    const uint64_t first = range.first.value, end = range.end().value;
    const MemoryKind behind = end < frames_ ? KindOf(Gfn(end)) : MemoryKind::kPrivate;
    kinds_.erase(kinds_.lower_bound(first), kinds_.upper_bound(end));
    kinds_[first] = kind;
    kinds_[end] = behind;
    // Runs are maximal.
    if (first > 0 && std::prev(kinds_.find(first))->second == kind) kinds_.erase(first);
    if (end < frames_ && behind == kind) kinds_.erase(end);
  }

  uint64_t frames_;
  std::map<uint64_t, MemoryKind> kinds_;  // by the first gfn of a run; the last one is an end mark
  Words words_[2];                        // [MemoryKind]
};

}  // namespace twinroot::mmu

#endif  // TWINROOT_TESTS_MODEL_MEMORY_MODEL_H_
