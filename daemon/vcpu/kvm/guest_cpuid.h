// What CPUID tells an operating system on one vCPU. Pure; thread-safe.
#ifndef TWINROOT_DAEMON_VCPU_KVM_GUEST_CPUID_H_
#define TWINROOT_DAEMON_VCPU_KVM_GUEST_CPUID_H_

#include <cstdint>

#include "daemon/vcpu/kvm/kvm_abi.h"

namespace twinroot::kvm {

// `supported` is what the host's KVM offers. Changed are: what names this vCPU and counts the
// others (APIC ids, one thread a core, one package); a hypervisor is there; the APIC's deadline
// timer, where KVM has it; no nested virtualization; no asynchronous page faults, which would have
// the guest look on while a page is decided about.
Cpuid2 GuestCpuid(const Cpuid2& supported, uint32_t vcpu, uint32_t vcpus, bool deadline_timer);

}  // namespace twinroot::kvm

#endif  // TWINROOT_DAEMON_VCPU_KVM_GUEST_CPUID_H_
