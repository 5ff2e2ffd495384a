#include "daemon/vcpu/kvm/boot_plan.h"

#include <utility>

#include "daemon/vcpu/kvm/boot_loader.h"
#include "daemon/vcpu/kvm/interpreter/interpreter_image.h"
#include "daemon/vcpu/kvm/kernel_loader.h"

namespace twinroot::kvm {

absl::StatusOr<BootPlan> PlanBoot(const KvmMachineConfig& config, uint64_t memory_bytes,
                                  int shared_bit) {
  BootPlan plan;
  absl::StatusOr<GuestImage> image = ParseGuestImage(
      config.image != nullptr ? std::string_view(*config.image) : InterpreterImage());
  if (!image.ok()) return image.status();
  plan.image = *std::move(image);
  plan.program = config.program;
  plan.cmdline = config.cmdline;
  plan.vcpus = config.vcpus;
  plan.shared_bit = shared_bit;
  plan.cpl = config.cpl;
  if (config.initrd != nullptr) plan.initrd = *config.initrd;
  if (plan.image.kernel()) {
    if (config.native) {
      // A worker of KVM's that waits for a private page in place of a halted vCPU could not be let
      // go: no signal reaches it, and nothing ever comes to where it waits.
      return absl::InvalidArgumentError(
          "image: kvm-native boots no operating systems; use backend kvm");
    }
    if (!plan.program.empty()) {
      return absl::InvalidArgumentError("program: a kernel takes none; leave it out");
    }
    if (absl::Status fits = CheckKernel(plan, memory_bytes); !fits.ok()) return fits;
    return plan;
  }
  if (!plan.initrd.empty()) {
    return absl::InvalidArgumentError("initrd: only a kernel takes one, and the image is none");
  }
  if (absl::Status fits = CheckImageFits(plan.image, memory_bytes, config.vcpus); !fits.ok()) {
    return fits;
  }
  if (!plan.program.empty()) {
    if (absl::Status placed = PlaceProgram(plan, memory_bytes).status(); !placed.ok()) {
      return placed;
    }
  }
  return plan;
}

}  // namespace twinroot::kvm
