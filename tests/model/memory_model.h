// What a guest's memory is, without tables: for each frame its kind and one word of content in
// each backing. Small enough to be believed; the engine must agree with it.
#ifndef TWINROOT_TESTS_MODEL_MEMORY_MODEL_H_
#define TWINROOT_TESTS_MODEL_MEMORY_MODEL_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "mmu/types/gfn_range.h"
#include "mmu/types/memory_kind.h"
#include "mmu/vm/guest_address_space.h"

namespace twinroot::mmu {

class MemoryModel {
 public:
  explicit MemoryModel(uint64_t frames) : frames_(frames) {}

  bool Inside(GfnRange range) const {
    return !range.empty() && range.count <= frames_.size() &&
           range.first.value <= frames_.size() - range.count;
  }
  MemoryKind KindOf(Gfn gfn) const { return frames_[gfn.value].kind; }

  // What a guest reads through an alias; nullopt: a memory fault.
  std::optional<uint64_t> Read(Gfn gfn, MemoryKind alias) const {
    const Frame& frame = frames_[gfn.value];
    if (frame.kind != alias) return std::nullopt;
    return frame.word[static_cast<int>(alias)];
  }
  // False: a memory fault.
  bool Write(Gfn gfn, MemoryKind alias, uint64_t value) {
    Frame& frame = frames_[gfn.value];
    if (frame.kind != alias) return false;
    frame.word[static_cast<int>(alias)] = value;
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
    const int to = static_cast<int>(*change.kind);
    for (const GfnRange& range : change.ranges) {
      for (uint64_t i = 0; i < range.count; ++i) {
        Frame& frame = frames_[range.first.value + i];
        if (frame.kind == change.kind) continue;
        frame.word[to] = change.content == Content::kPreserve ? frame.word[1 - to] : 0;
        frame.word[1 - to] = 0;
        frame.kind = *change.kind;
      }
    }
    return absl::StatusCode::kOk;
  }

  absl::StatusCode Zap(GfnRange range) const {
    return Inside(range) ? absl::StatusCode::kOk : absl::StatusCode::kInvalidArgument;
  }

  absl::StatusCode PunchHole(GfnRange range, MemoryKind kind) {
    if (!Inside(range)) return absl::StatusCode::kInvalidArgument;
    for (uint64_t i = 0; i < range.count; ++i) {
      frames_[range.first.value + i].word[static_cast<int>(kind)] = 0;
    }
    return absl::StatusCode::kOk;
  }

  // Maximal runs of everything.
  std::vector<AttributeRun> Runs() const {
    std::vector<AttributeRun> runs;
    for (uint64_t gfn = 0; gfn < frames_.size(); ++gfn) {
      if (!runs.empty() && runs.back().kind == frames_[gfn].kind) {
        ++runs.back().range.count;
      } else {
        runs.push_back({{Gfn(gfn), 1}, frames_[gfn].kind, Access::None()});
      }
    }
    return runs;
  }

 private:
  struct Frame {
    MemoryKind kind = MemoryKind::kPrivate;
    uint64_t word[2] = {};
  };
  std::vector<Frame> frames_;
};

}  // namespace twinroot::mmu

#endif  // TWINROOT_TESTS_MODEL_MEMORY_MODEL_H_
