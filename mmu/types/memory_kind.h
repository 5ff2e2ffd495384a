// Private or shared: which root, which backing, which alias.
#ifndef TWINROOT_MMU_TYPES_MEMORY_KIND_H_
#define TWINROOT_MMU_TYPES_MEMORY_KIND_H_

#include <cstdint>

namespace twinroot::mmu {

enum class MemoryKind : uint8_t { kPrivate = 0, kShared = 1 };
inline constexpr MemoryKind kAllKinds[] = {MemoryKind::kPrivate, MemoryKind::kShared};

constexpr MemoryKind Other(MemoryKind kind) {
  return kind == MemoryKind::kPrivate ? MemoryKind::kShared : MemoryKind::kPrivate;
}

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_TYPES_MEMORY_KIND_H_
