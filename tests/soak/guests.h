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

// What a guest is like: one of many touches a page as both kinds each time round, so that it rests
// where its conversions do: for its rate, or for a decision. The other kind wants all the time that
// it can get: one vCPU, and on sim now and then on shadow tables, where a page has one alias.
enum class Guest { kResting, kBusy };

// A VM for this backend. Its conversions are so few a second that the journal keeps every event of
// an hour. Each vCPU comes back to its first page within a minute, if it may.
v1::Vm RandomVm(v1::Backend backend, Guest guest, std::mt19937_64& random);

}  // namespace twinroot::soak

#endif  // TWINROOT_TESTS_SOAK_GUESTS_H_
