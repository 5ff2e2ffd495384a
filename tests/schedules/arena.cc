#include "tests/schedules/arena.h"

#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>

#include "tests/schedules/scheduler.h"

namespace twinroot::schedules {
namespace {

constexpr size_t kGranule = 16;
constexpr size_t kGranules = kPieceBytes / kGranule;

thread_local int piece_now = kNoPiece;
size_t used[kPieces];                 // bytes of each piece
bool freed[kPieces][kGranules];       // by granule
constexpr size_t kHeader = kGranule;  // before each object: its size

bool Map() {
  void* const at = mmap(reinterpret_cast<void*>(kArenaBase), kArenaBytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
  return at == reinterpret_cast<void*>(kArenaBase);
}

void* Take(size_t size, size_t alignment) {
  if (piece_now == kNoPiece) {
    void* at = nullptr;
    return posix_memalign(&at, alignment < kGranule ? kGranule : alignment, size) == 0 ? at
                                                                                       : nullptr;
  }
  static const bool mapped = Map();
  size_t& now = used[piece_now];
  const uintptr_t piece = kArenaBase + piece_now * kPieceBytes;
  const size_t to = alignment < kGranule ? kGranule : alignment;
  const uintptr_t at = (piece + now + kHeader + to - 1) & ~(to - 1);
  const size_t end = (at - piece + size + kGranule - 1) & ~(kGranule - 1);
  if (!mapped || end > kPieceBytes) {
    std::fputs("the arena of this test is too small\n", stderr);
    std::abort();
  }
  now = end;
  std::memcpy(reinterpret_cast<void*>(at - kHeader), &size, sizeof(size));
  return reinterpret_cast<void*>(at);
}

void Give(void* object) {
  if (!InArena(object)) return std::free(object);
  const uintptr_t offset = reinterpret_cast<uintptr_t>(object) - kArenaBase;
  size_t size;
  std::memcpy(&size, static_cast<char*>(object) - kHeader, sizeof(size));
  BeforeFree(object, size);
  bool* const of = freed[offset / kPieceBytes] + offset % kPieceBytes / kGranule;
  std::memset(of, true, (size + kGranule - 1) / kGranule);
}

void* TakeOrThrow(size_t size, size_t alignment) {
  void* const at = Take(size, alignment);
  if (at == nullptr) throw std::bad_alloc();
  return at;
}

}  // namespace

ArenaScope::ArenaScope(int piece) : before_(std::exchange(piece_now, piece)) {}
ArenaScope::~ArenaScope() { piece_now = before_; }

void ResetArena() {
  for (int piece = 0; piece < kPieces; ++piece) {
    std::memset(freed[piece], false, used[piece] / kGranule);
    used[piece] = 0;
  }
}

bool IsFreed(const volatile void* at) {
  const uintptr_t offset = reinterpret_cast<uintptr_t>(at) - kArenaBase;
  return offset < kArenaBytes && freed[offset / kPieceBytes][offset % kPieceBytes / kGranule];
}

}  // namespace twinroot::schedules

using twinroot::schedules::Give;
using twinroot::schedules::Take;
using twinroot::schedules::TakeOrThrow;

void* operator new(size_t size) { return TakeOrThrow(size, 16); }
void* operator new[](size_t size) { return TakeOrThrow(size, 16); }
void* operator new(size_t size, std::align_val_t to) {
  return TakeOrThrow(size, static_cast<size_t>(to));
}
void* operator new[](size_t size, std::align_val_t to) {
  return TakeOrThrow(size, static_cast<size_t>(to));
}
void* operator new(size_t size, const std::nothrow_t&) noexcept { return Take(size, 16); }
void* operator new[](size_t size, const std::nothrow_t&) noexcept { return Take(size, 16); }
void* operator new(size_t size, std::align_val_t to, const std::nothrow_t&) noexcept {
  return Take(size, static_cast<size_t>(to));
}
void operator delete(void* at) noexcept { Give(at); }
void operator delete[](void* at) noexcept { Give(at); }
void operator delete(void* at, size_t) noexcept { Give(at); }
void operator delete[](void* at, size_t) noexcept { Give(at); }
void operator delete(void* at, std::align_val_t) noexcept { Give(at); }
void operator delete[](void* at, std::align_val_t) noexcept { Give(at); }
void operator delete(void* at, size_t, std::align_val_t) noexcept { Give(at); }
void operator delete[](void* at, size_t, std::align_val_t) noexcept { Give(at); }
