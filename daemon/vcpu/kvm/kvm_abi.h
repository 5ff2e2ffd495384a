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

// Capabilities (KVM_CHECK_EXTENSION).
inline constexpr unsigned long kCapUserMemory2 = 231;
inline constexpr unsigned long kCapMemoryFaultInfo = 232;
inline constexpr unsigned long kCapMemoryAttributes = 233;  // answers the attributes there are
inline constexpr unsigned long kCapGuestMemfd = 234;
inline constexpr unsigned long kCapVmTypes = 235;  // answers a bit for each type
inline constexpr unsigned long kCapPreFaultMemory = 236;

// Types of VMs (KVM_CREATE_VM).
inline constexpr unsigned long kVmTypeDefault = 0;
inline constexpr unsigned long kVmTypeSwProtected = 1;

// Private memory.
inline constexpr uint64_t kMemoryAttributePrivate = uint64_t{1} << 3;
inline constexpr uint32_t kMemGuestMemfd = 1 << 2;  // flag of a memslot

struct UserspaceMemoryRegion2 {
  uint32_t slot = 0;
  uint32_t flags = 0;
  uint64_t guest_phys_addr = 0;
  uint64_t memory_size = 0;
  uint64_t userspace_addr = 0;
  uint64_t guest_memfd_offset = 0;
  uint32_t guest_memfd = 0;
  uint32_t pad1 = 0;
  uint64_t pad2[14] = {};
};
static_assert(offsetof(UserspaceMemoryRegion2, guest_memfd_offset) == 32);
static_assert(sizeof(UserspaceMemoryRegion2) == 160);
inline constexpr unsigned long kSetUserMemoryRegion2 = 0x40a0ae49;
static_assert(kSetUserMemoryRegion2 ==
              _IOC(_IOC_WRITE, KVMIO, 0x49, sizeof(UserspaceMemoryRegion2)));

struct MemoryAttributes {
  uint64_t address = 0;
  uint64_t size = 0;
  uint64_t attributes = 0;
  uint64_t flags = 0;
};
static_assert(sizeof(MemoryAttributes) == 32);
inline constexpr unsigned long kSetMemoryAttributes = 0x4020aed2;
static_assert(kSetMemoryAttributes == _IOC(_IOC_WRITE, KVMIO, 0xd2, sizeof(MemoryAttributes)));

struct CreateGuestMemfd {
  uint64_t size = 0;
  uint64_t flags = 0;
  uint64_t reserved[6] = {};
};
static_assert(sizeof(CreateGuestMemfd) == 64);
inline constexpr unsigned long kCreateGuestMemfd = 0xc040aed4;
static_assert(kCreateGuestMemfd ==
              _IOC(_IOC_READ | _IOC_WRITE, KVMIO, 0xd4, sizeof(CreateGuestMemfd)));

struct PreFaultMemory {
  uint64_t gpa = 0;
  uint64_t size = 0;
  uint64_t flags = 0;
  uint64_t padding[5] = {};
};
static_assert(sizeof(PreFaultMemory) == 64);
inline constexpr unsigned long kPreFaultMemory = 0xc040aed5;
static_assert(kPreFaultMemory == _IOC(_IOC_READ | _IOC_WRITE, KVMIO, 0xd5, sizeof(PreFaultMemory)));

// struct kvm_stats_desc without its name, which follows it.
struct StatsDesc {
  uint32_t flags;
  int16_t exponent;
  uint16_t size;
  uint32_t offset;
  uint32_t bucket_size;
};
inline constexpr uint64_t kStatsDescBytes = 16;
static_assert(sizeof(StatsDesc) == kStatsDescBytes && sizeof(kvm_stats_header) == 24);

// A guest's access that does not agree with the attribute of its page: KVM_RUN fails with EFAULT
// and this reason, the description lies where the other exits have theirs.
inline constexpr uint32_t kExitMemoryFault = 39;
inline constexpr uint64_t kMemoryFaultPrivate = uint64_t{1} << 3;
struct MemoryFault {
  uint64_t flags = 0;
  uint64_t gpa = 0;
  uint64_t size = 0;
};
inline constexpr size_t kMemoryFaultOffset = 32;
static_assert(offsetof(kvm_run, hypercall) == kMemoryFaultOffset);

static_assert(sizeof(kvm_userspace_memory_region) == 32);
// userfaultfd since Linux 6.4.
inline constexpr uint64_t kUffdWpUnpopulated = uint64_t{1} << 13;
inline constexpr uint64_t kContinueProtected = uint64_t{1} << 1;
inline constexpr int kMadviseCollapse = 25;  // Linux 6.1; Debian's C library does not know it

static_assert(sizeof(uffd_msg) == 32);
static_assert(UFFDIO_CONTINUE == _IOC(_IOC_READ | _IOC_WRITE, 0xAA, 0x07, 32));

}  // namespace twinroot::kvm

#endif  // TWINROOT_DAEMON_VCPU_KVM_KVM_ABI_H_
