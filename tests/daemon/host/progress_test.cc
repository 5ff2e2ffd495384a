// What the watchdog hears of the engine: AskProgress of a registry.
#include <chrono>
#include <future>
#include <memory>
#include <thread>

#include "mmu/tables/epoch.h"
#include "tests/daemon/host/vm_fixture.h"

namespace twinroot::host {
namespace {

constexpr auto kAWhile = std::chrono::milliseconds(100);
constexpr char kWritesForEver[] =
    "vcpus { steps { loop { count: 1000000000 steps { write { gpa: 0x400000 } } } } }";

class Progress : public VmFixture {
 protected:
  std::future<void> Ask() {
    auto done = std::make_shared<std::promise<void>>();
    registry_->AskProgress([done] { done->set_value(); });
    return done->get_future();
  }
};

TEST_F(Progress, IsMadeWhenNothingHappens) {
  for (int i = 0; i < 3; ++i) Ask().wait();
}

TEST_F(Progress, IsMadeWhileAGuestRunsWithoutEnd) {
  Make(kWritesForEver);
  Start();
  for (int i = 0; i < 20; ++i) Ask().wait();
  ASSERT_TRUE(registry_->Delete("demo").ok());
}

TEST_F(Progress, IsNotMadeWhileAFaultHandlerStaysInTheEngine) {
  std::promise<void> entered;
  std::promise<void> leave;
  std::thread handler([&] {
    const mmu::EpochGuard guard;
    entered.set_value();
    leave.get_future().wait();
  });
  entered.get_future().wait();
  std::future<void> progress = Ask();
  EXPECT_EQ(progress.wait_for(kAWhile), std::future_status::timeout);
  leave.set_value();
  progress.wait();
  handler.join();
}

}  // namespace
}  // namespace twinroot::host
