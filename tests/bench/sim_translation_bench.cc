// What a guest access costs in the software processor, beside the loads that it cannot do without.
//
// Hit: a chain of reads, each at the address that the one before it has returned; the floor is the
// same chain through host pointers. Miss: a chain of pages that displace each other from the TLBs,
// so each read walks. The floor loads the same four entries and nothing else, not even the guest's
// bytes. Targets: 3 and 4 times the floor. The argument is the number of 4K pages in the chain.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <random>
#include <vector>

#include "mmu/hw/ept_capabilities.h"
#include "mmu/hw/ept_pointer.h"
#include "mmu/vmx/vcpu.h"
#include "tests/mmu/vmx/hand_made_tables.h"

namespace twinroot::mmu::vmx {
namespace {

constexpr uint64_t kGpa = 0x4000'0000;

// Guest pages whose first bytes lead from one to the next, in random order and round in a circle.
class Chain {
 public:
  // `stride`: GPA pages from one to the next.
  explicit Chain(uint64_t pages, bool accessed_dirty = true, uint64_t stride = 1)
      : stride_(stride),
        memory_(2 * pages + 64),
        root_(memory_.NewPage()),
        vcpu_(&memory_, {}, 52) {
    std::vector<uint64_t> order(pages);
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin() + 1, order.end(), std::mt19937_64(1));
    std::vector<uint64_t> homes(pages);
    for (uint64_t page = 0; page < pages; ++page) {
      homes[page] = memory_.NewPage() + Offset(page);
      memory_.Map4K(root_, Address(page), homes[page] & ~uint64_t{4095});
    }
    for (uint64_t i = 0; i < pages; ++i) {
      const uint64_t next = order[(i + 1) % pages];
      memory_.Store(homes[order[i]], Address(next));
      // For the floor: where the next one lies in the host.
      memory_.Store(homes[order[i]] + 8,
                    reinterpret_cast<uint64_t>(memory_.At(Hpa(homes[next]), 16)));
    }
    first_host_ = memory_.At(Hpa(homes[0]), 16);
    vcpu_.LoadRoots(EptPointer::Make(Hpa(root_), 4, accessed_dirty), EptPointer(), std::nullopt);
    for (uint64_t page = 0; page < pages; ++page) vcpu_.Read(Gpa(Address(page)), 8);
  }

  Vcpu& vcpu() { return vcpu_; }
  const std::byte* first_host() const { return first_host_; }
  // The host's address of an EPT table; the walk's first.
  const uint64_t* Table(uint64_t hpa) {
    return reinterpret_cast<const uint64_t*>(memory_.At(Hpa(hpa), 4096));
  }
  uint64_t root() const { return root_; }
  // Distance between host addresses and HPAs.
  uint64_t Delta() { return reinterpret_cast<uint64_t>(Table(root_)) - root_; }

  uint64_t Address(uint64_t page) const { return kGpa + page * stride_ * 4096 + Offset(page); }

 private:
  // Spread over the lines of a page, or a few sets of the cache would do all the work.
  static uint64_t Offset(uint64_t page) { return page * 64 % 4096; }

