// The exit qualification of an EPT violation (SDM vol. 3C, table "Exit Qualification for EPT
// Violations"): one word, no state.
#ifndef TWINROOT_MMU_HW_EPT_VIOLATION_H_
#define TWINROOT_MMU_HW_EPT_VIOLATION_H_

#include <cstdint>

#include "mmu/types/access.h"

namespace twinroot::mmu {

class EptViolation {
 public:
  static constexpr uint64_t kRead = uint64_t{1} << 0;            // data read
  static constexpr uint64_t kWrite = uint64_t{1} << 1;           // data write
  static constexpr uint64_t kFetch = uint64_t{1} << 2;           // instruction fetch
  static constexpr uint64_t kReadable = uint64_t{1} << 3;        // AND of the R bits walked
  static constexpr uint64_t kWritable = uint64_t{1} << 4;        // AND of the W bits
  static constexpr uint64_t kExecutable = uint64_t{1} << 5;      // AND of the X bits
  static constexpr uint64_t kUserExecutable = uint64_t{1} << 6;  // AND of bits 10, if mode-based
  static constexpr uint64_t kLinearValid = uint64_t{1} << 7;     // linear address is valid
  static constexpr uint64_t kTranslated = uint64_t{1} << 8;      // not a guest page walk
  static constexpr uint64_t kNmiUnblocking = uint64_t{1} << 12;  // due to IRET

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
  constexpr EptViolation WithUserExecutable() const { return EptViolation(raw_ | kUserExecutable); }

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
  constexpr bool nmi_unblocking() const { return raw_ & kNmiUnblocking; }

  friend constexpr bool operator==(EptViolation, EptViolation) = default;

 private:
  uint64_t raw_ = 0;
};

static_assert(EptViolation::Make(Access::Write(), Access::None()).raw() == 0x182);
static_assert(EptViolation::Make(Access::Write(), Access::Read() | Access::Fetch()).raw() == 0x1AA);
static_assert(EptViolation::Make(Access::Fetch(), Access::Read()).raw() == 0x18C);
static_assert(EptViolation(0x182).needed() == Access::Write());
static_assert(EptViolation(0x1AA).allowed() == (Access::Read() | Access::Fetch()));
static_assert(EptViolation(1 << 12).nmi_unblocking());

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_HW_EPT_VIOLATION_H_
