// Images of guests, whatever they hold: one that is taken lies in the VM's memory byte for byte,
// any other is refused with its reason.
#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "daemon/memory/guest_ram.h"
#include "daemon/memory/hpa_space.h"
#include "daemon/vcpu/kvm/boot_loader.h"
#include "daemon/vcpu/kvm/boot_plan.h"
#include "daemon/vcpu/kvm/guest_image.h"
#include "daemon/vcpu/kvm/kernel_loader.h"
#include "tests/fuzz/require.h"

namespace twinroot::kvm {
namespace {

using fuzz::Require;

constexpr int kSharedBit = 47;
constexpr uint64_t kMiB = uint64_t{1} << 20;

bool Inside(std::string_view part, std::string_view whole) {
  return part.empty() ||
         (part.data() >= whole.data() && part.data() + part.size() <= whole.data() + whole.size());
}

void CheckImage(const GuestImage& image, std::string_view bytes) {
  uint64_t end = kImageBase;
  bool entered = false;
  for (const GuestImage::Segment& segment : image.segments) {
    Require(segment.gpa >= end, "segments are ordered, apart, and above the loader's pages");
    Require(segment.gpa + segment.memory_bytes >= segment.gpa, "no segment wraps");
    Require(segment.data.size() <= segment.memory_bytes, "a segment has memory for its bytes");
    Require(Inside(segment.data, bytes), "a segment's bytes are the image's");
    entered |= image.entry >= segment.gpa && image.entry - segment.gpa < segment.memory_bytes;
    end = segment.gpa + segment.memory_bytes;
  }
  Require(!image.segments.empty() && image.end == end, "the image ends with its last segment");
  Require(entered, "the entry lies in a segment");
  Require(Inside(image.setup_header, bytes), "the setup header is the image's");
}

void CheckLoaded(const BootPlan& plan, memory::GuestRam& ram) {
  const absl::Status loaded = plan.image.kernel() ? LoadKernel(plan, ram) : LoadGuest(plan, ram);
  Require(loaded.ok(), "what was planned is loaded: " + std::string(loaded.message()));
  for (const GuestImage::Segment& segment : plan.image.segments) {
    // The initrd lies behind the kernel, so nothing is written over a segment's bytes.
    std::vector<char> found(segment.data.size());
    Require(ram.Read(segment.gpa, mmu::MemoryKind::kPrivate, absl::MakeSpan(found)).ok(),
            "a segment lies in memory");
    Require(std::equal(found.begin(), found.end(), segment.data.begin()),
            "a segment's bytes lie at its address");
  }
  kvm_sregs sregs = {};
  kvm_regs regs = {};
  if (plan.image.kernel()) {
    SetKernelEntry(plan.image, sregs, regs);
  } else {
    SetEntryState(plan, ram.low_bytes(), plan.vcpus - 1, sregs, regs);
    Require(regs.rsp > plan.image.end && regs.rsp <= ram.low_bytes(),
            "stacks lie behind the image and in memory");
  }
  Require(regs.rip == plan.image.entry, "the guest is entered where its image says");
}

void Run(std::string_view bytes) {
  // The image's last byte also says what goes with it.
  const uint8_t choice = bytes.empty() ? uint8_t{0} : static_cast<uint8_t>(bytes.back());
  const auto image = ParseGuestImage(bytes);
  if (image.ok()) {
    CheckImage(*image, bytes);
  } else {
    Require(absl::IsInvalidArgument(image.status()) && image.status().message().size() > 10,
            "a refusal has a reason");
  }

  static memory::HpaSpace space;
  KvmMachineConfig config;
  config.vcpus = 1 + (choice & 3);
  config.image = std::make_shared<std::string>(bytes);
  if ((choice & 12) == 12) config.initrd = std::make_shared<std::string>(5000, 'i');
  if ((choice & 48) == 48) config.cmdline = std::string(150, 'c');
  const uint64_t memory_bytes = choice & 64 ? 32 * kMiB : 2 * kMiB;
  const auto plan = PlanBoot(config, memory_bytes, kSharedBit);
  Require(!plan.ok() || image.ok(), "no plan of a bad image");
  if (!plan.ok()) {
    Require(absl::IsInvalidArgument(plan.status()) &&
                plan.status().message().find(": ") != std::string_view::npos,
            "a refusal names what it is about");
    return;
  }
  auto ram = memory::GuestRam::Create(memory_bytes, &space);
  Require(ram.ok(), "there is memory");
  CheckLoaded(*plan, **ram);
}

}  // namespace
}  // namespace twinroot::kvm

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  twinroot::kvm::Run({reinterpret_cast<const char*>(data), size});
  return 0;
}
