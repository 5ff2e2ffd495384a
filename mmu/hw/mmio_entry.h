// MMIO entries: "no memslot here, as of this generation", kept in a leaf's slot so that the next
// access to a device needs no look-up. Plain words; every function is pure.
//
//   62.....52  51  50....12  11 10  9.....3  2:0
//   gen[17:7]  1   0         0  0   gen[6:0] 110b misconfigured, or 000b not present (63 clear)
//
// Misconfigured: W and X without R is an EPT misconfiguration whatever else is set, and a
// misconfigured entry is never cached (SDM vol. 3C, "EPT Misconfigurations", "Caching Translation
// Information"), so a stale one needs no flush. Not present with bit 63 clear: the guest gets a
// #VE, where empty slots suppress it ("Convertible EPT Violations").
//
// The address is bit 51 alone: processors that speculate through entries like these (L1 terminal
// fault) must find no memory there; so the generation has the 18 bits that are left.
#ifndef TWINROOT_MMU_HW_MMIO_ENTRY_H_
#define TWINROOT_MMU_HW_MMIO_ENTRY_H_

#include <cstdint>
#include <optional>

#include "mmu/hw/ept_entry.h"
#include "mmu/hw/soft_bits.h"

namespace twinroot::mmu {

enum class MmioEntryForm : uint8_t { kMisconfigured, kNotPresent };

// Width of the memslots' generation in an entry. When it wraps, every MMIO entry has to go.
inline constexpr int kMmioGenerationBits = 18;
inline constexpr uint64_t kMmioGenerationMask = (uint64_t{1} << kMmioGenerationBits) - 1;

class MmioEntry {
 public:
  static constexpr uint64_t kMisconfigured = EptEntry::kWrite | EptEntry::kExecute;
  static constexpr uint64_t kNowhere = uint64_t{1} << 51;
  static constexpr int kLowBits = 7;
  static constexpr int kLowShift = 3;
  static constexpr int kHighShift = 52;
  static constexpr uint64_t kLowMask = ((uint64_t{1} << kLowBits) - 1) << kLowShift;
  static constexpr uint64_t kHighMask = (kMmioGenerationMask >> kLowBits) << kHighShift;

  // The low kMmioGenerationBits of `generation` count.
  static constexpr EptEntry Make(MmioEntryForm form, uint64_t generation) {
    return EptEntry((form == MmioEntryForm::kMisconfigured ? kMisconfigured : 0) | kNowhere |
                    (generation << kLowShift & kLowMask) |
                    (generation >> kLowBits << kHighShift & kHighMask));
  }
  // Nullopt: not an MMIO entry.
  static constexpr std::optional<MmioEntryForm> FormOf(EptEntry entry) {
    switch (entry.raw() & ~(kLowMask | kHighMask)) {
      case kNowhere | kMisconfigured:
        return MmioEntryForm::kMisconfigured;
      case kNowhere:
        return MmioEntryForm::kNotPresent;
      default:
        return std::nullopt;
    }
  }
  // Of an MMIO entry.
  static constexpr uint64_t GenerationOf(EptEntry entry) {
    return (entry.raw() & kLowMask) >> kLowShift | (entry.raw() & kHighMask) >> kHighShift
                                                                                    << kLowBits;
  }
};

constexpr bool IsMmioEntry(EptEntry entry) { return MmioEntry::FormOf(entry).has_value(); }

static_assert((MmioEntry::kLowMask & MmioEntry::kHighMask) == 0 &&
              ((MmioEntry::kLowMask | MmioEntry::kHighMask) &
               (EptEntry::kRightsMask | EptEntry::kExecuteUser | EptEntry::kAddressMask |
                EptEntry::kSuppressVe | kMmuPresent)) == 0);
static_assert(MmioEntry::Make(MmioEntryForm::kMisconfigured, 0x3'FFFF).raw() ==
              0x7FF8'0000'0000'03FE);
static_assert(MmioEntry::Make(MmioEntryForm::kNotPresent, 0x81).raw() == 0x0018'0000'0000'0008);
static_assert(MmioEntry::GenerationOf(MmioEntry::Make(MmioEntryForm::kNotPresent, 0x2'5A5A)) ==
              0x2'5A5A);
static_assert(MmioEntry::GenerationOf(MmioEntry::Make(MmioEntryForm::kMisconfigured, 0x4'0003)) ==
              3);
// A misconfiguration at every level and with every capability; or absent for every processor.
static_assert(IsEptMisconfiguration(MmioEntry::Make(MmioEntryForm::kMisconfigured, 0), Level::k4K,
                                    {}, 52) &&
              IsEptMisconfiguration(MmioEntry::Make(MmioEntryForm::kMisconfigured, 0x3'FFFF),
                                    Level::k1G, {.mode_based_execute = true}, 52));
static_assert(!MmioEntry::Make(MmioEntryForm::kNotPresent, 0x3'FFFF).Present(true) &&
              !MmioEntry::Make(MmioEntryForm::kNotPresent, 0x3'FFFF).suppress_ve());
// Never mistaken for a slot of another kind.
static_assert(!IsMmioEntry(kEmptyEntry) && !IsMmioEntry(kEmptySuppressVe) &&
              !IsMmioEntry(kFrozenEntry) && !IsMmioEntry(kFrozenSuppressVe));
static_assert(!IsMmioEntry(EptEntry(MmioEntry::kNowhere | kMmuPresent)) &&
              !IsMmioEntry(EptEntry(MmioEntry::kNowhere | EptEntry::kRead)));

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_HW_MMIO_ENTRY_H_
