// START HERE. The memory of one VM: the only engine class that the daemon holds.
//
// Thread-safe: faults run in parallel; attribute and memslot changes take turns. Every user-facing
// call takes unaliased frames (A7); only HandleFault takes a raw address, as the processor reports.
// Invariants: 1. a private frame is reachable from the private root only (D8). 2. A leaf exists
// only where the attribute agrees with its root. 3. What can fail in a change happens before its
// first visible effect. 4. After a broken invariant the VM is bugged: every call refuses, others go
// on.
#ifndef TWINROOT_MMU_VM_GUEST_ADDRESS_SPACE_H_
#define TWINROOT_MMU_VM_GUEST_ADDRESS_SPACE_H_

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "mmu/engine/max_level.h"
#include "mmu/hw/ept_capabilities.h"
#include "mmu/hw/ept_pointer.h"
#include "mmu/tables/bug_sink.h"
#include "mmu/tables/external_tables.h"
#include "mmu/tables/table_pool.h"
#include "mmu/tables/tlb_flusher.h"
#include "mmu/types/access.h"
#include "mmu/types/address.h"
#include "mmu/types/gfn_range.h"
#include "mmu/types/level.h"
#include "mmu/types/memory_attributes.h"
#include "mmu/types/memory_kind.h"
#include "mmu/vm/dirty_log.h"
#include "mmu/vm/fault.h"
#include "mmu/vm/gpa_layout.h"
#include "mmu/vm/host_memory.h"
#include "mmu/vm/mem_type_map.h"
#include "mmu/vm/mmu_mode.h"
#include "mmu/vm/page_source.h"
#include "mmu/vm/pml_source.h"
#include "mmu/vm/root_set.h"
#include "mmu/vm/shadow_fault.h"