  const uint64_t stride_;
  HandMadeTables memory_;
  const uint64_t root_;
  Vcpu vcpu_;
  const std::byte* first_host_ = nullptr;
};

uint64_t MustRead(Vcpu& vcpu, uint64_t gpa) {
  const AccessOutcome outcome = vcpu.Read(Gpa(gpa), 8);
  const auto* done = std::get_if<AccessDone>(&outcome);
  if (done == nullptr) std::abort();
  return done->value;
}

void BM_Hit_Floor_OneDependentLoad(benchmark::State& state) {
  Chain chain(static_cast<uint64_t>(state.range(0)));
  uint64_t at = reinterpret_cast<uint64_t>(chain.first_host());
  for (auto _ : state) {
    at = *reinterpret_cast<const volatile uint64_t*>(at + 8);
    benchmark::DoNotOptimize(at);
  }
}

void BM_Hit_InGuestMode(benchmark::State& state) {
  Chain chain(static_cast<uint64_t>(state.range(0)));
  uint64_t gpa = chain.Address(0);
  chain.vcpu().EnterGuest();
  for (auto _ : state) {
    gpa = MustRead(chain.vcpu(), gpa);
    benchmark::DoNotOptimize(gpa);
  }
  chain.vcpu().LeaveGuest();
}

void BM_Hit_EachAccessEntersAndLeaves(benchmark::State& state) {
  Chain chain(static_cast<uint64_t>(state.range(0)));
  uint64_t gpa = chain.Address(0);
  for (auto _ : state) {
    gpa = MustRead(chain.vcpu(), gpa);
    benchmark::DoNotOptimize(gpa);
  }
}

// All of them share one place in every TLB, so each access walks, while the tables and the bytes
// stay in the processor's own caches as long as the pages are few.
constexpr uint64_t kMissStride = Tlb::kEntries4K;

constexpr uint64_t kAddressBits = 0x000F'FFFF'FFFF'F000;

// The walk's four loads, each walk after the one before; the guest's own load is not among them,
// its addresses lie in a row.
void BM_Miss_Floor_FourDependentLoads(benchmark::State& state) {
  Chain chain(static_cast<uint64_t>(state.range(0)), true, kMissStride);
  std::vector<uint64_t> addresses;
  for (uint64_t gpa = chain.Address(0); addresses.size() < static_cast<uint64_t>(state.range(0));) {
    addresses.push_back(gpa);
    gpa = MustRead(chain.vcpu(), gpa);
  }
  const uint64_t delta = chain.Delta();
  uint64_t nothing = 0;  // known to nobody but us
  benchmark::DoNotOptimize(nothing);
  uint64_t table = 0;
  size_t next = 0;
  for (auto _ : state) {
    const uint64_t gpa = addresses[next] + (table & nothing);
    if (++next == addresses.size()) next = 0;
    table = chain.root();
    for (int shift = 39; shift >= 12; shift -= 9) {
      table =
          *reinterpret_cast<const volatile uint64_t*>(delta + table + (gpa >> shift & 511) * 8) &
          kAddressBits;
    }
    benchmark::DoNotOptimize(table);
  }
}

void Miss(benchmark::State& state, bool accessed_dirty) {
  Chain chain(static_cast<uint64_t>(state.range(0)), accessed_dirty, kMissStride);
  uint64_t gpa = chain.Address(0);
  chain.vcpu().EnterGuest();
  for (auto _ : state) {
    gpa = MustRead(chain.vcpu(), gpa);
    benchmark::DoNotOptimize(gpa);
  }
  chain.vcpu().LeaveGuest();
}
void BM_Miss_FlagsOn(benchmark::State& state) { Miss(state, true); }
void BM_Miss_FlagsOff(benchmark::State& state) { Miss(state, false); }

// What somebody else pays for making an idle vCPU forget one page.
void BM_FlushOfOnePage(benchmark::State& state) {
  Chain chain(64);
  for (auto _ : state) chain.vcpu().FlushRange(MemoryKind::kPrivate, HwGfn(kGpa >> 12), 1);
}

BENCHMARK(BM_Hit_Floor_OneDependentLoad)->Arg(8)->Arg(64)->Arg(256)->Arg(1024);
BENCHMARK(BM_Hit_InGuestMode)->Arg(8)->Arg(64)->Arg(256)->Arg(1024);
BENCHMARK(BM_Hit_EachAccessEntersAndLeaves)->Arg(64);
BENCHMARK(BM_Miss_Floor_FourDependentLoads)->Arg(8)->Arg(64)->Arg(1024);
BENCHMARK(BM_Miss_FlagsOn)->Arg(8)->Arg(64)->Arg(1024);
BENCHMARK(BM_Miss_FlagsOff)->Arg(8)->Arg(64)->Arg(1024);
BENCHMARK(BM_FlushOfOnePage);

}  // namespace
}  // namespace twinroot::mmu::vmx
