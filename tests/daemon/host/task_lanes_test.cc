#include "daemon/host/task_lanes.h"

#include <sched.h>

#include <atomic>
#include <future>
#include <memory>
#include <thread>
#include <vector>

#include "gtest/gtest.h"

namespace twinroot::host {
namespace {

TEST(TaskLanesTest, TasksOfALaneRunInOrderOneAtATime) {
  int lane = 0;
  std::vector<int> order;
  std::promise<void> done;
  {
    TaskLanes lanes;
    for (int i = 0; i < 1000; ++i) {
      lanes.Post(&lane, [&order, i] { order.push_back(i); });
    }
    lanes.Post(&lane, [&done] { done.set_value(); });
    done.get_future().wait();
  }
  ASSERT_EQ(order.size(), 1000u);
  for (int i = 0; i < 1000; ++i) EXPECT_EQ(order[i], i);
}

// A vCPU posts, which may be bound to a processor: its VM's end is not to be.
TEST(TaskLanesTest, ATaskIsNotBoundToWhatItsPosterIsBoundTo) {
  cpu_set_t all;
  ASSERT_EQ(sched_getaffinity(0, sizeof(all), &all), 0);
  if (CPU_COUNT(&all) < 2) GTEST_SKIP() << "this host has one processor";
  int first = 0;
  while (!CPU_ISSET(first, &all)) ++first;
  TaskLanes lanes;
  std::promise<int> processors;
  std::thread([&] {
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(first, &one);
    EXPECT_EQ(sched_setaffinity(0, sizeof(one), &one), 0);
    lanes.Post(&lanes, [&] {
      cpu_set_t mine;
      EXPECT_EQ(sched_getaffinity(0, sizeof(mine), &mine), 0);
      processors.set_value(CPU_COUNT(&mine));
    });
  }).join();
  EXPECT_EQ(processors.get_future().get(), CPU_COUNT(&all));
}

TEST(TaskLanesTest, ALaneThatIsBusyHoldsUpNoOther) {
  int slow = 0, quick = 0;
  std::promise<void> release, quick_done;
  TaskLanes lanes;
  lanes.Post(&slow, [&release] { release.get_future().wait(); });
  lanes.Post(&quick, [&quick_done] { quick_done.set_value(); });
  quick_done.get_future().wait();
  release.set_value();
}

TEST(TaskLanesTest, ATaskMayPostToItsOwnLaneAndToOthers) {
  int lane = 0, other = 0;
  std::promise<void> done;
  TaskLanes lanes;
  lanes.Post(&lane,
             [&] { lanes.Post(&lane, [&] { lanes.Post(&other, [&] { done.set_value(); }); }); });
  done.get_future().wait();
}

TEST(TaskLanesTest, ALaneThatWasIdleRunsAgain) {
  int lane = 0;
  std::atomic<int> runs{0};
  TaskLanes lanes;
  for (int i = 0; i < 200; ++i) {
    std::promise<void> done;
    lanes.Post(&lane, [&] {
      ++runs;
      done.set_value();
    });
    done.get_future().wait();
  }
  EXPECT_EQ(runs, 200);
}

TEST(TaskLanesTest, TheEndFinishesWhatRunsAndDropsWhatWaits) {
  int lane = 0;
  const auto held = std::make_shared<int>(0);
  bool first = false, second = false;
  {
    std::promise<void> started;
    TaskLanes lanes;
    lanes.Post(&lane, [&] {
      started.set_value();
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
      first = true;
    });
    lanes.Post(&lane, [&second, held] { second = true; });
    started.get_future().wait();
  }
  EXPECT_TRUE(first);
  EXPECT_FALSE(second);
  EXPECT_EQ(held.use_count(), 1);
}

}  // namespace
}  // namespace twinroot::host
