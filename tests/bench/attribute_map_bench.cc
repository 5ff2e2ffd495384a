// The attribute map beside what else could hold attributes: ordered maps of runs, and a radix of
// 6 bits a level with an entry for each private page (as KVM keeps them in an xarray).
//
// "16 GiB" is a guest of 16 GiB of private memory in which some 16,000 scattered runs of 8 pages
// are shared.
#include <benchmark/benchmark.h>

#include <cstdlib>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "absl/container/btree_map.h"
#include "mmu/tables/epoch.h"
#include "mmu/vm/attribute_map.h"

namespace twinroot::mmu {
namespace {

constexpr uint64_t kGuestFrames = 16 * FramesPerEntry(Level::k1G);
constexpr Gfn kLimit(uint64_t{1} << (46 - kPageShift));
constexpr MemoryAttributes kPrivate{MemoryKind::kPrivate};
constexpr MemoryAttributes kShared{MemoryKind::kShared};
constexpr uint64_t kRunPages = 8;

// Cheap against what is measured.
class Random {
 public:
  uint64_t operator()(uint64_t below) {
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    constexpr int kTopBits = 32;
    return (state_ >> kTopBits) * below >> kTopBits;
  }

 private:
  uint64_t state_ = 1;
};

class RadixOfNodes {
 public:
  RadixOfNodes() {
    Prepare({Gfn(0), kGuestFrames}, kPrivate);
    Set({Gfn(0), kGuestFrames}, kPrivate);
  }
  void Prepare(GfnRange range, MemoryAttributes attributes) {
    if (!map_.Prepare(turn_, range, attributes).ok()) std::abort();
  }
  void Set(GfnRange range, MemoryAttributes attributes) {
    Prepare(range, attributes);
    map_.Set(turn_, range, attributes);
    map_.Collapse(turn_, range);
  }
  bool IsShared(Gfn gfn) const { return map_.Get(turn_, gfn).kind == MemoryKind::kShared; }
  bool UniformAt2M(Gfn gfn) const { return map_.UniformAt(turn_, gfn, Level::k2M); }
  size_t bytes() const { return map_.bytes(); }

 private:
  Mutex mutex_;
  Turn turn_{mutex_};
  AttributeMap map_{kLimit};
};

// Where runs begin -> whether they are shared.
template <typename Map>
class MapOfRuns {
 public:
  MapOfRuns() { runs_ = {{0, false}, {kGuestFrames, true}}; }
  void Set(GfnRange range, MemoryAttributes attributes) {
    const bool shared = attributes.kind == MemoryKind::kShared;
    const uint64_t first = range.first.value, end = range.end().value;
    auto at = runs_.upper_bound(end);
    const bool after = std::prev(at)->second;
    auto from = runs_.lower_bound(first);
    const bool before = from == runs_.begin() ? !shared : std::prev(from)->second;
    at = runs_.erase(from, at);
    if (after != shared) at = runs_.insert(at, {end, after});
    if (before != shared) runs_.insert(at, {first, shared});
  }
  bool IsShared(Gfn gfn) const { return std::prev(runs_.upper_bound(gfn.value))->second; }

 private:
  Map runs_;
};

// 64 entries a node, a node for each 64 pages that are not all shared.
class RadixOfPages {
 public:
  RadixOfPages() {
    for (uint64_t gfn = 0; gfn < kGuestFrames; ++gfn) Store(gfn, kPrivateEntry);
  }
  void Set(GfnRange range, MemoryAttributes attributes) {
    for (Gfn at = range.first; at < range.end(); at = at + 1) {
      Store(at.value, attributes.kind == MemoryKind::kShared ? 0 : kPrivateEntry);
    }
  }
  bool IsShared(Gfn gfn) const {
    uintptr_t entry = reinterpret_cast<uintptr_t>(&root_);
    for (int shift = kTop;; shift -= kBits) {
      const auto& node = *reinterpret_cast<const Node*>(entry);
      entry = node.entry[gfn.value >> shift & (kFanOut - 1)].load(std::memory_order_acquire);
      if (shift == 0 || entry == 0) return entry == 0;
    }
  }

 private:
  static constexpr int kBits = 6;
  static constexpr int kTop = 18;  // four levels: just enough for 16 GiB
  static constexpr uint64_t kFanOut = uint64_t{1} << kBits;
  static constexpr uintptr_t kPrivateEntry = 1;
  struct Node {
    std::atomic<uintptr_t> entry[kFanOut] = {};
  };

