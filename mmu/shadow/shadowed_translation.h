// What the guest's own entry said when a shadow entry was made from it: the frame, and the rights
// of the whole walk (B4). One word: gfn in 63:12, rights (X, W, U) in 2:0. The rights are the
// GUEST's and may be wider than what the shadow entry grants (B5). A plain value.
#ifndef TWINROOT_MMU_SHADOW_SHADOWED_TRANSLATION_H_
#define TWINROOT_MMU_SHADOW_SHADOWED_TRANSLATION_H_

#include <cstdint>

#include "mmu/shadow/guest_rights.h"
#include "mmu/types/address.h"

namespace twinroot::mmu {

class ShadowedTranslation {
 public:
  constexpr ShadowedTranslation() = default;
  constexpr ShadowedTranslation(Gfn gfn, GuestRights rights)
      : word_(gfn.value << kPageShift | rights.bits()) {}

  constexpr Gfn gfn() const { return Gfn(word_ >> kPageShift); }
  constexpr GuestRights rights() const { return GuestRights::FromBits(word_); }
  friend constexpr bool operator==(ShadowedTranslation, ShadowedTranslation) = default;

 private:
  uint64_t word_ = 0;
};

static_assert(sizeof(ShadowedTranslation) == sizeof(uint64_t));
static_assert(ShadowedTranslation(Gfn(0x12345), GuestRights::Write()).gfn() == Gfn(0x12345));

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_SHADOW_SHADOWED_TRANSLATION_H_
