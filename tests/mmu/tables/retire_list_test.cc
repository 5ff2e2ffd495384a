#include "mmu/tables/retire_list.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <thread>

namespace twinroot::mmu {
namespace {

struct Counted {
  explicit Counted(std::atomic<int>& live_objects) : live(live_objects) { ++live; }
  ~Counted() { --live; }
  std::atomic<int>& live;
};

TEST(RetireListTest, ObjectsAreFreedNowAndThenAndWithTheList) {
  std::atomic<int> live{0};
  int most = 0;
  {
    RetireList list;
    list.Add(static_cast<Counted*>(nullptr));
    for (int i = 0; i < 1000; ++i) {
      list.Add(new Counted(live));
      most = std::max(most, live.load());
    }
    EXPECT_GT(most, 1) << "not one wait for each";
    EXPECT_LE(most, static_cast<int>(RetireList::kMost));
  }
  EXPECT_EQ(live, 0);
}

TEST(RetireListTest, NothingIsFreedWhileAGuardStands) {
  std::atomic<int> live{0};
  std::atomic<bool> inside{false}, leave{false};
  std::thread reader([&] {
    const EpochGuard guard;
    inside = true;
    while (!leave) std::this_thread::yield();
    // The list has come to its wait, and everything is still there.
    EXPECT_GT(live, 1);
  });
  while (!inside) std::this_thread::yield();
  std::thread writer([&] {
    RetireList list;
    for (int last = 0;; last = live) {
      list.Add(new Counted(live));
      if (live > last) continue;
      EXPECT_TRUE(leave) << "freed under a guard";
      return;
    }
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  leave = true;
  reader.join();
  writer.join();
  EXPECT_EQ(live, 0);
}

}  // namespace
}  // namespace twinroot::mmu
