// The daemon's own view of a guest's low memory, in which loaders place what a guest begins with.
// Not thread-safe; what is put must lie inside. The first error of the host, which has no memory,
// stays: nothing is put after it.
#ifndef TWINROOT_DAEMON_VCPU_KVM_LOW_MEMORY_H_
#define TWINROOT_DAEMON_VCPU_KVM_LOW_MEMORY_H_

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <type_traits>

#include "absl/status/status.h"
#include "daemon/memory/guest_ram.h"

namespace twinroot::kvm {

class LowMemory {
 public:
  explicit LowMemory(memory::GuestRam& ram) : pages_(ram.slots()[0].private_pages) {}

  // A number or a structure, as it lies in memory.
  template <typename T>
  requires(std::is_trivially_copyable_v<T> &&
           !std::convertible_to<T, std::string_view>) void Put(uint64_t gpa, const T& value) {
    Put(gpa, std::string_view(reinterpret_cast<const char*>(&value), sizeof value));
  }
  void Put(uint64_t gpa, std::string_view bytes) {
    if (status_.ok()) status_ = pages_.Provide(gpa, bytes.size());
    if (status_.ok()) bytes.copy(reinterpret_cast<char*>(pages_.data() + gpa), bytes.size());
  }
  const absl::Status& status() const { return status_; }

 private:
  memory::Backing& pages_;  // low memory begins at 0
  absl::Status status_;
};

}  // namespace twinroot::kvm

#endif  // TWINROOT_DAEMON_VCPU_KVM_LOW_MEMORY_H_
