// One EPT paging-structure entry: what its 64 bits mean, and the only makers of such words
// (SDM vol. 3C, "EPT Translation Mechanism"). A plain value; every function is pure.
//
//   63  62 61  60  59 58 57  56:52  51......12  11 10  9 8  7  6   5:3   2 1 0
//   VE  -  SPP SSS -  PW VGP -      address     -  XU  D A  PS IPAT type X W R
//
// That is a leaf. A link to a table has XU, A, X, W and R alone: 6:3 are reserved (7:3 above the
// PDPT), the rest is ignored. "-": ignored in every entry, under every control.
#ifndef TWINROOT_MMU_HW_EPT_ENTRY_H_
#define TWINROOT_MMU_HW_EPT_ENTRY_H_

#include <cstdint>

#include "mmu/hw/ept_capabilities.h"
#include "mmu/hw/mem_type.h"
#include "mmu/types/access.h"
#include "mmu/types/address.h"
#include "mmu/types/level.h"

namespace twinroot::mmu {

class EptEntry {
 public:
  static constexpr uint64_t kRead = uint64_t{1} << 0;     // read access
  static constexpr uint64_t kWrite = uint64_t{1} << 1;    // write access
  static constexpr uint64_t kExecute = uint64_t{1} << 2;  // fetch (supervisor, if mode-based)
  static constexpr int kMemTypeShift = 3;                 // 5:3 memory type
  static constexpr uint64_t kMemTypeMask = uint64_t{7} << kMemTypeShift;
  static constexpr uint64_t kIgnorePat = uint64_t{1} << 6;     // ignore guest PAT
  static constexpr uint64_t kPageSize = uint64_t{1} << 7;      // maps a page
  static constexpr uint64_t kAccessed = uint64_t{1} << 8;      // if EPTP enables
  static constexpr uint64_t kDirty = uint64_t{1} << 9;         // leaf, if EPTP enables
  static constexpr uint64_t kExecuteUser = uint64_t{1} << 10;  // if mode-based execute
  // Leaves, under controls that this engine never turns on: never set here, ignored meanwhile.
  static constexpr uint64_t kVerifyGuestPaging = uint64_t{1} << 57;  // guest-paging verification
  static constexpr uint64_t kPagingWrite = uint64_t{1} << 58;        // EPT paging-write control
  static constexpr uint64_t kSupervisorShadowStack = uint64_t{1} << 60;  // EPTP bit 7
  static constexpr uint64_t kSubPageWrite = uint64_t{1} << 61;           // 4K, sub-page permissions
  // Leaves and entries that are not present, if the "EPT-violation #VE" control is on.
  static constexpr uint64_t kSuppressVe = uint64_t{1} << 63;  // suppress #VE
  // Ignored in every kind of present entry under every control (SDM, tables "Format of an EPT
  // ..."): 11, 56:52, 59 and 62. Software's own.
  static constexpr uint64_t kIgnoredMask =
      (uint64_t{1} << 11) | (uint64_t{0x1F} << 52) | (uint64_t{1} << 59) | (uint64_t{1} << 62);
  static constexpr uint64_t kAddressMask = 0x000F'FFFF'FFFF'F000;
  static constexpr uint64_t kRightsMask = kRead | kWrite | kExecute;

  constexpr EptEntry() = default;
  constexpr explicit EptEntry(uint64_t raw) : raw_(raw) {}

  // A link to the next table: all rights, the leaf decides.
  static constexpr EptEntry Table(Hpa table) {
    return EptEntry((table.value & kAddressMask) | kRightsMask | kExecuteUser);
  }
  // A page of BytesPerEntry(level) at `page`, which is aligned to it. `access` includes read
  // unless it is execute-only. The guest's PAT decides the type together with `type`.
  static constexpr EptEntry Leaf(Hpa page, Level level, Access access, MemType type) {
    return EptEntry((page.value & kAddressMask) | (access.read() ? kRead : 0) |
                    (access.write() ? kWrite : 0) | (access.fetch() ? kExecute | kExecuteUser : 0) |
                    (static_cast<uint64_t>(type) << kMemTypeShift) |
                    (level == Level::k4K ? 0 : kPageSize));
  }

