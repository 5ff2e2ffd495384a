#include "daemon/vcpu/kvm/kvm_api.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>

namespace twinroot::kvm {
namespace {

class Host : public KvmApi {
 public:
  int Open() override { return open("/dev/kvm", O_RDWR | O_CLOEXEC); }
  int Close(int fd) override { return close(fd); }
  int Ioctl(int fd, unsigned long request, void* argument) override {
    return ioctl(fd, request, argument);
  }
  void* Map(int vcpu_fd, size_t size) override {
    void* const area = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu_fd, 0);
    return area == MAP_FAILED ? nullptr : area;
  }
  void Unmap(void* area, size_t size) override { munmap(area, size); }
  int Fallocate(int fd, int mode, uint64_t offset, uint64_t length) override {
    int result;
    do {
      result = fallocate(fd, mode, static_cast<off_t>(offset), static_cast<off_t>(length));
    } while (result != 0 && errno == EINTR);
    return result;
  }
  int64_t Read(int fd, void* buffer, size_t size, uint64_t offset) override {
    return pread(fd, buffer, size, static_cast<off_t>(offset));
  }
};

}  // namespace

KvmApi& HostKvm() {
  // Never destroyed: a thread that ends a VM may outlive main.
  static Host* const host = new Host;
  return *host;
}

}  // namespace twinroot::kvm
