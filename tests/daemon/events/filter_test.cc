#include "daemon/events/filter.h"

#include "gtest/gtest.h"

namespace twinroot::events {
namespace {

TEST(Filter, AnEmptyOneWantsEverything) {
  EXPECT_TRUE(Filter().Wants("a", v1::Event::kConversion));
  EXPECT_TRUE(Filter(v1::EventFilter()).Wants("", v1::Event::kDaemonStarted));
}

TEST(Filter, VmAndVmsAreOneSet) {
  v1::EventFilter message;
  message.set_vm("a");
  message.add_vms("b");
  message.add_vms("c");
  const Filter filter(message);
  for (const char* vm : {"a", "b", "c"}) EXPECT_TRUE(filter.Wants(vm, v1::Event::kVmState)) << vm;
  EXPECT_FALSE(filter.Wants("d", v1::Event::kVmState));
  EXPECT_FALSE(filter.Wants("", v1::Event::kDaemonStarted));
}

TEST(Filter, KindsAreChosenForTheVmsThatAreChosen) {
  v1::EventFilter message;
  message.add_vms("a");
  message.add_kinds(v1::EVENT_KIND_VM_STATE);
  message.add_kinds(v1::EVENT_KIND_DAEMON_STARTED);
  const Filter filter(message);
  EXPECT_TRUE(filter.Wants("a", v1::Event::kVmState));
  EXPECT_FALSE(filter.Wants("a", v1::Event::kConversion));
  EXPECT_FALSE(filter.Wants("b", v1::Event::kVmState));
  EXPECT_TRUE(filter.WantsVm("a"));
  EXPECT_FALSE(filter.WantsVm("b"));
}

}  // namespace
}  // namespace twinroot::events
