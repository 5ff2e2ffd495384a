// The daemon's own view of a guest's low memory, in which loaders place what a guest begins with.
// Not thread-safe; what is put must lie inside.
#ifndef TWINROOT_DAEMON_VCPU_KVM_LOW_MEMORY_H_
#define TWINROOT_DAEMON_VCPU_KVM_LOW_MEMORY_H_

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <type_traits>

#include "daemon/memory/guest_ram.h"

namespace twinroot::kvm {

class LowMemory {
 public:
  explicit LowMemory(memory::GuestRam& ram) : bytes_(ram.slots()[0].private_pages.data()) {}

  // A number or a structure, as it lies in memory.
  template <typename T>
  requires(std::is_trivially_copyable_v<T> &&
           !std::convertible_to<T, std::string_view>) void Put(uint64_t gpa, const T& value) {
    std::memcpy(bytes_ + gpa, &value, sizeof value);
  }
  void Put(uint64_t gpa, std::string_view bytes) {
    bytes.copy(reinterpret_cast<char*>(bytes_ + gpa), bytes.size());  // there may be none
  }

 private:
  std::byte* const bytes_;  // low memory begins at 0
};

}  // namespace twinroot::kvm

#endif  // TWINROOT_DAEMON_VCPU_KVM_LOW_MEMORY_H_