namespace twinroot::mmu {

// One range of guest memory with two backings. Frames are contiguous in host physical space: the
// frame of gfn is first_pfn + (gfn - range.first). A backing that a slot does not have is nullopt.
struct Memslot {
  GfnRange range;
  std::optional<Pfn> private_pfn;
  std::optional<Pfn> shared_pfn;
};

// Whether accesses outside of memslots leave a mark that makes the next one cheaper (F9).
enum class MmioCaching : uint8_t {
  kNone,
  kMisconfiguration,  // the next access is an EPT misconfiguration: to HandleMisconfiguration
};

struct PrefaultResult {
  uint64_t frames_done = 0;  // from the start of the range, without a gap
  absl::Status status;       // why not more; OK: all of them
};

enum class Content : uint8_t { kDestroy, kPreserve };
enum class Requester : uint8_t { kGuest, kHost };  // D6: only the guest may preserve to shared

// Whether a range that the environment refuses holds back the others (D5).
enum class Atomicity : uint8_t { kEach, kAllOrNothing };

// One target for many ranges: what is nullopt stays as it is, page by page.
struct AttributeChange {
  std::vector<GfnRange> ranges;  // any order; must not overlap; all inside memslots
  std::optional<MemoryKind> kind = std::nullopt;
  Content content = Content::kDestroy;  // of pages whose kind changes
  Requester requester = Requester::kHost;
  std::optional<Access> deny = std::nullopt;  // D11; denying read denies write too
  Atomicity atomicity = Atomicity::kAllOrNothing;
};
// What became of one range of a change.
struct RangeChange {
  absl::Status status;              // not OK: the environment refused it; nothing of it changed
  std::vector<GfnRange> converted;  // of its pages those whose kind changed: maximal, ordered
  std::vector<GfnRange> redenied;   // of its pages those whose denials changed
};
struct AttributeChangeResult {
  std::vector<GfnRange> converted;  // of all ranges: maximal, ordered; empty when nothing changed
  std::vector<GfnRange> redenied;
  std::vector<RangeChange> per_range;  // in the order of the call
};

// Leaves by [MemoryKind][0: 4K, 1: 2M, 2: 1G].
struct LeafTally {
  uint64_t leaves[2][3] = {};
  uint64_t& At(MemoryKind kind, Level level) {
    return leaves[static_cast<int>(kind)][static_cast<int>(level) - 1];
  }
};
// What a change would do if it were made now, with a table for every split.
struct AttributeChangePlan {
  AttributeChangeResult result;
  // Leaves that would be split along the ends, by the level that is split; `splits_kept`: large
  // leaves that an external table cannot split, so they go whole.
  LeafTally split;
  uint64_t splits_kept = 0;
  uint64_t tables_needed = 0;
  // Of the leaves as they stand after the splits: those that go, and those that lose rights.
  LeafTally zapped;
  LeafTally restricted;
  // Large leaves that come back where attributes are uniform again, and what they replace. Of an
  // external table, whose owner would have to be asked, none.
  LeafTally recovered;
  LeafTally covered;
  uint64_t flushes[2][2] = {};  // [MemoryKind][1: the execute-only alias]
  uint64_t bytes_discarded = 0;
  uint64_t bytes_copied = 0;
};

// Large pages that were split, by their level; `kept`: they found no table, or their external table
// cannot split them.
struct SplitResult {
  uint64_t split_1g = 0, split_2m = 0, kept = 0;
};
// Tables that became large pages again.
struct RecoverResult {
  uint64_t collapsed = 0;
};
// Bit i of words[k]: the page range.first + 64 k + i.
struct DirtyPages {
  GfnRange range;
  std::vector<uint64_t> words;
};

// Bit i of words[k]: the page range.first + 64 k + i was accessed.
struct AgeResult {
  GfnRange range;
  std::vector<uint64_t> words;
};

struct AttributeRun {
  GfnRange range;
  MemoryKind kind;
  Access denied;
};

// Why a page is mapped at its level, or what a fault would do (D3).
struct Explanation {
  // The alias may hold a leaf for the page: its kind is the alias's, and it has a backing.
  bool may_map = false;
  Level allowed = Level::k4K;         // if may_map: the leaf that a fault would choose now
  LevelVeto veto = LevelVeto::kNone;  // what forbids one that is larger than `allowed`
  std::optional<Level> mapped;        // the leaf that stands there
  // A table of smaller pages stands where `allowed` could: nobody has recovered it yet.
  bool smaller_table = false;
  MemoryAttributes attributes;  // outside of memslots: shared
  bool in_memslot = false;
  bool dirty_log = false;
};

// One entry of a walk.
struct TranslationStep {
  Level level;
  uint64_t index;
  Hpa entry_hpa;
  uint64_t entry;  // raw 64-bit word
};
struct Translation {
  EptPointer ept_pointer;
  std::vector<TranslationStep> steps;
  bool mapped = false;
  Hpa hpa;                   // of the byte asked for, if mapped
  Level level = Level::k4K;  // of the leaf, if mapped
  Access access;             // of the leaf, if mapped
  MemoryKind attribute = MemoryKind::kPrivate;
  Explanation why;
};

// A page of a root's tables, as a processor would read it.
struct TableImage {
  Hpa hpa;
  Level level = Level::k4K;
  Gfn first;       // that it maps, without stolen bits
  HwGfn hw_first;  // the same in the walk
  std::array<uint64_t, 512> entries;
};

struct AddressSpaceStats {
  uint64_t faults_fixed = 0, faults_spurious = 0, faults_retry = 0, faults_mmio = 0,
           faults_memory = 0, faults_failed = 0;
  uint64_t faults_fast = 0;  // of the fixed: a withheld right was given back
  uint64_t splits_dirty_log = 0, splits_request = 0, splits_conversion = 0, splits_fault = 0,
           splits_kept = 0;
  uint64_t collapses_dirty_log = 0, collapses_attributes = 0, collapses_nx = 0;
  // [MemoryKind][0: 4K, 1: 2M, 2: 1G] leaves present now.
  uint64_t leaves[2][3] = {};
  // Of MmuMode::kShadow, shadow pages are table pages, and their leaves are in no `leaves`.
  uint64_t table_pages = 0, table_pages_budget = 0;
  uint64_t shadow_pages = 0, shadow_leaves = 0;
  // Full flushes: one for each ZapAll.
  uint64_t flushes_range = 0, flushes_full = 0;
  uint64_t invalidations = 0;
  uint64_t private_frames_attribute = 0, shared_frames_attribute = 0;
  // How often everything was zapped; detached tables that wait to be taken down, each with all that
  // is below it. Those count in table_pages until then, what they map is in no `leaves`.
  uint64_t zap_generation = 0, detached_tables = 0;
  uint64_t mmio_cached = 0;  // accesses that an MMIO mark answered
};

// Who decides the memory type of guest memory (F12).
enum class CachePolicy : uint8_t {
  kWriteBack,  // the host: write-back, whatever the guest's PAT says
  kGuestPat,   // the guest's PAT over write-back
  kGuestMtrr,  // the guest's MTRRs (SetMemoryTypes) and its PAT
};

class GuestAddressSpace {
 public:
  struct Config {
    GpaLayout layout;
    // kShadow: no stolen bits (A6); each page is reached as the kind that its attribute says.
    MmuMode mmu = MmuMode::kTdp;
    int host_maxphyaddr = 52;  // width of an Hpa, 39 to 52
    EptCapabilities capabilities = {};
    // What the guest may turn on. Neither goes together with stolen bits (A6): both would walk
    // 32-bit or guest-made tables that cannot carry them.
    bool legacy_guest_paging = false;  // 32-bit paging without PAE
    bool nested_ept = false;
    RootArrangement arrangement = RootArrangement::kTwoRoots;
    // NX-huge-page mitigation (F8): large pages are not executable, a fetch splits them.
    bool nx_huge_pages = false;
    CachePolicy cache = CachePolicy::kGuestPat;
    // The guest can be told that a private page is on its way (a paravirtual interface of its own).
    bool tell_private_pending = false;
    MmioCaching mmio_caching = MmioCaching::kNone;
    uint64_t first_mmio_generation = 0;  // for tests of the wrap
  };
  // Not owned; must outlive the address space. `flusher` and the external tables may be null.
  struct Environment {
    TablePool* pool = nullptr;
    PageSource* pages = nullptr;
    TlbFlusher* flusher = nullptr;
    ExternalTables* external_private = nullptr;
    ExternalTables* external_shared = nullptr;
    PmlSource* pml = nullptr;  // null: no page-modification log
    // kShadow: not null, and `pages` says what is Ready.
    HostMemory* host_memory = nullptr;
    // Hears of the first broken invariant; null: nobody does. From then on this VM refuses work,
    // but what its processors have cached they may still use: whoever runs them stops them.
    BugSink* bugs = nullptr;
  };

