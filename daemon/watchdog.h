// Says that the daemon lives, for as long as it does. Every `period` each part is asked to turn
// over once; only when all of them have, the supervisor is pinged. So a part that stands still ends
// the pings, and systemd (WatchdogSec=) starts the daemon anew.
//
// What is asked is what all VMs share. What waits for something outside (a guest, a disk, a client)
// is none of it: a daemon started anew waits again, and its guests are gone. Nor is what only one
// VM uses: the others' guests must not pay for it.
//
// Thread-safe. Parts may answer after this is destroyed.
#ifndef TWINROOT_DAEMON_WATCHDOG_H_
#define TWINROOT_DAEMON_WATCHDOG_H_

#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/time/time.h"

namespace twinroot {

class Watchdog {
 public:
  struct Part {
    std::string name;
    // Does not block. `done` is called by any thread, at once or when the part has turned over;
    // never while it stands still. Until then it is not asked again.
    std::function<void(std::function<void()> done)> ask;
  };
  struct Options {
    absl::Duration period;
    // As sd_notify(3) has it: lines of VARIABLE=value.
    std::function<void(const std::string& state)> notify;
    // What STATUS= says while all is well; asked when every part has just turned over.
    std::function<std::string()> status;
  };

  // The period for WatchdogSec= of the unit, a quarter of it; zero if nobody waits for pings.
  static absl::Duration PeriodAskedFor();

  Watchdog(std::vector<Part> parts, Options options);
  // Pings no more.
  ~Watchdog();

 private:
  struct Asked;
  void Run();
  void AskAll();
  void TellStuck();
  void TellWell();

  const std::vector<Part> parts_;
  const Options options_;
  // By part. Shared with the answers, which may come late.
  const std::shared_ptr<Asked> asked_;
  // The thread's own.
  std::string stuck_;  // the parts that stood still when the log was last told
  std::thread thread_;
};

}  // namespace twinroot

#endif  // TWINROOT_DAEMON_WATCHDOG_H_
