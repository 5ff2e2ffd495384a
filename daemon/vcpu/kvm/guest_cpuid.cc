#include "daemon/vcpu/kvm/guest_cpuid.h"

#include <asm/kvm_para.h>

#include <algorithm>
#include <bit>

namespace twinroot::kvm {
namespace {

constexpr uint32_t Bit(int position) { return uint32_t{1} << position; }

// Leaf 1.
constexpr uint32_t kEcxVmx = Bit(5), kEcxDeadlineTimer = Bit(24), kEcxHypervisor = Bit(31);
constexpr uint32_t kEdxManyThreads = Bit(28);
constexpr uint32_t kAmdEcxSvm = Bit(2);  // leaf 0x80000001
// Levels of leaf 0xB.
constexpr uint32_t kLevelThread = 1 << 8, kLevelCore = 2 << 8;

// Leaves 0xB and 0x1F: how many bits of the APIC id count threads and cores.
void DescribeTopology(uint32_t vcpu, uint32_t vcpus, kvm_cpuid_entry2& entry) {
  const bool core = entry.index == 1;
  entry.eax = core ? static_cast<uint32_t>(std::bit_width(vcpus - 1)) : 0;
  entry.ebx = entry.index > 1 ? 0 : core ? vcpus : 1;
  entry.ecx = entry.index | (entry.index > 1 ? 0 : core ? kLevelCore : kLevelThread);
  entry.edx = vcpu;
  entry.flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
}

void Edit(uint32_t vcpu, uint32_t vcpus, bool deadline_timer, kvm_cpuid_entry2& entry) {
  switch (entry.function) {
    case 0x1:
      entry.ebx = (entry.ebx & 0xffff) | std::min(vcpus, 255u) << 16 | vcpu << 24;
      entry.ecx = (entry.ecx & ~(kEcxVmx | kEcxDeadlineTimer)) | kEcxHypervisor |
                  (deadline_timer ? kEcxDeadlineTimer : 0);
      entry.edx = (entry.edx & ~kEdxManyThreads) | (vcpus > 1 ? kEdxManyThreads : 0);
      return;
    case 0x4:  // Intel's caches: cores of the package, and threads that share this cache
      if ((entry.eax & 0x1f) == 0) return;
      entry.eax = (entry.eax & 0x3fff) | std::min(vcpus - 1, 63u) << 26;
      return;
    case 0x40000001:
      entry.eax &= ~(Bit(KVM_FEATURE_ASYNC_PF) | Bit(KVM_FEATURE_ASYNC_PF_VMEXIT) |
                     Bit(KVM_FEATURE_ASYNC_PF_INT));
      return;
    case 0x80000001:
      entry.ecx &= ~kAmdEcxSvm;
      return;
    case 0x80000008:
      entry.ecx = vcpus - 1;
      return;
    case 0x8000001e:  // AMD's topology
      entry.eax = vcpu;
      entry.ebx = vcpu & 0xff;
      entry.ecx = 0;
      return;
    default:
      return;
  }
}

bool IsTopology(uint32_t function) { return function == 0xb || function == 0x1f; }

}  // namespace

Cpuid2 GuestCpuid(const Cpuid2& supported, uint32_t vcpu, uint32_t vcpus, bool deadline_timer) {
  Cpuid2 cpuid;
  cpuid.nent = 0;
  for (uint32_t i = 0; i < supported.nent; ++i) {
    kvm_cpuid_entry2 entry = supported.entries[i];
    if (IsTopology(entry.function)) {
      // KVM offers them without levels.
      if (entry.index != 0 || cpuid.nent + 3 > kMaxCpuidEntries) continue;
      for (entry.index = 0; entry.index < 3; ++entry.index) {
        DescribeTopology(vcpu, vcpus, entry);
        cpuid.entries[cpuid.nent++] = entry;
      }
      continue;
    }
    if (cpuid.nent == kMaxCpuidEntries) break;
    Edit(vcpu, vcpus, deadline_timer, entry);
    cpuid.entries[cpuid.nent++] = entry;
  }
  return cpuid;
}

}  // namespace twinroot::kvm
