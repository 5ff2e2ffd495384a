#include "mmu/vm/attribute_change.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "mmu/vm/invalidation.h"

namespace twinroot::mmu {
namespace {

std::string Name(GfnRange range) {
  return absl::StrCat("range 0x", absl::Hex(range.first.value << kPageShift), " of ", range.count,
                      " pages");
}

class Change {
 public:
  Change(const Turn& turn, AddressSpaceState& vm, const AttributeChange& change)
      : turn_(turn), vm_(vm), change_(change), from_(Other(change.kind)), to_{change.kind, {}} {}

  absl::StatusOr<AttributeChangeResult> Run() {
    if (absl::Status status = vm_.bugs.Check(); !status.ok()) return status;
    if (absl::Status status = Check(); !status.ok()) return status;
    FindWhatChanges();
    AttributeChangeResult result{MergedParts()};
    if (parts_.empty()) return result;

    if (absl::Status status = Reserve(); !status.ok()) return status;
    Invalidation invalidation(turn_, vm_, result.converted);
    if (absl::Status status = invalidation.Zap({&from_, 1}); !status.ok()) return status;
    MoveContent();
    invalidation.Commit([&] { Commit(); });
    for (const GfnRange& part : parts_) vm_.attributes.Collapse(turn_, part);
    return result;
  }

 private:
  absl::Status Check() const {
    if (change_.kind == MemoryKind::kShared && !vm_.roots.Has(MemoryKind::kShared)) {
      return absl::InvalidArgumentError(
          "this VM has no shared bit, so nothing of it can be shared; create it with one");
    }
    std::vector<GfnRange> ordered;
    for (const GfnRange& range : change_.ranges) {
      if (absl::Status status = CheckRange(vm_, turn_, range); !status.ok()) return status;
      ordered.push_back(range);
    }
    std::sort(ordered.begin(), ordered.end(),
              [](const GfnRange& a, const GfnRange& b) { return a.first < b.first; });
    for (size_t i = 1; i < ordered.size(); ++i) {
      if (!ordered[i].Overlaps(ordered[i - 1])) continue;
      return absl::InvalidArgumentError(absl::StrCat(
          Name(ordered[i]), " overlaps ", Name(ordered[i - 1]), "; name every page once"));
    }
    if (change_.content == Content::kPreserve && change_.kind == MemoryKind::kShared &&
        change_.requester == Requester::kHost) {
      return absl::PermissionDeniedError(
          "PRESERVE_WOULD_DISCLOSE: only the guest itself may make private memory shared with its "
          "bytes; convert without preserve");
    }
    return absl::OkStatus();
  }

  // Fills parts_: ordered, each inside one slot, all of the other kind so far.
  void FindWhatChanges() {
    std::vector<GfnRange> ordered = change_.ranges;
    std::sort(ordered.begin(), ordered.end(),
              [](const GfnRange& a, const GfnRange& b) { return a.first < b.first; });
    for (const GfnRange& range : ordered) {
      const auto parts = vm_.slots.Parts(turn_, range);  // checked before
      for (const GfnRange& part : *parts) {
        vm_.attributes.ForEachRun(turn_, part, [&](GfnRange run, MemoryAttributes attributes) {
          if (attributes.kind == from_) parts_.push_back(run);
        });
      }
    }
  }

  std::vector<GfnRange> MergedParts() const {
    std::vector<GfnRange> merged;
    for (const GfnRange& part : parts_) {
      if (!merged.empty() && merged.back().end() == part.first) {
        merged.back().count += part.count;
      } else {
        merged.push_back(part);
      }
    }
    return merged;
  }

  // Everything that can fail for want of memory. An error leaves nothing behind.
  absl::Status Reserve() {
    if (absl::Status status = CheckBackings(); !status.ok()) return status;
    absl::Status status;
    size_t prepared = 0;
    for (; prepared < parts_.size() && status.ok(); ++prepared) {
      status = vm_.attributes.Prepare(turn_, parts_[prepared], to_);
    }
    size_t reserved = 0;
    if (change_.content == Content::kPreserve) {
      for (; reserved < parts_.size() && status.ok(); ++reserved) {
        status = vm_.env.pages->Reserve(parts_[reserved], change_.kind);
      }
    }
    if (status.ok()) return status;

    // No frame of the new kind holds anything yet: what was reserved may go.
    for (size_t i = 0; i < reserved; ++i) vm_.env.pages->Discard(parts_[i], change_.kind);
    for (size_t i = 0; i < prepared; ++i) vm_.attributes.Collapse(turn_, parts_[i]);
    return status;
  }

  absl::Status CheckBackings() const {
    for (const GfnRange& part : parts_) {
      const Memslot& slot = *vm_.slots.Find(turn_, part.first);
      if (BackingOf(slot, part.first, change_.kind)) continue;
      return absl::FailedPreconditionError(
          absl::StrCat(Name(part), " lies in a memslot without ",
                       change_.kind == MemoryKind::kPrivate ? "private" : "shared", " backing"));
    }
    return absl::OkStatus();
  }

  // No mapping of the old kind is left and none of the new one is made before the commit, so
  // nobody sees this half done.
  void MoveContent() {
    for (const GfnRange& part : parts_) {
      if (change_.content == Content::kPreserve) vm_.env.pages->Copy(part, from_, change_.kind);
      vm_.env.pages->Discard(part, from_);
    }
  }

  void Commit() {
    uint64_t frames = 0;
    for (const GfnRange& part : parts_) {
      vm_.attributes.Set(turn_, part, to_);
      frames += part.count;
    }
    vm_.frames[static_cast<int>(from_)] -= frames;
    vm_.frames[static_cast<int>(change_.kind)] += frames;
  }

  const Turn& turn_;
  AddressSpaceState& vm_;
  const AttributeChange& change_;
  const MemoryKind from_;
  const MemoryAttributes to_;
  std::vector<GfnRange> parts_;
};

}  // namespace

absl::Status CheckRange(const AddressSpaceState& vm, const MmuRead& read, GfnRange range) {
  if (range.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(Name(range), " is empty; give at least one page"));
  }
  const GpaLayout& layout = vm.config.layout;
  const uint64_t limit = layout.gfn_limit().value;
  // An address with the shared bit is an alias of memory, never memory of its own (A7).
  if (layout.shared_bit() && (range.first.value >> (*layout.shared_bit() - kPageShift) & 1) != 0) {
    return absl::InvalidArgumentError(absl::StrCat(Name(range), " carries the shared bit ",
                                                   *layout.shared_bit(),
                                                   "; name memory by its address without it"));
  }
  if (range.first.value >= limit || range.count > limit - range.first.value) {
    return absl::InvalidArgumentError(absl::StrCat(Name(range),
                                                   " ends beyond the last guest address 0x",
                                                   absl::Hex((limit << kPageShift) - 1)));
  }
  if (!vm.slots.Parts(read, range)) {
    return absl::InvalidArgumentError(
        absl::StrCat(Name(range), " reaches outside the VM's memory"));
  }
  return absl::OkStatus();
}

absl::StatusOr<AttributeChangeResult> ChangeAttributes(AddressSpaceState& vm,
                                                       const AttributeChange& change) {
  const Turn turn(vm.turn_mutex);
  return Change(turn, vm, change).Run();
}

}  // namespace twinroot::mmu
