// External tables in a map: what another owner would have. Refuses on request, checks that the
// engine never sets a different leaf over one that stands, and logs. Thread-safe.
#ifndef TWINROOT_TESTS_FAKES_FAKE_EXTERNAL_TABLES_H_
#define TWINROOT_TESTS_FAKES_FAKE_EXTERNAL_TABLES_H_

#include <functional>
#include <map>
#include <mutex>
#include <utility>

#include "mmu/tables/external_tables.h"
#include "tests/fakes/call_log.h"

namespace twinroot::mmu {

class FakeExternalTables : public ExternalTables {
 public:
  FakeExternalTables(MemoryKind kind, CallLog& log) : kind_(kind), log_(log) {}

  Level MaxLevel() const override { return max_level; }

  absl::Status Set(Gfn gfn, Level level, Access access, Pfn pfn) override {
    LogCall(log_, "set", kind_, gfn.value, FramesPerEntry(level));
    if (on_set) on_set();
    const std::lock_guard<std::mutex> lock(mutex_);
    if (fail_sets > 0) {
      --fail_sets;
      return absl::ResourceExhaustedError("external table is full");
    }
    last_access = access;
    const GfnRange range{gfn, FramesPerEntry(level)};
    const auto at = leaves_.find(gfn.value);
    if (at != leaves_.end() && at->second == Leaf{range.count, pfn.value}) return absl::OkStatus();
    for (const auto& [first, leaf] : leaves_) {
      if (range.Overlaps({Gfn(first), leaf.frames})) contradiction = true;
    }
    leaves_[gfn.value] = {range.count, pfn.value};
    return absl::OkStatus();
  }

  absl::Status Split(Gfn gfn, Level level) override {
    if (!can_split) return ExternalTables::Split(gfn, level);
    LogCall(log_, "split", kind_, gfn.value, FramesPerEntry(level));
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto at = leaves_.find(gfn.value);
    // A leaf that its owner has dropped comes back small.
    if (at == leaves_.end()) return absl::OkStatus();
    const uint64_t pfn = at->second.pfn;
    const uint64_t frames = FramesPerEntry(Below(level));
    for (uint64_t i = 0; i < kEntriesPerTable; ++i) {
      leaves_[gfn.value + i * frames] = {frames, pfn + i * frames};
    }
    return absl::OkStatus();
  }
  bool CanSplit() const override { return can_split; }
  bool CanRestrict() const override { return can_restrict; }
  bool CanWithholdWrite() const override { return can_withhold_write; }
  absl::Status WithholdWrite(GfnRange range) override {
    log_.Add(CallText("withhold", kind_, range.first.value, range.count));
    if (fail_withholds == 0) return absl::OkStatus();
    --fail_withholds;
    return absl::InternalError("external table is stuck");
  }

  absl::Status Remove(GfnRange range) override {
    LogCall(log_, "remove", kind_, range.first.value, range.count);
    const std::lock_guard<std::mutex> lock(mutex_);
    if (fail_removes > 0) {
      --fail_removes;
      return absl::InternalError("external table is stuck");
    }
    std::erase_if(leaves_, [range](const auto& entry) {
      return range.Overlaps({Gfn(entry.first), entry.second.frames});
    });
    return absl::OkStatus();
  }

  // Frames that a vCPU could use now.
  uint64_t frames() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    uint64_t sum = 0;
    for (const auto& [first, leaf] : leaves_) sum += leaf.frames;
    return sum;
  }
  bool Holds(Gfn gfn) const {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (const auto& [first, leaf] : leaves_) {
      if (GfnRange{Gfn(first), leaf.frames}.Contains(gfn)) return true;
    }
    return false;
  }
  // As the owner may do on its own.
  void DropAll() {
    const std::lock_guard<std::mutex> lock(mutex_);
    leaves_.clear();
  }

  // Set before use.
  Level max_level = Level::k1G;
  bool can_split = false;
  bool can_restrict = true;
  int fail_sets = 0;  // so many calls fail
  bool can_withhold_write = false;
  int fail_withholds = 0;  // so many calls fail
  int fail_removes = 0;    // so many calls fail
  std::function<void()> on_set;
  Access last_access;  // of the last Set
  // Two different leaves were to stand over one frame.
  bool contradiction = false;

 private:
  struct Leaf {
    uint64_t frames;
    uint64_t pfn;
    friend bool operator==(const Leaf&, const Leaf&) = default;
  };

  const MemoryKind kind_;
  CallLog& log_;
  mutable std::mutex mutex_;
  std::map<uint64_t, Leaf> leaves_;
};

}  // namespace twinroot::mmu

#endif  // TWINROOT_TESTS_FAKES_FAKE_EXTERNAL_TABLES_H_
