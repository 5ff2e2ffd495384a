#include "tests/conformance/small_guest.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <utility>

#include "daemon/vcpu/kvm/boot_loader.h"
#include "daemon/vcpu/kvm/kvm_system.h"

namespace twinroot::kvm {
namespace {

constexpr uint64_t kOwnBytes = 0x10000;
constexpr uint64_t kPml4 = 0x1000, kPdpt = 0x2000, kDirectory = 0x3000, kScratch = 0x4000;
constexpr uint64_t kPageEntry = 7;  // present, writable, of ring 3 too
constexpr uint64_t kLarge = 1 << 7;
constexpr uint64_t kHypercall = 16;

// rep movsq; out 0xF6, al
constexpr unsigned char kCopyCode[] = {0xf3, 0x48, 0xa5, 0xe6, 0xf6};
// vmmcall; out 0xF6, al
constexpr unsigned char kHypercallCode[] = {0x0f, 0x01, 0xd9, 0xe6, 0xf6};

}  // namespace

std::string WhyNotHere(const std::string& kernel) {
  if (kernel != "real") return "";
  const auto system = KvmSystem::Open();
  return system.ok() ? (*system)->native_missing() : std::string(system.status().message());
}

SmallGuest::SmallGuest(KvmApi& api, unsigned long vm_type) : kvm_(&api, api.Open()) {
  vm_ = kvm_.Make(KVM_CREATE_VM, vm_type);
  vcpu_ = vm_.Make(KVM_CREATE_VCPU, 0ul);
  EXPECT_TRUE(vcpu_.valid());
  run_bytes_ = static_cast<size_t>(kvm_.Ioctl(KVM_GET_VCPU_MMAP_SIZE));
  run_ = static_cast<kvm_run*>(api.Map(vcpu_.get(), run_bytes_));
  EXPECT_NE(run_, nullptr);
  const auto system = KvmSystem::Open(api);
  EXPECT_TRUE(system.ok() && vcpu_.Ioctl(kSetCpuid2, &(*system)->cpuid()) == 0);

  own_ = *memory::Mapping::Anonymous(kOwnBytes);
  std::memcpy(own_.data(), kCopyCode, sizeof kCopyCode);
  std::memcpy(own_.data() + kHypercall, kHypercallCode, sizeof kHypercallCode);
  const auto put = [this](uint64_t at, uint64_t entry) {
    std::memcpy(own_.data() + at, &entry, sizeof entry);
  };
  put(kPml4, (kOwnGpa + kPdpt) | kPageEntry);
  put(kPdpt, (kOwnGpa + kDirectory) | kPageEntry);
  for (uint64_t i = 0; i < 512; ++i) put(kDirectory + i * 8, i << 21 | kPageEntry | kLarge);
  EXPECT_EQ(SetRegion(Region(kOwnSlot, kOwnGpa, own_)), 0);
}

SmallGuest::~SmallGuest() {
  if (run_ != nullptr) vcpu_.api().Unmap(run_, run_bytes_);
}

MemoryFault SmallGuest::memory_fault() const {
  MemoryFault fault;
  std::memcpy(&fault, reinterpret_cast<const std::byte*>(run_) + kMemoryFaultOffset, sizeof fault);
  return fault;
}

int SmallGuest::SetRegion(const UserspaceMemoryRegion2& region) const {
  return vm_.Ioctl(kSetUserMemoryRegion2, &region) == 0 ? 0 : errno;
}

int SmallGuest::SetPrivate(uint64_t gpa, uint64_t size, bool is_private) const {
  const MemoryAttributes request = {gpa, size, is_private ? kMemoryAttributePrivate : 0, 0};
  return vm_.Ioctl(kSetMemoryAttributes, &request) == 0 ? 0 : errno;
}

KvmFd SmallGuest::MakeMemfd(uint64_t size) const {
  CreateGuestMemfd request;
  request.size = size;
  return vm_.Make(kCreateGuestMemfd, &request);
}

UserspaceMemoryRegion2 SmallGuest::Region(uint32_t slot, uint64_t gpa,
                                          const memory::Mapping& shared, const KvmFd* memfd) const {
  UserspaceMemoryRegion2 region;
  region.slot = slot;
  region.guest_phys_addr = gpa;
  region.memory_size = shared.size();
  region.userspace_addr = reinterpret_cast<uintptr_t>(shared.data());
  if (memfd != nullptr) {
    region.flags = kMemGuestMemfd;
    region.guest_memfd = static_cast<uint32_t>(memfd->get());
  }
  return region;
}

void SmallGuest::Enter(uint64_t rip, int cpl, kvm_regs regs) {
  kvm_sregs sregs;
  EXPECT_EQ(vcpu_.Ioctl(KVM_GET_SREGS, &sregs), 0);
  BootPlan plan;
  plan.cpl = cpl;
  kvm_regs entry;
  SetEntryState(plan, 0, 0, sregs, entry);
  sregs.cr3 = kOwnGpa + kPml4;
  regs.rip = rip;
  regs.rflags = entry.rflags;
  EXPECT_EQ(vcpu_.Ioctl(KVM_SET_SREGS, &sregs), 0);
  EXPECT_EQ(vcpu_.Ioctl(KVM_SET_REGS, &regs), 0);
}

SmallGuest::Ran SmallGuest::Again() {
  Ran ran;
  ran.result = vcpu_.Ioctl(KVM_RUN);
  ran.error = ran.result == 0 ? 0 : errno;
  ran.reason = run_->exit_reason;
  return ran;
}

SmallGuest::Ran SmallGuest::ComeBack() {
  std::atomic_ref<__u8>(run_->immediate_exit).store(1);
  const Ran ran = Again();
  std::atomic_ref<__u8>(run_->immediate_exit).store(0);
  return ran;
}

SmallGuest::Ran SmallGuest::Copy(uint64_t from, uint64_t to) {
  kvm_regs regs = {};
  regs.rsi = from;
  regs.rdi = to;
  regs.rcx = 1;
  Enter(code(), 0, regs);
  const Ran ran = Again();
  if (ran.done()) ComeBack();  // ends the instruction
  return ran;
}

bool SmallGuest::Read(uint64_t gpa, uint64_t& value) {
  const bool done = Copy(gpa, kOwnGpa + kScratch).done();
  value = scratch();
  return done;
}

bool SmallGuest::Write(uint64_t gpa, uint64_t value) {
  scratch() = value;
  return Copy(kOwnGpa + kScratch, gpa).done();
}

SmallGuest::Ran SmallGuest::Hypercall(uint64_t rax, uint64_t rbx, uint64_t rcx, uint64_t rdx,
                                      int cpl) {
  kvm_regs regs = {};
  regs.rax = rax;
  regs.rbx = rbx;
  regs.rcx = rcx;
  regs.rdx = rdx;
  Enter(hypercall_code(), cpl, regs);
  return Again();
}

uint64_t SmallGuest::Rip() {
  kvm_regs regs = {};
  EXPECT_EQ(vcpu_.Ioctl(KVM_GET_REGS, &regs), 0);
  return regs.rip;
}

uint64_t SmallGuest::Rax() {
  kvm_regs regs = {};
  EXPECT_EQ(vcpu_.Ioctl(KVM_GET_REGS, &regs), 0);
  return regs.rax;
}

}  // namespace twinroot::kvm
