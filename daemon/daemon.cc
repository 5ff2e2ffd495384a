#include "daemon/daemon.h"

#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include <string>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "daemon/obs/log.h"
#include "daemon/obs/metrics.h"
#include "daemon/rpc/server.h"
#include "daemon/socket_claim.h"
#include "daemon/version.h"
#include "spdlog/spdlog.h"

namespace twinroot {
namespace {

constexpr absl::Duration kShutdownGrace = absl::Seconds(2);

// Folders and files of the daemon are its user's alone.
constexpr mode_t kFileMask = 0077;

// SIGTERM and SIGINT go to whoever waits for them, and to no thread. Threads inherit this.
sigset_t BlockSignals() {
  signal(SIGPIPE, SIG_IGN);
  signal(SIGHUP, SIG_IGN);  // there is nothing to reload, and a closed terminal ends no guests
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
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

const char* NameOf(host::BackendKind backend) {
  switch (backend) {
    case host::BackendKind::kAuto:
      return "auto";
    case host::BackendKind::kKvm:
      return "kvm";
    case host::BackendKind::kSim:
      return "sim";
  }
  return "unknown";
}

// What a running daemon consists of. Members are destroyed in the reverse order: the server's calls
// and the scrapes use the registry, and all use the journal.
struct Parts {
  std::unique_ptr<SocketClaim> claim;
  std::unique_ptr<events::Journal> journal;
  std::unique_ptr<obs::Metrics> metrics;
  std::unique_ptr<host::VmRegistry> registry;
  std::unique_ptr<rpc::Server> server;

  ~Parts() {
    server.reset();
    if (metrics != nullptr) metrics->StopServing();
  }
};

absl::Status OpenJournal(const Config& config, Parts& parts) {
  events::JournalOptions options;
  options.path = config.state_dir + "/events.sqlite";
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

absl::Status Start(const Config& config, const RegistryMaker& make_registry, Parts& parts) {
  auto claim = SocketClaim::Take(config.socket);
  if (!claim.ok()) return claim.status();
  parts.claim = *std::move(claim);
  if (absl::Status status = MakeFolder(config.state_dir, "--state-dir"); !status.ok()) {
    return status;
  }
  if (absl::Status status = OpenJournal(config, parts); !status.ok()) return status;
  parts.metrics = std::make_unique<obs::Metrics>(parts.journal.get(), kVersion);
  if (!config.metrics_address.empty()) {
    if (absl::Status status = parts.metrics->Expose(config.metrics_address); !status.ok()) {
      return status;
    }
  }
  host::RegistryOptions registry_options;
  registry_options.default_backend = config.backend;
  auto registry = make_registry(registry_options, parts.journal.get());
  if (!registry.ok()) return registry.status();
  parts.registry = *std::move(registry);
  parts.journal->Append(StartedEvent(*parts.journal));
  parts.metrics->Watch(parts.registry.get());

  rpc::ServerOptions options;
  options.door.path = config.socket;
  options.version = kVersion;
  options.metrics_address = parts.metrics->address();
  options.max_vms = registry_options.max_vms;
  options.interceptor = parts.metrics->MakeCallInterceptor();
  auto server = rpc::Server::Start(std::move(options), parts.registry.get(), parts.journal.get());
  if (!server.ok()) return server.status();
  parts.server = *std::move(server);
  return absl::OkStatus();
}

void Drain(Parts& parts) {
  parts.server->SetNotServing();
  // The VMs stop first: the streams still tell of it.
  parts.registry->Shutdown();
  (void)parts.journal->WaitCommitted(*parts.journal->PositionOf("", events::Journal::IfEmpty::kNow),
                                     kShutdownGrace);
  parts.server->EndStreams();
  parts.server->Shutdown(kShutdownGrace);
}

}  // namespace

int RunDaemon(const Config& config, const RegistryMaker& make_registry) {
  const sigset_t signals = BlockSignals();
  umask(kFileMask);
  obs::InitLog();
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
  spdlog::info("hvd {} serves on {}, metrics on {}, backend {}: {}", kVersion, config.socket,
               metrics.empty() ? "no address" : metrics, backend,
               parts.registry->capabilities().reason);
  sd_notify(
      0, absl::StrCat("READY=1\nSTATUS=Serving on ", config.socket, ", backend ", backend).c_str());

  const int signal = WaitForSignal(signals);
  spdlog::info("signal {}: draining {} VMs; a second one ends at once", strsignal(signal),
               parts.registry->size());
  sd_notify(0, "STOPPING=1\nSTATUS=Draining");
  std::thread([signals] {
    WaitForSignal(signals);
    spdlog::warn("second signal: ending at once");
    _exit(1);
  }).detach();
  Drain(parts);
  spdlog::info("drained");
  return 0;
}

}  // namespace twinroot
