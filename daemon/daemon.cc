#include "daemon/daemon.h"

#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include <algorithm>
#include <ctime>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "daemon/access/audit_log.h"
#include "daemon/access/gatekeeper.h"
#include "daemon/given_sockets.h"
#include "daemon/host/backend_name.h"
#include "daemon/obs/log.h"
#include "daemon/obs/metrics.h"
#include "daemon/rpc/server.h"
#include "daemon/socket_claim.h"
#include "daemon/version.h"
#include "daemon/watchdog.h"
#include "spdlog/spdlog.h"

namespace twinroot {
namespace {

constexpr absl::Duration kShutdownGrace = absl::Seconds(2);

// Folders and files of the daemon are its user's alone.
constexpr mode_t kFileMask = 0077;

// SIGTERM, SIGINT and SIGHUP go to whoever waits for them, and to no thread. Threads inherit this.
sigset_t BlockSignals() {
  signal(SIGPIPE, SIG_IGN);
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGHUP);  // reloads; a closed terminal ends no guests
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  return signals;
}

int WaitForSignal(const sigset_t& signals) {
  int signal = 0;
  while (sigwait(&signals, &signal) != 0) {
  }
  return signal;
}

// Every VM holds several files open: take what the host allows.
void RaiseFileLimit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == limit.rlim_max) return;
  limit.rlim_cur = limit.rlim_max;
  if (setrlimit(RLIMIT_NOFILE, &limit) != 0) spdlog::warn("cannot raise the limit of open files");
}

spdlog::level::level_enum LevelOf(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return spdlog::level::debug;
    case LogLevel::kInfo:
      return spdlog::level::info;
    case LogLevel::kWarning:
      return spdlog::level::warn;
    case LogLevel::kError:
      return spdlog::level::err;
  }
  return spdlog::level::info;
}

// What a running daemon consists of. Members are destroyed in the reverse order: the server's calls
// and the scrapes use the registry, and all use the journal.
struct Parts {
  std::unique_ptr<SocketClaim> claim;
  std::unique_ptr<events::Journal> journal;
  std::unique_ptr<obs::Metrics> metrics;
  std::unique_ptr<host::VmRegistry> registry;
  std::unique_ptr<access::AuditLog> audit;
  std::unique_ptr<access::Gatekeeper> gatekeeper;
  std::unique_ptr<rpc::Server> server;
  std::unique_ptr<Watchdog> watchdog;
  std::string sockets;  // where it serves, for people

  ~Parts() {
    watchdog.reset();
    server.reset();
    if (metrics != nullptr) metrics->StopServing();
  }
};

absl::Status OpenJournal(const Config& config, Parts& parts) {
  events::JournalOptions options;
  options.path = config.state_dir + "/events.sqlite";
  options.limits.max_events = config.journal.max_events;
  options.limits.max_age = absl::Hours(config.journal.max_age_hours);
  options.limits.max_bytes = uint64_t{config.journal.max_mebibytes} << 20;
  auto journal = events::Journal::Open(std::move(options));
  if (!journal.ok()) return journal.status();
  parts.journal = *std::move(journal);
  return absl::OkStatus();
}

// The journal's first word of this daemon.
v1::Event StartedEvent(const events::Journal& journal) {
  v1::Event event;
  *event.mutable_daemon_started() = journal.opening();
  event.mutable_daemon_started()->set_version(kVersion);
  return event;
}

