#include <cstdio>
#include <deque>
#include <random>
#include <thread>
#include <vector>

#include "tests/load/client.h"
#include "tests/load/phases.h"
#include "tests/load/process.h"
#include "tests/load/watcher.h"

namespace twinroot::load {
namespace {

constexpr int kVms = 8;
constexpr double kWarmUp = 0.3;  // of the time
constexpr int64_t kFlat = 24 << 20;
const char kLast[] = "last";

// One of the clients: a thread that calls and a thread that watches, on one connection.
class Member {
 public:
  Member(const Load& load, int index, const std::string& cursor, Clock::time_point end)
      : index_(index),
        vm_("mix-" + std::to_string(index % kVms)),
        cursor_(cursor),
        client_(load.endpoint),
        watcher_(&client_, cursor, kLast, MannerOf(index, end)) {}

  void Begin(Clock::time_point end) {
    calls_ = std::thread([this, end] { Call(end); });
    watch_ = std::thread([this] { watcher_.Run(); });
  }
  void JoinCalls() { calls_.join(); }
  void JoinWatch() { watch_.join(); }

  const Watcher& watcher() const { return watcher_; }
  const Latencies& empty() const { return empty_; }
  const Latencies& set() const { return set_; }
  uint64_t others() const { return others_; }

 private:
  static Manner MannerOf(int index, Clock::time_point end) {
    if (index % 8 == 1) return {.cut_after = 300 + 7 * static_cast<uint64_t>(index)};
    if (index % 8 == 2) return {.slow_until = end};
    return {};
  }

  void Call(Clock::time_point end) {
    std::minstd_rand random(static_cast<unsigned>(index_ + 1));
    const uint64_t page = (4 << 20) + static_cast<uint64_t>(index_) * kPage;  // nobody else's
    bool shared = true;
    while (Clock::now() < end) {
      const auto begin = Clock::now();
      switch (random() % 10) {
        case 0:
        case 1:
        case 2:
          client_.Empty(vm_);
          empty_.Add(SecondsSince(begin));
          break;
        case 3:
          client_.GetMemoryAttributes(vm_);
          ++others_;
          break;
        case 4:
          client_.Translate(vm_, page);
          ++others_;
          break;
        case 5:
          client_.ListEvents(cursor_);
          ++others_;
          break;
        default:
          client_.SetMemoryAttributes(vm_, page,
                                      shared ? v1::MEMORY_KIND_SHARED : v1::MEMORY_KIND_PRIVATE);
          shared = !shared;
          set_.Add(SecondsSince(begin));
      }
    }
  }

  const int index_;
  const std::string vm_;
  const std::string cursor_;
  Client client_;
  Watcher watcher_;
  Latencies empty_, set_;
  uint64_t others_ = 0;
  std::thread calls_, watch_;
};

struct Sum {
  Latencies empty, set;
  uint64_t others = 0, events = 0, missed = 0, resumed = 0;
};

Sum Add(const std::deque<Member>& members) {
  Sum sum;
  for (const Member& member : members) {
    sum.empty.Add(member.empty());
    sum.set.Add(member.set());
    sum.others += member.others();
    sum.events += member.watcher().told().events;
    sum.missed += member.watcher().told().missed;
    sum.resumed += member.watcher().resumed();
  }
  return sum;
}

}  // namespace

void Mix(const Load& load) {
  Client client(load.endpoint);
  for (int i = 0; i < kVms; ++i) client.CreateVm("mix-" + std::to_string(i));
  client.CreateVm(kLast);
  const std::string cursor = client.Cursor();
  const auto begin = Clock::now();
  const auto after = [begin](double seconds) {
    return begin +
           std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
  };
  std::deque<Member> members;
  for (int i = 0; i < load.clients; ++i) {
    members.emplace_back(load, i, cursor, after(load.seconds));
  }
  for (Member& member : members) member.Begin(after(load.seconds));
  std::this_thread::sleep_until(after(load.seconds * kWarmUp));
  const Process warm = LookAt(load.pid);
  for (Member& member : members) member.JoinCalls();
  const double calling = SecondsSince(begin);
  const Process end = LookAt(load.pid);
  client.StartVm(kLast);  // its end is the last event
  for (Member& member : members) member.JoinWatch();
  const double watching = SecondsSince(begin);

  const Told all = ListAll(&client, cursor, kLast);
  Sum sum = Add(members);
  const uint64_t calls = sum.empty.count() + sum.set.count() + sum.others;
  std::printf("\n%d clients call and watch; x: beside the empty call under the same load\n",
              load.clients);
  PrintHeader();
  PrintRow("empty call", sum.empty, nullptr);
  PrintRow("SetMemoryAttributes, one page", sum.set, &sum.empty);
  std::printf("%-40s %8lu, %.0f/s\n", "calls of all kinds", calls,
              static_cast<double>(calls) / calling);
  std::printf("%-40s %8lu, %.0f/s; %lu in gaps; %lu resumed streams\n", "events told to watchers",
              sum.events, static_cast<double>(sum.events) / watching, sum.missed, sum.resumed);
  std::printf("%-40s %8lu; told by ListEvents to compare\n", "events", all.events);
  std::printf("%-40s %8.1f -> %.1f MiB; threads %ld -> %ld\n", "the daemon, warm -> end",
              static_cast<double>(warm.memory) / (1 << 20),
              static_cast<double>(end.memory) / (1 << 20), warm.threads, end.threads);

  Must(all.missed == 0, "the journal no longer keeps all of the load: take less time");
  for (size_t i = 0; i < members.size(); ++i) {
    Must(members[i].watcher().told().Covers(all),
         "watcher " + std::to_string(i) + " was not told every event once and in order");
  }
  Must(all.events > sum.set.count(), "conversions have no events");
  Must(end.memory - warm.memory < kFlat, "the daemon's memory grows");
}

}  // namespace twinroot::load
