// Memory for one run of a schedule: each thread has a piece of its own, and takes it in order. So
// an object lies at the same address in every run of a scenario, whatever the others do; and what
// was freed stays freed until the run is over, so that its use shows.
//
// operator new of this program comes here while the thread's arena is on; else malloc's.
#ifndef TWINROOT_TESTS_SCHEDULES_ARENA_H_
#define TWINROOT_TESTS_SCHEDULES_ARENA_H_

#include <cstddef>
#include <cstdint>

namespace twinroot::schedules {

inline constexpr uintptr_t kArenaBase = uintptr_t{1} << 45;
inline constexpr size_t kPieceBytes = size_t{1} << 23;
inline constexpr int kPieces = 5;  // the world's, and one for each thread
inline constexpr size_t kArenaBytes = kPieces * kPieceBytes;

inline constexpr int kNoPiece = -1;  // malloc

// While it lives, this thread allocates from that piece.
class ArenaScope {
 public:
  explicit ArenaScope(int piece);
  ~ArenaScope();
  ArenaScope(const ArenaScope&) = delete;
  ArenaScope& operator=(const ArenaScope&) = delete;

 private:
  const int before_;
};

// Nothing in the arena is used any more.
void ResetArena();

inline bool InArena(const volatile void* at) {
  return reinterpret_cast<uintptr_t>(at) - kArenaBase < kArenaBytes;
}
// It was allocated there, and freed since.
bool IsFreed(const volatile void* at);

}  // namespace twinroot::schedules

#endif  // TWINROOT_TESTS_SCHEDULES_ARENA_H_
