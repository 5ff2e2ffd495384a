#include "daemon/rpc/call_runner.h"

#include <future>
#include <thread>

#include "gtest/gtest.h"

namespace twinroot::rpc {
namespace {

// The thread that runs a call of this weight.
std::thread::id RunsIn(CallRunner& calls, Weight weight) {
  std::promise<std::thread::id> ran;
  EXPECT_TRUE(calls.Run(weight, [&ran] { ran.set_value(std::this_thread::get_id()); }));
  return ran.get_future().get();
}

TEST(CallRunner, ASmallCallIsRunByTheThreadThatTookIt) {
  CallRunner calls(1, 0);
  EXPECT_EQ(RunsIn(calls, Weight::kSmall), std::this_thread::get_id());
  EXPECT_EQ(RunsIn(calls, Weight::kSmall), std::this_thread::get_id());
}

TEST(CallRunner, ALargeCallIsRunByAWorker) {
  CallRunner calls(1, 0);
  EXPECT_NE(RunsIn(calls, Weight::kLarge), std::this_thread::get_id());
}

TEST(CallRunner, WhileASmallCallRunsTheNextIsRunByAWorker) {
  CallRunner calls(1, 0);
  std::thread::id second;
  ASSERT_TRUE(calls.Run(Weight::kSmall, [&] { second = RunsIn(calls, Weight::kSmall); }));
  EXPECT_NE(second, std::this_thread::get_id());
  EXPECT_EQ(RunsIn(calls, Weight::kSmall), std::this_thread::get_id());
}

TEST(CallRunner, ASmallCallIsRunWhereLargeOnesFillTheQueue) {
  CallRunner calls(1, 1);
  std::promise<void> go;
  std::promise<void> begun;
  const std::shared_future<void> gone = go.get_future().share();
  ASSERT_TRUE(calls.Run(Weight::kLarge, [&begun, gone] {
    begun.set_value();
    gone.wait();
  }));
  begun.get_future().wait();
  ASSERT_TRUE(calls.Run(Weight::kLarge, [gone] { gone.wait(); }));
  EXPECT_FALSE(calls.Run(Weight::kLarge, [] {}));
  EXPECT_EQ(RunsIn(calls, Weight::kSmall), std::this_thread::get_id());
  go.set_value();
}

}  // namespace
}  // namespace twinroot::rpc
