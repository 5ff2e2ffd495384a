// Descriptors of the fake kernel: /dev/kvm, VMs, vCPUs, guest_memfds.
#ifndef TWINROOT_TESTS_FAKES_KVM_FAKE_VM_H_
#define TWINROOT_TESTS_FAKES_KVM_FAKE_VM_H_

#include <cstdint>
#include <memory>
#include <mutex>
#include <set>

#include "daemon/memory/mapping.h"
#include "tests/fakes/kvm/fake_kvm.h"
#include "tests/fakes/kvm/guest_cpu.h"

namespace twinroot::kvm::fake {

inline constexpr size_t kRunAreaBytes = 3 * 4096;

class Device : public Object {
 public:
  explicit Device(FakeKvm* kvm) : kvm_(kvm) {}
  int64_t Ioctl(unsigned long request, void* argument) override;

 private:
  FakeKvm* const kvm_;
};

class MemfdObject : public Object {
 public:
  explicit MemfdObject(std::shared_ptr<GuestMemfd> memfd) : memfd_(std::move(memfd)) {}
  int64_t Ioctl(unsigned long, void*) override;
  int Fallocate(int mode, uint64_t offset, uint64_t length) override {
    return memfd_->Fallocate(mode, offset, length);
  }
  const std::shared_ptr<GuestMemfd>& memfd() const { return memfd_; }

 private:
  const std::shared_ptr<GuestMemfd> memfd_;
};

class FakeVm : public Object, public std::enable_shared_from_this<FakeVm> {
 public:
  FakeVm(FakeKvm* kvm, bool is_protected) : kvm_(kvm), memory_(is_protected) {}
  int64_t Ioctl(unsigned long request, void* argument) override;

  GuestMemory& memory() { return memory_; }
  MeetingPoint& meeting() { return meeting_; }
  bool forwards_map_gpa() const;

 private:
  int64_t CreateVcpu(uint64_t id);
  int64_t EnableCap(const kvm_enable_cap& cap);
  int64_t CreateMemfd(const CreateGuestMemfd& request);
  int64_t SetRegion(const UserspaceMemoryRegion2& region);

  FakeKvm* const kvm_;
  GuestMemory memory_;
  MeetingPoint meeting_;
  mutable std::mutex mutex_;
  std::set<uint64_t> vcpus_;       // guarded by mutex_
  bool forwards_map_gpa_ = false;  // guarded by mutex_
};

class FakeVcpu : public Object {
 public:
  static std::shared_ptr<FakeVcpu> Create(std::shared_ptr<FakeVm> vm);
  int64_t Ioctl(unsigned long request, void* argument) override;
  void* RunArea() override { return run_; }

 private:
  FakeVcpu(std::shared_ptr<FakeVm> vm, memory::Mapping area)
      : vm_(std::move(vm)),
        area_(std::move(area)),
        run_(reinterpret_cast<kvm_run*>(area_.data())),
        cpu_(&vm_->memory(), &vm_->meeting()) {}

  int64_t Run();
  int64_t Tell(const Exit& exit);
  int64_t Prefault(PreFaultMemory& request);
  bool Interrupted() const;
  void SyncOut();

  const std::shared_ptr<FakeVm> vm_;
  const memory::Mapping area_;
  kvm_run* const run_;
  std::mutex mutex_;  // one call at a time
  GuestCpu cpu_;
};

}  // namespace twinroot::kvm::fake

#endif  // TWINROOT_TESTS_FAKES_KVM_FAKE_VM_H_
