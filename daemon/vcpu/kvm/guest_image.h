// A guest image taken apart: which bytes go where, and where it is entered. Pure; thread-safe.
#ifndef TWINROOT_DAEMON_VCPU_KVM_GUEST_IMAGE_H_
#define TWINROOT_DAEMON_VCPU_KVM_GUEST_IMAGE_H_

#include <cstdint>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace twinroot::kvm {

inline constexpr uint64_t kImageBase = 0x100000;  // images lie at 1 MiB or above
inline constexpr uint64_t kStackBytes = 64 * 1024;

struct GuestImage {
  struct Segment {
    uint64_t gpa = 0;
    std::string_view data;      // points into the image's bytes
    uint64_t memory_bytes = 0;  // at least data.size(); the rest is zero
  };
  // How it is entered, and what it finds then.
  enum class Protocol : uint8_t {
    kTwinroot,  // the guest interface: boot_loader.h
    kLinux64,   // an operating system on a PC: kernel_loader.h; Linux's 64-bit boot protocol
    kPvh,       // the same; Xen's PVH direct boot
  };
  bool kernel() const { return protocol != Protocol::kTwinroot; }

  std::vector<Segment> segments;  // by address, not overlapping
  uint64_t entry = 0;
  uint64_t end = 0;  // first address after the last segment
  Protocol protocol = Protocol::kTwinroot;
  std::string_view setup_header;            // kLinux64: of the image, from kSetupHeader on
  uint64_t initrd_end = uint64_t{1} << 32;  // of a kernel: its initrd ends here or below
  uint64_t max_cmdline = UINT64_MAX;        // of a kernel: so many bytes
};

inline constexpr uint64_t kSetupHeader = 0x1f1;  // where it lies in a bzImage

// A Linux bzImage; a static x86-64 ELF executable, which is a kernel if it names a PVH entry; or
// (anything else) a flat binary that is loaded and entered at kImageBase. kInvalidArgument says
// what is wrong: empty, truncated, 32-bit, another machine, needs an interpreter, segments that
// overlap, lie below 1 MiB, or wrap; a kernel that has no 64-bit entry.
absl::StatusOr<GuestImage> ParseGuestImage(std::string_view bytes);

// kInvalidArgument: a segment lies outside low memory or in the stacks at its top.
absl::Status CheckImageFits(const GuestImage& image, uint64_t memory_bytes, uint32_t vcpus);

}  // namespace twinroot::kvm

#endif  // TWINROOT_DAEMON_VCPU_KVM_GUEST_IMAGE_H_
