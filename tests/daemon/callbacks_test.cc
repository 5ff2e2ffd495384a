#include "daemon/callbacks.h"

#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <thread>

namespace twinroot {
namespace {

TEST(Callbacks, CallEveryoneWhoHoldsAHandle) {
  Callbacks<int> callbacks;
  int first = 0, second = 0;
  const auto one = callbacks.Add([&](int value) { first += value; });
  auto two = callbacks.Add([&](int value) { second += value; });
  callbacks.Call(3);
  two.reset();
  callbacks.Call(4);
  EXPECT_EQ(first, 7);
  EXPECT_EQ(second, 3);
}

TEST(Callbacks, ACallbackMayDropItsOwnHandle) {
  Callbacks<> callbacks;
  int calls = 0;
  std::unique_ptr<CallbackHandle> handle;
  handle = callbacks.Add([&] {
    ++calls;
    handle.reset();
  });
  callbacks.Call();
  callbacks.Call();
  EXPECT_EQ(calls, 1);
}

TEST(Callbacks, OnceAHandleIsDroppedItsCallbackDoesNotRun) {
  Callbacks<> callbacks;
  std::atomic<bool> end = false;
  std::thread caller([&] {
    while (!end) callbacks.Call();
  });
  for (int i = 0; i < 2000; ++i) {
    auto alive = std::make_unique<std::atomic<bool>>(true);
    auto* const state = alive.get();
    auto handle = callbacks.Add([state] { ASSERT_TRUE(*state); });
    handle.reset();
    *alive = false;  // a callback that still ran would see this, or freed memory
  }
  end = true;
  caller.join();
}

}  // namespace
}  // namespace twinroot
