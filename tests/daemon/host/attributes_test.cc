// Changes of attributes of real VMs on sim: denials, plans, and what they are for a guest.
#include <string>
#include <vector>

#include "tests/daemon/host/vm_fixture.h"

namespace twinroot::host {
namespace {

using mmu::Access;
using mmu::Gfn;
using mmu::GfnRange;
using mmu::MemoryKind;

class AttributesOfAVm : public VmFixture {
 protected:
  static mmu::AttributeChange Deny(GfnRange range, Access denied) {
    mmu::AttributeChange change;
    change.ranges = {range};
    change.deny = denied;
    return change;
  }
};

TEST_F(AttributesOfAVm, ADeniedWriteStopsTheVm) {
  Make(
      "vcpus { steps { read { gpa: 0x400000 expect: 0 } } "
      "steps { print { text: \"read\" } } steps { write { gpa: 0x400000 value: 1 } } }");
  auto changed = vm_->Change(Deny({Gfn(0x400), 1}, Access::Write()));
  ASSERT_TRUE(changed.ok()) << changed.status();
  EXPECT_EQ(changed->redenied, (std::vector<GfnRange>{{Gfn(0x400), 1}}));
  EXPECT_EQ(changed->converted, std::vector<GfnRange>{});
  EXPECT_EQ(changed->id, 0u);
  Start();
  Eventually([this] { return vm_->status().state == VmState::kStopped; });
  EXPECT_EQ(vm_->status().stop_reason, "MEMORY_FAULT");
  EXPECT_NE(vm_->status().stop_message.find("0x400000"), std::string::npos);
  EXPECT_EQ(vm_->ReadConsole(0, 100).data, "read");
}

TEST_F(AttributesOfAVm, WhatIsAllowedAgainGoesOn) {
  Make("vcpus { steps { write { gpa: 0x400000 value: 1 } } }");
  ASSERT_TRUE(vm_->Change(Deny({Gfn(0x400), 4}, Access::Write())).ok());
  ASSERT_TRUE(vm_->Change(Deny({Gfn(0x400), 4}, Access::None())).ok());
  Start();
  Finish();
}

TEST_F(AttributesOfAVm, ADenialIsNoConversion) {
  // Through the other alias the page would be converted; its denial stays and decides.
  Make("vcpus { steps { write { gpa: 0x400000 alias: MEMORY_KIND_SHARED value: 1 } } }");
  ASSERT_TRUE(vm_->Change(Deny({Gfn(0x400), 1}, Access::Write())).ok());
  Start();
  Eventually([this] { return vm_->status().state == VmState::kStopped; });
  EXPECT_EQ(vm_->status().stop_reason, "MEMORY_FAULT");
}

TEST_F(AttributesOfAVm, APlanChangesNothing) {
  Make("vcpus { steps { write { gpa: 0x400000 value: 1 } } }");
  Start();
  Finish();
  mmu::AttributeChange change;
  change.ranges = {{Gfn(0x400), 2}};
  change.kind = MemoryKind::kShared;
  const uint64_t large = vm_->counters().memory.leaves[0][1];
  auto plan = vm_->PlanChange(change);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->result.converted, change.ranges);
  EXPECT_EQ(vm_->counters().memory.leaves[0][1], large);
  EXPECT_EQ(vm_->Attributes(std::nullopt)->size(), 1u);
  auto done = vm_->Change(change);
  ASSERT_TRUE(done.ok()) << done.status();
  EXPECT_EQ(done->converted, change.ranges);
  EXPECT_NE(done->id, 0u);
  EXPECT_TRUE(vm_->Audit().ok()) << vm_->Audit();
}

}  // namespace
}  // namespace twinroot::host
