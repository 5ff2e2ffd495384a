// A host without KVM, so that fuzzed requests reach no kernel.
#ifndef TWINROOT_TESTS_FUZZ_NO_KVM_H_
#define TWINROOT_TESTS_FUZZ_NO_KVM_H_

#include <cerrno>

#include "daemon/vcpu/kvm/kvm_api.h"

namespace twinroot::fuzz {

class NoKvm final : public kvm::KvmApi {
 public:
  int Open() override { return Fail(ENOENT); }
  int Close(int) override { return Fail(EBADF); }
  int Ioctl(int, unsigned long, void*) override { return Fail(EBADF); }
  void* Map(int, size_t) override {
    Fail(EBADF);
    return nullptr;
  }
  void Unmap(void*, size_t) override {}
  int Fallocate(int, int, uint64_t, uint64_t) override { return Fail(EBADF); }
  int64_t Read(int, void*, size_t, uint64_t) override { return Fail(EBADF); }

 private:
  static int Fail(int error) {
    errno = error;
    return -1;
  }
};

}  // namespace twinroot::fuzz

#endif  // TWINROOT_TESTS_FUZZ_NO_KVM_H_
