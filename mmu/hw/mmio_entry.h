// MMIO entries: "no memslot here, as of this generation", kept in a slot so that the next access to
// a device needs no look-up. Plain words; every function is pure.
//
//   62.....52  51  50....12  11 10  9.....3  2:0
//   gen[17:7]  1   0         0  0   gen[6:0] 110b
//
// W and X without R is an EPT misconfiguration at every level, whatever else is set, and nothing of
// it is cached (SDM vol. 3C, "EPT Misconfigurations", "Caching Translation Information"), so a
// stale one needs no flush. The address is bit 51 alone: processors that speculate through entries
// like these (L1 terminal fault) must find no memory there.
#ifndef TWINROOT_MMU_HW_MMIO_ENTRY_H_
#define TWINROOT_MMU_HW_MMIO_ENTRY_H_

#include <cstdint>
#include <optional>

#include "mmu/hw/ept_entry.h"
#include "mmu/hw/soft_bits.h"

namespace twinroot::mmu {

enum class MmioEntryForm : uint8_t { kMisconfigured };

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
  static constexpr EptEntry Make(MmioEntryForm, uint64_t generation) {
    return EptEntry(kMisconfigured | kNowhere | (generation << kLowShift & kLowMask) |
                    (generation >> kLowBits << kHighShift & kHighMask));
  }
  // Nullopt: not an MMIO entry.
  static constexpr std::optional<MmioEntryForm> FormOf(EptEntry entry) {
    if ((entry.raw() & ~(kLowMask | kHighMask)) != (kNowhere | kMisconfigured)) return std::nullopt;
    return MmioEntryForm::kMisconfigured;
  }
  // Of an MMIO entry.
  static constexpr uint64_t GenerationOf(EptEntry entry) {
    return (entry.raw() & kLowMask) >> kLowShift | (entry.raw() & kHighMask) >> kHighShift
                                                                                    << kLowBits;
  }
};

constexpr bool IsMmioEntry(EptEntry entry) { return MmioEntry::FormOf(entry).has_value(); }

static_assert(MmioEntry::Make(MmioEntryForm::kMisconfigured, 0x3'FFFF).raw() ==
              0x7FF8'0000'0000'03FE);
static_assert(MmioEntry::GenerationOf(MmioEntry::Make(MmioEntryForm::kMisconfigured, 0x2'5A5A)) ==
              0x2'5A5A);
static_assert(MmioEntry::GenerationOf(MmioEntry::Make(MmioEntryForm::kMisconfigured, 0x4'0003)) ==
              3);
static_assert(IsMmioMark(MmioEntry::Make(MmioEntryForm::kMisconfigured, 0x3'FFFF)));
static_assert(IsEptMisconfiguration(MmioEntry::Make(MmioEntryForm::kMisconfigured, 0), Level::k4K,
                                    {}, 52) &&
              IsEptMisconfiguration(MmioEntry::Make(MmioEntryForm::kMisconfigured, 0x3'FFFF),
                                    Level::k1G, {.mode_based_execute = true}, 52));
// Never mistaken for a slot of another kind.
static_assert(!IsMmioEntry(kEmptyEntry) && !IsMmioEntry(kFrozenEntry) &&
              !IsMmioEntry(EptEntry(MmioEntry::kNowhere | MmioEntry::kMisconfigured |
                                    kMmuPresent)));

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_HW_MMIO_ENTRY_H_
