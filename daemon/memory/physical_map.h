// Where host physical addresses lie in the daemon's address space: what the software processor of
// `sim` reads tables and guest bytes through.
//
// Thread-safe: any thread may look up, one at a time adds and removes. Nobody looks for an address
// in an area that comes or goes: no table leads there before it is added, and none when it goes. So
// a look-up beside a change only has to skip what it does not look for.
#ifndef TWINROOT_DAEMON_MEMORY_PHYSICAL_MAP_H_
#define TWINROOT_DAEMON_MEMORY_PHYSICAL_MAP_H_

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "mmu/types/address.h"
#include "mmu/vm/host_memory.h"
#include "mmu/vmx/physical_memory.h"

namespace twinroot::memory {

class PhysicalMap : public mmu::vmx::PhysicalMemory, public mmu::HostMemory {
 public:
  static constexpr size_t kMaxAreas = 128;

  // False: there is no room.
  bool Add(mmu::Hpa base, std::byte* data, uint64_t size) {
    for (size_t i = 0; i < kMaxAreas; ++i) {
      Area& area = areas_[i];
      if (area.size.load(std::memory_order_relaxed) != 0) continue;
      area.base.store(base.value, std::memory_order_relaxed);
      area.data.store(data, std::memory_order_relaxed);
      area.size.store(size, std::memory_order_release);
      if (i >= used_.load(std::memory_order_relaxed)) used_.store(i + 1, std::memory_order_release);
      return true;
    }
    return false;
  }
  void Remove(mmu::Hpa base) {
    for (Area& area : areas_) {
      if (area.size.load(std::memory_order_relaxed) != 0 &&
          area.base.load(std::memory_order_relaxed) == base.value) {
        area.size.store(0, std::memory_order_release);
      }
    }
  }

  std::byte* At(mmu::Hpa hpa, size_t size) override {
    const size_t used = used_.load(std::memory_order_acquire);
    for (size_t i = 0; i < used; ++i) {
      const Area& area = areas_[i];
      const uint64_t area_size = area.size.load(std::memory_order_acquire);
      const uint64_t offset = hpa.value - area.base.load(std::memory_order_relaxed);
      if (offset < area_size && size <= area_size - offset) {
        return area.data.load(std::memory_order_relaxed) + offset;
      }
    }
    return nullptr;
  }

 private:
  struct Area {
    std::atomic<uint64_t> base{0};
    std::atomic<std::byte*> data{nullptr};
    std::atomic<uint64_t> size{0};  // 0: free
  };
  std::array<Area, kMaxAreas> areas_;
  std::atomic<size_t> used_{0};  // areas beyond were never used
};

}  // namespace twinroot::memory

#endif  // TWINROOT_DAEMON_MEMORY_PHYSICAL_MAP_H_
