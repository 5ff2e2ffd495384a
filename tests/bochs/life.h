// The life of a VM's memory at random: faults, conversions, denials, zaps, splits, dirty logs, as a
// host does them. What the engine answers is not looked at here; the tables it leaves are.
#ifndef TWINROOT_TESTS_BOCHS_LIFE_H_
#define TWINROOT_TESTS_BOCHS_LIFE_H_

#include <algorithm>
#include <random>
#include <vector>

#include "tests/bochs/bochs_space.h"

namespace twinroot::bochs {

class Life {
 public:
  // Frames below kReserved never change.
  static constexpr uint64_t kReserved = 16;

  Life(BochsSpace& vm, const BochsSpaceOptions& options, std::mt19937_64& random)
      : space_(*vm.space), options_(options), random_(random) {}

  // Some operations.
  void Go() {
    if (random_() % 3 == 0) return Calm();
    for (uint64_t left = 5 + random_() % 20; left > 0; --left) Step();
  }

  // A page as a guest sees it.
  struct Alias {
    mmu::Gfn gfn;
    mmu::MemoryKind kind;
    bool execute_only;
  };
  // One that was touched lately, or any.
  Alias AnyAlias() {
    if (touched_.empty() || random_() % 3 == 0) {
      return {AnyFrame(), AnyKind(), options_.execute_only_alias && random_() % 3 == 0};
    }
    return touched_[random_() % touched_.size()];
  }
  // A frame of a slot, near a border of large pages more often than not; sometimes behind one.
  mmu::Gfn AnyFrame() {
    if (random_() % 8 == 0) return mmu::Gfn(kSmallFrames + random_() % 64);
    const bool large = options_.large_slot && random_() % 2 == 0;
    const uint64_t frames = large ? kLargeFrames : kSmallFrames;
    const uint64_t border =
        large ? random_() % 4 * 0x10000 + random_() % 3 * 512 : random_() % 5 * 512;
    uint64_t frame = random_() % 4 == 0 ? random_() % frames : border + random_() % 6;
    frame = std::min(frame >= 3 ? frame - 3 : frame, frames - 1);
    return mmu::Gfn(large ? kLargeFirst + frame : std::max(frame, kReserved));
  }
  mmu::MemoryKind AnyKind() { return static_cast<mmu::MemoryKind>(random_() % 2); }
  mmu::Access AnyAccess() {
    return mmu::Access::FromBits(static_cast<uint8_t>(1 << random_() % 3));
  }
  void Touch(mmu::Gfn gfn, mmu::MemoryKind kind, bool execute_only, mmu::Access access) {
    const mmu::HwGfn frame = space_.layout().HwGfnOf(gfn, kind, execute_only);
    space_.HandleFault({mmu::Gpa(frame.value << mmu::kPageShift), access});
  }

 private:
  // Inside of one slot. Those of the large slot are short: few tables have to be made of it.
  mmu::GfnRange AnyRange() {
    static constexpr uint64_t kCounts[] = {1, 1, 2, 3, 64, 511, 512, 513, 1024};
    const mmu::Gfn first = AnyFrame();
    const uint64_t end = first.value >= kLargeFirst ? kLargeFirst + kLargeFrames : kSmallFrames;
    if (first.value >= end) return {mmu::Gfn(kReserved), 1};
    return {first, std::min(kCounts[random_() % 9], end - first.value)};
  }

  void TouchSome() {
    for (int i = 0; i < 8; ++i) {
      const Alias alias = AnyAlias();
      Touch(alias.gfn, alias.kind, alias.execute_only, AnyAccess());
      if (touched_.size() == kRemembered) touched_.erase(touched_.begin());
      touched_.push_back(alias);
    }
  }
  // Nothing is logged or denied, each slot is of one kind, and what is touched is mapped anew:
  // large.
  void Calm() {
    if (space_.dirty_log_enabled()) (void)space_.DisableDirtyLog();
    for (const mmu::GfnRange slot :
         {mmu::GfnRange{mmu::Gfn(512), 1024}, mmu::GfnRange{mmu::Gfn(kLargeFirst), kLargeFrames}}) {
      (void)space_.SetMemoryAttributes(
          {.ranges = {slot}, .kind = AnyKind(), .deny = mmu::Access::None()});
      (void)space_.Zap(slot);
    }
    for (int i = 0; i < 6; ++i) TouchSome();
  }

  void Step() {
    switch (random_() % 24) {
      default:
        return TouchSome();
      case 0:
      case 1:
      case 2:
        (void)space_.SetMemoryAttributes({.ranges = {AnyRange()}, .kind = AnyKind()});
        return;
      case 3:
      case 4:
        (void)space_.SetMemoryAttributes(
            {.ranges = {AnyRange()},
             .deny = mmu::Access::FromBits(static_cast<uint8_t>(random_() % 8))});
        return;
      case 5:
        (void)space_.SetMemoryAttributes({.ranges = {AnyRange()}, .deny = mmu::Access::None()});
        return;
      case 6:
        (void)space_.Zap(AnyRange());
        return;
      case 7:
        (void)space_.SplitPages(AnyRange(), random_() % 2 == 0 ? mmu::Level::k4K : mmu::Level::k2M);
        return;
      case 8:
        (void)space_.RecoverPages(AnyRange());
        return;
      case 9:
        return Log();
      case 10:
        (void)space_.TestAndClearAccessed(AnyRange());
        return;
      case 11:
        if (random_() % 8 == 0) {
          (void)space_.ZapAll();
          if (random_() % 2 == 0) (void)space_.ReclaimTables(1000);
        }
        return;
      case 12:
        (void)space_.Prefault({mmu::Gfn(512), 600}, std::nullopt, {});
        return;
    }
  }
  // On, a harvest or two, off.
  void Log() {
    if (!space_.dirty_log_enabled()) {
      mmu::DirtyLogOptions log;
      if (options_.flags && random_() % 2 == 0) log.mode = mmu::DirtyLogMode::kDirtyBit;
      log.eager_split = !options_.large_slot;
      (void)space_.EnableDirtyLog(log);
    } else if (random_() % 3 == 0) {
      (void)space_.DisableDirtyLog();
    } else {
      (void)space_.HarvestDirty({mmu::Gfn(0), kSmallFrames});
    }
  }

  static constexpr size_t kRemembered = 64;
  mmu::GuestAddressSpace& space_;
  const BochsSpaceOptions options_;
  std::mt19937_64& random_;
  std::vector<Alias> touched_;
};

}  // namespace twinroot::bochs

#endif  // TWINROOT_TESTS_BOCHS_LIFE_H_