  // kInvalidArgument: a combination that the hardware rules forbid (A6). kResourceExhausted: no
  // table page for the roots.
  static absl::StatusOr<std::unique_ptr<GuestAddressSpace>> Create(const Config& config,
                                                                   const Environment& environment);
  ~GuestAddressSpace();

  // All frames of a new slot are private. kInvalidArgument: empty, beyond gfn_limit, or frames
  // beyond host_maxphyaddr. kAlreadyExists: overlaps another slot.
  absl::Status AddMemslot(const Memslot& slot);
  // The slot that begins at `first` goes: its frames are MMIO again, with the attributes that they
  // had before there was a slot. When it returns, nothing uses the backing any more, and no
  // PageSource call for it is under way; its content is the caller's. Not from inside PageSource.
  // kNotFound; kInternal: an external table kept something, and the VM is bugged. Errors leave the
  // slot.
  absl::Status RemoveMemslot(Gfn first);
  // The slot that begins at `first` begins at `new_first`: content and attributes go along. The
  // places may overlap. PageSource::Move is told. kNotFound; kInvalidArgument: beyond gfn_limit;
  // kAlreadyExists: another slot is there; what PageSource::Move says. Errors change nothing.
  absl::Status MoveMemslot(Gfn first, Gfn new_first);

  // The walk "EPT violation": never blocks on another vCPU; may block in PageSource.
  FaultOutcome HandleFault(const Fault& fault);

