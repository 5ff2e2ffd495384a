// What the registry and its VMs refuse, with the reasons that only they give.
#include <memory>
#include <string>

#include "daemon/reasons.h"
#include "tests/daemon/host/vm_fixture.h"

namespace twinroot::host {
namespace {

constexpr char kNothing[] = "vcpus { steps { read { gpa: 0x400000 } } }";
constexpr uint64_t kMiB = uint64_t{1} << 20;

class Refusals : public VmFixture {
 protected:
  static VmSpec Spec(const std::string& name) {
    VmSpec spec;
    spec.name = name;
    spec.memory_bytes = 2 * kMiB;
    spec.vcpus = 1;
    spec.backend = BackendKind::kSim;
    return spec;
  }
  static void Expect(const absl::Status& status, absl::StatusCode code, const char* why) {
    EXPECT_EQ(status.code(), code) << status;
    EXPECT_EQ(ReasonOf(status), why) << status;
  }
};

TEST_F(Refusals, AnImageAloneDoesNotRunOnSim) {
  VmSpec spec = Spec("demo");
  spec.image = std::make_shared<const std::string>("image");
  Expect(registry_->Check(spec).status(), absl::StatusCode::kFailedPrecondition,
         reason::kImageNeedsKvm);
  Expect(registry_->Create(spec).status(), absl::StatusCode::kFailedPrecondition,
         reason::kImageNeedsKvm);
}

TEST_F(Refusals, ACheckAnswersAsCreateWouldAndMakesNothing) {
  Make(kNothing);
  VmSpec spec = vm_->spec();
  Expect(registry_->Check(spec).status(), absl::StatusCode::kAlreadyExists, reason::kVmExists);
  spec.name = "other";
  spec.backend = BackendKind::kAuto;
  const auto checked = registry_->Check(spec);
  ASSERT_TRUE(checked.ok()) << checked.status();
  EXPECT_EQ(checked->backend, registry_->default_backend());
  spec.vcpus = 65;
  Expect(registry_->Check(spec).status(), absl::StatusCode::kInvalidArgument,
         reason::kInvalidField);
  EXPECT_EQ(registry_->size(), 1u);
}

TEST_F(Refusals, ADaemonTakesSoManyVms) {
  auto registry = MakeVmRegistry({.max_vms = 1}, &journal_);
  ASSERT_TRUE(registry.ok()) << registry.status();
  Make(kNothing);
  VmSpec spec = vm_->spec();
  ASSERT_TRUE((*registry)->Create(spec).ok());
  spec.name = "second";
  Expect((*registry)->Create(spec).status(), absl::StatusCode::kResourceExhausted,
         reason::kTooManyVms);
}

TEST_F(Refusals, AddedMemoryIsLimited) {
  Make(kNothing);
  struct Case {
    uint64_t gpa, size;
    absl::StatusCode code;
    const char* why;
  };
  for (const Case& bad :
       {Case{64 * kMiB, 32 * kMiB, absl::StatusCode::kResourceExhausted, reason::kTooMuchMemory},
        Case{0, 2 * kMiB, absl::StatusCode::kAlreadyExists, reason::kMemslotExists}}) {
    const mmu::GfnRange range = {mmu::Gfn(bad.gpa >> mmu::kPageShift), bad.size >> mmu::kPageShift};
    Expect(vm_->CheckAddMemslot(range), bad.code, bad.why);
    Expect(vm_->AddMemslot(range), bad.code, bad.why);
  }
  const mmu::GfnRange beyond = {mmu::Gfn(uint64_t{1} << 40), 512};
  EXPECT_EQ(vm_->CheckAddMemslot(beyond).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(vm_->AddMemslot(beyond).code(), absl::StatusCode::kInvalidArgument);
  const mmu::GfnRange good = {mmu::Gfn(0x8000), 512};
  EXPECT_TRUE(vm_->CheckAddMemslot(good).ok());
  EXPECT_TRUE(vm_->AddMemslot(good).ok());
}

TEST_F(Refusals, WhatKvmCannotDoSaysSo) {
  if (!registry_->capabilities().kvm_usable) {
    GTEST_SKIP() << "no usable /dev/kvm: " << registry_->capabilities().reason;
  }
  Make(kNothing, 1, BackendKind::kKvm);
  Expect(vm_->AgePages({mmu::Gfn(0), 512}).status(), absl::StatusCode::kFailedPrecondition,
         reason::kNotOnThisBackend);
  mmu::DirtyLogOptions by_dirty_bits;
  by_dirty_bits.mode = mmu::DirtyLogMode::kDirtyBit;
  Expect(vm_->EnableDirtyLog(by_dirty_bits).status(), absl::StatusCode::kFailedPrecondition,
         reason::kDirtyLogUnsupported);
  VmSpec spec = vm_->spec();
  spec.name = "nx";
  spec.nx_huge_pages = true;
  Expect(registry_->Create(spec).status(), absl::StatusCode::kFailedPrecondition,
         reason::kNotOnThisBackend);
  spec.nx_huge_pages = false;
  spec.mmu = mmu::MmuMode::kShadow;
  Expect(registry_->Create(spec).status(), absl::StatusCode::kFailedPrecondition,
         reason::kNotOnThisBackend);
}

}  // namespace
}  // namespace twinroot::host
