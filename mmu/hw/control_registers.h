// The guest's registers that decide how its linear addresses translate (SDM vol. 3A, "Control
// Registers", "Paging Modes and Control Bits"). Plain values; every function is pure.
#ifndef TWINROOT_MMU_HW_CONTROL_REGISTERS_H_
#define TWINROOT_MMU_HW_CONTROL_REGISTERS_H_

#include <cstdint>

namespace twinroot::mmu {

enum class PagingMode : uint8_t { kNone, k32Bit, kPae, k4Level, k5Level };

struct ControlRegisters {
  static constexpr uint64_t kCr0Pe = uint64_t{1} << 0;     // protected mode
  static constexpr uint64_t kCr0Wp = uint64_t{1} << 16;    // supervisor writes ask R/W
  static constexpr uint64_t kCr0Pg = uint64_t{1} << 31;    // paging
  static constexpr uint64_t kCr4Pse = uint64_t{1} << 4;    // 4M pages of 32-bit paging
  static constexpr uint64_t kCr4Pae = uint64_t{1} << 5;    // 64-bit entries
  static constexpr uint64_t kCr4Pge = uint64_t{1} << 7;    // global pages
  static constexpr uint64_t kCr4La57 = uint64_t{1} << 12;  // 5 levels
  static constexpr uint64_t kCr4Smep = uint64_t{1} << 20;  // no supervisor fetch of user pages
  static constexpr uint64_t kCr4Smap = uint64_t{1} << 21;  // no supervisor data access to them
  static constexpr uint64_t kCr4Pke = uint64_t{1} << 22;   // keys of user pages
  static constexpr uint64_t kCr4Pks = uint64_t{1} << 24;   // keys of supervisor pages
  static constexpr uint64_t kEferLme = uint64_t{1} << 8;   // IA-32e mode, once paging is on
  static constexpr uint64_t kEferLma = uint64_t{1} << 10;  // IA-32e mode is active
  static constexpr uint64_t kEferNxe = uint64_t{1} << 11;  // XD means something

  uint64_t cr0 = 0;
  uint64_t cr3 = 0;
  uint64_t cr4 = 0;
  uint64_t efer = 0;
  uint32_t pkru = 0;  // key i: bit 2i denies access, bit 2i + 1 denies writes
  uint32_t pkrs = 0;  // the same for supervisor pages

  constexpr bool wp() const { return cr0 & kCr0Wp; }
  constexpr bool smep() const { return cr4 & kCr4Smep; }
  constexpr bool smap() const { return cr4 & kCr4Smap; }
  constexpr bool nxe() const { return efer & kEferNxe; }

  constexpr PagingMode mode() const {
    if (!(cr0 & kCr0Pg)) return PagingMode::kNone;
    if (!(cr4 & kCr4Pae)) return PagingMode::k32Bit;
    if (!(efer & kEferLma)) return PagingMode::kPae;
    return cr4 & kCr4La57 ? PagingMode::k5Level : PagingMode::k4Level;
  }
  friend constexpr bool operator==(const ControlRegisters&, const ControlRegisters&) = default;
};

static_assert(ControlRegisters{}.mode() == PagingMode::kNone);
static_assert(ControlRegisters{.cr0 = 0x8000'0000}.mode() == PagingMode::k32Bit);
static_assert(ControlRegisters{.cr0 = 0x8000'0000, .cr4 = 0x20}.mode() == PagingMode::kPae);
static_assert(ControlRegisters{.cr0 = 0x8000'0000, .cr4 = 0x1020, .efer = 0x400}.mode() ==
              PagingMode::k5Level);

// The error code of a page fault (SDM vol. 3A, "Page-Fault Exceptions"). Shadow stacks, HLAT and
// SGX are features that no guest of ours has.
struct PageFaultError {
  static constexpr uint32_t kPresent = 1 << 0;   // there was a translation, or a reserved bit
  static constexpr uint32_t kWrite = 1 << 1;     // a write
  static constexpr uint32_t kUser = 1 << 2;      // a user-mode access
  static constexpr uint32_t kReserved = 1 << 3;  // a reserved bit was set
  static constexpr uint32_t kFetch = 1 << 4;     // a fetch, where XD or SMEP may refuse one
  static constexpr uint32_t kKey = 1 << 5;       // the page's protection key denies it
};

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_HW_CONTROL_REGISTERS_H_
