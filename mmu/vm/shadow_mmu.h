// The shadow tables of one VM behind its memslots, attributes and dirty log, and the vCPUs that run
// on them. The guest's tables lie in its memory, private or shared as their pages' attributes say.
//
// Thread-safe where nothing else is said; faults take the Turn from the guest walk to the leaf, so
// no memslot, attribute or page moves under them (LOCKING.md). Whoever takes something away from
// the guest calls the Turn's functions below, which find every leaf by the reverse map, and every
// table of the guest that lies there.
#ifndef TWINROOT_MMU_VM_SHADOW_MMU_H_
#define TWINROOT_MMU_VM_SHADOW_MMU_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "mmu/shadow/guest_memory.h"
#include "mmu/shadow/shadow_backing.h"
#include "mmu/shadow/shadow_map.h"
#include "mmu/shadow/shadow_roots.h"
#include "mmu/shadow/shadow_tables.h"
#include "mmu/tables/vm_counts.h"
#include "mmu/vm/guest_address_space.h"
#include "mmu/vm/shadow_fault.h"

namespace twinroot::mmu {

struct AddressSpaceState;

class ShadowMmu : private GuestMemory, private ShadowBacking {
 public:
  explicit ShadowMmu(AddressSpaceState& vm);
  // No vCPU runs any more.
  ~ShadowMmu() override;

  // As GuestAddressSpace says.
  absl::StatusOr<Hpa> Load(uint32_t vcpu, const GuestPaging& paging);
  LoadPdptesOutcome ReadPdptes(uint64_t cr3);
  ShadowFaultOutcome HandleFault(const ShadowFault& fault);
  void Sync();
  // Brings a page that no vCPU has touched yet; maps nothing. kUnavailable: it is on its way.
  absl::Status Populate(Gfn gfn, MemoryKind kind);
  // Somebody else has written there.
  void MemoryWritten(GfnRange range);

  // All leaves of the ranges go, and what stands in for tables there; one flush.
  void Zap(const Turn& turn, absl::Span<const GfnRange> ranges);
  // Everything, in a time that does not grow with memory (F7); the pages go by and by.
  void ZapAll(const Turn& turn);
  // At most so many of those; how many went.
  size_t Reclaim(const Turn& turn, size_t most);
  // The next write of every page of the range, or of those whose bits are set from `first` on,
  // comes by (dirty_log.h). Flushed when they return.
  void WithholdWrite(const Turn& turn, GfnRange range, Level smallest = Level::k4K);
  void WithholdWrite(const Turn& turn, Gfn first, absl::Span<const uint64_t> words);
  void Split(const Turn& turn, GfnRange range, Level target, VmCount reason, SplitResult& result);
  // Pages of small leaves where a large one may stand go: a fault brings the large one.
  uint64_t Recover(const Turn& turn, GfnRange range, VmCount reason);
  // Clears the accessed flags of leaves that touch the range; `page` gets what had it.
  void Age(const Turn& turn, GfnRange range, const std::function<void(GfnRange)>& page);
  // The first broken invariant: of the tables, or that a leaf leads to another frame than its
  // memslot and attribute name (D8).
  std::optional<std::string> Audit(const Turn& turn);

  // Shadow pages, and leaves of all levels, as of the last change.
  uint64_t pages() const { return pages_.load(std::memory_order_relaxed); }
  uint64_t leaves() const { return leaves_.load(std::memory_order_relaxed); }

 private:
  struct Vcpu {
    explicit Vcpu(ShadowTables& tables) : roots(tables) {}
    ShadowRoots roots;
    GuestPaging paging;
  };
  // The page source is to be asked for a page, without the turn; or was, and has brought it. It is
  // there as long as no change has ended around it since (`seq`).
  struct PageWanted {
    Gfn gfn;
    MemoryKind kind;
    Pfn pfn;
    uint64_t seq;
    Level level = Level::k4K;
  };
  struct TablesWanted {};
  using Step = std::variant<ShadowFaultOutcome, PageWanted, TablesWanted>;
  // What hinders an access of the guest's memory.
  using Hindrance = std::variant<FaultOutcome, PageWanted>;

  // One fault or load in its turn.
  class InTurn;

  Step FaultOnce(const Turn& turn, const ShadowFault& fault, const std::vector<PageWanted>& brought,
                 PreloadedTables& preload);
  absl::StatusOr<Hpa> LoadRoot(const Turn& turn, Vcpu& vcpu, PreloadedTables& preload);
  Step WriteByHand(const Turn& turn, const ShadowFault& fault, Gpa gpa);
  GuestWalkOutcome Walk(const Vcpu& vcpu, const LinearAccess& access);
  // Asks for the page; what the vCPU, if there is one, is told when it does not come.
  std::optional<FaultOutcome> Resolve(PageWanted& page, std::optional<uint32_t> vcpu);
  // The largest leaf around a page that is there, as the source, or this fault, knows.
  std::optional<Level> ReadyLevel(Gfn gfn, MemoryKind kind, Pfn pfn) const;
  absl::Status LoadTables(PreloadedTables& preload);
  Vcpu& VcpuOf(uint32_t vcpu);
  static ShadowRoots::Request RequestOf(const GuestPaging& paging);

  // The frame, if the guest may access it so and it is there; else hindrance_ says why not.
  std::optional<Pfn> FrameFor(const Turn& turn, Gpa gpa, Access access);
  std::byte* BytesFor(Gpa gpa, size_t bytes, Access access);
  void MarkWritten(Gfn gfn);
  // Flushes, and tells the figures.
  void Finish(const Turn& turn, ShadowFlush& flush);
  void CountPages();

  // GuestMemory, ShadowBacking: in a turn.
  std::optional<uint64_t> Read(Gpa word, int bytes) override;
  Exchange CompareExchange(Gpa word, int bytes, uint64_t expected, uint64_t desired) override;
  std::optional<Page> At(const Turn& turn, Gfn gfn) override;

  AddressSpaceState& vm_;
  ShadowTables tables_;
  ShadowMapper mapper_;

  // The Turn's.
  std::map<uint32_t, Vcpu> vcpus_;
  const Turn* turn_ = nullptr;  // of who reads guest memory now
  uint32_t vcpu_ = 0;           // for whom
  std::optional<Hindrance> hindrance_;
  const std::vector<PageWanted>* brought_ = nullptr;  // by this fault

  std::atomic<uint64_t> pages_{0};
  std::atomic<uint64_t> leaves_{0};
};

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_VM_SHADOW_MMU_H_
