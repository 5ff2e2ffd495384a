// What guests of the kvm backend wait for, beside the bare system calls of the same work.
#include <algorithm>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "tests/bench/bare_window.h"
#include "tests/bench/clock.h"
#include "tests/bench/kvm_guest.h"
#include "tests/bench/row.h"

namespace twinroot::bench {

const char kProgram[] = "kvm";

std::string WhyNotHere() { return KvmGuest::WhyNot(); }

namespace {

using mmu::Gfn;
using mmu::GfnRange;
using mmu::MemoryKind;

constexpr uint64_t kPage = BareWindow::kPage;
constexpr uint64_t kBlock = BareWindow::kBlock;
constexpr uint64_t kBlockFrames = kBlock / kPage;
constexpr uint64_t kAt = 0x400000;  // where the guests work
constexpr uint64_t kLogged = 4 * kBlock;
constexpr uint64_t kMemory = KvmGuest::Options().memory_bytes;

double Us(double ns) { return ns / 1000; }

std::string Step(const std::string& text) { return absl::StrCat("steps { ", text, " } "); }
std::string Loop(uint64_t count, const std::string& steps) {
  return Step(absl::StrCat("loop { count: ", count, " ", steps, " }"));
}
// One vCPU: what goes before, what is timed, and what comes after.
std::string Timed(const std::string& before, const std::string& timed,
                  const std::string& after = "") {
  return absl::StrCat("vcpus { ", before, Step("print { text: \"a\" }"), timed,
                      Step("print { text: \"b\" }"), after, "}");
}

// The guest's own time of `timed`, for each of `units`.
double GuestUs(uint64_t units, const std::string& before, const std::string& timed) {
  KvmGuest guest(Timed(before, timed));
  guest.Run();
  return Us(guest.BetweenPrints()) / static_cast<double>(units);
}

// Out of the guest and into it again, for nothing.
double ExitUs() {
  constexpr uint32_t kTimes = 1000;
  const auto guest = KvmGuest::ThatExits(kTimes);
  guest->Run();
  return Us(guest->BetweenPrints()) / (kTimes - 1);
}

// Faults of 4K: all pages but one of each 2 MiB are shared, so no leaf can be larger.
Trial Fault4k(Effort effort) {
  const uint64_t blocks = Pick(effort, 8, 1);
  std::string before, timed;
  for (uint64_t i = 0; i < blocks; ++i) {
    const uint64_t gpa = kAt + i * kBlock;
    before += Step(absl::StrCat("map_gpa { gpa: ", gpa, " pages: 511 kind: MEMORY_KIND_SHARED }"));
    timed += Loop(511, Step(absl::StrCat("write { gpa: ", gpa,
                                         " alias: MEMORY_KIND_SHARED stride: 4096 value: 1 }")));
  }
  return {.measured = [=] { return GuestUs(511 * blocks, before, timed); },
          .floor =
              [=] {
                BareWindow window(blocks * kBlock);
                return ExitUs() + Us(WallNs(blocks * kBlockFrames, [&] {
                         for (uint64_t at = 0; at < blocks * kBlock; at += kPage) window.Touch(at);
                       }));
              },
          .note = {}};
}

// Several vCPUs, each in memory of its own: what all of them get done in that time.
Trial Fault4kOn4Vcpus(Effort effort) {
  constexpr uint64_t kVcpus = 4;
  const uint64_t blocks = Pick(effort, 4, 1);  // of each
  std::string program;
  for (uint64_t vcpu = 0; vcpu < kVcpus; ++vcpu) {
    std::string before, timed;
    for (uint64_t i = 0; i < blocks; ++i) {
      const uint64_t gpa = kAt + (vcpu * blocks + i) * kBlock;
      before +=
          Step(absl::StrCat("map_gpa { gpa: ", gpa, " pages: 511 kind: MEMORY_KIND_SHARED }"));
      timed += Loop(511, Step(absl::StrCat("write { gpa: ", gpa,
                                           " alias: MEMORY_KIND_SHARED stride: 4096 value: 1 }")));
    }
    const std::string meet = Step("barrier {}");
    const std::string print = vcpu == 0 ? Step("print { text: \"a\" }") : "";
    absl::StrAppend(&program, "vcpus { ", before, meet, print, timed, meet, print, "} ");
  }
  return {.measured =
              [=] {
                KvmGuest guest(program, {.memory_bytes = kMemory, .vcpus = kVcpus});
                guest.Run();
                return Us(guest.BetweenPrints()) / static_cast<double>(kVcpus * blocks * 511);
              },
          .floor =
              [=] {
                BareWindow window(kVcpus * blocks * kBlock);
                const double ns = WallNs(kVcpus * blocks * kBlockFrames, [&] {
                  std::vector<std::thread> threads;
                  for (uint64_t i = 0; i < kVcpus; ++i) {
                    threads.emplace_back([&, i] {
                      const uint64_t begin = i * blocks * kBlock;
                      for (uint64_t at = 0; at < blocks * kBlock; at += kPage) {
                        window.Touch(begin + at);
                      }
                    });
                  }
                  for (std::thread& thread : threads) thread.join();
                });
                return Us(ns);
              },
          .note = {}};
}

// The first touch of 2 MiB.
Trial Fill2m(Effort effort) {
  const uint64_t blocks = Pick(effort, 24, 4);
  const std::string timed =
      Loop(blocks, Step(absl::StrCat("write { gpa: ", kAt, " stride: ", kBlock, " value: 1 }")));
  return {.measured = [=] { return GuestUs(blocks, "", timed); },
          .floor =
              [=] {
                BareWindow window(blocks * kBlock);
                return ExitUs() + Us(WallNs(blocks, [&] {
                         for (uint64_t at = 0; at < blocks * kBlock; at += kBlock) {
                           window.Allocate(at, kBlock);
                           window.Map(at, kBlock);
                         }
                       }));
              },
          .note = {}};
}

// Taken from a guest that has it, its content too: SetMemoryAttributes over 2 MiB.
Trial Convert2m(bool whole) {
  return {.measured =
              [=] {
                KvmGuest guest("vcpus {}");
                host::Vm& vm = guest.vm();
                const GfnRange range{Gfn(kAt / kPage), kBlockFrames};
                Require(vm.Prefault(range, std::nullopt).ok(), "a prefault");
                while (whole && vm.counters().projection.whole == 0) std::this_thread::yield();
                return Us(WallNs(1, [&] {
                  Require(vm.Convert({range}, MemoryKind::kShared, mmu::Content::kDestroy).ok(),
                          "a conversion");
                }));
              },
          .floor =
              [=] {
                BareWindow window(kBlock);
                window.Allocate(0, kBlock);
                window.Map(0, kBlock);
                if (whole) window.Collapse(0);
                return Us(WallNs(1, [&] {
                  window.Zap(0, kBlock);
                  window.Punch(0, kBlock);
                }));
              },
          .note = {}};
}

// One page of a whole leaf: it is split, and the other 511 stay mapped.
Trial ConvertPartOfWhole(Effort) {
  return {
      .measured =
          [] {
            KvmGuest guest("vcpus {}");
            host::Vm& vm = guest.vm();
            const GfnRange range{Gfn(kAt / kPage), kBlockFrames};
            Require(vm.Prefault(range, std::nullopt).ok(), "a prefault");
            while (vm.counters().projection.whole == 0) std::this_thread::yield();
            return Us(WallNs(1, [&] {
              Require(
                  vm.Convert({{range.first, 1}}, MemoryKind::kShared, mmu::Content::kDestroy).ok(),
                  "a conversion");
            }));
          },
      .floor =
          [] {
            BareWindow window(kBlock);
            window.Allocate(0, kBlock);
            window.Collapse(0);
            return Us(WallNs(1, [&] {
              window.Zap(0, kBlock);
              window.Map(0, kBlock);
              window.Zap(0, kPage);
              window.Punch(0, kPage);
            }));
          },
      .note = {}};
}

// A conversion as its guest sees it, with the access that needs it.
Trial ConvertSeen(Effort effort, const std::string& round, uint64_t conversions) {
  const uint64_t rounds = Pick(effort, 2000, 100);
  return {.measured = [=] { return GuestUs(rounds * conversions, round, Loop(rounds, round)); },
          .floor =
              [=] {
                BareWindow window(kBlock);
                window.Touch(0);
                return ExitUs() + Us(WallNs(rounds, [&] {
                         for (uint64_t i = 0; i < rounds; ++i) {
                           window.Zap(0, kPage);
                           window.Punch(0, kPage);
                           window.Touch(0);
                         }
                       }));
              },
          .note = {}};
}

// The log of 8 MiB of large pages begins.
Trial BeginLog(bool eager) {
  return {
      .measured =
          [=] {
            KvmGuest guest("vcpus {}");
            host::Vm& vm = guest.vm();
            Require(vm.Prefault({Gfn(kAt / kPage), kLogged / kPage}, std::nullopt).ok(),
                    "a prefault");
            while (vm.counters().projection.pieces != 0) std::this_thread::yield();
            mmu::DirtyLogOptions options;
            options.eager_split = eager;
            return Us(WallNs(1, [&] { Require(vm.EnableDirtyLog(options).ok(), "a dirty log"); }));
          },
      .floor =
          [=] {
            // Of each kind one, as large as the guest's memory.
            BareWindow window(kMemory), other(kMemory);
            window.Allocate(0, kLogged);
            for (uint64_t at = 0; at < kLogged; at += kBlock) window.Collapse(at);
            return Us(WallNs(1, [&] {
              if (eager) {
                window.Zap(0, kLogged);
                window.Map(0, kLogged);
              }
              for (const BareWindow* each : {&window, &other}) {
                each->WatchWrites();
                each->Protect(0, kMemory);
              }
            }));
          },
      .note = {}};
}

// Every page of them is written once, by the guest; the log began before.
Trial FirstLoggedWrite(bool eager) {
  return {.measured =
              [=] {
                KvmGuest guest(Timed(
                    "", Loop(kLogged / kPage, Step(absl::StrCat("write { gpa: ", kAt,
                                                                " stride: 4096 value: 1 }")))));
                host::Vm& vm = guest.vm();
                Require(vm.Prefault({Gfn(kAt / kPage), kLogged / kPage}, std::nullopt).ok(),
                        "a prefault");
                mmu::DirtyLogOptions options;
                options.eager_split = eager;
                Require(vm.EnableDirtyLog(options).ok(), "a dirty log");
                guest.Run();
                return Us(guest.BetweenPrints()) / static_cast<double>(kLogged / kPage);
              },
          .floor =
              [=] {
                BareWindow window(kLogged);
                window.Allocate(0, kLogged);
                if (eager) window.Map(0, kLogged);
                window.WatchWrites();
                window.Protect(0, kLogged);
                return ExitUs() + Us(WallNs(kLogged / kPage, [&] {
                         for (uint64_t at = 0; at < kLogged; at += kPage) window.Touch(at);
                       }));
              },
          .note = {}};
}

Trial HarvestAllDirty(Effort) {
  return {.measured =
              [] {
                const std::string writes =
                    Loop(kLogged / kPage,
                         Step(absl::StrCat("write { gpa: ", kAt, " stride: 4096 value: 1 }")));
                // It must be there still: nothing is protected for a guest that has ended.
                const std::string stays =
                    Loop(1000000000, Step(absl::StrCat("read { gpa: ", kAt, " }")));
                KvmGuest guest(Timed("", writes, stays));
                host::Vm& vm = guest.vm();
                Require(vm.EnableDirtyLog({}).ok(), "a dirty log");
                guest.RunUntilSecondPrint();
                Require(vm.Pause().ok(), "a pause");
                return Us(WallNs(1, [&] {
                  const auto runs = vm.HarvestDirty(GfnRange{Gfn(kAt / kPage), kLogged / kPage});
                  Require(runs.ok() && runs->size() == 1 && (*runs)[0].count == kLogged / kPage,
                          "a harvest of every page");
                }));
              },
          .floor =
              [] {
                BareWindow window(kLogged);
                window.WatchWrites();
                window.Allocate(0, kLogged);
                window.Map(0, kLogged);
                return Us(WallNs(1, [&] { window.Protect(0, kLogged); }));
              },
          .note = {}};
}

const std::string kToShared = Step("write { gpa: 0x400000 alias: MEMORY_KIND_SHARED value: 1 }");
const std::string kToPrivate = Step("write { gpa: 0x400000 value: 1 }");
std::string MapGpa(const char* kind) {
  return Step(absl::StrCat("map_gpa { gpa: 0x400000 pages: 1 kind: MEMORY_KIND_", kind, " }"));
}

}  // namespace

void AddAllRows(Rows& rows) {
  const auto add = [&rows](std::string name, Target target, std::function<Trial(Effort)> make) {
    rows.push_back({std::move(name), "us", target, std::move(make)});
  };
  add("exit", Target::Report(),
      [](Effort) { return Trial{.measured = ExitUs, .floor = {}, .note = {}}; });
  add("fault_4k", Target::Report(), Fault4k);
  add("fault_4k_on_4_vcpus", Target::Report(), Fault4kOn4Vcpus);
  add("fill_2m", Target::Report(), Fill2m);
  add("convert_2m_pieces", Target::Report(), [](Effort) { return Convert2m(false); });
  add("convert_2m_whole", Target::Report(), [](Effort) { return Convert2m(true); });
  add("convert_4k_of_whole", Target::Report(), ConvertPartOfWhole);
  add("convert_seen_implicit", Target::Ratio(1.3),
      [](Effort effort) { return ConvertSeen(effort, kToShared + kToPrivate, 2); });
  add("convert_seen_map_gpa", Target::Report(), [](Effort effort) {
    return ConvertSeen(effort, MapGpa("SHARED") + kToShared + MapGpa("PRIVATE") + kToPrivate, 2);
  });
  add("log_begins_eager", Target::Report(), [](Effort) { return BeginLog(true); });
  add("log_begins_lazy", Target::Report(), [](Effort) { return BeginLog(false); });
  add("logged_write_eager", Target::Report(), [](Effort) { return FirstLoggedWrite(true); });
  add("logged_write_lazy", Target::Report(), [](Effort) { return FirstLoggedWrite(false); });
  add("harvest_8mib_dirty", Target::Report(), HarvestAllDirty);
}

}  // namespace twinroot::bench
