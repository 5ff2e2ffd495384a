// What a scrape costs when many VMs are there and do nothing, and what it costs a guest that faults
// beside it. SCRAPE_VMS and SCRAPE_MAX_VM_SERIES make it as large as README.md has it; times fail
// nothing.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "daemon/events/journal.h"
#include "daemon/host/vm_registry.h"
#include "daemon/obs/metrics.h"
#include "daemon/vcpu/program/compiler.h"
#include "gtest/gtest.h"
#include "spdlog/spdlog.h"
#include "tests/daemon/obs/scrape.h"
#include "twinroot/v1/program.pb.h"

namespace twinroot::obs {
namespace {

using Clock = std::chrono::steady_clock;
using host::ExitMeter;

constexpr int kScrapes = 20;
constexpr uint64_t kMemory = uint64_t{16} << 20;
constexpr uint64_t kPage = uint64_t{4} << 20;

uint32_t Variable(const char* name, uint32_t otherwise) {
  uint32_t number = 0;
  const char* given = std::getenv(name);
  return given != nullptr && absl::SimpleAtoi(given, &number) ? number : otherwise;
}

// A guest that asks for a conversion: parked for good where an orchestrator has to decide.
v1::AccessProgram Asks() {
  v1::AccessProgram program;
  auto* read = program.add_vcpus()->add_steps()->mutable_read();
  read->set_gpa(kPage);
  read->set_alias(v1::MEMORY_KIND_SHARED);
  return program;
}

// A guest that faults as fast as it can: each access converts the page.
v1::AccessProgram Faults() {
  v1::AccessProgram program;
  auto* loop = program.add_vcpus()->add_steps()->mutable_loop();
  loop->set_count(uint64_t{1} << 40);
  for (const auto kind : {v1::MEMORY_KIND_SHARED, v1::MEMORY_KIND_PRIVATE}) {
    auto* read = loop->add_steps()->mutable_read();
    read->set_gpa(kPage);
    read->set_alias(kind);
  }
  return program;
}

struct Faulting {
  uint64_t faults = 0;
  uint64_t slower_than_100us = 0;
  uint64_t slower_than_1ms = 0;
  uint64_t slower_than_10ms = 0;

  friend Faulting operator-(Faulting a, const Faulting& b) {
    return {a.faults - b.faults, a.slower_than_100us - b.slower_than_100us,
            a.slower_than_1ms - b.slower_than_1ms, a.slower_than_10ms - b.slower_than_10ms};
  }
};

class ScrapeCost : public ::testing::Test {
 protected:
  void SetUp() override {
    spdlog::set_level(spdlog::level::err);  // a line for each VM at the end
    host::RegistryOptions options;
    options.default_backend = host::BackendKind::kSim;
    options.exits = metrics_.exits();
    options.max_vms = vms_ + 1;
    auto registry = host::MakeVmRegistry(options, &journal_);
    ASSERT_TRUE(registry.ok()) << registry.status();
    registry_ = *std::move(registry);
    ASSERT_TRUE(metrics_.Expose("127.0.0.1:0").ok());
    metrics_.Watch(registry_.get());
  }
  void TearDown() override {
    metrics_.StopServing();
    registry_.reset();
  }

  void Run(const std::string& name, const v1::AccessProgram& program, host::PolicyMode mode) {
    host::VmSpec spec;
    spec.name = name;
    spec.memory_bytes = kMemory;
    spec.vcpus = 1;
    spec.policy.mode = mode;
    spec.policy.decision_timeout = absl::Hours(1);
    spec.program = program::Compile(program, 1, kMemory).value();
    const auto vm = registry_->Create(std::move(spec));
    ASSERT_TRUE(vm.ok()) << vm.status();
    const absl::Status started = (*vm)->Start();
    ASSERT_TRUE(started.ok()) << started;
  }