// The sockets that we were given, and one of our own if none of them is for everything.
absl::StatusOr<access::DoorOptions> MakeDoor(const Config& config, Parts& parts) {
  access::DoorOptions door;
  auto given = TakeGivenSockets();
  if (!given.ok()) return given.status();
  door.given = *std::move(given);
  std::vector<std::string> places;
  for (const access::GivenSocket& socket : door.given) {
    const bool all = socket.gives == access::Role::kNone;
    places.push_back(
        absl::StrCat(socket.path, all ? "" : absl::StrCat(" (", NameOf(socket.gives), ")")));
  }
  if (std::none_of(door.given.begin(), door.given.end(), [](const access::GivenSocket& socket) {
        return socket.gives == access::Role::kNone;
      })) {
    if (config.socket.empty()) {
      return absl::FailedPreconditionError(
          "none of the sockets given to hvd is named admin: say where to make one with --socket");
    }
    auto claim = SocketClaim::Take(config.socket);
    if (!claim.ok()) return claim.status();
    parts.claim = *std::move(claim);
    door.path = config.socket;
    door.mode = config.socket_mode;
    door.gid = config.socket_gid;
    places.insert(places.begin(), config.socket);
  }
  parts.sockets = absl::StrJoin(places, " and ");
  return door;
}

absl::Status Start(const Config& config, const RegistryMaker& make_registry, Parts& parts) {
  auto door = MakeDoor(config, parts);
  if (!door.ok()) return door.status();
  if (absl::Status status = MakeFolder(config.state_dir, "--state-dir"); !status.ok()) {
    return status;
  }
  if (absl::Status status = OpenJournal(config, parts); !status.ok()) return status;
  parts.metrics =
      std::make_unique<obs::Metrics>(parts.journal.get(), kVersion, config.max_vm_series);
  if (!config.metrics_address.empty()) {
    if (absl::Status status = parts.metrics->Expose(config.metrics_address); !status.ok()) {
      return status;
    }
  }
  host::RegistryOptions registry_options;
  registry_options.default_backend = config.backend;
  registry_options.cpu_groups = config.cpu_groups;
  registry_options.exits = parts.metrics->exits();
  auto registry = make_registry(registry_options, parts.journal.get());
  if (!registry.ok()) return registry.status();
  parts.registry = *std::move(registry);
  parts.journal->Append(StartedEvent(*parts.journal));
  parts.metrics->Watch(parts.registry.get());
  parts.metrics->SetMaxVms(registry_options.max_vms);

  if (!config.audit_path.empty()) {
    auto audit = access::AuditLog::Open(config.audit_path, parts.metrics->AuditFailureCounter());
    if (!audit.ok()) return audit.status();
    parts.audit = *std::move(audit);
  }
  parts.gatekeeper = std::make_unique<access::Gatekeeper>(config.rules, parts.audit.get());

  rpc::ServerOptions options;
  options.door = *std::move(door);
  if (config.tcp.has_value()) options.tcp = {config.tcp->address, config.tcp->files};
  options.limits = config.rules.limits;
  options.gatekeeper = parts.gatekeeper.get();
  options.version = kVersion;
  options.metrics_address = parts.metrics->address();
  options.max_vms = registry_options.max_vms;
  options.on_gap = parts.metrics->GapCounter();
  options.on_admission = parts.metrics->DrainingGauge();
  options.metrics_text = [metrics = parts.metrics.get()] { return metrics->Text(); };
  options.interceptor = parts.metrics->MakeCallInterceptor();
  auto server = rpc::Server::Start(std::move(options), parts.registry.get(), parts.journal.get());
  if (!server.ok()) return server.status();
  parts.server = *std::move(server);
  return absl::OkStatus();
}

// What can change while the daemon runs, or nothing if there is a mistake.
void Reload(const ConfigReader& read_config, const Config& config, Parts& parts) {
  auto read = read_config();
  if (const auto* exit = std::get_if<Exit>(&read)) {
    spdlog::error("the configuration has mistakes, so the old one stays: {}", exit->error);
    return;
  }
  auto& now = std::get<Config>(read);
  const std::string waiting = NeedsRestart(config, now);
  if (parts.audit && !now.audit_path.empty()) {
    if (absl::Status status = parts.audit->Reopen(now.audit_path); !status.ok()) {
      spdlog::error("{}; the old audit log goes on", std::string(status.message()));
    }
  }
  spdlog::set_level(LevelOf(now.log_level));
  parts.gatekeeper->Replace(now.rules);
  spdlog::info(
      "read {} again: roles, revoked certificates, limits of principals, the log level and the "
      "audit log's "
      "place are as it says now{}",
      now.file.empty() ? "the command line" : now.file,
      waiting.empty() ? "" : "; these wait for a restart: " + waiting);
}

