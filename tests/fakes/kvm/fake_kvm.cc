#include "tests/fakes/kvm/fake_kvm.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "tests/fakes/kvm/fake_vm.h"

namespace twinroot::kvm::fake {
namespace {

// As system calls answer.
int64_t Answer(int64_t result) {
  if (result >= 0) return result;
  errno = static_cast<int>(-result);
  return -1;
}

}  // namespace

int Object::Fallocate(int, uint64_t, uint64_t) { return -EOPNOTSUPP; }

int FakeKvm::Add(std::shared_ptr<Object> object) {
  // A descriptor of the process, so that its number is nobody else's.
  const int fd = eventfd(0, EFD_CLOEXEC);
  if (fd < 0) return -errno;
  std::lock_guard lock(mutex_);
  objects_[fd] = std::move(object);
  return fd;
}

std::shared_ptr<Object> FakeKvm::Find(int fd) const {
  std::lock_guard lock(mutex_);
  const auto found = objects_.find(fd);
  return found == objects_.end() ? nullptr : found->second;
}

int FakeKvm::Open() { return static_cast<int>(Answer(Add(std::make_shared<Device>(this)))); }

int FakeKvm::Close(int fd) {
  std::shared_ptr<Object> gone;  // destroyed without the lock
  {
    std::lock_guard lock(mutex_);
    const auto found = objects_.find(fd);
    if (found == objects_.end()) return static_cast<int>(Answer(-EBADF));
    gone = std::move(found->second);
    objects_.erase(found);
  }
  return close(fd);
}

int FakeKvm::Ioctl(int fd, unsigned long request, void* argument) {
  const std::shared_ptr<Object> object = Find(fd);
  return static_cast<int>(Answer(object != nullptr ? object->Ioctl(request, argument) : -EBADF));
}

void* FakeKvm::Map(int vcpu_fd, size_t size) {
  const std::shared_ptr<Object> object = Find(vcpu_fd);
  void* const area = object != nullptr && size <= kRunAreaBytes ? object->RunArea() : nullptr;
  if (area == nullptr) errno = EINVAL;
  return area;
}

void FakeKvm::Unmap(void*, size_t) {}  // the area goes with its vCPU

int FakeKvm::Fallocate(int fd, int mode, uint64_t offset, uint64_t length) {
  const std::shared_ptr<Object> object = Find(fd);
  return static_cast<int>(
      Answer(object != nullptr ? object->Fallocate(mode, offset, length) : -EBADF));
}

int64_t FakeKvm::Read(int, void*, size_t, uint64_t) { return Answer(-EINVAL); }

size_t FakeKvm::open_descriptors() const {
  std::lock_guard lock(mutex_);
  return objects_.size();
}

void FakeKvm::RaceNext(int count) {
  std::lock_guard lock(mutex_);
  for (const auto& [fd, object] : objects_) {
    if (auto* vm = dynamic_cast<FakeVm*>(object.get())) vm->memory().RaceNext(count);
  }
}

uint64_t FakeKvm::private_bytes() const {
  std::lock_guard lock(mutex_);
  uint64_t sum = 0;
  for (const auto& [fd, object] : objects_) {
    if (auto* memfd = dynamic_cast<MemfdObject*>(object.get())) {
      sum += memfd->memfd()->allocated_bytes();
    }
  }
  return sum;
}

}  // namespace twinroot::kvm::fake
