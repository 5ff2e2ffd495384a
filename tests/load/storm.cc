#include <cstdio>
#include <thread>

#include "tests/load/client.h"
#include "tests/load/phases.h"
#include "tests/load/raw_server.h"
#include "tests/load/watcher.h"

namespace twinroot::load {
namespace {

// Two conversions each time.
v1::AccessProgram Storm(uint64_t conversions) {
  v1::AccessProgram program;
  v1::LoopStep* loop = program.add_vcpus()->add_steps()->mutable_loop();
  loop->set_count(conversions / 2);
  for (const v1::MemoryKind kind : {v1::MEMORY_KIND_SHARED, v1::MEMORY_KIND_PRIVATE}) {
    v1::MapGpaStep* step = loop->add_steps()->mutable_map_gpa();
    step->set_gpa(4 << 20);
    step->set_pages(1);
    step->set_kind(kind);
  }
  return program;
}

// Runs the watcher, and prints how fast it was told.
double Rate(const char* name, Watcher* watcher, double floor) {
  const auto begin = Clock::now();
  watcher->Run();
  const double rate = static_cast<double>(watcher->told().events) / SecondsSince(begin);
  std::printf(
      "%-40s %8lu %11.0f %10.1f %7lu", name, watcher->told().events, rate,
      static_cast<double>(watcher->told().events) / static_cast<double>(watcher->messages()),
      watcher->told().missed);
  if (floor != 0) std::printf(" %6.2fx", floor / rate);
  std::printf("\n");
  return rate;
}

}  // namespace

void Storm(const Load& load) {
  const std::string vm = "storm";
  const RawServer server(load.raw_endpoint, load.storm, vm);
  Client client(load.endpoint);
  client.CreateVm(vm, Storm(load.storm));
  const std::string cursor = client.Cursor();

  std::printf("\na guest converts %lu times, one watcher; x: the bare stream beside it\n",
              load.storm);
  std::printf("%-40s %8s %11s %10s %7s %7s\n", "", "events", "events/s", "a message", "in gaps",
              "x");
  Client raw(load.raw_endpoint);
  Watcher bare(&raw, "", vm);
  const double floor = Rate("the bare stream", &bare, 0);
  client.StartVm(vm);
  Watcher live(&client, cursor, vm);
  Rate("live", &live, floor);
  Watcher again(&client, cursor, vm);
  Rate("again, from the beginning", &again, floor);
  Must(live.told().missed == 0 && again.told().missed == 0, "the journal was full of this storm");
  const Told all = ListAll(&client, cursor, vm);
  Must(all.events > load.storm, "the list has not told of the whole storm");
  Must(live.told().Covers(all), "the live watcher was not told what the list tells");
  Must(again.told().Covers(all), "the later watcher was not told what the list tells");
}

}  // namespace twinroot::load