  // Of MmuMode::kShadow, for the others abort. Any thread; each vCPU's from one at a time.
  // How the vCPU's guest translates from now on: MOV to a control register. The root that its
  // processor walks, of 5 levels. What the guest has written into its tables counts from here.
  absl::StatusOr<Hpa> LoadPaging(uint32_t vcpu, const GuestPaging& paging);
  // The PDPTEs that MOV to CR3 loads under PAE.
  LoadPdptesOutcome ReadPdptes(uint64_t cr3);
  // A page fault that the guest may not know of. May block in PageSource.
  ShadowFaultOutcome HandleShadowFault(const ShadowFault& fault);
  // INVLPG: as for LoadPaging.
  void InvalidatePaging();

  // An EPT misconfiguration. Failed: it was no mark of ours, and the VM is bugged. Never blocks.
  MmioOutcome HandleMisconfiguration(Gpa gpa);

  // Maps memory that no vCPU has touched yet, as faults would, large where they would be (D9): of
  // `kind`, or if unset each page by its attribute. `progress`, if set, is called every 512 frames
  // or leaf, and stops it by returning false (status kCancelled). It may block in PageSource.
  // kInvalidArgument: a bad, aliased or unmapped range. In the result: kFailedPrecondition: a page
  // of the other kind, without backing, or removed meanwhile; kAborted: a page changed too often;
  // kUnavailable: a page is on its way (F13);
  // kResourceExhausted.
  absl::StatusOr<PrefaultResult> Prefault(
      GfnRange range, std::optional<MemoryKind> kind,
      const std::function<bool(uint64_t frames_done)>& progress);

  // The walk "SetMemoryAttributes" (D4, D5, D6, D11). kInvalidArgument: an empty, wrapping,
  // overlapping or aliased range, or frames outside every memslot (the first such range is named by
  // index and address), or no target at all; kPermissionDenied: PRESERVE_WOULD_DISCLOSE;
  // kFailedPrecondition: the processor cannot enforce these denials. These change nothing.
  // What the environment refuses (no backing: kFailedPrecondition; no memory: kResourceExhausted)
  // is the status of the range under kEach, and of the call under kAllOrNothing.
  absl::StatusOr<AttributeChangeResult> SetMemoryAttributes(const AttributeChange& change);
  // What that would do now; changes nothing at all. Errors as above, but nothing is reserved: what
  // only memory decides is taken for granted.
  absl::StatusOr<AttributeChangePlan> PlanMemoryAttributes(const AttributeChange& change) const;

  // Not OK, kInvalidArgument as above: some frame of the range lies in no memslot.
  absl::Status CheckMemory(GfnRange range) const;
  // Maximal runs inside memslots, ordered. kInvalidArgument as above.
  absl::StatusOr<std::vector<AttributeRun>> GetMemoryAttributes(GfnRange range) const;
  // The same for all memslots.
  std::vector<AttributeRun> GetMemoryAttributes() const;

  // The walk of an unaliased address through a root, as the tables stand. kInvalidArgument: stolen
  // or reserved bits.
  absl::StatusOr<Translation> Translate(Gpa gpa, MemoryKind alias, bool execute_only = false) const;

  // At most `max` tables of a root in the order of a walk (parents first, by address), those that
  // come after `after`; none: all were told. One Turn: no change comes between, but faults fill
  // entries. kFailedPrecondition: no such root.
  absl::StatusOr<std::vector<TableImage>> DumpTables(MemoryKind root, const TableImage* after,
                                                     size_t max) const;

  // Runs `access` while every frame of the range is and stays shared. kPermissionDenied: some
  // frame is private (named by its address); kInvalidArgument: outside memslots. `access` must not
  // call back into this object.
  absl::Status WithSharedPages(GfnRange range, const std::function<void()>& access);

  // Host-initiated reclaim of backing: removes every mapping of the range in every root (A4);
  // content and attributes stay.
  absl::Status Zap(GfnRange range);

