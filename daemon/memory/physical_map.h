// Where host physical addresses lie in the daemon's address space: what the software processor of
// `sim` reads tables and guest bytes through. Immutable once the VM runs; then thread-safe.
#ifndef TWINROOT_DAEMON_MEMORY_PHYSICAL_MAP_H_
#define TWINROOT_DAEMON_MEMORY_PHYSICAL_MAP_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "mmu/types/address.h"
#include "mmu/vmx/physical_memory.h"

namespace twinroot::memory {

class PhysicalMap : public mmu::vmx::PhysicalMemory {
 public:
  void Add(mmu::Hpa base, std::byte* data, uint64_t size) { areas_.push_back({base, data, size}); }

  std::byte* At(mmu::Hpa hpa, size_t size) override {
    for (const Area& area : areas_) {
      if (hpa >= area.base && hpa - area.base < area.size && size <= area.size - (hpa - area.base))
        return area.data + (hpa - area.base);
    }
    return nullptr;
  }

 private:
  struct Area {
    mmu::Hpa base;
    std::byte* data;
    uint64_t size;
  };
  std::vector<Area> areas_;
};

}  // namespace twinroot::memory

#endif  // TWINROOT_DAEMON_MEMORY_PHYSICAL_MAP_H_
