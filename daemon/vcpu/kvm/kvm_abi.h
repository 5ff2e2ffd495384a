// What Debian 12's kernel headers (6.1) lack or, in C++, get wrong.
//
// The flexible-array macro of those headers makes an empty struct one byte in C++, so that
// sizeof(kvm_cpuid2) is 12 and the ioctl numbers built from it are wrong. The numbers below are the
// kernel's; the asserts hold the reasoning.
#ifndef TWINROOT_DAEMON_VCPU_KVM_KVM_ABI_H_
#define TWINROOT_DAEMON_VCPU_KVM_KVM_ABI_H_

#include <linux/kvm.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>

#include <cstddef>
#include <cstdint>

namespace twinroot::kvm {

inline constexpr int kApiVersion = 12;

// struct kvm_cpuid2 with its entries.
inline constexpr uint32_t kMaxCpuidEntries = 256;
struct Cpuid2 {
  uint32_t nent = kMaxCpuidEntries;
  uint32_t padding = 0;
  kvm_cpuid_entry2 entries[kMaxCpuidEntries];
};
static_assert(offsetof(Cpuid2, entries) == 8);
inline constexpr unsigned long kGetSupportedCpuid = 0xc008ae05;
inline constexpr unsigned long kSetCpuid2 = 0x4008ae90;
static_assert(kGetSupportedCpuid == _IOC(_IOC_READ | _IOC_WRITE, KVMIO, 0x05, 8));
static_assert(kSetCpuid2 == _IOC(_IOC_WRITE, KVMIO, 0x90, 8));

inline constexpr uint32_t kMapGpaHypercall = 12;  // KVM_HC_MAP_GPA_RANGE

static_assert(sizeof(kvm_userspace_memory_region) == 32);
static_assert(sizeof(uffd_msg) == 32);
static_assert(UFFDIO_CONTINUE == _IOC(_IOC_READ | _IOC_WRITE, 0xAA, 0x07, 32));

}  // namespace twinroot::kvm

#endif  // TWINROOT_DAEMON_VCPU_KVM_KVM_ABI_H_