  constexpr uint64_t raw() const { return raw_; }
  constexpr bool Present(bool mode_based_execute) const {
    return raw_ & (kRightsMask | (mode_based_execute ? kExecuteUser : 0));
  }
  // Present under every setting of mode-based execute: what this engine makes always is.
  constexpr bool present() const { return raw_ & kRightsMask; }
  // Meaningful if present.
  constexpr bool IsLeaf(Level level) const {
    return level == Level::k4K ||
           ((level == Level::k2M || level == Level::k1G) && (raw_ & kPageSize) != 0);
  }
  constexpr Access access() const {
    return (raw_ & kRead ? Access::Read() : Access::None()) |
           (raw_ & kWrite ? Access::Write() : Access::None()) |
           (raw_ & kExecute ? Access::Fetch() : Access::None());
  }
  constexpr bool user_execute() const { return raw_ & kExecuteUser; }
  constexpr Hpa address() const { return Hpa(raw_ & kAddressMask); }
  constexpr uint64_t mem_type() const { return (raw_ & kMemTypeMask) >> kMemTypeShift; }
  constexpr bool ignore_pat() const { return raw_ & kIgnorePat; }
  constexpr bool accessed() const { return raw_ & kAccessed; }
  constexpr bool dirty() const { return raw_ & kDirty; }
  constexpr bool suppress_ve() const { return raw_ & kSuppressVe; }

  // The same translation with other rights; A and D stay.
  constexpr EptEntry WithAccess(Access access) const {
    const uint64_t rest = raw_ & ~(kRightsMask | kExecuteUser);
    return EptEntry(rest | (access.read() ? kRead : 0) | (access.write() ? kWrite : 0) |
                    (access.fetch() ? kExecute | kExecuteUser : 0));
  }
  // The same entry but for what the name says.
  constexpr EptEntry WithIgnorePat(bool ignored) const { return With(kIgnorePat, ignored); }
  constexpr EptEntry WithSuppressVe(bool suppress) const { return With(kSuppressVe, suppress); }
  // Accessed and dirty also where the other is. Of an empty word: only what the others were.
  constexpr EptEntry WithFlagsOf(EptEntry other) const {
    return EptEntry(raw_ | (other.raw_ & (kAccessed | kDirty)));
  }
  // Maps a page above the PT, where the bit says so; in the PT it is ignored, and clear.
  constexpr EptEntry WithPageSize(bool set) const { return With(kPageSize, set); }

  friend constexpr bool operator==(EptEntry, EptEntry) = default;

 private:
  constexpr EptEntry With(uint64_t bit, bool set) const {
    return EptEntry(set ? raw_ | bit : raw_ & ~bit);
  }

  uint64_t raw_ = 0;
};

// Bits that must be zero in a present entry at `level` (SDM, tables "Format of an EPT ...").
constexpr uint64_t EptReservedBits(EptEntry entry, Level level, const EptCapabilities& capabilities,
                                   int maxphyaddr) {
  const uint64_t beyond = EptEntry::kAddressMask & ~((uint64_t{1} << maxphyaddr) - 1);
  if (level == Level::k512G || level == Level::k256T) {
    return beyond | EptEntry::kMemTypeMask | EptEntry::kIgnorePat | EptEntry::kPageSize;
  }
  if (!entry.IsLeaf(level)) return beyond | EptEntry::kMemTypeMask | EptEntry::kIgnorePat;
  if (!capabilities.MapsAt(level)) return beyond | EptEntry::kPageSize;
  return beyond | (EptEntry::kAddressMask & (BytesPerEntry(level) - 1));
}

// SDM vol. 3C, "EPT Misconfigurations". An entry that is not present never is one.
constexpr bool IsEptMisconfiguration(EptEntry entry, Level level,
                                     const EptCapabilities& capabilities, int maxphyaddr) {
  if (!entry.Present(capabilities.mode_based_execute)) return false;
  const uint64_t raw = entry.raw();
  if (!(raw & EptEntry::kRead)) {
    if (raw & EptEntry::kWrite) return true;
    // Present and not readable: it is execute-only.
    if (!capabilities.execute_only) return true;
  }
  if (raw & EptReservedBits(entry, level, capabilities, maxphyaddr)) return true;
  return entry.IsLeaf(level) && !IsMemType(entry.mem_type());
}

// What nearly every entry above the PT is: a link that grants R, W and X and has no reserved bit. A
// short way past the rules above for such a one, and for no other.
class EptPlainLink {
 public:
  constexpr explicit EptPlainLink(int maxphyaddr)
      : mask_((EptEntry::kAddressMask & ~((uint64_t{1} << maxphyaddr) - 1)) |
              EptEntry::kMemTypeMask | EptEntry::kIgnorePat | EptEntry::kPageSize |
              EptEntry::kRightsMask) {}
  constexpr bool Is(EptEntry entry, Level level) const {
    return level != Level::k4K && (entry.raw() & mask_) == EptEntry::kRightsMask;
  }