  Faulting Look() {
    Faulting all;
    for (size_t outcome = 0; outcome < ExitMeter::kOutcomes; ++outcome) {
      for (const auto kind : mmu::kAllKinds) {
        const ExitMeter::Latency latency = metrics_.exits()->latency(kind, outcome);
        for (size_t i = 0; i < latency.counts.size(); ++i) {
          const uint64_t above = i == 0 ? 0 : ExitMeter::kBounds[i - 1];
          all.faults += latency.counts[i];
          if (above >= 100'000) all.slower_than_100us += latency.counts[i];
          if (above >= 1'000'000) all.slower_than_1ms += latency.counts[i];
          if (above >= 10'000'000) all.slower_than_10ms += latency.counts[i];
        }
      }
    }
    return all;
  }

  Faulting FaultsIn(Clock::duration time) {
    const Faulting before = Look();
    std::this_thread::sleep_for(time);
    return Look() - before;
  }

  // Milliseconds of each scrape, ascending. Prometheus asks for gzip.
  std::vector<double> Scrapes(std::string* last, const std::string& more = "") {
    std::vector<double> times;
    for (int i = 0; i < kScrapes; ++i) {
      const auto begin = Clock::now();
      *last = Scrape(metrics_.address(), more);
      times.push_back(std::chrono::duration<double, std::milli>(Clock::now() - begin).count());
    }
    std::sort(times.begin(), times.end());
    return times;
  }

  const uint32_t vms_ = Variable("SCRAPE_VMS", 128);
  const uint32_t max_vm_series_ = Variable("SCRAPE_MAX_VM_SERIES", 64);
  events::Journal journal_;
  Metrics metrics_{&journal_, "1", max_vm_series_};
  std::unique_ptr<host::VmRegistry> registry_;
};

void Print(const char* what, const std::vector<double>& times) {
  std::printf("%-48s p50 %7.1f ms   max %7.1f ms\n", what, times[times.size() / 2], times.back());
}
void Print(const char* what, const Faulting& faulting) {
  const auto share = [&](uint64_t count) {
    return 1e6 * static_cast<double>(count) / static_cast<double>(faulting.faults);
  };
  std::printf("%-48s %llu; of a million, over 100 us %.1f, over 1 ms %.1f, over 10 ms %.1f\n", what,
              static_cast<unsigned long long>(faulting.faults), share(faulting.slower_than_100us),
              share(faulting.slower_than_1ms), share(faulting.slower_than_10ms));
}

TEST_F(ScrapeCost, EveryVmIsInAScrapeAndAGuestFaultsOnBesideIt) {
  for (uint32_t i = 0; i < vms_; ++i) {
    Run(absl::StrCat("idle-", i), Asks(), host::PolicyMode::kOrchestrator);
  }
  std::string page;
  Print("a scrape, all VMs idle", Scrapes(&page));
  std::string zipped;
  Print("the same, compressed", Scrapes(&zipped, "Accept-Encoding: gzip\r\n"));
  const auto begin_counting = Clock::now();
  for (const auto& vm : registry_->List("", vms_)) (void)vm->counters();
  const std::chrono::duration<double, std::milli> counting = Clock::now() - begin_counting;
  std::printf("%-48s %.1f ms\n", "of it, asking each VM for its numbers", counting.count());
  size_t series = 0;
  for (size_t at = 0; (at = page.find("{vm=\"idle-", at)) != page.npos; ++at) ++series;
  std::printf("%-48s %u VMs, %zu series of single ones, %.1f MiB\n", "of it", vms_, series,
              static_cast<double>(page.size()) / (1 << 20));
  EXPECT_GE(series, std::min(vms_, max_vm_series_) * 17);

  Run("busy", Faults(), host::PolicyMode::kAuto);
  const auto begin = Clock::now();
  const Faulting first = Look();
  const std::vector<double> times = Scrapes(&page);
  const Faulting with = Look() - first;
  const auto took = Clock::now() - begin;
  const Faulting beside_nothing = FaultsIn(took);
  // A scrape takes processors away, as anything does: its server's thread and its client's.
  std::atomic<bool> stop = false;
  const auto spin = [&stop] {
    while (!stop) continue;
  };
  std::thread server(spin), client(spin);
  const Faulting beside_work = FaultsIn(took);
  stop = true;
  server.join();
  client.join();
  Print("a scrape while a guest faults", times);
  Print("its faults beside scrapes", with);
  Print("in the same time beside two threads that spin", beside_work);
  Print("in the same time alone", beside_nothing);
  EXPECT_GT(with.faults, 0u);
}

}  // namespace
}  // namespace twinroot::obs
