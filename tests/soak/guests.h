// Random guests: access programs that convert, write and read for ever, and the policies under
// which they do. Thread-safe functions of their generator.
#ifndef TWINROOT_TESTS_SOAK_GUESTS_H_
#define TWINROOT_TESTS_SOAK_GUESTS_H_

#include <cstdint>
#include <random>

#include "twinroot/v1/vm.pb.h"

namespace twinroot::soak {

inline constexpr uint64_t kPage = 4096;
inline constexpr uint64_t kHugePage = 512 * kPage;
// Of every VM; what its program uses lies in [kUsed, kUsedEnd).
inline constexpr uint64_t kMemory = 16 * kHugePage;
inline constexpr uint64_t kUsed = 2 * kHugePage;
inline constexpr uint64_t kUsedEnd = 14 * kHugePage;
// Where memslots are added: behind its memory.
inline constexpr uint64_t kAdded = 32 * kHugePage;

// A VM for this backend. Its conversions are so few a second that the journal keeps every event of
// an hour.
v1::Vm RandomVm(v1::Backend backend, std::mt19937_64& random);

}  // namespace twinroot::soak

#endif  // TWINROOT_TESTS_SOAK_GUESTS_H_
