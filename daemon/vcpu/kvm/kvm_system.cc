#include "daemon/vcpu/kvm/kvm_system.h"

#include <cerrno>
#include <cstring>
#include <string>

#include "absl/strings/str_cat.h"

namespace twinroot::kvm {
namespace {

constexpr uint32_t kAddressSizeLeaf = 0x80000008;  // EAX 7:0: physical address bits

// Only the types of VMs, and such a VM itself, are honest: /dev/kvm has said that there is
// guest_memfd where no VM could use it.
std::string WhyNotNative(const KvmFd& kvm) {
  const int types = kvm.Ioctl(KVM_CHECK_EXTENSION, kCapVmTypes);
  if (types <= 0 || (types & (1 << kVmTypeSwProtected)) == 0) {
    return "this KVM has no software-protected VMs (KVM_CAP_VM_TYPES); Linux 6.8 or newer with "
           "CONFIG_KVM_SW_PROTECTED_VM and nested paging has them";
  }
  const KvmFd vm = kvm.Make(KVM_CREATE_VM, kVmTypeSwProtected);
  if (!vm.valid()) {
    return absl::StrCat("KVM refuses a software-protected VM: ", std::strerror(errno));
  }
  const int attributes = vm.Ioctl(KVM_CHECK_EXTENSION, kCapMemoryAttributes);
  if (attributes <= 0 || (static_cast<uint64_t>(attributes) & kMemoryAttributePrivate) == 0 ||
      vm.Ioctl(KVM_CHECK_EXTENSION, kCapGuestMemfd) <= 0 ||
      vm.Ioctl(KVM_CHECK_EXTENSION, kCapUserMemory2) <= 0) {
    return "a software-protected VM of this KVM lacks memory attributes or guest_memfd";
  }
  return "";
}

absl::Status Missing(const std::string& what) { return absl::FailedPreconditionError(what); }

}  // namespace

absl::StatusOr<std::unique_ptr<KvmSystem>> KvmSystem::Open(KvmApi& api) {
  std::unique_ptr<KvmSystem> system(new KvmSystem);
  system->fd_ = KvmFd(&api, api.Open());
  if (!system->fd_.valid()) {
    const int error = errno;
    return Missing(absl::StrCat("/dev/kvm: ", std::strerror(error),
                                error == EACCES ? "; add the daemon's user to the group kvm"
                                                : "; load the kvm module, or enable nested "
                                                  "virtualization if this is a VM"));
  }
  const KvmFd& fd = system->fd();
  const int version = fd.Ioctl(KVM_GET_API_VERSION);
  if (version != kApiVersion) {
    return Missing(
        absl::StrCat("/dev/kvm has API version ", version, ", ", kApiVersion, " is needed"));
  }
  auto capability = [&fd](unsigned long number) { return fd.Ioctl(KVM_CHECK_EXTENSION, number); };
  if (capability(KVM_CAP_USER_MEMORY) <= 0 || capability(KVM_CAP_SYNC_MMU) <= 0 ||
      capability(KVM_CAP_IMMEDIATE_EXIT) <= 0) {
    return Missing("/dev/kvm lacks user memory, MMU notifiers or immediate exits");
  }
  const int run_bytes = fd.Ioctl(KVM_GET_VCPU_MMAP_SIZE);
  if (run_bytes < static_cast<int>(sizeof(kvm_run))) return Missing("KVM_GET_VCPU_MMAP_SIZE fails");
  system->vcpu_run_bytes_ = static_cast<size_t>(run_bytes);
  if (fd.Ioctl(kGetSupportedCpuid, &system->cpuid_) != 0) {
    return Missing(absl::StrCat("KVM_GET_SUPPORTED_CPUID: ", std::strerror(errno)));
  }
  for (uint32_t i = 0; i < system->cpuid_.nent; ++i) {
    const kvm_cpuid_entry2& entry = system->cpuid_.entries[i];
    if (entry.function == kAddressSizeLeaf) {
      system->guest_maxphyaddr_ = static_cast<int>(entry.eax & 0xff);
    }
  }
  const int sync = capability(KVM_CAP_SYNC_REGS);
  system->sync_regs_ = sync > 0 && (sync & KVM_SYNC_X86_REGS);
  const int hypercalls = capability(KVM_CAP_EXIT_HYPERCALL);
  system->map_gpa_exits_ = hypercalls > 0 && (hypercalls & (1 << kMapGpaHypercall));
  system->native_missing_ = WhyNotNative(fd);
  system->prefaults_ = capability(kCapPreFaultMemory) > 0;
  system->max_vcpus_ = capability(KVM_CAP_MAX_VCPUS);
  return system;
}

}  // namespace twinroot::kvm
