// What a guest finds at the address in RDI when it is entered. Part of the stable guest interface:
// fields are appended, never moved; unused ones are 0.
#ifndef TWINROOT_DAEMON_VCPU_KVM_BOOT_INFO_H_
#define TWINROOT_DAEMON_VCPU_KVM_BOOT_INFO_H_

#include <stddef.h>
#include <stdint.h>

namespace twinroot::kvm {

struct BootInfo {
  uint64_t magic;    // kBootMagic
  uint32_t version;  // 1
  uint32_t vcpus;
  uint64_t memory_bytes;
  uint32_t shared_bit;  // position in a guest physical address
  uint32_t zero;
  uint64_t cmdline_gpa;  // NUL-terminated text, or 0
  uint64_t program_gpa;  // access program (daemon/vcpu/program/op.h), or 0
  uint64_t program_bytes;
};
inline constexpr uint64_t kBootMagic = 0x544F4F524E495754;  // "TWINROOT"
inline constexpr uint32_t kBootVersion = 1;

static_assert(offsetof(BootInfo, shared_bit) == 24);
static_assert(offsetof(BootInfo, cmdline_gpa) == 32);
static_assert(offsetof(BootInfo, program_bytes) == 48);

// Virtual address bit that selects the shared alias of a frame.
inline constexpr int kSharedVirtualBit = 46;

}  // namespace twinroot::kvm

#endif  // TWINROOT_DAEMON_VCPU_KVM_BOOT_INFO_H_
