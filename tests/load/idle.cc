#include <cstdio>

#include "tests/load/client.h"
#include "tests/load/idle_watches.h"
#include "tests/load/phases.h"
#include "tests/load/process.h"

namespace twinroot::load {
namespace {

constexpr int kCalls = 1000;
constexpr int kStreamsOfAThread = 20;  // at least; connections and pools may bring some

Latencies Calls(Client* client, const std::string& vm) {
  Latencies latencies;
  for (int i = 0; i < kCalls; ++i) {
    const auto begin = Clock::now();
    client->Empty(vm);
    latencies.Add(SecondsSince(begin));
  }
  return latencies;
}

}  // namespace

void Idle(const Load& load) {
  Client client(load.endpoint);
  const std::string vm = "idle";
  client.CreateVm(vm);
  Latencies without = Calls(&client, vm);
  const Process before = LookAt(load.pid);
  Process during, after;
  Latencies with;
  {
    const IdleWatches watches(load.endpoint, load.idle_watches);
    during = LookAt(load.pid);
    with = Calls(&client, vm);
  }
  after = LookAt(load.pid);
  const double each = static_cast<double>(during.memory - before.memory) / 1024 / load.idle_watches;
  std::printf("\n%d watches in which nothing happens\n", load.idle_watches);
  std::printf("%-40s %8s %9s %9s\n", "", "before", "during", "after");
  std::printf("%-40s %8.1f %9.1f %9.1f   %.1f KiB a watch\n", "memory of the daemon, MiB",
              static_cast<double>(before.memory) / (1 << 20),
              static_cast<double>(during.memory) / (1 << 20),
              static_cast<double>(after.memory) / (1 << 20), each);
  std::printf("%-40s %8ld %9ld %9ld\n", "its threads", before.threads, during.threads,
              after.threads);
  PrintHeader();
  PrintRow("empty call, before", without, nullptr);
  PrintRow("empty call, during", with, &without);
  Must(during.threads <= before.threads + load.idle_watches / kStreamsOfAThread + 16,
       "streams have threads of their own");
}

}  // namespace twinroot::load
