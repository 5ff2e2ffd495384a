// How long calls of one sort took. Not thread-safe: one for each thread, then merged.
#ifndef TWINROOT_TESTS_LOAD_LATENCIES_H_
#define TWINROOT_TESTS_LOAD_LATENCIES_H_

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <vector>

namespace twinroot::load {

using Clock = std::chrono::steady_clock;

inline double SecondsSince(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

class Latencies {
 public:
  void Add(double seconds) { seconds_.push_back(seconds); }
  void Add(const Latencies& other) {
    seconds_.insert(seconds_.end(), other.seconds_.begin(), other.seconds_.end());
  }
  size_t count() const { return seconds_.size(); }
  // In microseconds; 0.5 is the median. 0 if there is none.
  double Quantile(double part) {
    if (seconds_.empty()) return 0;
    const auto at = std::min(static_cast<size_t>(part * static_cast<double>(count())), count() - 1);
    std::nth_element(seconds_.begin(), seconds_.begin() + static_cast<std::ptrdiff_t>(at),
                     seconds_.end());
    return seconds_[at] * 1e6;
  }

 private:
  std::vector<double> seconds_;
};

}  // namespace twinroot::load

#endif  // TWINROOT_TESTS_LOAD_LATENCIES_H_