  // Removes every mapping of the VM, in a time that does not grow with memory (F7): everything is
  // detached, flushed, and gone from external tables when it returns; content and attributes stay.
  // The tables wait for ReclaimTables. kInternal: an external table kept something; the VM is
  // bugged.
  absl::Status ZapAll();
  // Takes down at most `max_tables` of those that wait, or frees those that a zap of few pages left
  // with nothing in them, and says how many: call it in the background until it says 0. A fault
  // that finds no table does so by itself.
  size_t ReclaimTables(size_t max_tables);

  // D7: zeroes the range's backing of one kind and removes its mappings; attributes stay.
  absl::Status PunchHole(GfnRange range, MemoryKind kind);

  // The walk "Dirty log with eager splitting" (F3, F4, F5). All memslots are logged. An error of
  // Enable other than a bugged VM changes nothing; large pages that found no table stay, lose W,
  // and are counted. kFailedPrecondition: on already; or the backend cannot.
  absl::StatusOr<SplitResult> EnableDirtyLog(const DirtyLogOptions& options);
  // Ends it and makes pages large again, in place, where nothing else forbids it: one flush a GiB.
  absl::StatusOr<RecoverResult> DisableDirtyLog();
  bool dirty_log_enabled() const;
  // What was written since the last harvest (kManual: since it was cleared). The range begins at a
  // multiple of 64 pages and lies in memslots, but for frames of its first 64 before the memslot
  // that begins there, which are clean. Every write that was complete when
  // the call began is in it or was in an earlier one.
  absl::StatusOr<DirtyPages> HarvestDirty(GfnRange range);
  // Pages from the ring of one vCPU, ordered; at most `max` entries of the ring.
  absl::StatusOr<std::vector<Gfn>> HarvestDirtyRing(uint32_t vcpu, size_t max);
  // kManual only: these pages start the next round. Those that are clean stay so.
  absl::Status ClearDirty(const DirtyPages& pages);
  // Memory that somebody other than a vCPU has changed. Takes the turn under MmuMode::kShadow.
  void MarkDirty(GfnRange range);

  // Pages that were accessed since the last call, through any alias (F6); each starts anew. A large
  // leaf counts for all of its pages. kFailedPrecondition: a root has an external table.
  absl::StatusOr<AgeResult> TestAndClearAccessed(GfnRange range);

  // Splits leaves that are larger than `target` (k4K or k2M), now; translations stay.
  absl::StatusOr<SplitResult> SplitPages(GfnRange range, Level target);
  // Makes pages large where nothing forbids it.
  absl::StatusOr<RecoverResult> RecoverPages(GfnRange range);
  // Config.nx_huge_pages: makes the `max` ranges of 2M large again that were made small first
  // because instructions were fetched from them (F8). Does nothing while the dirty log is on.
  absl::StatusOr<RecoverResult> RecoverNxHugePages(uint64_t max);

  // The guest's MTRRs, under CachePolicy::kGuestMtrr; otherwise kFailedPrecondition. What changes
  // its type is mapped anew. kInvalidArgument: ranges that are empty, out of order or beyond
  // memory.
  absl::Status SetMemoryTypes(const MemTypes& types);

  // A page that its source did not have is here now: which vCPUs wait for it. The caller wakes
  // them.
  std::vector<uint32_t> PageReady(Gfn gfn, MemoryKind kind);
  // After a conversion, a removal or a move: which vCPUs wait for a page that was there. They try
  // again and learn what has become of it; the caller wakes them.
  std::vector<uint32_t> TakeWaiters(GfnRange range);

  EptPointer ept_pointer(MemoryKind root) const;
  const GpaLayout& layout() const;
  AddressSpaceStats stats() const;
  // Of all memslots, by attribute. As stats() has it, for one load.
  uint64_t frames(MemoryKind kind) const;

  // Walks everything and checks the invariants (F11); the sentence of the first violation.
  absl::Status Audit() const;
  // Empty, or why this VM refuses work.
  std::string bugged() const;

 private:
  class Impl;
  explicit GuestAddressSpace(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_VM_GUEST_ADDRESS_SPACE_H_
