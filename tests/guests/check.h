// What the sample guests share: failing loudly, and patterns that tell one page from another.
#ifndef TWINROOT_TESTS_GUESTS_CHECK_H_
#define TWINROOT_TESTS_GUESTS_CHECK_H_

#include "daemon/vcpu/kvm/guest_lib/twinroot_guest.h"

namespace twinroot::guest {

inline constexpr uint64_t kWordsPerPage = kPageSize / sizeof(uint64_t);

// A line that says what was wrong, then exit code 1.
[[noreturn]] inline void Fail(const char* what, uint64_t gpa, uint64_t expected, uint64_t got) {
  Line()
      .Text("FAILED: ")
      .Text(what)
      .Text(", gpa ")
      .Hex(gpa)
      .Text(": expected ")
      .Hex(expected)
      .Text(", got ")
      .Hex(got)
      .End();
  Exit(1);
}

inline void Expect(const char* what, uint64_t gpa, uint64_t expected, uint64_t got) {
  if (expected != got) Fail(what, gpa, expected, got);
}

inline void ExpectResult(const char* what, uint64_t gpa, int64_t expected, int64_t got) {
  if (expected == got) return;
  Line()
      .Text("FAILED: MapGPA: ")
      .Text(what)
      .Text(", gpa ")
      .Hex(gpa)
      .Text(": expected ")
      .Signed(expected)
      .Text(", got ")
      .Signed(got)
      .End();
  Exit(1);
}

// Never 0, and different for each word of memory and each salt.
inline uint64_t Pattern(uint64_t gpa, uint64_t salt) {
  uint64_t x = gpa + salt * 0x9E3779B97F4A7C15;
  x = (x ^ x >> 31) * 0xBF58476D1CE4E5B9;
  return (x ^ x >> 29) | 1;
}

// xorshift64: a stream of numbers from a seed that is not 0.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed != 0 ? seed : 1) {}
  uint64_t Next() {
    state_ ^= state_ << 13;
    state_ ^= state_ >> 7;
    state_ ^= state_ << 17;
    return state_;
  }

 private:
  uint64_t state_;
};

}  // namespace twinroot::guest

#endif  // TWINROOT_TESTS_GUESTS_CHECK_H_
