// Reads and writes host memory for a guest so that a signal gets the thread out, as it gets a vCPU
// out of KVM. System calls would not do: the kernel leaves a fault of its own for deadly signals
// only.
//
// The thread touches the memory itself; it may stop in userfaultfd. SIGRTMIN (the daemon's kick)
// and faults without memory jump out of the access, and out of nothing else.
#ifndef TWINROOT_TESTS_FAKES_KVM_HOST_ACCESS_H_
#define TWINROOT_TESTS_FAKES_KVM_HOST_ACCESS_H_

#include <cstddef>
#include <functional>

namespace twinroot::kvm::fake {

// False: the host could not give the page, or a signal came; `interrupted` says which. Whoever
// sends the signal makes `interrupted` true before.
bool ReadHost(const void* from, void* to, size_t size, const std::function<bool()>& interrupted);
bool WriteHost(void* to, const void* from, size_t size, const std::function<bool()>& interrupted);

}  // namespace twinroot::kvm::fake

#endif  // TWINROOT_TESTS_FAKES_KVM_HOST_ACCESS_H_
