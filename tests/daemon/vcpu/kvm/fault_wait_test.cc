#include "daemon/vcpu/kvm/fault_wait.h"

#include <gtest/gtest.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#include "daemon/vcpu/kvm/fd.h"

namespace twinroot::kvm {
namespace {

class Event {
 public:
  Event() : fd_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}
  void Send() {
    const uint64_t one = 1;
    EXPECT_EQ(write(fd_.get(), &one, sizeof one), static_cast<ssize_t>(sizeof one));
  }
  pollfd source() const { return {fd_.get(), POLLIN, 0}; }

 private:
  Fd fd_;
};

TEST(FaultWait, WhatIsReadyIsToldAtOnce) {
  for (const bool served : {false, true}) {
    Event quiet, event;
    event.Send();
    pollfd sources[] = {quiet.source(), event.source()};
    EXPECT_TRUE(FaultWait::For(sources, served));
    EXPECT_EQ(sources[0].revents, 0);
    EXPECT_EQ(sources[1].revents, POLLIN);
  }
}

TEST(FaultWait, WhatComesWhileItIsAwakeOrAsleepIsTold) {
  for (const bool served : {false, true}) {
    for (const std::chrono::microseconds late :
         {std::chrono::microseconds(5), 100 * FaultWait::kAwake}) {
      Event event;
      pollfd sources[] = {event.source()};
      std::thread sender([&] {
        std::this_thread::sleep_for(late);
        event.Send();
      });
      EXPECT_TRUE(FaultWait::For(sources, served));
      EXPECT_EQ(sources[0].revents, POLLIN);
      sender.join();
    }
  }
}

TEST(FaultWait, AsManyAsTheHostHasProcessorsWaitAtOnceAndNoneIsForgotten) {
  std::vector<Event> events(4 * std::thread::hardware_concurrency());
  std::atomic<size_t> woken{0};
  std::vector<std::thread> handlers;
  for (const Event& event : events) {
    handlers.emplace_back([&] {
      for (int round = 0; round < 200; ++round) {
        pollfd sources[] = {event.source()};
        if (FaultWait::For(sources, true)) ++woken;
        uint64_t count;
        EXPECT_EQ(read(sources[0].fd, &count, sizeof count), static_cast<ssize_t>(sizeof count));
      }
    });
  }
  while (woken < 200 * events.size()) {
    for (Event& event : events) event.Send();
    std::this_thread::yield();
  }
  for (std::thread& handler : handlers) handler.join();
}

TEST(FaultWait, ASignalEndsIt) {
  struct sigaction action = {};
  action.sa_handler = [](int) {};
  ASSERT_EQ(sigaction(SIGUSR1, &action, nullptr), 0);
  Event event;
  std::atomic<bool> ended{false};
  std::thread handler([&] {
    pollfd sources[] = {event.source()};
    EXPECT_FALSE(FaultWait::For(sources, false));
    ended = true;
  });
  while (!ended) {  // the first ones may come before it waits
    pthread_kill(handler.native_handle(), SIGUSR1);
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  handler.join();
}

}  // namespace
}  // namespace twinroot::kvm
