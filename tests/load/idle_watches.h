// Many watches in which nothing happens, on one thread or few: what they cost is the daemon's.
#ifndef TWINROOT_TESTS_LOAD_IDLE_WATCHES_H_
#define TWINROOT_TESTS_LOAD_IDLE_WATCHES_H_

#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "tests/load/client.h"

namespace twinroot::load {

class IdleWatches {
 public:
  // `count` streams on one connection for each hundred; each of them is served when this returns.
  IdleWatches(const std::string& endpoint, int count);
  // Ends them, and waits until all have ended.
  ~IdleWatches();
  IdleWatches(const IdleWatches&) = delete;
  IdleWatches& operator=(const IdleWatches&) = delete;

 private:
  class Watch;

  void Opened();
  void Ended();

  std::vector<std::unique_ptr<Client>> clients_;
  std::vector<std::unique_ptr<Watch>> watches_;

  std::mutex mutex_;
  std::condition_variable changed_;
  size_t opened_ = 0;
  size_t ended_ = 0;
};

}  // namespace twinroot::load

#endif  // TWINROOT_TESTS_LOAD_IDLE_WATCHES_H_
