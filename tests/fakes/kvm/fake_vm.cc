#include "tests/fakes/kvm/fake_vm.h"

#include <cerrno>
#include <utility>

namespace twinroot::kvm::fake {
namespace {

constexpr uint64_t kPage = 4096;
constexpr int kMaxVcpus = 1024;
constexpr int kPhysicalBits = 46;
constexpr unsigned long kCapMultiAddressSpace = 118;

int SupportedCpuid(Cpuid2& cpuid) {
  if (cpuid.nent < 1) return -E2BIG;
  cpuid.nent = 1;
  cpuid.entries[0] = {};
  cpuid.entries[0].function = 0x80000008;
  cpuid.entries[0].eax = kPhysicalBits;
  return 0;
}

// `vm_type`: of the VM that is asked; nothing: /dev/kvm, which promises guest_memfd whatever VMs
// there are.
int64_t Capability(const FakeKvm::Options& options, unsigned long number,
                   const bool* is_protected) {
  const bool can_private = is_protected == nullptr || *is_protected;
  switch (number) {
    case KVM_CAP_USER_MEMORY:
    case KVM_CAP_SYNC_MMU:
    case KVM_CAP_IMMEDIATE_EXIT:
    case kCapUserMemory2:
    case kCapMemoryFaultInfo:
      return 1;
    case kCapPreFaultMemory:
      return options.protected_vms;
    case KVM_CAP_SYNC_REGS:
      return KVM_SYNC_X86_VALID_FIELDS;
    case KVM_CAP_EXIT_HYPERCALL:
      return options.forwards_hypercalls ? 1 << kMapGpaHypercall : 0;
    case KVM_CAP_MAX_VCPUS:
      return kMaxVcpus;
    case KVM_CAP_NR_MEMSLOTS:
      return 32764;
    case kCapMultiAddressSpace:
      return is_protected != nullptr && *is_protected ? 1 : 2;
    case kCapVmTypes:
      return options.protected_vms ? 3 : 1;
    case kCapMemoryAttributes:
      return can_private ? static_cast<int64_t>(kMemoryAttributePrivate) : 0;
    case kCapGuestMemfd:
      return can_private;
    default:
      return 0;
  }
}

}  // namespace

int64_t Device::Ioctl(unsigned long request, void* argument) {
  const auto value = reinterpret_cast<uintptr_t>(argument);
  switch (request) {
    case KVM_GET_API_VERSION:
      return kApiVersion;
    case KVM_CHECK_EXTENSION:
      return Capability(kvm_->options(), value, nullptr);
    case KVM_GET_VCPU_MMAP_SIZE:
      return kRunAreaBytes;
    case kGetSupportedCpuid:
      return SupportedCpuid(*static_cast<Cpuid2*>(argument));
    case KVM_CREATE_VM: {
      const bool is_protected = value == kVmTypeSwProtected;
      if (value > kVmTypeSwProtected || (is_protected && !kvm_->options().protected_vms)) {
        return -EINVAL;
      }
      return kvm_->Add(std::make_shared<FakeVm>(kvm_, is_protected));
    }
    default:
      return -ENOTTY;
  }
}

int64_t MemfdObject::Ioctl(unsigned long, void*) { return -ENOTTY; }

bool FakeVm::forwards_map_gpa() const {
  std::lock_guard lock(mutex_);
  return forwards_map_gpa_;
}

int64_t FakeVm::Ioctl(unsigned long request, void* argument) {
  switch (request) {
    case KVM_CHECK_EXTENSION: {
      const bool is_protected = memory_.is_protected();
      return Capability(kvm_->options(), reinterpret_cast<uintptr_t>(argument), &is_protected);
    }
    case KVM_SET_TSS_ADDR:
      return 0;
    case KVM_ENABLE_CAP:
      return EnableCap(*static_cast<kvm_enable_cap*>(argument));
    case KVM_CREATE_VCPU:
      return CreateVcpu(reinterpret_cast<uintptr_t>(argument));
    case KVM_SET_USER_MEMORY_REGION: {
      const auto& old = *static_cast<kvm_userspace_memory_region*>(argument);
      if ((old.flags & kMemGuestMemfd) != 0) return -EINVAL;
      UserspaceMemoryRegion2 region;
      region.slot = old.slot;
      region.flags = old.flags;
      region.guest_phys_addr = old.guest_phys_addr;
      region.memory_size = old.memory_size;
      region.userspace_addr = old.userspace_addr;
      return memory_.SetRegion(region, nullptr);
    }
    case kSetUserMemoryRegion2:
      return SetRegion(*static_cast<UserspaceMemoryRegion2*>(argument));
    case kSetMemoryAttributes:
      return memory_.SetAttributes(*static_cast<MemoryAttributes*>(argument));
    case kCreateGuestMemfd:
      return CreateMemfd(*static_cast<CreateGuestMemfd*>(argument));
    default:
      return -ENOTTY;
  }
}

int64_t FakeVm::EnableCap(const kvm_enable_cap& cap) {
  if (cap.cap != KVM_CAP_EXIT_HYPERCALL || !kvm_->options().forwards_hypercalls ||
      (cap.args[0] & ~(uint64_t{1} << kMapGpaHypercall)) != 0) {
    return -EINVAL;
  }
  std::lock_guard lock(mutex_);
  forwards_map_gpa_ = cap.args[0] != 0;
  return 0;
}

int64_t FakeVm::CreateVcpu(uint64_t id) {
  {
    std::lock_guard lock(mutex_);
    if (id >= kMaxVcpus) return -EINVAL;
    if (!vcpus_.insert(id).second) return -EEXIST;
  }
  std::shared_ptr<FakeVcpu> vcpu = FakeVcpu::Create(shared_from_this());
  return vcpu != nullptr ? kvm_->Add(std::move(vcpu)) : -ENOMEM;
}

int64_t FakeVm::CreateMemfd(const CreateGuestMemfd& request) {
  if (request.flags != 0 || request.size == 0 || request.size % kPage != 0 ||
      static_cast<int64_t>(request.size) < 0) {
    return -EINVAL;
  }
  std::shared_ptr<GuestMemfd> memfd = GuestMemfd::Create(&memory_, request.size);
  return memfd != nullptr ? kvm_->Add(std::make_shared<MemfdObject>(std::move(memfd))) : -ENOMEM;
}

int64_t FakeVm::SetRegion(const UserspaceMemoryRegion2& region) {
  if ((region.flags & kMemGuestMemfd) == 0 || region.memory_size == 0) {
    return memory_.SetRegion(region, nullptr);
  }
  if (!memory_.is_protected()) return -EINVAL;
  const int fd = static_cast<int>(region.guest_memfd);
  if (fd < 0) return -EBADF;
  const auto object = std::dynamic_pointer_cast<MemfdObject>(kvm_->Find(fd));
  return memory_.SetRegion(region, object != nullptr ? object->memfd() : nullptr);
}

}  // namespace twinroot::kvm::fake
