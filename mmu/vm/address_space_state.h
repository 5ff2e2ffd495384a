// Everything that one VM's memory consists of, for the files that work on it together: fault
// handler, attribute change, and the facade. Nobody else includes this.
//
// Each part says by its token parameters what must be held; LOCKING.md has the order.
#ifndef TWINROOT_MMU_VM_ADDRESS_SPACE_STATE_H_
#define TWINROOT_MMU_VM_ADDRESS_SPACE_STATE_H_

#include <atomic>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "mmu/hw/mmio_entry.h"
#include "mmu/tables/bug_sink.h"
#include "mmu/tables/entry_change.h"
#include "mmu/tables/epoch.h"
#include "mmu/tables/flush_batch.h"
#include "mmu/tables/mutex.h"
#include "mmu/tables/vm_counts.h"
#include "mmu/vm/attribute_map.h"
#include "mmu/vm/dirty_log.h"
#include "mmu/vm/guest_address_space.h"
#include "mmu/vm/invalidation_seq.h"
#include "mmu/vm/mem_type_map.h"
#include "mmu/vm/memslot_map.h"
#include "mmu/vm/nx_record.h"
#include "mmu/vm/page_resolves.h"
#include "mmu/vm/page_waiters.h"
#include "mmu/vm/root_set.h"
#include "mmu/vm/shadow_mmu.h"
#include "mmu/vm/table_limbo.h"

namespace twinroot::mmu {

// The first broken invariant of a VM; once there is one, the VM refuses work.
class BugRecord : public BugSink {
 public:
  // `first` hears of the first one; may be null.
  explicit BugRecord(BugSink* first) : first_(first) {}

  void ReportBug(const std::string& what) override {
    {
      const MutexLock lock(mutex_);
      if (bugged()) return;
      what_ = what;
      bugged_.store(true, std::memory_order_release);
    }
    if (first_ != nullptr) first_->ReportBug(what);
  }
  std::string what() const {
    const MutexLock lock(mutex_);
    return what_;
  }
  bool bugged() const { return bugged_.load(std::memory_order_acquire); }
  // OK, or kInternal with the reason.
  absl::Status Check() const {
    if (!bugged()) return absl::OkStatus();
    return absl::InternalError("this VM is bugged and refuses work; delete it: " + what());
  }

 private:
  mutable Mutex mutex_;
  std::string what_ TWINROOT_GUARDED_BY(mutex_);
  std::atomic<bool> bugged_{false};
  BugSink* const first_;
};

struct AddressSpaceState {
  AddressSpaceState(const GuestAddressSpace::Config& the_config,
                    const GuestAddressSpace::Environment& the_env)
      : config(the_config),
        env(the_env),
        bugs(the_env.bugs),
        roots(*the_env.pool, change),
        limbo(*the_env.pool, change, counts, config.layout),
        attributes(gfn_limit),
        mmio_generation(the_config.first_mmio_generation & kMmioGenerationMask) {}

  ~AddressSpaceState() { delete log.load(); }

  const GuestAddressSpace::Config config;
  const GuestAddressSpace::Environment env;
  const Gfn gfn_limit = config.layout.gfn_limit();
  const GfnRange everything{Gfn(0), gfn_limit.value};

  // Everything that takes something away, or reads what must not change meanwhile, takes turns.
  mutable Mutex turn_mutex;

  VmCounts counts;
  BugRecord bugs;
  EntryChange change{counts};

  RootSet roots;
  uint64_t tables_left_seen = 0;  // kTablesLeft when they were pruned last; changed by the Turn
  TableLimbo limbo;
  MemslotMap slots;
  AttributeMap attributes;
  InvalidationSeq seq;
  MemTypeMap mem_types;
  PageWaiters page_waiters;
  NxRecord nx_record;
  std::atomic<const DirtyLog*> log{nullptr};  // null: logging is off; changed by the Turn
  PageResolves resolves;
  // Of the memslots, as MMIO marks have it; changed under the turn.
  std::atomic<uint64_t> mmio_generation;
  // Faults that tell an external table of a leaf right now, with its slot frozen and no guard.
  std::atomic<int> external_sets{0};
  std::atomic<uint64_t> frames[2] = {};  // [MemoryKind]: frames inside slots with that attribute
  // Null: under TDP. The roots above stay empty beside it. The last member: it uses the others.
  std::unique_ptr<ShadowMmu> shadow;

  // Memory of that kind can be: through a root of its own, or by attribute alone.
  bool HasKind(MemoryKind kind) const { return roots.Has(kind) || shadow != nullptr; }

  FlushBatch NewBatch() {
    // What a processor marked in a leaf must not go with the leaf.
    FlushBatch::OnLeaf on_leaf;
    if (const DirtyLog* now = log.load(); now != nullptr && !now->withholds_write()) {
      on_leaf = [now](Gfn gfn, Level level, EptEntry leaf) {
        if (leaf.dirty()) now->MarkRange({gfn, FramesPerEntry(level)});
      };
    }
    return FlushBatch(*env.pool, change, env.flusher, counts, bugs, std::move(on_leaf));
  }
};

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_VM_ADDRESS_SPACE_STATE_H_
