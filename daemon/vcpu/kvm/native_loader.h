// Fills private memory that the host cannot write: the guest copies it itself, before it begins.
//
// The loader puts a guest where it always does, into the memfd behind private memory, which no VM
// of kvm-native has as its memory. Here that memfd is shown to the VM for a while, beyond its RAM,
// and vCPU 0 copies every page that was written to its place in private memory (two instructions in
// ring 0 with page tables of their own, one run for each piece). Then what was shown goes, and the
// memfd is emptied: no page stays backed twice. What the guest is loaded with is thus known to the
// host, as on every backend; what it makes of it is not.
#ifndef TWINROOT_DAEMON_VCPU_KVM_NATIVE_LOADER_H_
#define TWINROOT_DAEMON_VCPU_KVM_NATIVE_LOADER_H_

#include <cstdint>

#include "absl/status/status.h"
#include "daemon/memory/guest_ram.h"
#include "daemon/vcpu/kvm/kvm_api.h"
#include "daemon/vcpu/kvm/vcpu.h"

namespace twinroot::kvm {

// Two memslots from `slot` on are free. Faults of the copy are those of `vcpu`, whose state is
// undefined afterwards. kCancelled: the VM stops.
absl::Status LoadPrivateMemory(const KvmFd& vm, uint32_t slot, Vcpu& vcpu, memory::GuestRam& ram);

}  // namespace twinroot::kvm

#endif  // TWINROOT_DAEMON_VCPU_KVM_NATIVE_LOADER_H_