 private:
  uint64_t mask_;
};

// Index of `frame` in a table whose entries are of `level`.
constexpr uint64_t EptIndex(HwGfn frame, Level level) {
  return (frame.value / FramesPerEntry(level)) % kEntriesPerTable;
}

// Every bit has exactly one meaning.
static_assert((EptEntry::kRightsMask ^ EptEntry::kMemTypeMask ^ EptEntry::kIgnorePat ^
               EptEntry::kPageSize ^ EptEntry::kAccessed ^ EptEntry::kDirty ^
               EptEntry::kExecuteUser ^ EptEntry::kAddressMask ^ EptEntry::kIgnoredMask ^
               EptEntry::kVerifyGuestPaging ^ EptEntry::kPagingWrite ^
               EptEntry::kSupervisorShadowStack ^ EptEntry::kSubPageWrite ^
               EptEntry::kSuppressVe) == ~uint64_t{0});
static_assert(EptEntry::kIgnoredMask == 0x49F0'0000'0000'0800);
static_assert(EptEntry::Table(Hpa(0x7000)).raw() == 0x7407);
static_assert(EptEntry::Leaf(Hpa(0x20'0000), Level::k2M, Access::All(), MemType::kWriteBack)
                  .raw() == 0x2004B7);
static_assert(EptEntry::Leaf(Hpa(0x5000), Level::k4K, Access::Read(), MemType::kWriteBack).raw() ==
              0x5031);
static_assert(EptEntry(0x5031).WithAccess(Access::Read() | Access::Write()).raw() == 0x5033);
static_assert(EptEntry(0x5031).WithIgnorePat(true).raw() == 0x5071);
static_assert(EptEntry(0x5437).WithSuppressVe(true).raw() == 0x8000'0000'0000'5437);
static_assert(EptEntry(0x5037).WithFlagsOf(EptEntry(0x7237)).raw() == 0x5237);
static_assert(EptEntry(0x20'04B7).WithPageSize(false).raw() == 0x20'0437);
static_assert(!EptEntry(EptEntry::kExecuteUser).Present(false) &&
              EptEntry(EptEntry::kExecuteUser).Present(true));
static_assert(IsEptMisconfiguration(EptEntry(0x2), Level::k4K, {}, 52));    // W without R
static_assert(IsEptMisconfiguration(EptEntry(0x6), Level::k4K, {}, 52));    // WX without R
static_assert(!IsEptMisconfiguration(EptEntry(0x34), Level::k4K, {}, 52));  // X only
static_assert(IsEptMisconfiguration(EptEntry(0x34), Level::k4K, {.execute_only = false}, 52));
static_assert(IsEptMisconfiguration(EptEntry(0x1B7), Level::k512G, {}, 52));  // leaf at PML4E
static_assert(IsEptMisconfiguration(EptEntry(0x10B7), Level::k2M, {}, 52));   // bit 12 of 2M
static_assert(IsEptMisconfiguration(EptEntry(0x17), Level::k4K, {}, 52));     // type 2
static_assert(IsEptMisconfiguration(EptEntry((uint64_t{1} << 39) | 0x37), Level::k4K, {}, 39));
static_assert(!IsEptMisconfiguration(EptEntry((uint64_t{1} << 39) | 0x37), Level::k4K, {}, 40));
static_assert(!IsEptMisconfiguration(EptEntry(0xFFF8), Level::k4K, {}, 39));  // not present
static_assert(EptIndex(HwGfn(0x80'0201), Level::k2M) == 1);

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_HW_EPT_ENTRY_H_
