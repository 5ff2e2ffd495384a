#include "daemon/config.h"

#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <sstream>
#include <tuple>
#include <utility>

#include "CLI/CLI.hpp"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "daemon/config_file.h"
#include "daemon/version.h"

namespace twinroot {
namespace {

constexpr int kUsage = 2;
constexpr char kOff[] = "off";

// Root's daemon serves the host; anybody else's serves its user.
std::string DefaultSocket(const Environment& environment) {
  if (environment.root) return "/run/twinroot/hvd.sock";
  const std::string runtime = environment.variable("XDG_RUNTIME_DIR");
  return runtime.empty() ? "" : runtime + "/twinroot/hvd.sock";
}

// Of a variable in which systemd names a folder that it has made (StateDirectory= and so on): the
// first, if there are several.
std::string FolderIn(const Environment& environment, const char* variable) {
  const std::string folders = environment.variable(variable);
  return folders.substr(0, folders.find(':'));
}

std::string DefaultStateDir(const Environment& environment) {
  if (const std::string folder = FolderIn(environment, "STATE_DIRECTORY"); !folder.empty()) {
    return folder;
  }
  if (environment.root) return "/var/lib/twinroot";
  const std::string state = environment.variable("XDG_STATE_HOME");
  if (!state.empty()) return state + "/twinroot";
  const std::string home = environment.variable("HOME");
  return home.empty() ? "" : home + "/.local/state/twinroot";
}

std::string DefaultFile(const Environment& environment) {
  if (const std::string folder = FolderIn(environment, "CONFIGURATION_DIRECTORY");
      !folder.empty()) {
    return folder + "/hvd.yaml";
  }
  if (environment.root) return environment.etc + "/hvd.yaml";
  const std::string home = environment.variable("HOME");
  std::string folder = environment.variable("XDG_CONFIG_HOME");
  if (folder.empty() && !home.empty()) folder = home + "/.config";
  return folder.empty() ? "" : folder + "/twinroot/hvd.yaml";
}

Exit Usage(const std::string& what) {
  return {kUsage, "",
          absl::StrCat("hvd: ", OneLine(what), "\nRun \"hvd --help\" for the options.\n")};
}

Exit Mistaken(const std::vector<std::string>& mistakes) {
  return {kUsage, "", absl::StrCat(absl::StrJoin(mistakes, "\n"), "\n")};
}

const std::map<std::string, host::BackendKind>& Backends() {
  static const std::map<std::string, host::BackendKind> backends = {
      {"auto", host::BackendKind::kAuto},
      {"kvm", host::BackendKind::kKvm},
      {"kvm-native", host::BackendKind::kKvmNative},
      {"sim", host::BackendKind::kSim}};
  return backends;
}

// What the command line says; what it does not say is empty.
struct Flags {
  std::string file;
  std::string socket;
  std::string state_dir;
  std::string metrics_address;
  std::string backend;
  bool allow_core_dumps = false;
  bool check_config = false;
};

void AddOptions(CLI::App& app, Flags& flags) {
  app.set_version_flag("--version", absl::StrCat("hvd ", kVersion));
  app.add_option("--config", flags.file,
                 "The configuration file (YAML); options given here win over it.\nDefault, if it "
                 "exists: /etc/twinroot/hvd.yaml for root, else $XDG_CONFIG_HOME/twinroot/hvd.yaml "
                 "or ~/.config/twinroot/hvd.yaml; a service's own: "
                 "$CONFIGURATION_DIRECTORY/hvd.yaml")
      ->type_name("FILE");
  app.add_flag("--check-config", flags.check_config,
               "Only check the options, the file and the files that it names: prints ok and ends "
               "with 0, or says what is wrong and ends with 2");
  app.add_option("--socket", flags.socket,
                 "Where to serve gRPC. Its folder is made if it is missing; only the daemon's own "
                 "user may connect, unless the file's socket_mode says otherwise. Not used when "
                 "systemd gives a socket named admin.\nDefault: "
                 "/run/twinroot/hvd.sock for root, else $XDG_RUNTIME_DIR/twinroot/hvd.sock")
      ->type_name("PATH");
  app.add_option("--state-dir", flags.state_dir,
                 "Where to keep what outlives the daemon.\nDefault: /var/lib/twinroot for root, "
                 "else $XDG_STATE_HOME/twinroot or ~/.local/state/twinroot; a service's own: "
                 "$STATE_DIRECTORY")
      ->type_name("DIR");
  app.add_option("--metrics-address", flags.metrics_address,
                 "HOST:PORT where Prometheus finds /metrics; port 0 takes a free one, which is "
                 "logged and shown by GetHost; \"off\" serves none.\nDefault: 127.0.0.1:9464")
      ->type_name("ADDR")
      ->check(CLI::Validator(
          [](const std::string& address) { return CheckAddress(address, Off::kAllowed); }, ""));
  app.add_option(
         "--backend", flags.backend,
         "What runs VMs that ask for no backend: kvm, kvm-native (private memory that the kernel "
         "keeps), sim (a software processor for access programs), or auto: kvm if it works "
         "here, else sim")
      ->type_name("auto|kvm|kvm-native|sim")
      ->check(CLI::Validator(
          [](std::string& name) {
            return Backends().contains(name)
                       ? std::string()
                       : absl::StrCat("\"", name,
                                      "\" is no backend: use auto, kvm, kvm-native or sim");
          },
          ""));
  app.add_flag("--allow-core-dumps", flags.allow_core_dumps,
               "For debugging. Without it the process can be neither dumped nor traced by others, "
               "because a core file would hold the private memory of guests");
}

// The text of the file that is to be read, if there is one; its path goes to `config`.
std::variant<std::string, Exit> FileText(const Flags& flags, const Environment& environment,
                                         Config* config) {
  const std::string path = flags.file.empty() ? DefaultFile(environment) : flags.file;
  if (path.empty()) return std::string();
  std::error_code error;
  const bool exists = std::filesystem::exists(path, error);
  if (!exists && !error && flags.file.empty()) return std::string();
  errno = 0;
  std::ifstream file(path);
  if (!file.is_open() || std::filesystem::is_directory(path, error)) {
    return Usage(absl::StrCat("cannot read the configuration file ", path, ": ",
                              errno != 0 ? std::strerror(errno) : "it is a folder"));
  }
  config->file = path;
  return std::string(std::istreambuf_iterator<char>(file), {});
}

}  // namespace

Environment ThisEnvironment() {
  Environment environment;
  environment.root = geteuid() == 0;
  environment.variable = [](const char* name) {
    const char* value = std::getenv(name);
    return std::string(value == nullptr ? "" : value);
  };
  return environment;
}

std::variant<Config, Exit> ParseConfig(const std::vector<std::string>& arguments,
                                       const Environment& environment) {
  CLI::App app("Twinroot: runs confidential VMs and owns their memory; controlled over gRPC.",
               "hvd");
  Flags flags;
  AddOptions(app, flags);
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

  Config config;
  config.socket = DefaultSocket(environment);
  config.state_dir = DefaultStateDir(environment);
  config.metrics_address = "127.0.0.1:9464";
  config.rules = access::DefaultRules();
  auto text = FileText(flags, environment, &config);
  if (auto* exit = std::get_if<Exit>(&text)) return *std::move(exit);
  const auto mistakes = ReadConfigText(std::get<std::string>(text), config.file, &config,
                                       environment.variable("CREDENTIALS_DIRECTORY"));
  if (!mistakes.empty()) return Mistaken(mistakes);

  if (!flags.socket.empty()) config.socket = flags.socket;
  if (!flags.state_dir.empty()) config.state_dir = flags.state_dir;
  if (!flags.metrics_address.empty()) config.metrics_address = flags.metrics_address;
  if (!flags.backend.empty()) config.backend = Backends().at(flags.backend);
  if (flags.allow_core_dumps) config.allow_core_dumps = true;
  // Who is given sockets may need no place for one.
  if (config.socket.empty() && environment.variable("LISTEN_FDS").empty()) {
    return Usage("XDG_RUNTIME_DIR is not set: say where to serve with --socket PATH");
  }
  if (config.state_dir.empty()) {
    return Usage("HOME is not set: say where to keep state with --state-dir DIR");
  }
  if (config.metrics_address == kOff) config.metrics_address.clear();
  if (config.audit_path.empty()) config.audit_path = config.state_dir + "/audit.jsonl";
  if (config.audit_path == kOff) config.audit_path.clear();
  if (config.tcp.has_value()) {
    if (const absl::Status status = access::CheckTlsFiles(config.tcp->files); !status.ok()) {
      return Mistaken({absl::StrCat(config.file, ": ", std::string(status.message()))});
    }
    if (const std::string& crl = config.tcp->files.client_crl; !crl.empty()) {
      auto revocations = access::Revocations::Read(crl, config.tcp->files.client_ca);
      if (!revocations.ok()) {
        return Mistaken(
            {absl::StrCat(config.file, ": ", std::string(revocations.status().message()))});
      }
      config.rules.revocations = *std::move(revocations);
    }
  }
  if (flags.check_config) return Exit{0, "ok\n", ""};
  return config;
}

std::string NeedsRestart(const Config& before, const Config& now) {
  std::vector<std::string> keys;
  const auto compare = [&](const char* key, const auto& was, const auto& is) {
    if (was != is) keys.push_back(key);
  };
  const auto tcp = [](const Config& config) {
    const Tcp tcp = config.tcp.value_or(Tcp{});
    return std::tuple(tcp.address, tcp.files.certificate, tcp.files.key, tcp.files.client_ca,
                      tcp.files.refresh_seconds);
  };
  compare("socket", before.socket, now.socket);
  compare("socket_mode", before.socket_mode, now.socket_mode);
  compare("socket_group", before.socket_gid, now.socket_gid);
  compare("state_dir", before.state_dir, now.state_dir);
  compare("metrics_address", before.metrics_address, now.metrics_address);
  compare("max_vm_series", before.max_vm_series, now.max_vm_series);
  compare("backend", before.backend, now.backend);
  compare("cpu_groups", before.cpu_groups, now.cpu_groups);
  compare("allow_core_dumps", before.allow_core_dumps, now.allow_core_dumps);
  compare("tcp", tcp(before), tcp(now));
  // An audit log that was off is not missing on the way.
  compare("audit.path", before.audit_path.empty(), now.audit_path.empty());
  compare("limits.streams_per_connection", before.rules.limits.streams_per_connection,
          now.rules.limits.streams_per_connection);
  compare("limits.message_bytes", before.rules.limits.message_bytes,
          now.rules.limits.message_bytes);
  compare("journal", before.journal, now.journal);
  return absl::StrJoin(keys, ", ");
}

}  // namespace twinroot
