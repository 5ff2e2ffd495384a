#include "daemon/config.h"

#include <algorithm>
#include <map>
#include <sstream>

#include "CLI/CLI.hpp"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "daemon/version.h"

namespace twinroot {
namespace {

constexpr int kUsage = 2;
constexpr char kNoMetrics[] = "off";
constexpr uint32_t kMaxPort = 65535;

// "" if the address is one, else what is wrong with it.
std::string CheckAddress(const std::string& address) {
  if (address == kNoMetrics) return "";
  const size_t colon = address.rfind(':');
  uint32_t port = 0;
  if (colon == std::string::npos || colon == 0 || colon + 1 == address.size() ||
      !std::all_of(address.begin() + static_cast<std::ptrdiff_t>(colon) + 1, address.end(),
                   [](char c) { return c >= '0' && c <= '9'; }) ||
      !absl::SimpleAtoi(address.substr(colon + 1), &port) || port > kMaxPort) {
    return absl::StrCat("\"", address,
                        "\" is not HOST:PORT (127.0.0.1:9464; port 0 takes a free one) or off");
  }
  return "";
}

// Root's daemon serves the host; anybody else's serves its user.
std::string DefaultSocket(const Environment& environment) {
  if (environment.root) return "/run/twinroot/hvd.sock";
  const std::string runtime = environment.variable("XDG_RUNTIME_DIR");
  return runtime.empty() ? "" : runtime + "/twinroot/hvd.sock";
}

std::string DefaultStateDir(const Environment& environment) {
  if (environment.root) return "/var/lib/twinroot";
  const std::string state = environment.variable("XDG_STATE_HOME");
  if (!state.empty()) return state + "/twinroot";
  const std::string home = environment.variable("HOME");
  return home.empty() ? "" : home + "/.local/state/twinroot";
}

Exit Usage(const std::string& what) {
  return {kUsage, "", absl::StrCat("hvd: ", what, "\nRun \"hvd --help\" for the options.\n")};
}

}  // namespace

std::variant<Config, Exit> ParseConfig(const std::vector<std::string>& arguments,
                                       const Environment& environment) {
  Config config;
  config.socket = DefaultSocket(environment);
  config.state_dir = DefaultStateDir(environment);
  config.metrics_address = "127.0.0.1:9464";

  CLI::App app("Twinroot: runs confidential VMs and owns their memory; controlled over gRPC.",
               "hvd");
  app.set_version_flag("--version", absl::StrCat("hvd ", kVersion));
  app.add_option("--socket", config.socket,
                 "Where to serve gRPC. Its folder is made if it is missing; only the daemon's own "
                 "user may connect.\nDefault: /run/twinroot/hvd.sock for root, else "
                 "$XDG_RUNTIME_DIR/twinroot/hvd.sock")
      ->type_name("PATH");
  app.add_option("--state-dir", config.state_dir,
                 "Where to keep what outlives the daemon.\nDefault: /var/lib/twinroot for root, "
                 "else $XDG_STATE_HOME/twinroot or ~/.local/state/twinroot")
      ->type_name("DIR");
  app.add_option("--metrics-address", config.metrics_address,
                 "HOST:PORT where Prometheus finds /metrics; port 0 takes a free one, which is "
                 "logged and shown by GetHost; \"off\" serves none.\nDefault: 127.0.0.1:9464")
      ->type_name("ADDR")
      ->check(CLI::Validator(CheckAddress, ""));
  const std::map<std::string, host::BackendKind> backends = {{"auto", host::BackendKind::kAuto},
                                                             {"kvm", host::BackendKind::kKvm},
                                                             {"sim", host::BackendKind::kSim}};
  std::string backend = "auto";
  app.add_option("--backend", backend,
                 "What runs VMs that ask for no backend: kvm, sim (a software processor for access "
                 "programs), or auto: kvm if it works here, else sim")
      ->type_name("auto|kvm|sim")
      ->check(CLI::Validator(
          [&](std::string& name) {
            return backends.contains(name)
                       ? std::string()
                       : absl::StrCat("\"", name, "\" is no backend: use auto, kvm or sim");
          },
          ""));
  app.add_flag("--allow-core-dumps", config.allow_core_dumps,
               "For debugging. Without it the process can be neither dumped nor traced by others, "
               "because a core file would hold the private memory of guests");

  std::vector<std::string> reversed(arguments.rbegin(), arguments.rend());
  try {
    app.parse(reversed);
  } catch (const CLI::Success& success) {
    // --help and --version.
    std::ostringstream out;
    std::ostringstream error;
    app.exit(success, out, error);
    return Exit{0, out.str(), error.str()};
  } catch (const CLI::ParseError& wrong) {
    return Usage(wrong.what());
  }
  if (config.socket.empty()) {
    return Usage("XDG_RUNTIME_DIR is not set: say where to serve with --socket PATH");
  }
  if (config.state_dir.empty()) {
    return Usage("HOME is not set: say where to keep state with --state-dir DIR");
  }
  if (config.metrics_address == kNoMetrics) config.metrics_address.clear();
  config.backend = backends.at(backend);
  return config;
}

}  // namespace twinroot
