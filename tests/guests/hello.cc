// Says what machine it found. Only vCPU 0 speaks.
#include "daemon/vcpu/kvm/guest_lib/twinroot_guest.h"

using namespace twinroot::guest;

extern "C" void GuestMain(const BootInfo* boot, uint64_t vcpu) {
  if (vcpu != 0) EndVcpu();
  CheckBootInfo(*boot);
  Line()
      .Text("hello from twinroot: ")
      .Dec(boot->vcpus)
      .Text(boot->vcpus == 1 ? " vCPU, " : " vCPUs, ")
      .Dec(boot->memory_bytes / kMiB)
      .Text(" MiB of RAM")
      .End();
  Exit(0);
}
