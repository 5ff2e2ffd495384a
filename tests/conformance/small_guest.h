// A VM on some kernel, with one vCPU in ring 0 of long mode that knows two programs: copy words,
// and ask for a hypercall. Its code, page tables and a scratch page lie in a memslot of their own
// at 16 MiB; the first GiB is mapped to itself.
#ifndef TWINROOT_TESTS_CONFORMANCE_SMALL_GUEST_H_
#define TWINROOT_TESTS_CONFORMANCE_SMALL_GUEST_H_

#include <cstddef>
#include <cstdint>
#include <string>

#include "daemon/memory/mapping.h"
#include "daemon/vcpu/kvm/kvm_abi.h"
#include "daemon/vcpu/kvm/kvm_api.h"

namespace twinroot::kvm {

// Why the kernel that a test is asked about ("fake" or "real") is not here; "" if it is.
std::string WhyNotHere(const std::string& kernel);

class SmallGuest {
 public:
  static constexpr uint64_t kOwnGpa = uint64_t{16} << 20;
  static constexpr uint32_t kOwnSlot = 100;

  // What KVM_RUN said.
  struct Ran {
    int result = 0;
    int error = 0;
    uint32_t reason = 0;
    bool done() const { return result == 0 && reason == KVM_EXIT_IO; }
    friend bool operator==(const Ran&, const Ran&) = default;
  };

  SmallGuest(KvmApi& api, unsigned long vm_type);
  ~SmallGuest();

  const KvmFd& kvm() const { return kvm_; }
  const KvmFd& vm() const { return vm_; }
  const KvmFd& vcpu() const { return vcpu_; }
  kvm_run& run() { return *run_; }
  MemoryFault memory_fault() const;

  // 0, or the errno of the refusal.
  int SetRegion(const UserspaceMemoryRegion2& region) const;
  int SetPrivate(uint64_t gpa, uint64_t size, bool is_private) const;
  KvmFd MakeMemfd(uint64_t size) const;
  // An ordinary slot; with `memfd`, one that has private memory too.
  UserspaceMemoryRegion2 Region(uint32_t slot, uint64_t gpa, const memory::Mapping& shared,
                                const KvmFd* memfd = nullptr) const;

  // Lets the guest copy a word; ends at the port it writes to then, or where it stops.
  Ran Copy(uint64_t from, uint64_t to);
  // The same access again.
  Ran Again();
  // KVM_RUN that is told to come back at once.
  Ran ComeBack();
  // Copy from or to the scratch page; false: the guest did not get there.
  bool Read(uint64_t gpa, uint64_t& value);
  bool Write(uint64_t gpa, uint64_t value);
  // vmmcall with these registers.
  Ran Hypercall(uint64_t rax, uint64_t rbx, uint64_t rcx, uint64_t rdx, int cpl = 0);
  uint64_t Rip();
  uint64_t Rax();
  uint64_t code() const { return kOwnGpa; }
  uint64_t hypercall_code() const { return kOwnGpa + 16; }

 private:
  void Enter(uint64_t rip, int cpl, kvm_regs regs);
  uint64_t& scratch() { return *reinterpret_cast<uint64_t*>(own_.data() + 0x4000); }

  KvmFd kvm_, vm_, vcpu_;
  size_t run_bytes_ = 0;
  kvm_run* run_ = nullptr;
  memory::Mapping own_;
};

}  // namespace twinroot::kvm

#endif  // TWINROOT_TESTS_CONFORMANCE_SMALL_GUEST_H_
