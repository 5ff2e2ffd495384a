#include "mmu/vmx/ept_walker.h"

#include <atomic>
#include <cstdint>

#include "mmu/hw/ept_entry.h"

namespace twinroot::mmu::vmx {
namespace {

constexpr int kDeepestWalk = 5;

// One entry that the walk went through.
struct Step {
  uint64_t* word;
  uint64_t seen;
};

// False: the word is no longer what the walk has seen.
bool SetFlags(const Step& step, uint64_t flags) {
  uint64_t expected = step.seen;
  if ((expected & flags) == flags) return true;
  return std::atomic_ref<uint64_t>(*step.word)
      .compare_exchange_strong(expected, expected | flags, std::memory_order_acq_rel);
}

}  // namespace

WalkOutcome EptWalker::Walk(EptPointer eptp, Gpa gpa, Access needed) const {
  for (;;) {
    if (const std::optional<WalkOutcome> outcome = TryWalk(eptp, gpa, needed)) return *outcome;
  }
}

std::optional<WalkOutcome> EptWalker::TryWalk(EptPointer eptp, Gpa gpa, Access needed) const {
  const HwGfn frame(gpa.value >> kPageShift);
  if (frame.value >= FramesPerEntry(Above(eptp.root_level()))) {
    return EptViolationExit{gpa, EptViolation::Make(needed, Access::None())};
  }
  Step steps[kDeepestWalk];
  int depth = 0;
  Access allowed = Access::All();
  bool user_execute = capabilities_.mode_based_execute;
  EptEntry entry;
  Level level = eptp.root_level();
  for (Hpa table = eptp.root();; table = entry.address(), level = Below(level)) {
    const Hpa slot = table + EptIndex(frame, level) * sizeof(uint64_t);
    auto* const word = reinterpret_cast<uint64_t*>(memory_->At(slot, sizeof(uint64_t)));
    if (word == nullptr) return MachineCheck{slot};
    entry = EptEntry(std::atomic_ref<uint64_t>(*word).load(std::memory_order_acquire));
    if (!entry.Present(capabilities_.mode_based_execute)) {
      return EptViolationExit{gpa, EptViolation::Make(needed, Access::None())};
    }
    if (IsEptMisconfiguration(entry, level, capabilities_, maxphyaddr_)) {
      return EptMisconfigurationExit{gpa, level};
    }
    steps[depth++] = {word, entry.raw()};
    allowed = allowed & entry.access();
    user_execute = user_execute && entry.user_execute();
    if (entry.IsLeaf(level)) break;
  }
  if (!allowed.Includes(needed)) {
    const EptViolation qualification = EptViolation::Make(needed, allowed);
    return EptViolationExit{gpa, user_execute ? qualification.WithUserExecutable() : qualification};
  }
  const bool dirties = needed.write();
  if (eptp.accessed_dirty()) {
    for (int i = 0; i < depth; ++i) {
      const bool leaf = i == depth - 1;
      const uint64_t flags = EptEntry::kAccessed | (leaf && dirties ? EptEntry::kDirty : 0);
      if (!SetFlags(steps[i], flags)) return std::nullopt;
    }
  }
  return EptTranslation{entry.address(), level, allowed,
                        !eptp.accessed_dirty() || dirties || entry.dirty()};
}

}  // namespace twinroot::mmu::vmx
