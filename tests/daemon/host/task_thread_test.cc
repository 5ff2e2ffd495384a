#include "daemon/host/task_thread.h"

#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <memory>
#include <utility>
#include <vector>

#include "absl/time/clock.h"

namespace twinroot::host {
namespace {

TEST(TaskThread, RunsWhatIsPostedInOrder) {
  TaskThread thread;
  std::vector<int> order;
  std::promise<void> done;
  for (int i = 0; i < 100; ++i) thread.Post([&, i] { order.push_back(i); });
  thread.Post([&] { done.set_value(); });
  done.get_future().wait();
  ASSERT_EQ(order.size(), 100u);
  for (int i = 0; i < 100; ++i) EXPECT_EQ(order[i], i);
}

TEST(TaskThread, RunsTasksAtTheirTimeNotTheirTurn) {
  TaskThread thread;
  std::promise<absl::Time> late, early;
  const absl::Time begin = absl::Now();
  thread.PostAt(begin + absl::Milliseconds(60), [&] { late.set_value(absl::Now()); });
  thread.PostAt(begin + absl::Milliseconds(20), [&] { early.set_value(absl::Now()); });
  const absl::Time early_at = early.get_future().get();
  const absl::Time late_at = late.get_future().get();
  EXPECT_GE(early_at, begin + absl::Milliseconds(20));
  EXPECT_GE(late_at, begin + absl::Milliseconds(60));
  EXPECT_LT(early_at, late_at);
}

TEST(TaskThread, ATaskMayPostATask) {
  TaskThread thread;
  std::promise<void> done;
  thread.Post([&] { thread.Post([&] { done.set_value(); }); });
  done.get_future().wait();
}

TEST(TaskThread, ACancelledTaskDoesNotRunAndFreesWhatItHolds) {
  TaskThread thread;
  std::atomic<bool> ran = false;
  auto held = std::make_shared<int>(1);
  const std::weak_ptr<int> watched = held;
  const TaskThread::Ticket ticket = thread.PostAt(absl::Now() + absl::Milliseconds(30),
                                                  [&ran, held = std::move(held)] { ran = true; });
  thread.Cancel(ticket);
  EXPECT_TRUE(watched.expired());
  thread.Cancel(ticket);  // once more changes nothing
  absl::SleepFor(absl::Milliseconds(60));
  EXPECT_FALSE(ran);
}

TEST(TaskThread, DropsWhatWaitsWhenItIsDestroyed) {
  std::atomic<bool> ran = false;
  {
    TaskThread thread;
    thread.PostAt(absl::Now() + absl::Hours(1), [&] { ran = true; });
  }
  EXPECT_FALSE(ran);
}

}  // namespace
}  // namespace twinroot::host
