// What the command line of hvd says, checked, with every default filled in. Pure but for the
// environment that is given; thread-safe.
#ifndef TWINROOT_DAEMON_CONFIG_H_
#define TWINROOT_DAEMON_CONFIG_H_

#include <functional>
#include <string>
#include <variant>
#include <vector>

#include "daemon/host/vm.h"

namespace twinroot {

struct Config {
  std::string socket;
  std::string state_dir;
  std::string metrics_address;  // host:port; empty: no metrics endpoint
  host::BackendKind backend = host::BackendKind::kAuto;
  bool allow_core_dumps = false;
};

// Instead of a Config: the process is to end with this code, after it has said this.
struct Exit {
  int code = 0;
  std::string output;  // to stdout
  std::string error;   // to stderr
};

struct Environment {
  bool root = false;
  // The value of a variable, "" if unset.
  std::function<std::string(const char*)> variable;
};

// `arguments` without the program's name. Exit code 2: the command line is wrong.
std::variant<Config, Exit> ParseConfig(const std::vector<std::string>& arguments,
                                       const Environment& environment);

}  // namespace twinroot

#endif  // TWINROOT_DAEMON_CONFIG_H_
