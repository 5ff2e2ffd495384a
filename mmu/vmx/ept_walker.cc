#include "mmu/vmx/ept_walker.h"

#include <atomic>
#include <cstdint>

#include "mmu/hw/ept_entry.h"

namespace twinroot::mmu::vmx {
namespace {

constexpr int kDeepestWalk = 5;

enum class FlagsResult : uint8_t { kSet, kLogFull, kChanged };

}  // namespace

struct EptWalker::Path {
  Step steps[kDeepestWalk];
  int depth = 0;
  EptTranslation found;

  // The flags of every step, the leaf's last: when that one succeeds, the access is decided.
  FlagsResult SetFlags(bool dirties, Gpa gpa, PageModificationLog* log) {
    const Step& leaf = steps[depth - 1];
    const uint64_t leaf_flags = EptEntry::kAccessed | (dirties ? EptEntry::kDirty : 0);
    uint64_t missing = leaf_flags & ~leaf.seen;
    for (int i = 0; i < depth - 1; ++i) missing |= EptEntry::kAccessed & ~steps[i].seen;
    if (missing == 0) return FlagsResult::kSet;
    // "Before allowing a guest-physical access, the processor may determine that it first needs to
    // set an accessed or dirty flag for EPT. When this happens, the processor examines the PML
    // index" (SDM, "Page-Modification Logging"): a full log stops accessed flags too.
    if (log != nullptr && log->full()) return FlagsResult::kLogFull;
    for (int i = 0; i < depth; ++i) {
      const uint64_t flags = i == depth - 1 ? leaf_flags : EptEntry::kAccessed;
      uint64_t expected = steps[i].seen;
      if ((expected & flags) == flags) continue;
      if (!std::atomic_ref<uint64_t>(*steps[i].word)
               .compare_exchange_strong(expected, expected | flags, std::memory_order_acq_rel)) {
        return FlagsResult::kChanged;
      }
    }
    // A dirty flag went from 0 to 1; only leaves have one.
    if (log != nullptr && dirties && (leaf.seen & EptEntry::kDirty) == 0) log->Write(gpa);
    return FlagsResult::kSet;
  }
};

EptViolationExit EptWalker::Violation(EptPointer eptp, const GuestAccess& access, Access allowed,
                                      bool user_execute, bool convertible) const {
  EptViolation qualification =
      access.target == AccessTarget::kGuestPagingEntry
          ? EptViolation::MakeGuestPageWalk(access.needed, eptp.accessed_dirty(), allowed)
          : EptViolation::Make(access.needed, allowed);
  if (user_execute) qualification = qualification.WithUserExecutable();
  if (capabilities_.advanced_exit_information) {
    qualification = qualification.WithAdvancedInformation(access.mode, access.page);
  }
  return EptViolationExit{access.gpa, qualification, convertible};
}

bool EptWalker::Descend(EptPointer eptp, const GuestAccess& access, Path& path,
                        WalkOutcome& outcome) const {
  const HwGfn frame(access.gpa.value >> kPageShift);
  Level level = eptp.root_level();
  if (frame.value >= FramesPerEntry(Above(level))) {
    outcome = Violation(eptp, access, Access::None(), false, false);
    return false;
  }
  // The AND of bits 10, 2, 1 and 0.
  uint64_t granted = EptEntry::kRightsMask | EptEntry::kExecuteUser;
  EptEntry entry;
  for (Hpa table = eptp.root();; table = entry.address(), level = Below(level)) {
    const Hpa slot = table + EptIndex(frame, level) * sizeof(uint64_t);
    auto* const word = reinterpret_cast<uint64_t*>(memory_->At(slot, sizeof(uint64_t)));
    if (word == nullptr) {
      outcome = MachineCheck{slot};
      return false;
    }
    entry = EptEntry(std::atomic_ref<uint64_t>(*word).load(std::memory_order_acquire));
    if (plain_link_.Is(entry, level)) {
      path.steps[path.depth++] = {word, entry.raw()};
      granted &= entry.raw();
      continue;
    }
    if (!entry.Present(capabilities_.mode_based_execute)) {
      outcome = Violation(eptp, access, Access::None(), false, !entry.suppress_ve());
      return false;
    }
    if (IsEptMisconfiguration(entry, level, capabilities_, maxphyaddr_)) {
      outcome = EptMisconfigurationExit{access.gpa, level};
      return false;
    }
    path.steps[path.depth++] = {word, entry.raw()};
    granted &= entry.raw();
    if (entry.IsLeaf(level)) break;
  }
  const EptEntry rights(granted);
  path.found = {entry.address(), level, rights.access(), false,
                capabilities_.mode_based_execute && rights.user_execute()};
  if (Grants(path.found, Needed(eptp, access), access.mode)) return true;
  outcome =
      Violation(eptp, access, path.found.access, path.found.user_execute, !entry.suppress_ve());
  return false;
}

WalkOutcome EptWalker::Walk(EptPointer eptp, const GuestAccess& access,
                            PageModificationLog* log) const {
  const bool dirties = Needed(eptp, access).write();
  for (;;) {
    WalkOutcome outcome;
    Path path;
    if (!Descend(eptp, access, path, outcome)) return outcome;
    path.found.dirty = true;
    if (eptp.accessed_dirty()) {
      switch (path.SetFlags(dirties, access.gpa, log)) {
        case FlagsResult::kSet:
          break;
        case FlagsResult::kLogFull:
          return PmlFullExit{access.gpa};
        case FlagsResult::kChanged:
          continue;
      }
      path.found.dirty = dirties || EptEntry(path.steps[path.depth - 1].seen).dirty();
    }
    return path.found;
  }
}

}  // namespace twinroot::mmu::vmx
