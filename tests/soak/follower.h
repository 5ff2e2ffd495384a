// Who follows the event stream from a process of its own, which is killed in the middle and started
// again from the last cursor that it wrote down. Not thread-safe.
#ifndef TWINROOT_TESTS_SOAK_FOLLOWER_H_
#define TWINROOT_TESTS_SOAK_FOLLOWER_H_

#include <sys/types.h>

#include <cstdint>
#include <string>

#include "tests/soak/daemon.h"

namespace twinroot::soak {

// What the process does: adds a line to `file` for each event after `cursor`, until the VM `last`
// has stopped. The exit code.
int Follow(const std::string& endpoint, const std::string& file, const std::string& cursor,
           const std::string& last);

class Follower {
 public:
  Follower(std::string endpoint, std::string file, std::string cursor, std::string last);
  ~Follower();

  // As a crash does, in the middle of whatever it is doing; then it begins again where it was.
  void KillAndRestart();
  // Waits for its end, and compares what it wrote with ListEvents: each event, once, in order. Ends
  // the program if they differ. The number of events.
  uint64_t Finish(Daemon* daemon);

  int restarts() const { return restarts_; }

 private:
  void Start(const std::string& cursor);

  const std::string endpoint_;
  const std::string file_;
  const std::string first_cursor_;
  const std::string last_;
  pid_t process_ = -1;
  int restarts_ = 0;
};

}  // namespace twinroot::soak

#endif  // TWINROOT_TESTS_SOAK_FOLLOWER_H_
