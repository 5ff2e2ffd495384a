// Two machines that run the same guest: one has the guest's tables walked as the manual says, with
// nothing in between (what nested paging shows a guest); the other has shadow tables, which a
// processor of its own walks, with a TLB that keeps what nobody flushes.
#ifndef TWINROOT_TESTS_MMU_SHADOW_PAGED_MACHINE_H_
#define TWINROOT_TESTS_MMU_SHADOW_PAGED_MACHINE_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "mmu/shadow/guest_walker.h"
#include "mmu/shadow/shadow_audit.h"
#include "mmu/shadow/shadow_map.h"
#include "mmu/shadow/shadow_roots.h"
#include "mmu/shadow/shadow_split.h"
#include "mmu/shadow/shadow_tables.h"
#include "mmu/tables/bug_sink.h"
#include "mmu/tables/mutex.h"
#include "mmu/tables/table_pool.h"
#include "mmu/tables/vm_counts.h"
#include "tests/fakes/test_space.h"
#include "tests/mmu/shadow/guest_words.h"
#include "tests/mmu/shadow/hand_made_paging.h"
#include "tests/mmu/shadow/paging_manual.h"

namespace twinroot::mmu {

// Paging of one vCPU, as the guest has set it. `paging` false: none. Nested: the tables are those
// that a guest hypervisor made for a guest of its own, which has no paging.
struct GuestRegisters {
  bool paging = false;
  bool nested = false;  // an AMD processor's nested tables, in the formats of `state`
  bool ept = false;     // a nested EPT of 4 levels
  bool ept_flags = false;
  manual::State state;
  uint64_t cr3 = 0;
  Pdptes pdptes = {};
};

// What the guest sees of one access.
struct Seen {
  // A violation of a nested EPT is a page fault with its qualification for an error code.
  enum class Kind { kDone, kPageFault, kNoMemory, kTableMissing, kMisconfiguration };
  Kind kind = Kind::kDone;
  uint64_t value = 0;
  uint32_t error = 0;
  // Of an access that was made: where.
  uint64_t gpa = 0;
  friend bool operator==(const Seen&, const Seen&) = default;
};

struct Poke {
  uint64_t address = 0;
  manual::Request request;
  int bytes = 8;
  uint64_t value = 0;
};

// The guest's tables are what the processor walks.
class PlainMachine {
 public:
  explicit PlainMachine(size_t frames) : memory(frames), bytes_(frames * kPageSize) {}

  Seen Access(const GuestRegisters& registers, Poke poke);
  GuestWords memory;

 private:
  // Where it leads, or what happens instead.
  std::optional<Seen> WalkEpt(const GuestRegisters& registers, const Poke& poke, uint64_t& gpa);
  const uint64_t bytes_;
};

class ShadowMachine : public TlbFlusher, public ShadowBacking, public BugSink {
 public:
  static constexpr Hpa kPool{uint64_t{1} << 30};  // below 4 GiB, for PAE roots
  static constexpr uint64_t kMemory = uint64_t{8} << 30;

  ShadowMachine(size_t frames, Level root_level, ShadowFormat format = ShadowFormat::kPaging,
                size_t table_pages = 256, size_t most_pages = 200);

  // vCPU 0 or 1. MOV to CR3, and whatever else changes how it translates; false: #GP, nothing
  // changed.
  bool Load(size_t vcpu, GuestRegisters registers);
  // INVLPG.
  void Invalidate(size_t vcpu, uint64_t address);
  Seen Access(size_t vcpu, const Poke& poke);

  std::optional<std::string> Audit();
  const Turn& turn() const { return turn_; }

  // TlbFlusher, ShadowBacking, BugSink.
  void FlushRange(MemoryKind, HwGfn, uint64_t) override { FlushAll(); }
  void FlushAll() override {
    ++flushes;
    if (on_flush) std::exchange(on_flush, nullptr)();
    for (auto& tlb : tlbs_) tlb.clear();
  }
  std::optional<Page> At(const Turn&, Gfn gfn) override {
    if (gfn.value >= frames_) return std::nullopt;
    Page page{Pfn((kMemory >> kPageShift) + gfn.value), largest};
    page.withhold_fetch = nx_huge_pages;
    return page;
  }
  void ReportBug(const std::string& what) override { bugs.push_back(what); }

  ShadowPage* root(size_t vcpu) const { return roots_[vcpu]->current(); }
  // The walk of the shadow by a processor: where it leads. Nullopt: a fault.
  std::optional<uint64_t> WalkShadow(size_t vcpu, uint64_t address, const manual::Request& request);
  uint64_t RawWord(uint64_t hpa) const;

  GuestWords memory;
  std::vector<std::string> bugs;
  Level largest = Level::k2M;
  bool nx_huge_pages = false;
  uint64_t flushes = 0;
  std::function<void()> on_flush;  // once: what a processor does until then
  uint64_t faults = 0;
  uint64_t emulated = 0;

 private:
  const uint64_t frames_;
  PoolMemory pool_memory_;
  VmCounts counts_;
  EntryChange change_{counts_};
  Mutex turn_mutex_;
  const Turn turn_{turn_mutex_};

 public:
  TablePool pool;
  ShadowTables tables;
  ShadowMapper mapper;

 private:
  using Tlb = std::map<std::tuple<uint64_t, bool, bool, bool, int>, uint64_t>;
  Ia32Paging PagingOf(size_t vcpu) const;
  EptPaging EptOf(size_t vcpu) const;
  GuestWalkOutcome WalkGuestTables(size_t vcpu, const Poke& poke);
  GuestShape ShapeOf(size_t vcpu) const;
  std::optional<uint64_t> WalkShadowEpt(size_t vcpu, uint64_t address,
                                        const manual::Request& request);
  void Reload(size_t vcpu);
  // One fault: what the guest sees of it, or nothing, if it is to try again.
  std::optional<Seen> Fault(size_t vcpu, const Poke& poke);

  GuestRegisters registers_[2];
  std::unique_ptr<ShadowRoots> roots_[2];
  Tlb tlbs_[2];
};

}  // namespace twinroot::mmu

#endif  // TWINROOT_TESTS_MMU_SHADOW_PAGED_MACHINE_H_
