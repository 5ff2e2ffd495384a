// The daemon under load. Prints a table; exits 1 if an event was lost in silence, the daemon's
// memory grows, or streams have threads of their own. load_test.py starts it beside a daemon.
#include <cstdio>
#include <string>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "tests/load/phases.h"
#include "tests/load/raw_server.h"

ABSL_FLAG(std::string, socket, "", "the daemon's socket");
ABSL_FLAG(int, pid, 0, "the daemon's process id");
ABSL_FLAG(double, seconds, 15, "how long the mixed load lasts");
ABSL_FLAG(int, clients, 64, "clients of the mixed load");
ABSL_FLAG(int, idle, 2000, "watches in which nothing happens");
ABSL_FLAG(uint64_t, storm, 200'000, "conversions of the guest that does nothing else");
ABSL_FLAG(std::string, raw, "", "be the bare server on this endpoint (the program's own use)");
ABSL_FLAG(std::string, last_vm, "", "whose end ends the bare server's streams");

int main(int argc, char** argv) {
  absl::ParseCommandLine(argc, argv);
  if (const std::string raw = absl::GetFlag(FLAGS_raw); !raw.empty()) {
    return twinroot::load::ServeRaw(raw, absl::GetFlag(FLAGS_storm), absl::GetFlag(FLAGS_last_vm));
  }
  const std::string socket = absl::GetFlag(FLAGS_socket);
  twinroot::load::Load load;
  load.endpoint = "unix:" + socket;
  load.raw_endpoint = "unix:" + socket + ".raw";
  load.pid = absl::GetFlag(FLAGS_pid);
  load.seconds = absl::GetFlag(FLAGS_seconds);
  load.clients = absl::GetFlag(FLAGS_clients);
  load.idle_watches = absl::GetFlag(FLAGS_idle);
  load.storm = absl::GetFlag(FLAGS_storm);
  if (socket.empty() || load.pid <= 0 || load.seconds <= 0 || load.clients <= 0 ||
      load.idle_watches <= 0 || load.storm < 2) {
    std::fprintf(stderr, "load: give --socket and --pid of a running hvd, and positive sizes\n");
    return 2;
  }
  setvbuf(stdout, nullptr, _IOLBF, 0);
  twinroot::load::QuietCalls(load);
  twinroot::load::Storm(load);
  twinroot::load::Idle(load);
  twinroot::load::Mix(load);
  return 0;
}
