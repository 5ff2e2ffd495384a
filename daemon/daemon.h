// The daemon's life: start in the order in which things can fail, serve, drain, end.
// One in a process, on the main thread, before there are other threads.
#ifndef TWINROOT_DAEMON_DAEMON_H_
#define TWINROOT_DAEMON_DAEMON_H_

#include <functional>
#include <memory>
#include <variant>

#include "absl/status/statusor.h"
#include "daemon/config.h"
#include "daemon/events/journal.h"
#include "daemon/host/vm_registry.h"

namespace twinroot {

using RegistryMaker = std::function<absl::StatusOr<std::unique_ptr<host::VmRegistry>>(
    const host::RegistryOptions&, events::Journal*)>;

// Reads the command line and the configuration file once more.
using ConfigReader = std::function<std::variant<Config, Exit>()>;

// Serves until SIGTERM or SIGINT, then drains; a second signal ends the process at once with code
// 1. SIGHUP reads the configuration again: what can change while the daemon runs does (or, if there
// is a mistake, nothing does), and the log says what waits for a restart. Returns the exit code: 0
// after a drain, 1 when it could not start (the log says why).
int RunDaemon(const Config& config, const ConfigReader& read_config,
              const RegistryMaker& make_registry);

}  // namespace twinroot

#endif  // TWINROOT_DAEMON_DAEMON_H_
