// The host's KVM as this daemon calls it: a seam that carries every ioctl, the mapping of kvm_run
// and the life of the file descriptors, so that tests can put another kernel behind it.
//
// Thread-safe, as the kernel is. Every call answers as its system call does: -1 (Map: null) and
// errno.
#ifndef TWINROOT_DAEMON_VCPU_KVM_KVM_API_H_
#define TWINROOT_DAEMON_VCPU_KVM_KVM_API_H_

#include <cstddef>
#include <cstdint>
#include <utility>

namespace twinroot::kvm {

class KvmApi {
 public:
  virtual ~KvmApi() = default;

  // /dev/kvm.
  virtual int Open() = 0;
  virtual int Close(int fd) = 0;
  virtual int Ioctl(int fd, unsigned long request, void* argument) = 0;
  // The run area of a vCPU.
  virtual void* Map(int vcpu_fd, size_t size) = 0;
  virtual void Unmap(void* area, size_t size) = 0;
  // Of a guest_memfd.
  virtual int Fallocate(int fd, int mode, uint64_t offset, uint64_t length) = 0;
  // Of a statistics descriptor: bytes read.
  virtual int64_t Read(int fd, void* buffer, size_t size, uint64_t offset) = 0;
};

// The kernel that runs this daemon.
KvmApi& HostKvm();

// A file descriptor of a KvmApi, closed when destroyed. Movable.
class KvmFd {
 public:
  KvmFd() = default;
  KvmFd(KvmApi* api, int fd) : api_(api), fd_(fd) {}
  KvmFd(KvmFd&& other) noexcept : api_(other.api_), fd_(std::exchange(other.fd_, -1)) {}
  KvmFd& operator=(KvmFd&& other) noexcept {
    std::swap(api_, other.api_);
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~KvmFd() {
    if (fd_ >= 0) api_->Close(fd_);
  }

  bool valid() const { return fd_ >= 0; }
  int get() const { return fd_; }
  KvmApi& api() const { return *api_; }

  int Ioctl(unsigned long request, unsigned long value = 0) const {
    return api_->Ioctl(fd_, request, reinterpret_cast<void*>(value));
  }
  template <typename T>
  int Ioctl(unsigned long request, T* argument) const {
    return api_->Ioctl(fd_, request, const_cast<void*>(static_cast<const void*>(argument)));
  }
  // For requests that answer with a descriptor.
  KvmFd Make(unsigned long request, unsigned long value = 0) const {
    return KvmFd(api_, Ioctl(request, value));
  }
  template <typename T>
  KvmFd Make(unsigned long request, T* argument) const {
    return KvmFd(api_, Ioctl(request, argument));
  }

 private:
  KvmApi* api_ = nullptr;
  int fd_ = -1;
};

}  // namespace twinroot::kvm

#endif  // TWINROOT_DAEMON_VCPU_KVM_KVM_API_H_
