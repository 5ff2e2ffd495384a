// The memory of a VM of the fake kernel: memslots, attributes, guest_memfds, and what becomes of an
// access to a guest physical address. Follows what a real kernel was seen to do
// (tests/conformance compares them).
//
// Thread-safe. Results are 0 or a negative errno, as inside a kernel. Ordinary memslots are host
// addresses of this process, touched by the thread (host_access.h), so that the host's userfaultfd
// stops the thread that runs the vCPU, as it would below KVM_RUN, and a signal gets it out.
#ifndef TWINROOT_TESTS_FAKES_KVM_GUEST_MEMORY_H_
#define TWINROOT_TESTS_FAKES_KVM_GUEST_MEMORY_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <shared_mutex>

#include "daemon/memory/mapping.h"
#include "daemon/vcpu/kvm/kvm_abi.h"

namespace twinroot::kvm::fake {

class GuestMemory;

// A guest_memfd: memory that only its VM's vCPUs reach.
class GuestMemfd {
 public:
  // Null: no memory.
  static std::shared_ptr<GuestMemfd> Create(const GuestMemory* vm, uint64_t size);
  ~GuestMemfd();

  const GuestMemory* vm() const { return vm_; }
  uint64_t size() const { return size_; }
  std::byte* data() const { return pages_.data(); }
  int Fallocate(int mode, uint64_t offset, uint64_t length);
  uint64_t allocated_bytes() const;

 private:
  GuestMemfd(const GuestMemory* vm, uint64_t size, int fd, memory::Mapping pages)
      : vm_(vm), size_(size), fd_(fd), pages_(std::move(pages)) {}

  const GuestMemory* const vm_;
  const uint64_t size_;
  const int fd_;
  const memory::Mapping pages_;
};

class GuestMemory {
 public:
  enum class Access : uint8_t { kRead, kWrite };
  enum class Result : uint8_t {
    kDone,
    kMemoryFault,  // the attribute and what is behind it do not agree
    kMmio,         // nothing is there
    kStopped,      // the host could not give the page: an error, or a signal
  };
  struct Outcome {
    Result result = Result::kDone;
    uint64_t flags = 0;  // kMemoryFault
  };

  explicit GuestMemory(bool is_protected) : protected_(is_protected) {}

  bool is_protected() const { return protected_; }
  // `guest_memfd`: what region.guest_memfd names; null: nothing of the kind.
  int SetRegion(const UserspaceMemoryRegion2& region, std::shared_ptr<GuestMemfd> guest_memfd);
  int SetAttributes(const MemoryAttributes& request);

  // Bytes of one page.
  Outcome Touch(uint64_t gpa, void* data, size_t size, Access access,
                const std::function<bool()>& interrupted);
  bool HasSlot(uint64_t gpa) const;

  // The next `count` accesses to private pages see their attribute change while they look.
  void RaceNext(int count) { races_.store(count); }

 private:
  struct Slot {
    uint64_t gpa = 0;
    uint64_t size = 0;
    uint64_t hva = 0;
    uint32_t flags = 0;
    uint64_t offset = 0;                      // of the guest_memfd
    std::weak_ptr<GuestMemfd> private_pages;  // a slot does not hold the file
  };

  int CheckNew(uint32_t id, const Slot& slot, const std::shared_ptr<GuestMemfd>& guest_memfd) const;
  const Slot* Find(uint64_t gpa) const;
  bool IsPrivate(uint64_t gpa) const;
  Outcome TouchPrivate(const Slot* slot, uint64_t gpa, void* data, size_t size, Access access,
                       const std::function<bool()>& interrupted);

  const bool protected_;
  // Held shared for as long as an access takes, blocked in userfaultfd or not: so a change of
  // memslots waits for it, as for the kernel's grace period.
  mutable std::shared_mutex slots_mutex_;
  std::map<uint32_t, Slot> slots_;  // guarded by slots_mutex_
  // Held for moments only: who changes attributes waits for no blocked access.
  mutable std::shared_mutex attributes_mutex_;
  std::map<uint64_t, uint64_t> private_;  // ranges, begin -> end; guarded by attributes_mutex_
  std::atomic<int> races_{0};
};

}  // namespace twinroot::kvm::fake

#endif  // TWINROOT_TESTS_FAKES_KVM_GUEST_MEMORY_H_
