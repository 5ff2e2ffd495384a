// A kernel's KVM in user space, behind the seam KvmApi: VMs of type 0 and 1, memslots, guest_memfd,
// memory attributes, hypercall exits, prefault. It follows what a real one (Linux 6.12) was seen to
// do, refusals and oddities included; tests/conformance holds both against the same list.
//
// Not there: interrupts, timers, most of the processor (guest_cpu.h). Thread-safe.
#ifndef TWINROOT_TESTS_FAKES_KVM_FAKE_KVM_H_
#define TWINROOT_TESTS_FAKES_KVM_FAKE_KVM_H_

#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "daemon/vcpu/kvm/kvm_api.h"
#include "tests/fakes/kvm/guest_memory.h"

namespace twinroot::kvm::fake {

// What a descriptor stands for. Results are those of a system call, negative errno for errors.
class Object {
 public:
  virtual ~Object() = default;
  virtual int64_t Ioctl(unsigned long request, void* argument) = 0;
  virtual int Fallocate(int mode, uint64_t offset, uint64_t length);
  virtual void* RunArea() { return nullptr; }
};

class FakeKvm : public KvmApi {
 public:
  struct Options {
    bool protected_vms = true;  // false: as where there is no nested paging
    bool forwards_hypercalls = true;
  };
  FakeKvm() : FakeKvm(Options()) {}
  explicit FakeKvm(Options options) : options_(options) {}

  const Options& options() const { return options_; }

  int Open() override;
  int Close(int fd) override;
  int Ioctl(int fd, unsigned long request, void* argument) override;
  void* Map(int vcpu_fd, size_t size) override;
  void Unmap(void* area, size_t size) override;
  int Fallocate(int fd, int mode, uint64_t offset, uint64_t length) override;
  int64_t Read(int fd, void* buffer, size_t size, uint64_t offset) override;

  // For objects that make others. A new descriptor, or a negative errno.
  int Add(std::shared_ptr<Object> object);
  std::shared_ptr<Object> Find(int fd) const;

  // What tests ask.
  size_t open_descriptors() const;
  // Every VM that there is: its next `count` private accesses race with a change of attributes.
  void RaceNext(int count);
  // Of all guest_memfds.
  uint64_t private_bytes() const;

 private:
  const Options options_;
  mutable std::mutex mutex_;
  std::map<int, std::shared_ptr<Object>> objects_;  // guarded by mutex_
};

}  // namespace twinroot::kvm::fake

#endif  // TWINROOT_TESTS_FAKES_KVM_FAKE_KVM_H_
