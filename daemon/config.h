// What the command line and the configuration file of hvd say, checked, with every default filled
// in; the command line wins. Reads the file, the files that it names, and the host's databases of
// users and groups; thread-safe.
#ifndef TWINROOT_DAEMON_CONFIG_H_
#define TWINROOT_DAEMON_CONFIG_H_

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "daemon/access/rules.h"
#include "daemon/access/tls_files.h"
#include "daemon/host/vm.h"

namespace twinroot {

enum class LogLevel { kDebug, kInfo, kWarning, kError };

struct Tcp {
  std::string address;  // host:port
  access::TlsFiles files;
};

// What the event journal keeps; whatever is exceeded first is enforced.
struct JournalLimits {
  uint32_t max_events = 1'000'000;
  uint32_t max_age_hours = 7 * 24;
  uint32_t max_mebibytes = 512;
  friend bool operator==(const JournalLimits&, const JournalLimits&) = default;
};

struct Config {
  std::string file;  // where this was read, or ""
  std::string socket;
  mode_t socket_mode = 0600;
  std::optional<uint32_t> socket_gid;  // none: the daemon's own
  std::string state_dir;
  std::string metrics_address;    // host:port; empty: no metrics endpoint
  uint32_t max_vm_series = 1024;  // VMs that have series of their own in a scrape
  host::BackendKind backend = host::BackendKind::kAuto;
  bool cpu_groups = true;  // for each VM on kvm, where the host lets the daemon make them
  LogLevel log_level = LogLevel::kInfo;
  bool allow_core_dumps = false;
  std::optional<Tcp> tcp;
  std::string audit_path;  // empty: no audit log
  access::Rules rules;
  JournalLimits journal;
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
  // Where the file of root's daemon is.
  std::string etc = "/etc/twinroot";
};

// Of the process that asks.
Environment ThisEnvironment();

// `arguments` without the program's name. Exit code 2: the command line or the file is wrong.
std::variant<Config, Exit> ParseConfig(const std::vector<std::string>& arguments,
                                       const Environment& environment);

// What of `now` differs from `before` and needs a restart, as keys of the file: "socket, tcp".
// Roles, limits of principals, the log level and the audit log's place do not.
std::string NeedsRestart(const Config& before, const Config& now);

}  // namespace twinroot

#endif  // TWINROOT_DAEMON_CONFIG_H_
