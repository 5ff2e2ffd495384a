// Memslots of real VMs: memory comes, moves and goes while guests run.
#include <string>
#include <vector>

#include "daemon/reasons.h"
#include "tests/daemon/host/vm_fixture.h"

namespace twinroot::host {
namespace {

using mmu::Gfn;
using mmu::GfnRange;
using mmu::MemoryKind;

constexpr GfnRange kSlot = {Gfn(0x8000), 0x400};  // 128 MiB, 4 MiB

class MemslotsOfAVm : public VmFixture {};

TEST_F(MemslotsOfAVm, AddedMemoryIsMemory) {
  Make(
      "vcpus { steps { write { gpa: 0x8001000 value: 7 } } "
      "steps { read { gpa: 0x8001000 expect: 7 } } "
      "steps { write { gpa: 0x8002000 alias: MEMORY_KIND_SHARED value: 9 } } }");
  ASSERT_TRUE(vm_->AddMemslot(kSlot).ok());
  EXPECT_EQ(vm_->Memory(), (std::vector<GfnRange>{{Gfn(0), 0x1000}, kSlot}));
  Start();
  Finish();
  EXPECT_EQ(vm_->ReadMemory(0x8002000, 1).value(), "\x09");
}

TEST_F(MemslotsOfAVm, WithoutItTheGuestStops) {
  Make("vcpus { steps { write { gpa: 0x8001000 value: 7 } } }");
  ASSERT_TRUE(vm_->AddMemslot(kSlot).ok());
  ASSERT_TRUE(vm_->RemoveMemslot(kSlot.first).ok());
  EXPECT_EQ(vm_->Memory(), (std::vector<GfnRange>{{Gfn(0), 0x1000}}));
  Start();
  Eventually([this] { return vm_->status().state == VmState::kStopped; });
  EXPECT_FALSE(vm_->status().exit_code.has_value());
  EXPECT_TRUE(vm_->Audit().ok()) << vm_->Audit();
}

TEST_F(MemslotsOfAVm, ContentAndAttributesMoveAlong) {
  Make(
      "vcpus { steps { read { gpa: 0x9001000 alias: MEMORY_KIND_SHARED expect: 0x6f6c6c6568 } } }");
  ASSERT_TRUE(vm_->AddMemslot(kSlot).ok());
  ASSERT_TRUE(vm_->Convert({{Gfn(0x8001), 1}}, MemoryKind::kShared, mmu::Content::kDestroy).ok());
  ASSERT_TRUE(vm_->WriteMemory(0x8001000, "hello").ok());
  ASSERT_TRUE(vm_->MoveMemslot(kSlot.first, Gfn(0x9000)).ok());
  EXPECT_FALSE(vm_->ReadMemory(0x8001000, 5).ok());
  EXPECT_EQ(vm_->ReadMemory(0x9001000, 5).value(), "hello");
  Start();
  Finish();
}

TEST_F(MemslotsOfAVm, RemovedMemoryIsForgotten) {
  Make("vcpus { steps { read { gpa: 0x8001000 alias: MEMORY_KIND_SHARED expect: 0 } } }");
  ASSERT_TRUE(vm_->AddMemslot(kSlot).ok());
  ASSERT_TRUE(vm_->Convert({{Gfn(0x8001), 1}}, MemoryKind::kShared, mmu::Content::kDestroy).ok());
  ASSERT_TRUE(vm_->WriteMemory(0x8001000, "secret").ok());
  const uint64_t allocated = vm_->counters().shared_bytes_allocated;
  ASSERT_TRUE(vm_->RemoveMemslot(kSlot.first).ok());
  EXPECT_LT(vm_->counters().shared_bytes_allocated, allocated);
  ASSERT_TRUE(vm_->AddMemslot(kSlot).ok());
  Start();
  Finish();
}

TEST_F(MemslotsOfAVm, MemoryComesAndGoesBesideARunningGuest) {
  Make(
      "vcpus { steps { loop { count: 200000 "
      "steps { write { gpa: 0x400000 value: 1 } } steps { read { gpa: 0x400000 expect: 1 } } } } "
      "}");
  Start();
  int rounds = 0;
  while (vm_->status().state != VmState::kStopped && rounds < 200) {
    ASSERT_TRUE(vm_->AddMemslot(kSlot).ok());
    ASSERT_TRUE(vm_->MoveMemslot(kSlot.first, Gfn(0x8200)).ok());
    ASSERT_TRUE(vm_->RemoveMemslot(Gfn(0x8200)).ok());
    ++rounds;
  }
  Finish();
}

TEST_F(MemslotsOfAVm, TheLogFollowsTheSlots) {
  Make("vcpus { steps { write { gpa: 0x8001000 value: 7 } } }");
  ASSERT_TRUE(vm_->EnableDirtyLog({}).ok());
  ASSERT_TRUE(vm_->AddMemslot(kSlot).ok());
  // Nobody has seen the new memory: all of it is dirty once.
  EXPECT_EQ(vm_->HarvestDirty(std::nullopt).value(), (std::vector<GfnRange>{kSlot}));
  Start();
  Finish();
  EXPECT_EQ(vm_->HarvestDirty(std::nullopt).value(), (std::vector<GfnRange>{{Gfn(0x8001), 1}}));
  ASSERT_TRUE(vm_->RemoveMemslot(kSlot.first).ok());
  EXPECT_EQ(vm_->HarvestDirty(std::nullopt).value(), std::vector<GfnRange>{});
}

TEST_F(MemslotsOfAVm, PrefaultMapsWhatNobodyHasTouched) {
  Make("vcpus { steps { write { gpa: 0x400000 value: 7 } } }");
  ASSERT_TRUE(vm_->Convert({{Gfn(0x800), 1}}, MemoryKind::kShared, mmu::Content::kDestroy).ok());
  auto result = vm_->Prefault({Gfn(0), 0x1000}, std::nullopt);
  ASSERT_TRUE(result.ok() && result->status.ok()) << result.status();
  EXPECT_EQ(result->frames_done, 0x1000u);
  EXPECT_EQ(vm_->counters().private_bytes_allocated, (uint64_t{16} << 20) - 4096);
  EXPECT_EQ(vm_->counters().shared_bytes_allocated, 4096u);
  auto other = vm_->Prefault({Gfn(0), 0x1000}, MemoryKind::kPrivate);
  ASSERT_TRUE(other.ok()) << other.status();
  EXPECT_EQ(other->frames_done, 0x800u);
  EXPECT_EQ(other->status.code(), absl::StatusCode::kFailedPrecondition);
  const uint64_t faults = vm_->counters().memory.faults_fixed;
  Start();
  Finish();
  EXPECT_EQ(vm_->counters().memory.faults_fixed, faults);
}

TEST_F(MemslotsOfAVm, WhatIsNotPossibleHasItsReason) {
  Make("vcpus { steps { write { gpa: 0x400000 value: 7 } } }");
  const auto refused = [](const absl::Status& status, absl::StatusCode code, const char* reason) {
    EXPECT_EQ(status.code(), code) << status;
    EXPECT_EQ(ReasonOf(status), reason) << status;
  };
  refused(vm_->AddMemslot({Gfn(0xe00), 0x400}), absl::StatusCode::kAlreadyExists,
          reason::kMemslotExists);
  refused(vm_->AddMemslot({Gfn(0x8000), 0x1200}), absl::StatusCode::kResourceExhausted,
          reason::kTooMuchMemory);
  ASSERT_TRUE(vm_->AddMemslot({Gfn(0x8000), 0x800}).ok());
  ASSERT_TRUE(vm_->AddMemslot({Gfn(0xa000), 0x800}).ok());
  refused(vm_->AddMemslot({Gfn(0xc000), 0x200}), absl::StatusCode::kResourceExhausted,
          reason::kTooMuchMemory);
  refused(vm_->MoveMemslot(Gfn(0x8000), Gfn(0x9a00)), absl::StatusCode::kAlreadyExists,
          reason::kMemslotExists);
  for (const uint64_t first : {uint64_t{0}, uint64_t{0x8200}}) {
    refused(vm_->RemoveMemslot(Gfn(first)), absl::StatusCode::kNotFound, reason::kNoSuchMemslot);
    refused(vm_->MoveMemslot(Gfn(first), Gfn(0x10000)), absl::StatusCode::kNotFound,
            reason::kNoSuchMemslot);
  }
  ASSERT_TRUE(vm_->RemoveMemslot(Gfn(0x8000)).ok());
  EXPECT_TRUE(vm_->MoveMemslot(Gfn(0xa000), Gfn(0x9e00)).ok());
  EXPECT_TRUE(vm_->Audit().ok()) << vm_->Audit();
}

TEST_F(MemslotsOfAVm, AddedMemoryHasTablesForEveryPage) {
  Make(
      "vcpus { steps { loop { count: 4096 steps { write { gpa: 0x8000000 stride: 4096 value: 1 } } "
      "} } "
      "steps { loop { count: 4096 steps { write { gpa: 0x8000000 stride: 4096 "
      "alias: MEMORY_KIND_SHARED value: 1 } } } } }");
  for (uint64_t i = 0; i < 8; ++i) {
    ASSERT_TRUE(vm_->AddMemslot({Gfn(0x8000 + i * 0x200), 0x200}).ok());
  }
  ASSERT_TRUE(vm_->EnableDirtyLog({}).ok());
  Start();
  Finish();
}

TEST_F(MemslotsOfAVm, OnKvmTheyChangeWhenNoVcpuIsInAnAccess) {
  if (!registry_->capabilities().kvm_usable) {
    GTEST_SKIP() << "kvm: " << registry_->capabilities().reason;
  }
  Make("vcpus { steps { write { gpa: 0x400000 alias: MEMORY_KIND_SHARED value: 7 } } }", 1,
       BackendKind::kKvm, [](VmSpec& spec) { spec.policy.mode = PolicyMode::kOrchestrator; });
  Start();
  Eventually([this] { return vm_->Pending().size() == 1; });
  // It is heard of a moment before the vCPU is held; until then memory may still change.
  Eventually([this] { return !absl::IsNotFound(vm_->RemoveMemslot(kSlot.first)); });
  const absl::Status waits = vm_->AddMemslot(kSlot);
  EXPECT_EQ(waits.code(), absl::StatusCode::kUnavailable) << waits;
  EXPECT_EQ(ReasonOf(waits), reason::kVcpuWaits);
  EXPECT_EQ(vm_->Memory(), (std::vector<GfnRange>{{Gfn(0), 0x1000}}));
  vm_->Resolve(vm_->Pending()[0].id, Resolution::kApply);
  Finish();
  EXPECT_TRUE(vm_->AddMemslot(kSlot).ok());
}

TEST_F(MemslotsOfAVm, OnKvmASharedRunMayReachFromBootMemoryIntoAnAddedSlot) {
  if (!registry_->capabilities().kvm_usable) {
    GTEST_SKIP() << "kvm: " << registry_->capabilities().reason;
  }
  Make("vcpus { steps { write { gpa: 0x1001000 alias: MEMORY_KIND_SHARED value: 7 } } }", 1,
       BackendKind::kKvm);
  ASSERT_TRUE(vm_->AddMemslot({Gfn(0x1000), 0x200}).ok());
  ASSERT_TRUE(
      vm_->Convert({{Gfn(0xe00), 0x400}}, MemoryKind::kShared, mmu::Content::kDestroy).ok());
  Start();
  Eventually([this] { return vm_->status().state == VmState::kStopped; });
  // The stack lay in what became shared.
  EXPECT_TRUE(vm_->Audit().ok()) << vm_->Audit();
  const absl::Status devices = vm_->AddMemslot({Gfn(0xfec00), 0x200});
  EXPECT_EQ(devices.code(), absl::StatusCode::kInvalidArgument) << devices;
}

TEST_F(MemslotsOfAVm, ARequestWhoseMemoryIsRemovedWhileItWaitsFindsItselfOutside) {
  Make("vcpus { steps { write { gpa: 0x8001000 alias: MEMORY_KIND_SHARED value: 7 } } }", 1,
       BackendKind::kSim, [](VmSpec& spec) { spec.policy.mode = PolicyMode::kOrchestrator; });
  ASSERT_TRUE(vm_->AddMemslot(kSlot).ok());
  Start();
  Eventually([this] { return vm_->Pending().size() == 1; });
  ASSERT_TRUE(vm_->RemoveMemslot(kSlot.first).ok());
  vm_->Resolve(vm_->Pending()[0].id, Resolution::kApply);
  Eventually([this] { return vm_->status().state == VmState::kStopped; });
  EXPECT_EQ(vm_->status().stop_reason, "MMIO_OUTSIDE_MEMORY") << vm_->status().stop_message;
}

TEST_F(MemslotsOfAVm, OnKvmContentAndAttributesMoveAlong) {
  if (!registry_->capabilities().kvm_usable) {
    GTEST_SKIP() << "kvm: " << registry_->capabilities().reason;
  }
  Make(
      "vcpus { steps { read { gpa: 0x9001000 alias: MEMORY_KIND_SHARED expect: 0x6f6c6c6568 } } "
      "steps { write { gpa: 0x9002000 value: 7 } } steps { read { gpa: 0x9002000 expect: 7 } } }",
      1, BackendKind::kKvm);
  ASSERT_TRUE(vm_->AddMemslot(kSlot).ok());
  ASSERT_TRUE(vm_->Convert({{Gfn(0x8001), 1}}, MemoryKind::kShared, mmu::Content::kDestroy).ok());
  ASSERT_TRUE(vm_->WriteMemory(0x8001000, "hello").ok());
  ASSERT_TRUE(vm_->MoveMemslot(kSlot.first, Gfn(0x9000)).ok());
  EXPECT_FALSE(vm_->ReadMemory(0x8001000, 5).ok());
  Start();
  Finish();
  ASSERT_TRUE(vm_->RemoveMemslot(Gfn(0x9000)).ok());
  EXPECT_EQ(vm_->Memory(), (std::vector<GfnRange>{{Gfn(0), 0x1000}}));
}

}  // namespace
}  // namespace twinroot::host
