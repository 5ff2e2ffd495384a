// Entries of ordinary paging structures, as a guest writes them (SDM vol. 3A, "32-Bit Paging", "PAE
// Paging", "4-Level Paging and 5-Level Paging"): what a word means at a level of a paging mode.
// Plain values; every function is pure. Words of 32-bit paging stand in the low half.
//
//   63  62:59 58:52   51......12   11:9 8 7  6 5 4   3   2   1   0
//   XD  key   ignored address      ign. G PS D A PCD PWT U/S R/W P     bit 12 of a large page: PAT
//
// PAE has no keys: 62:52 are reserved. 32-bit paging: 4M pages keep bits 39:32 of their address in
// 20:13 (PSE-36).
#ifndef TWINROOT_MMU_HW_GUEST_PTE_H_
#define TWINROOT_MMU_HW_GUEST_PTE_H_

#include <algorithm>
#include <cstdint>

#include "mmu/hw/control_registers.h"
#include "mmu/types/address.h"
#include "mmu/types/level.h"

namespace twinroot::mmu {

class GuestPte {
 public:
  static constexpr uint64_t kPresent = uint64_t{1} << 0;
  static constexpr uint64_t kWrite = uint64_t{1} << 1;
  static constexpr uint64_t kUser = uint64_t{1} << 2;
  static constexpr uint64_t kAccessed = uint64_t{1} << 5;
  static constexpr uint64_t kDirty = uint64_t{1} << 6;  // leaf
  static constexpr uint64_t kPageSize = uint64_t{1} << 7;
  static constexpr int kKeyShift = 59;
  static constexpr uint64_t kKeyMask = uint64_t{0xF} << kKeyShift;
  static constexpr uint64_t kNoExecute = uint64_t{1} << 63;
  static constexpr uint64_t kAddressMask = 0x000F'FFFF'FFFF'F000;

  constexpr GuestPte() = default;
  constexpr explicit GuestPte(uint64_t raw) : raw_(raw) {}

  constexpr uint64_t raw() const { return raw_; }
  constexpr bool present() const { return raw_ & kPresent; }
  constexpr bool writable() const { return raw_ & kWrite; }
  constexpr bool user() const { return raw_ & kUser; }
  constexpr bool dirty() const { return raw_ & kDirty; }
  constexpr bool no_execute() const { return raw_ & kNoExecute; }
  constexpr unsigned key() const { return static_cast<unsigned>((raw_ & kKeyMask) >> kKeyShift); }
  friend constexpr bool operator==(GuestPte, GuestPte) = default;

 private:
  uint64_t raw_ = 0;
};

// Geometry and reserved bits of one paging mode on one processor.
class GuestPteFormat {
 public:
  struct Features {
    PagingMode mode = PagingMode::k4Level;  // not kNone
    bool large_pages = true;                // CR4.PSE; only 32-bit paging asks
    bool execute_disable = true;            // IA32_EFER.NXE; 32-bit paging has none
    bool page_1g = true;                    // of 4 and 5 levels
    bool pse36 = true;
    int maxphyaddr = 52;
  };

  constexpr explicit GuestPteFormat(const Features& features) : features_(features) {
    for (int level = 1; level <= kDeepest; ++level) {
      reserved_[level][0] = Reserved(static_cast<Level>(level), false);
      reserved_[level][1] = Reserved(static_cast<Level>(level), true);
    }
  }

  constexpr PagingMode mode() const { return features_.mode; }
  constexpr bool is_32bit() const { return features_.mode == PagingMode::k32Bit; }
  constexpr bool has_keys() const { return features_.mode >= PagingMode::k4Level; }
  // The highest level whose entries are of this format; PDPTEs of PAE are not (pae_pdpte.h).
  constexpr Level top() const {
    switch (features_.mode) {
      case PagingMode::k5Level:
        return Level::k256T;
      case PagingMode::k4Level:
        return Level::k512G;
      default:
        return Level::k2M;
    }
  }
  constexpr int entry_bytes() const { return is_32bit() ? 4 : 8; }
  constexpr int index_bits() const { return is_32bit() ? 10 : kIndexBits; }
  // Log2 of the bytes that an entry of `level` covers: 4M above the page tables of 32-bit paging.
  constexpr int ShiftOf(Level level) const {
    return kPageShift + index_bits() * (static_cast<int>(level) - 1);
  }
  constexpr uint64_t IndexOf(uint64_t linear, Level level) const {
    return linear >> ShiftOf(level) & ((uint64_t{1} << index_bits()) - 1);
  }
  // What an access can name: the processor has checked the rest before it walks.
  constexpr uint64_t LinearMask() const {
    return features_.mode <= PagingMode::kPae ? 0xFFFF'FFFF : ~uint64_t{0};
  }

