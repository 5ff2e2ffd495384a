// What the load test does, one after the other. Each prints its rows, and ends the program when
// what must hold does not: every event told once or counted by a gap, memory flat, no thread a
// stream.
#ifndef TWINROOT_TESTS_LOAD_PHASES_H_
#define TWINROOT_TESTS_LOAD_PHASES_H_

#include <cstdint>
#include <string>

#include "tests/load/latencies.h"

namespace twinroot::load {

struct Load {
  std::string endpoint;      // of the daemon
  std::string raw_endpoint;  // where the bare server may listen
  int pid = 0;               // of the daemon
  double seconds = 15;       // of the mixed load
  int clients = 64;
  int idle_watches = 2000;
  uint64_t storm = 200'000;  // conversions
};

// "  name  count  p50  p99  ratio p50  ratio p99": beside the floor, unless it is the floor itself.
void PrintHeader();
void PrintRow(const std::string& name, Latencies& row, Latencies* floor);

// One client: calls in turn, beside the empty call of the same server and of a bare one.
void QuietCalls(const Load& load);
// A guest converts as fast as it can: told live, told again from the beginning, and the bare
// stream.
void Storm(const Load& load);
// Streams in which nothing happens.
void Idle(const Load& load);
// Every client calls and watches; some watch slowly, some are cut and resume.
void Mix(const Load& load);

}  // namespace twinroot::load

#endif  // TWINROOT_TESTS_LOAD_PHASES_H_
