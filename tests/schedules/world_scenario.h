// A scenario of functions on one struct, made anew for each run.
#ifndef TWINROOT_TESTS_SCHEDULES_WORLD_SCENARIO_H_
#define TWINROOT_TESTS_SCHEDULES_WORLD_SCENARIO_H_

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tests/schedules/explorer.h"

namespace twinroot::schedules {

template <typename World>
class WorldScenario : public Scenario {
 public:
  using Body = std::function<void(World&)>;  // one operation

  // Of each thread its operations; what a world has come to; what a thread allocates for good.
  WorldScenario(std::string name, std::vector<std::vector<Body>> bodies, End (*finish)(World&),
                void (*warm_up)())
      : name_(std::move(name)), finish_(finish) {
    static const bool started = (StartThreads(warm_up), true);
    (void)started;
    for (auto& operations : bodies) {
      Thread thread;
      for (Body& body : operations) {
        thread.push_back([this, body = std::move(body)] { body(*world_); });
      }
      threads_.push_back(std::move(thread));
    }
  }

  std::string name() const override { return name_; }
  void Begin() override { world_ = std::make_unique<World>(); }
  const std::vector<Thread>& threads() const override { return threads_; }
  End Finish() override {
    End end = finish_(*world_);
    world_.reset();
    return end;
  }
  std::string TextOf(const std::vector<uint64_t>& state) const override {
    return std::to_string(state.at(0));
  }

 private:
  const std::string name_;
  End (*const finish_)(World&);
  std::vector<Thread> threads_;
  std::unique_ptr<World> world_;
};

}  // namespace twinroot::schedules

#endif  // TWINROOT_TESTS_SCHEDULES_WORLD_SCENARIO_H_