  // Of a present entry without reserved bits.
  constexpr bool IsLeaf(GuestPte entry, Level level) const {
    return level == Level::k4K || (entry.raw() & GuestPte::kPageSize && LargeAt(level));
  }
  // Of a present entry.
  constexpr uint64_t ReservedBits(GuestPte entry, Level level) const {
    return entry.raw() &
           reserved_[static_cast<int>(level)][entry.raw() & GuestPte::kPageSize ? 1 : 0];
  }
  // Where the page of a leaf, or the next table, begins.
  constexpr Gpa AddressOf(GuestPte entry, Level level) const {
    if (!IsLeaf(entry, level) || level == Level::k4K) {
      return Gpa(entry.raw() & GuestPte::kAddressMask);
    }
    if (!is_32bit()) return Gpa(entry.raw() & GuestPte::kAddressMask & ~(BytesPerEntry(level) - 1));
    return Gpa((entry.raw() & 0xFFC0'0000) | (entry.raw() >> 13 & 0xFF) << 32);
  }

 private:
  static constexpr int kDeepest = static_cast<int>(Level::k256T);

  constexpr bool LargeAt(Level level) const {
    if (level == Level::k2M) return !is_32bit() || features_.large_pages;
    return level == Level::k1G && has_keys() && features_.page_1g;
  }
  // Bits [low, end).
  static constexpr uint64_t Bits(int low, int end) {
    return low >= end ? 0 : (end == 64 ? 0 : uint64_t{1} << end) - (uint64_t{1} << low);
  }
  constexpr uint64_t Reserved(Level level, bool page_size) const {
    const bool large = page_size && LargeAt(level);
    if (is_32bit()) {
      const int width = features_.pse36 ? std::min(40, features_.maxphyaddr) : 32;
      return large && level == Level::k2M ? Bits(width - 19, 22) : 0;
    }
    uint64_t reserved = Bits(features_.maxphyaddr, has_keys() ? 52 : 63);
    if (!features_.execute_disable) reserved |= GuestPte::kNoExecute;
    if (level == Level::k4K) return reserved;
    if (large) return reserved | Bits(13, kPageShift + kIndexBits * (static_cast<int>(level) - 1));
    return reserved | (page_size ? GuestPte::kPageSize : 0);
  }

  Features features_;
  uint64_t reserved_[kDeepest + 1][2] = {};
};

static_assert(GuestPteFormat({.mode = PagingMode::k4Level, .maxphyaddr = 40})
                  .ReservedBits(GuestPte(~uint64_t{0}), Level::k2M) == 0x000F'FF00'001F'E000);
static_assert(GuestPteFormat({.mode = PagingMode::kPae, .maxphyaddr = 36})
                  .ReservedBits(GuestPte(~uint64_t{0}), Level::k4K) == 0x7FFF'FFF0'0000'0000);
static_assert(GuestPteFormat({.mode = PagingMode::k32Bit, .maxphyaddr = 40})
                  .ReservedBits(GuestPte(0xFFFF'FFFF), Level::k2M) == 0x0020'0000);
static_assert(GuestPteFormat({.mode = PagingMode::k32Bit, .pse36 = false})
                  .ReservedBits(GuestPte(0xFFFF'FFFF), Level::k2M) == 0x003F'E000);
static_assert(GuestPteFormat({.mode = PagingMode::k32Bit})
                  .AddressOf(GuestPte(0x0040'2083), Level::k2M) == Gpa(0x1'0040'0000));
static_assert(GuestPteFormat({.mode = PagingMode::k4Level})
                  .ReservedBits(GuestPte(0x81), Level::k512G) == 0x80);

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_HW_GUEST_PTE_H_
