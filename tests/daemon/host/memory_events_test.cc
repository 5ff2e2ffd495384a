// What is told of a VM's memory beside its conversions: every kind, and when nothing is told.
#include <string>
#include <vector>

#include "tests/daemon/host/vm_fixture.h"

namespace twinroot::host {
namespace {

using mmu::Access;
using mmu::Gfn;
using mmu::GfnRange;
using mmu::MemoryKind;

class MemoryEvents : public VmFixture {
 protected:
  // All events of these kinds so far, in order.
  std::vector<v1::Event> Told(std::vector<v1::EventKind> kinds) {
    v1::EventFilter filter;
    filter.set_vm("demo");
    for (const v1::EventKind kind : kinds) filter.add_kinds(kind);
    std::vector<v1::Event> told;
    for (const auto& event : journal_.Read(0, 1000, events::Filter(filter)).events) {
      told.push_back(event->Parse());
    }
    return told;
  }
  v1::MemoryFault TheFault() {
    Start();
    Eventually([this] { return vm_->status().state == VmState::kStopped; });
    const auto told = Told({v1::EVENT_KIND_MEMORY_FAULT, v1::EVENT_KIND_VM_STATE});
    // Before the end of the VM, once.
    EXPECT_EQ(told.size(), 4u);
    return told.size() == 4 ? told[2].memory_fault() : v1::MemoryFault();
  }
};

TEST_F(MemoryEvents, AChangeOfDenialsIsTold) {
  Make("vcpus { steps { read { gpa: 0x400000 } } }");
  mmu::AttributeChange change;
  change.ranges = {{Gfn(0x400), 2}, {Gfn(0x500), 1}};
  change.kind = MemoryKind::kShared;
  change.deny = Access::Write() | Access::Fetch();
  ASSERT_TRUE(vm_->Change(change).ok());
  change.kind = std::nullopt;
  change.ranges = {{Gfn(0x400), 1}};
  change.deny = Access::None();
  ASSERT_TRUE(vm_->Change(change).ok());
  ASSERT_TRUE(vm_->Change(change).ok());  // changes nothing, and tells nothing
  const auto told = Told({v1::EVENT_KIND_ATTRIBUTES_CHANGED});
  ASSERT_EQ(told.size(), 3u);
  EXPECT_EQ(told[0].attributes_changed().gpa(), 0x400000u);
  EXPECT_EQ(told[0].attributes_changed().size(), 0x2000u);
  EXPECT_EQ(told[0].attributes_changed().kind(), v1::MEMORY_KIND_SHARED);
  EXPECT_EQ(told[0].attributes_changed().denied(), "wx");
  EXPECT_EQ(told[1].attributes_changed().gpa(), 0x500000u);
  EXPECT_EQ(told[2].attributes_changed().kind(), v1::MEMORY_KIND_UNSPECIFIED);
  EXPECT_EQ(told[2].attributes_changed().denied(), "");
  // The conversions of the same call have events of their own.
  EXPECT_EQ(Told({v1::EVENT_KIND_CONVERSION}).size(), 2u);
}

TEST_F(MemoryEvents, ADeniedAccessIsTold) {
  Make("vcpus { steps { write { gpa: 0x400000 value: 1 } } }");
  mmu::AttributeChange change;
  change.ranges = {{Gfn(0x400), 1}};
  change.deny = Access::Write();
  ASSERT_TRUE(vm_->Change(change).ok());
  const v1::MemoryFault fault = TheFault();
  EXPECT_EQ(fault.vcpu(), 0u);
  EXPECT_EQ(fault.gpa(), 0x400000u);
  EXPECT_EQ(fault.alias(), v1::MEMORY_KIND_PRIVATE);
  EXPECT_EQ(fault.reason(), v1::MemoryFault::REASON_DENIED);
}

TEST_F(MemoryEvents, AnAccessOutsideMemoryIsTold) {
  Make("vcpus { steps { read { gpa: 0x8000000 } } }");
  const v1::MemoryFault fault = TheFault();
  EXPECT_EQ(fault.gpa(), 0x8000000u);
  EXPECT_EQ(fault.alias(), v1::MEMORY_KIND_PRIVATE);
  EXPECT_EQ(fault.reason(), v1::MemoryFault::REASON_OUTSIDE_MEMORY);
}

TEST_F(MemoryEvents, AnAccessOutsideMemoryThroughTheSharedAliasIsTold) {
  Make("vcpus { steps { read { gpa: 0x8000000 alias: MEMORY_KIND_SHARED } } }");
  const v1::MemoryFault fault = TheFault();
  EXPECT_EQ(fault.gpa(), 0x8000000u);
  EXPECT_EQ(fault.alias(), v1::MEMORY_KIND_SHARED);
  EXPECT_EQ(fault.reason(), v1::MemoryFault::REASON_OUTSIDE_MEMORY);
}

TEST_F(MemoryEvents, SplitsAndCollapsesOnRequestAreTold) {
  Make("vcpus { steps { read { gpa: 0x400000 } } }");
  Start();
  Finish();
  ASSERT_TRUE(vm_->SplitPages({{Gfn(0x400), 1}}, mmu::Level::k4K).ok());
  ASSERT_TRUE(vm_->SplitPages({{Gfn(0x400), 1}}, mmu::Level::k4K).ok());  // nothing is left
  ASSERT_TRUE(vm_->RecoverPages({{Gfn(0x400), 0x200}}).ok());
  ASSERT_TRUE(vm_->RecoverPages({{Gfn(0x400), 0x200}}).ok());
  const auto told = Told({v1::EVENT_KIND_SPLIT_SUMMARY, v1::EVENT_KIND_COLLAPSE_SUMMARY});
  ASSERT_EQ(told.size(), 2u);
  EXPECT_EQ(told[0].split_summary().splits().split_2m(), 1u);
  EXPECT_EQ(told[0].split_summary().cause(), v1::PAGE_SIZE_CAUSE_API);
  EXPECT_EQ(told[1].collapse_summary().collapsed(), 1u);
  EXPECT_EQ(told[1].collapse_summary().cause(), v1::PAGE_SIZE_CAUSE_API);
}

TEST_F(MemoryEvents, TheDirtyLogsSwitchIsToldAndWhatItDidToPages) {
  Make("vcpus { steps { read { gpa: 0x400000 } } }");
  Start();
  Finish();
  mmu::DirtyLogOptions options;
  options.mode = mmu::DirtyLogMode::kDirtyBit;
  options.clear = mmu::DirtyClear::kManual;
  ASSERT_TRUE(vm_->EnableDirtyLog(options).ok());
  EXPECT_FALSE(vm_->EnableDirtyLog(options).ok());
  ASSERT_TRUE(vm_->DisableDirtyLog().ok());
  EXPECT_FALSE(vm_->DisableDirtyLog().ok());
  const auto told = Told({v1::EVENT_KIND_DIRTY_LOG_STATE, v1::EVENT_KIND_SPLIT_SUMMARY,
                          v1::EVENT_KIND_COLLAPSE_SUMMARY});
  ASSERT_EQ(told.size(), 4u);
  EXPECT_EQ(told[0].dirty_log_state().state(), v1::DirtyLogState::STATE_ON);
  EXPECT_EQ(told[0].dirty_log_state().mode(), v1::EnableDirtyLogRequest::MODE_DIRTY_BIT);
  EXPECT_TRUE(told[0].dirty_log_state().manual_clear());
  EXPECT_EQ(told[1].split_summary().splits().split_2m(), 1u);
  EXPECT_EQ(told[1].split_summary().cause(), v1::PAGE_SIZE_CAUSE_DIRTY_LOG);
  EXPECT_EQ(told[2].dirty_log_state().state(), v1::DirtyLogState::STATE_OFF);
  EXPECT_EQ(told[3].collapse_summary().cause(), v1::PAGE_SIZE_CAUSE_DIRTY_LOG);
}

TEST_F(MemoryEvents, NothingIsToldOfAVmAfterItsEnd) {
  Make("vcpus { steps { read { gpa: 0x400000 } } }");
  ASSERT_TRUE(registry_->Delete("demo").ok());
  (void)vm_->EnableDirtyLog({});
  (void)vm_->SplitPages({{Gfn(0), 1}}, mmu::Level::k4K);
  const auto told = Told({});
  ASSERT_FALSE(told.empty());
  EXPECT_TRUE(told.back().vm_state().deleted());
}

}  // namespace
}  // namespace twinroot::host
