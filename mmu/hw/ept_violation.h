// The exit qualification of an EPT violation (SDM vol. 3C, table "Exit Qualification for EPT
// Violations"): one word, no state. Bits 63:17 are undefined, and so are others where noted; what
// is made here has undefined bits clear.
#ifndef TWINROOT_MMU_HW_EPT_VIOLATION_H_
#define TWINROOT_MMU_HW_EPT_VIOLATION_H_

#include <cstdint>

#include "mmu/types/access.h"

namespace twinroot::mmu {

// What the linear address of an access belongs to.
enum class LinearMode : uint8_t { kSupervisor, kUser };

// What the guest's own paging says of a linear address; the default is that of a guest without
// paging.
struct GuestPageRights {
  bool writable = true;
  bool execute_disable = false;
};

class EptViolation {
 public:
  static constexpr uint64_t kRead = uint64_t{1} << 0;   // data read, or walk if A/D
  static constexpr uint64_t kWrite = uint64_t{1} << 1;  // data write, or walk if A/D
  static constexpr uint64_t kFetch = uint64_t{1} << 2;  // instruction fetch
  // The AND over the entries used; clear if one was not present.
  static constexpr uint64_t kReadable = uint64_t{1} << 3;        // of bits 0
  static constexpr uint64_t kWritable = uint64_t{1} << 4;        // of bits 1
  static constexpr uint64_t kExecutable = uint64_t{1} << 5;      // of bits 2
  static constexpr uint64_t kUserExecutable = uint64_t{1} << 6;  // of bits 10, if mode-based
  static constexpr uint64_t kLinearValid = uint64_t{1} << 7;     // linear address is valid
  static constexpr uint64_t kTranslated = uint64_t{1} << 8;      // not a guest page walk
  // With advanced VM-exit information, if bits 7 and 8 are set; else undefined.
  static constexpr uint64_t kUserMode = uint64_t{1} << 9;         // user-mode linear address
  static constexpr uint64_t kGuestWritable = uint64_t{1} << 10;   // read/write page
  static constexpr uint64_t kExecuteDisable = uint64_t{1} << 11;  // execute-disable page
  static constexpr uint64_t kNmiUnblocking = uint64_t{1} << 12;   // due to IRET
  // Of features that no guest of ours has: named, never made.
  static constexpr uint64_t kShadowStackAccess = uint64_t{1} << 13;
  static constexpr uint64_t kSupervisorShadowStack = uint64_t{1} << 14;  // entry's bit 60
  static constexpr uint64_t kGuestPagingVerification = uint64_t{1} << 15;
  static constexpr uint64_t kAsynchronous = uint64_t{1} << 16;  // trace, PEBS, user interrupts

  constexpr EptViolation() = default;
  constexpr explicit EptViolation(uint64_t raw) : raw_(raw) {}

  // An access through a linear address to its translation. `allowed` is what every entry of the
  // walk granted; None() where one was not present.
  static constexpr EptViolation Make(Access needed, Access allowed) {
    return EptViolation((needed.read() ? kRead : 0) | (needed.write() ? kWrite : 0) |
                        (needed.fetch() ? kFetch : 0) | (allowed.read() ? kReadable : 0) |
                        (allowed.write() ? kWritable : 0) | (allowed.fetch() ? kExecutable : 0) |
                        kLinearValid | kTranslated);
  }
  // An access of the processor to a guest paging-structure entry. With accessed and dirty flags on
  // it counts as a write, and "the processor sets both bit 0 and bit 1" (the table's footnote);
  // without, `needed` is a read, or a write to set the guest's own flags.
  static constexpr EptViolation MakeGuestPageWalk(Access needed, bool accessed_dirty,
                                                  Access allowed) {
    if (accessed_dirty) needed = Access::Read() | Access::Write();
    return EptViolation(Make(needed, allowed).raw() & ~kTranslated);
  }
  constexpr EptViolation WithUserExecutable() const { return EptViolation(raw_ | kUserExecutable); }
  // What advanced VM-exit information adds; nothing to an access without a translated address.
  constexpr EptViolation WithAdvancedInformation(LinearMode mode, GuestPageRights page) const {
    if (!linear_valid() || guest_page_walk()) return *this;
    return EptViolation(raw_ | (mode == LinearMode::kUser ? kUserMode : 0) |
                        (page.writable ? kGuestWritable : 0) |
                        (page.execute_disable ? kExecuteDisable : 0));
  }

  constexpr uint64_t raw() const { return raw_; }
  constexpr Access needed() const {
    return (raw_ & kRead ? Access::Read() : Access::None()) |
           (raw_ & kWrite ? Access::Write() : Access::None()) |
           (raw_ & kFetch ? Access::Fetch() : Access::None());
  }
  constexpr Access allowed() const {
    return (raw_ & kReadable ? Access::Read() : Access::None()) |
           (raw_ & kWritable ? Access::Write() : Access::None()) |
           (raw_ & kExecutable ? Access::Fetch() : Access::None());
  }
  constexpr bool linear_valid() const { return raw_ & kLinearValid; }
  // Meaningful if linear_valid.
  constexpr bool guest_page_walk() const { return !(raw_ & kTranslated); }
  // Meaningful with advanced VM-exit information and an access that is translated.
  constexpr LinearMode mode() const {
    return raw_ & kUserMode ? LinearMode::kUser : LinearMode::kSupervisor;
  }
  constexpr GuestPageRights page() const {
    return {(raw_ & kGuestWritable) != 0, (raw_ & kExecuteDisable) != 0};
  }

  friend constexpr bool operator==(EptViolation, EptViolation) = default;

 private:
  uint64_t raw_ = 0;
};

static_assert(EptViolation::Make(Access::Write(), Access::None()).raw() == 0x182);
static_assert(EptViolation::Make(Access::Write(), Access::Read() | Access::Fetch()).raw() == 0x1AA);
static_assert(EptViolation::Make(Access::Fetch(), Access::Read()).raw() == 0x18C);
static_assert(EptViolation(0x182).needed() == Access::Write());
static_assert(EptViolation(0x1AA).allowed() == (Access::Read() | Access::Fetch()));
static_assert(EptViolation::MakeGuestPageWalk(Access::Read(), true, Access::Read()).raw() == 0x8B);
static_assert(EptViolation::MakeGuestPageWalk(Access::Read(), false, Access::None()).raw() == 0x81);
static_assert(EptViolation(0x182).WithAdvancedInformation(LinearMode::kUser, {}).raw() == 0x782);
static_assert(EptViolation(0x8B).WithAdvancedInformation(LinearMode::kUser, {}).raw() == 0x8B);

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_HW_EPT_VIOLATION_H_