std::string StatusOf(const Parts& parts) {
  const size_t vms = parts.registry->size();
  return absl::StrCat("Serving on ", parts.sockets, ", backend ",
                      NameOf(parts.registry->default_backend()), ", ", vms,
                      vms == 1 ? " VM" : " VMs");
}

// Pings systemd, if its unit asks for that.
void StartWatchdog(Parts& parts) {
  const absl::Duration period = Watchdog::PeriodAskedFor();
  if (period == absl::ZeroDuration()) return;
  parts.watchdog = std::make_unique<Watchdog>(
      std::vector<Watchdog::Part>{
          {"rpc", [&](std::function<void()> done) { parts.server->AskProgress(std::move(done)); }},
          {"engine",
           [&](std::function<void()> done) { parts.registry->AskProgress(std::move(done)); }}},
      Watchdog::Options{period, [](const std::string& state) { sd_notify(0, state.c_str()); },
                        [&] { return StatusOf(parts); }});
}

// systemd takes the word of a reload only with the time at which it began.
std::string Reloading() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return absl::StrCat("RELOADING=1\nMONOTONIC_USEC=",
                      int64_t{now.tv_sec} * 1'000'000 + now.tv_nsec / 1000);
}

void Drain(Parts& parts) {
  parts.watchdog.reset();
  parts.server->SetNotServing();
  // The VMs stop first: the streams still tell of it.
  parts.registry->Shutdown();
  (void)parts.journal->WaitCommitted(*parts.journal->PositionOf("", events::Journal::IfEmpty::kNow),
                                     kShutdownGrace);
  parts.server->EndStreams();
  parts.server->Shutdown(kShutdownGrace);
}

}  // namespace

int RunDaemon(const Config& config, const ConfigReader& read_config,
              const RegistryMaker& make_registry) {
  const sigset_t signals = BlockSignals();
  umask(kFileMask);
  obs::InitLog();
  spdlog::set_level(LevelOf(config.log_level));
  if (!config.allow_core_dumps && prctl(PR_SET_DUMPABLE, 0) != 0) {
    spdlog::error("cannot forbid core dumps, which would hold private memory");
    return 1;
  }
  RaiseFileLimit();

  Parts parts;
  if (absl::Status status = Start(config, make_registry, parts); !status.ok()) {
    spdlog::error("hvd cannot start: {}", std::string(status.message()));
    return 1;
  }
  const std::string metrics = parts.metrics->address();
  const char* backend = NameOf(parts.registry->default_backend());
  const std::string tcp = parts.server->tcp_address();
  spdlog::info("hvd {} serves on {}, {}metrics on {}, backend {}: {}", kVersion, parts.sockets,
               tcp.empty() ? "" : absl::StrCat("tcp ", tcp, ", "),
               metrics.empty() ? "no address" : metrics, backend,
               parts.registry->capabilities().reason);
  sd_notify(0, absl::StrCat("READY=1\nSTATUS=", StatusOf(parts)).c_str());
  StartWatchdog(parts);

  int signal = WaitForSignal(signals);
  for (; signal == SIGHUP; signal = WaitForSignal(signals)) {
    sd_notify(0, Reloading().c_str());
    Reload(read_config, config, parts);
    sd_notify(0, "READY=1");
  }
  spdlog::info("signal {}: draining {} VMs; a second one ends at once", strsignal(signal),
               parts.registry->size());
  sd_notify(0, "STOPPING=1\nSTATUS=Draining");
  std::thread([signals] {
    while (WaitForSignal(signals) == SIGHUP) {
    }
    spdlog::warn("second signal: ending at once");
    _exit(1);
  }).detach();
  Drain(parts);
  spdlog::info("drained");
  return 0;
}

}  // namespace twinroot
