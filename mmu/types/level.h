// Levels of the paging structures, named by what a leaf there maps.
#ifndef TWINROOT_MMU_TYPES_LEVEL_H_
#define TWINROOT_MMU_TYPES_LEVEL_H_

#include <cstdint>

namespace twinroot::mmu {

// k4K is the lowest table (the SDM's "EPT PT"); k512G is the root of a 4-level walk.
enum class Level : uint8_t { k4K = 1, k2M = 2, k1G = 3, k512G = 4, k256T = 5 };

inline constexpr int kIndexBits = 9;
inline constexpr uint64_t kEntriesPerTable = uint64_t{1} << kIndexBits;

// 4 KiB frames that one entry at `level` covers.
constexpr uint64_t FramesPerEntry(Level level) {
  return uint64_t{1} << (kIndexBits * (static_cast<int>(level) - 1));
}
constexpr uint64_t BytesPerEntry(Level level) { return FramesPerEntry(level) << 12; }
constexpr Level Below(Level level) { return static_cast<Level>(static_cast<int>(level) - 1); }
constexpr Level Above(Level level) { return static_cast<Level>(static_cast<int>(level) + 1); }

static_assert(BytesPerEntry(Level::k4K) == 4096);
static_assert(BytesPerEntry(Level::k2M) == 2u << 20);
static_assert(BytesPerEntry(Level::k1G) == 1u << 30);

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_TYPES_LEVEL_H_
