// Soaks a daemon that runs: crowds of random VMs, a watcher in a process of its own, and somebody
// who looks at the daemon's process. Prints a table; exits 1 with a sentence if something does not
// hold. soak.py starts it beside a daemon.
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/strings/str_cat.h"
#include "tests/soak/crowd.h"
#include "tests/soak/daemon.h"
#include "tests/soak/follower.h"

ABSL_FLAG(std::string, endpoint, "", "the daemon: unix:PATH");
ABSL_FLAG(int, pid, 0, "the daemon's process id");
ABSL_FLAG(double, seconds, 60, "how long");
ABSL_FLAG(int, vms, 12, "VMs at once");
ABSL_FLAG(int, busy, 2, "how many of them have a guest that never rests");
ABSL_FLAG(uint64_t, seed, 0, "of everything that is random");
ABSL_FLAG(std::string, follow, "", "be the watcher and write to this file (the program's own use)");
ABSL_FLAG(std::string, cursor, "", "where the watcher begins");
ABSL_FLAG(std::string, last, "", "the VM whose end ends the watcher");

namespace twinroot::soak {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kCrowds = 2;
constexpr char kLast[] = "last";
constexpr auto kLookEvery = std::chrono::milliseconds(500);
// What may be left over: threads that gRPC keeps, and what the allocator and the journal's cache of
// 16,384 events take.
constexpr int64_t kThreadsLeft = 8;
constexpr int64_t kFilesLeft = 4;
constexpr int64_t kMemoryLeft = int64_t{32} << 20;

std::vector<v1::Backend> Backends(Daemon& daemon) {
  v1::GetHostResponse response;
  Must(Call(daemon.host.get(), &v1::HostService::Stub::GetHost, v1::GetHostRequest(), &response),
       "GetHost");
  std::vector<v1::Backend> backends;
  std::string names;
  for (const int backend : response.host().backends()) {
    backends.push_back(static_cast<v1::Backend>(backend));
    absl::StrAppend(&names, " ", v1::Backend_Name(backends.back()));
  }
  std::printf("backends:%s (%s)\n", names.c_str(),
              response.host().default_backend_reason().c_str());
  return backends;
}

std::string Cursor(Daemon& daemon) {
  v1::ListVmsResponse response;
  Must(Call(daemon.vms.get(), &v1::VmService::Stub::ListVms, v1::ListVmsRequest(), &response),
       "ListVms");
  return response.cursor();
}

uint64_t Audit(Daemon& daemon) {
  uint64_t audited = 0;
  const grpc::Status status =
      Stream<v1::AuditResponse>(daemon.host.get(), &v1::HostService::Stub::Audit,
                                v1::AuditRequest(), [&](const v1::AuditResponse& answer) {
                                  Must(answer.verdict() == v1::AuditResponse::VERDICT_SOUND,
                                       answer.vm() + " is broken: " + answer.detail());
                                  ++audited;
                                });
  Must(status, "Audit");
  return audited;
}

// A VM that runs and stops, so that what a first one leaves behind for good is there; and the event
// that ends watchers.
void OneLife(Daemon& daemon, const std::string& name, v1::Backend backend) {
  v1::CreateVmRequest create;
  v1::CreateVmResponse created;
  create.set_vm_id(name);
  create.mutable_vm()->set_memory_bytes(uint64_t{16} << 20);
  create.mutable_vm()->set_vcpus(1);
  create.mutable_vm()->set_backend(backend);
  create.mutable_vm()->mutable_program()->add_vcpus()->add_steps()->mutable_write()->set_gpa(
      uint64_t{4} << 20);
  Must(Call(daemon.vms.get(), &v1::VmService::Stub::CreateVm, create, &created), "CreateVm");
  v1::StartVmRequest start;
  v1::StartVmResponse started;
  start.set_name("vms/" + name);
  Must(Call(daemon.vms.get(), &v1::VmService::Stub::StartVm, start, &started), "StartVm");
  v1::WaitVmRequest wait;
  v1::WaitVmResponse ended;
  wait.set_name("vms/" + name);
  Must(Call(daemon.vms.get(), &v1::VmService::Stub::WaitVm, wait, &ended), "WaitVm");
  Must(ended.vm().exit_code() == 0 && ended.vm().stop_reason().empty(),
       "a guest of one step has stopped: " + ended.vm().stop_message());
  v1::DeleteVmRequest remove;
  v1::DeleteVmResponse removed;
  remove.set_name("vms/" + name);
  Must(Call(daemon.vms.get(), &v1::VmService::Stub::DeleteVm, remove, &removed), "DeleteVm");
}

// Threads that ended last are still on their way out, and a VM's memory goes a moment after it.
// `before`: none yet.
Holdings Settled(int pid, const std::optional<Holdings>& before) {
  const auto end = Clock::now() + kPatience;
  for (;;) {
    const Holdings now = Holdings::Of(pid);
    if ((now.guest_mappings == 0 && (!before || (now.files <= before->files &&
                                                 now.threads <= before->threads + kThreadsLeft))) ||
        Clock::now() > end) {
      return now;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
}

void PrintRow(const char* name, double unit, int64_t before, int64_t third, int64_t most,
              int64_t after) {
  std::printf("| %-28s | %9.1f | %9.1f | %9.1f | %9.1f |\n", name,
              static_cast<double>(before) / unit, static_cast<double>(third) / unit,
              static_cast<double>(most) / unit, static_cast<double>(after) / unit);
}

void PrintCalls(const std::vector<Crowd>& crowds) {
  std::map<std::string, Crowd::Tally> sums;
  Crowd::Tally all;
  for (const Crowd& crowd : crowds) {
    for (const auto& [name, tally] : crowd.counts()) {
      sums[name].Add(tally);
      all.Add(tally);
    }
  }
  std::printf("\n| %-28s | %9s | %9s | %9s | %9s |\n|---|--:|--:|--:|--:|\n", "call", "made",
              "refused", "mean, ms", "most, ms");
  sums["all"] = all;
  for (const auto& [name, tally] : sums) {
    std::printf("| %-28s | %9lu | %9lu | %9.2f | %9.2f |\n", name.c_str(),
                static_cast<unsigned long>(tally.done), static_cast<unsigned long>(tally.refused),
                tally.sum.count() / static_cast<double>(tally.done), tally.longest.count());
  }
}

void Soak(const std::string& endpoint, int pid, std::chrono::duration<double> time, int vms,
          int busy, uint64_t seed) {
  std::printf("%d VMs, %d of them busy, for %.0f s, --seed=%lu\n", vms, busy, time.count(),
              static_cast<unsigned long>(seed));
  Daemon daemon(endpoint);
  const std::vector<v1::Backend> backends = Backends(daemon);
  for (const v1::Backend backend : backends) OneLife(daemon, "first", backend);
  const Holdings before = Settled(pid, {});

  const std::string told = (std::filesystem::temp_directory_path() /
                            absl::StrCat("twinroot-soak-", getpid(), ".cursors"))
                               .string();
  Follower follower(endpoint, told, Cursor(daemon), kLast);
  std::vector<Crowd> crowds;
  for (int i = 0; i < kCrowds; ++i) {
    crowds.emplace_back(&daemon, std::string(1, static_cast<char>('a' + i)), (vms + i) / kCrowds,
                        (busy + i) / kCrowds, backends, seed + static_cast<uint64_t>(i));
  }
  const auto begin = Clock::now();
  const auto end = begin + std::chrono::duration_cast<Clock::duration>(time);
  const auto on_threads = [&](const std::function<void(Crowd&)>& act) {
    std::vector<std::thread> threads;
    for (Crowd& crowd : crowds) threads.emplace_back([&] { act(crowd); });
    return threads;
  };
  auto threads = on_threads([&](Crowd& crowd) {
    crowd.CreateAll();
    while (Clock::now() < end) crowd.Disturb();
    crowd.ExpectMoves();
  });
  Holdings most, third;
  uint64_t audits = 0;
  bool restarted = false, a_third = false;
  for (auto told_at = begin; Clock::now() < end; std::this_thread::sleep_for(kLookEvery)) {
    const Holdings now = Holdings::Of(pid);
    most.Raise(now);
    audits += Audit(daemon);
    const auto past = Clock::now() - begin;
    if (!a_third && past * 3 > time) {
      third = now;
      a_third = true;
    }
    if (!restarted && past * 2 > time) {
      follower.KillAndRestart();
      restarted = true;
    }
    if (Clock::now() - told_at > std::chrono::seconds(20)) {
      told_at = Clock::now();
      std::printf("%4.0f s: %lu audits, %.1f MiB, %ld files, %ld threads\n",
                  std::chrono::duration<double>(past).count(), static_cast<unsigned long>(audits),
                  static_cast<double>(now.memory) / (1 << 20), static_cast<long>(now.files),
                  static_cast<long>(now.threads));
    }
  }
  for (std::thread& thread : threads) thread.join();
  audits += Audit(daemon);
  threads = on_threads([](Crowd& crowd) { crowd.DeleteAll(); });
  for (std::thread& thread : threads) thread.join();
  OneLife(daemon, kLast, v1::BACKEND_SIM);
  const uint64_t events = follower.Finish(&daemon);
  std::filesystem::remove(told);
  const Holdings after = Settled(pid, before);

  PrintCalls(crowds);
  uint64_t lives = 0;
  for (const Crowd& crowd : crowds) lives += crowd.lives();
  std::printf("\n%lu lives of VMs; %lu audits of a VM, all sound\n",
              static_cast<unsigned long>(lives), static_cast<unsigned long>(audits));
  std::printf("%lu events, each told once and in order to a watcher that was killed %d times\n",
              static_cast<unsigned long>(events), follower.restarts());
  std::printf("\n| %-28s | %9s | %9s | %9s | %9s |\n|---|---|---|---|---|\n", "the daemon",
              "before", "a third", "most", "after");
  constexpr double kMiB = 1 << 20;
  PrintRow("memory of its own, MiB", kMiB, before.memory, third.memory, most.memory, after.memory);
  PrintRow("memory of guests, MiB", kMiB, before.guest_memory, third.guest_memory,
           most.guest_memory, after.guest_memory);
  PrintRow("files", 1, before.files, third.files, most.files, after.files);
  PrintRow("threads", 1, before.threads, third.threads, most.threads, after.threads);
  PrintRow("mappings", 1, before.mappings, third.mappings, most.mappings, after.mappings);
  PrintRow("mappings of guests' memory", 1, before.guest_mappings, third.guest_mappings,
           most.guest_mappings, after.guest_mappings);

  Must(follower.restarts() == 1, "the watcher was never killed: give it more time");
  Must(after.guest_mappings == 0, "memory of guests that are gone is mapped");
  Must(after.files <= before.files + kFilesLeft, "files were left open");
  Must(after.threads <= before.threads + kThreadsLeft, "threads were left over");
  Must(after.memory <= std::max(before.memory, third.memory) + kMemoryLeft, "memory has grown");
  std::printf("\nsound\n");
}

}  // namespace
}  // namespace twinroot::soak

int main(int argc, char** argv) {
  absl::ParseCommandLine(argc, argv);
  const std::string endpoint = absl::GetFlag(FLAGS_endpoint);
  if (const std::string file = absl::GetFlag(FLAGS_follow); !file.empty()) {
    return twinroot::soak::Follow(endpoint, file, absl::GetFlag(FLAGS_cursor),
                                  absl::GetFlag(FLAGS_last));
  }
  const std::chrono::duration<double> time(absl::GetFlag(FLAGS_seconds));
  if (endpoint.empty() || absl::GetFlag(FLAGS_pid) <= 0 || time.count() < 5 ||
      absl::GetFlag(FLAGS_vms) < 2 || absl::GetFlag(FLAGS_busy) < 0 ||
      absl::GetFlag(FLAGS_busy) > absl::GetFlag(FLAGS_vms)) {
    std::fprintf(stderr,
                 "soak: give --endpoint and --pid of a running hvd, 5 s or more, and VMs: two or "
                 "more, of which so many may be busy\n");
    return 2;
  }
  setvbuf(stdout, nullptr, _IOLBF, 0);
  twinroot::soak::Soak(endpoint, absl::GetFlag(FLAGS_pid), time, absl::GetFlag(FLAGS_vms),
                       absl::GetFlag(FLAGS_busy), absl::GetFlag(FLAGS_seed));
  return 0;
}