  void Store(uint64_t gfn, uintptr_t value) {
    Node* node = &root_;
    for (int shift = kTop; shift > 0; shift -= kBits) {
      std::atomic<uintptr_t>& entry = node->entry[gfn >> shift & (kFanOut - 1)];
      if (entry == 0) {
        nodes_.push_back(std::make_unique<Node>());
        entry = reinterpret_cast<uintptr_t>(nodes_.back().get());
      }
      node = reinterpret_cast<Node*>(entry.load());
    }
    node->entry[gfn & (kFanOut - 1)] = value;
  }

  Node root_;
  std::vector<std::unique_ptr<Node>> nodes_;
};

// Each of twice 16,000 runs is shared half of the time.
template <typename Map>
class Guest16GiB {
 public:
  Guest16GiB() {
    for (size_t i = 0; i < kRuns; ++i) {
      runs_.emplace_back(random_(kGuestFrames - kRunPages), i % 2 == 0);
      if (i % 2 == 0) map.Set({Gfn(runs_[i].first), kRunPages}, kShared);
    }
  }
  void Toggle() {
    auto& [first, shared] = runs_[random_(kRuns)];
    shared = !shared;
    map.Set({Gfn(first), kRunPages}, shared ? kShared : kPrivate);
  }

  Map map;

 private:
  static constexpr size_t kRuns = 32768;
  Random random_;
  std::vector<std::pair<uint64_t, bool>> runs_;
};

using Nodes = RadixOfNodes;
using StdMap = MapOfRuns<std::map<uint64_t, bool>>;
using BtreeMap = MapOfRuns<absl::btree_map<uint64_t, bool>>;
using Pages = RadixOfPages;

// Prepare, Set and Collapse of a range that begins and ends inside of a leaf; to and fro.
void BM_SetLargeRange(benchmark::State& state) {
  Nodes map;
  const Gfn first(4096 * FramesPerEntry(Level::k1G) + 3);
  const GfnRange range{first, state.range(0) * FramesPerEntry(Level::k1G)};
  bool shared = true;
  for (auto _ : state) {
    shared = !shared;
    map.Set(range, shared ? kShared : kPrivate);
  }
}
BENCHMARK(BM_SetLargeRange)->ArgName("GiB")->Arg(1)->Arg(64)->Arg(1024);

template <typename Map>
void BM_Set8Pages(benchmark::State& state) {
  Guest16GiB<Map> guest;
  for (auto _ : state) guest.Toggle();
}
BENCHMARK_TEMPLATE(BM_Set8Pages, Nodes);
BENCHMARK_TEMPLATE(BM_Set8Pages, BtreeMap);
BENCHMARK_TEMPLATE(BM_Set8Pages, StdMap);

// What the choice of a frame costs in the benchmarks below.
void BM_RandomGfn(benchmark::State& state) {
  Random random;
  for (auto _ : state) benchmark::DoNotOptimize(random(kGuestFrames));
}
BENCHMARK(BM_RandomGfn);

template <typename Map>
void BM_LookUp(benchmark::State& state) {
  Guest16GiB<Map> guest;
  Random random;
  uint64_t shared = 0;
  for (auto _ : state) shared += guest.map.IsShared(Gfn(random(kGuestFrames)));
  benchmark::DoNotOptimize(shared);
  if constexpr (std::is_same_v<Map, Nodes>) state.counters["bytes"] = guest.map.bytes();
}
BENCHMARK_TEMPLATE(BM_LookUp, Nodes);
BENCHMARK_TEMPLATE(BM_LookUp, Pages);
BENCHMARK_TEMPLATE(BM_LookUp, BtreeMap);
BENCHMARK_TEMPLATE(BM_LookUp, StdMap);

// Each look-up waits for the one before.
template <typename Map>
void BM_LookUpLatency(benchmark::State& state) {
  Guest16GiB<Map> guest;
  Random random;
  uint64_t before = 0;
  for (auto _ : state) before = guest.map.IsShared(Gfn(random(kGuestFrames) ^ before));
  benchmark::DoNotOptimize(before);
}
BENCHMARK_TEMPLATE(BM_LookUpLatency, Nodes);
BENCHMARK_TEMPLATE(BM_LookUpLatency, Pages);

void BM_UniformAt2M(benchmark::State& state) {
  Guest16GiB<Nodes> guest;
  Random random;
  uint64_t uniform = 0;
  for (auto _ : state) uniform += guest.map.UniformAt2M(Gfn(random(kGuestFrames)));
  benchmark::DoNotOptimize(uniform);
}
BENCHMARK(BM_UniformAt2M);

}  // namespace
}  // namespace twinroot::mmu
