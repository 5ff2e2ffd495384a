#include <cstdio>

#include "tests/load/client.h"
#include "tests/load/phases.h"
#include "tests/load/raw_server.h"

namespace twinroot::load {
namespace {

constexpr int kWarmUp = 200;
constexpr double kPart = 0.2;  // of the time of the mixed load

template <typename Call>
void Time(Latencies* latencies, const Call& call) {
  const auto begin = Clock::now();
  call();
  latencies->Add(SecondsSince(begin));
}

}  // namespace

void PrintHeader() {
  std::printf("%-40s %8s %9s %9s %7s %7s\n", "", "calls", "p50 us", "p99 us", "p50 x", "p99 x");
}

void PrintRow(const std::string& name, Latencies& row, Latencies* floor) {
  const double p50 = row.Quantile(0.5), p99 = row.Quantile(0.99);
  std::printf("%-40s %8zu %9.0f %9.0f", name.c_str(), row.count(), p50, p99);
  if (floor != nullptr) {
    std::printf(" %6.2fx %6.2fx", p50 / floor->Quantile(0.5), p99 / floor->Quantile(0.99));
  }
  std::printf("\n");
}

void QuietCalls(const Load& load) {
  const RawServer server(load.raw_endpoint, 0, "");
  Client raw(load.raw_endpoint), client(load.endpoint);
  const std::string vm = "quiet";
  client.CreateVm(vm);
  Latencies bare, empty, host, set, translate;
  bool shared = true;
  const auto round = [&] {
    Time(&bare, [&] { raw.Empty(vm); });
    Time(&empty, [&] { client.Empty(vm); });
    Time(&host, [&] { client.GetHost(); });
    Time(&set, [&] {
      client.SetMemoryAttributes(vm, 4 << 20,
                                 shared ? v1::MEMORY_KIND_SHARED : v1::MEMORY_KIND_PRIVATE);
    });
    Time(&translate, [&] { client.Translate(vm, 4 << 20); });
    shared = !shared;
  };
  for (int i = 0; i < kWarmUp; ++i) round();
  for (Latencies* latencies : {&bare, &empty, &host, &set, &translate}) *latencies = {};
  const auto begin = Clock::now();
  while (SecondsSince(begin) < load.seconds * kPart) round();

  std::printf("\none client, calls in turn; x: beside the daemon's empty call\n");
  PrintHeader();
  PrintRow("empty call of a bare server", bare, nullptr);
  PrintRow("empty call (ListConversions, none)", empty, nullptr);
  PrintRow("GetHost", host, &empty);
  PrintRow("SetMemoryAttributes, one page", set, &empty);
  PrintRow("Translate", translate, &empty);
}

}  // namespace twinroot::load
