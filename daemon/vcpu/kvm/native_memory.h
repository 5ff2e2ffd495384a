// The private half of a VM whose kernel keeps private memory itself: one guest_memfd for each
// memslot, and KVM's memory attributes as the external table of the engine's private root.
//
// A frame has KVM's attribute PRIVATE if and only if the private root has a leaf for it. What has
// none reads the slot's host addresses, where nothing is ever mapped (the trap): the access stops
// in userfaultfd, and the engine decides. So rights come with the engine's frozen slot and go,
// flush included, before it says that they went (E1, E2); a conversion needs no second book.
//
// Also the page source of those VMs: private pages lie in the guest_memfds, shared ones where they
// always do, and no page in both. The host can neither read nor fill private pages. Thread-safe.
#ifndef TWINROOT_DAEMON_VCPU_KVM_NATIVE_MEMORY_H_
#define TWINROOT_DAEMON_VCPU_KVM_NATIVE_MEMORY_H_

#include <cstdint>
#include <list>
#include <mutex>
#include <optional>
#include <set>
#include <shared_mutex>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "daemon/memory/guest_ram.h"
#include "daemon/vcpu/kvm/kvm_api.h"
#include "daemon/vcpu/kvm/projection.h"
#include "mmu/tables/external_tables.h"
#include "mmu/vm/page_source.h"

namespace twinroot::kvm {

class NativeMemory : public mmu::ExternalTables, public mmu::PageSource {
 public:
  // None is owned; they outlive this object.
  NativeMemory(const KvmFd* vm, memory::GuestRam* ram, Projection* trap)
      : vm_(vm), ram_(ram), trap_(trap) {}

  // Makes a guest_memfd for a window of the trap, and of both KVM's memslot of that number.
  absl::Status Add(const Projection::Window& window, const memory::Backing& place, uint32_t number);
  // KVM's memslot is gone; the engine knows it no more. None: nothing happens.
  void Forget(mmu::GfnRange range);
  // The window has moved, and KVM's memslot follows it.
  absl::Status Follow(const Projection::Window& window, uint32_t number);

  // The kernel itself waits in the trap: a thread of its own in place of a halted vCPU (KVM's
  // asynchronous page faults), or KVM for what it emulates. Nothing ever comes there, and no signal
  // ends it: it goes on with an error. The first does not look at it, and the vCPU finds the frame
  // private. Where the frame is not private by now it waits anew, and is told of anew.
  absl::Status LetGo(mmu::Gfn gfn);

  // ExternalTables. Large leaves are attributes of many frames, so they split and merge by nothing.
  mmu::Level MaxLevel() const override { return mmu::Level::k2M; }
  absl::Status Set(mmu::Gfn gfn, mmu::Level level, mmu::Access access, mmu::Pfn pfn) override;
  absl::Status Split(mmu::Gfn, mmu::Level) override { return absl::OkStatus(); }
  bool CanSplit() const override { return true; }
  absl::Status Merge(mmu::Gfn, mmu::Level) override { return absl::OkStatus(); }
  absl::Status Remove(mmu::GfnRange range) override;
  void MoveSlot(mmu::GfnRange range, mmu::Gfn to) override;

  // PageSource.
  mmu::Level LargestLeaf(mmu::Gfn gfn, mmu::MemoryKind kind) override;
  std::optional<mmu::Level> Ready(mmu::Gfn gfn, mmu::MemoryKind kind) override;
  absl::StatusOr<Page> Resolve(mmu::Gfn gfn, mmu::MemoryKind kind, mmu::Level wanted) override;
  // kFailedPrecondition: pages are reserved to be copied into, and nobody can copy here.
  absl::Status Reserve(mmu::GfnRange range, mmu::MemoryKind kind) override;
  void Copy(mmu::GfnRange, mmu::MemoryKind, mmu::MemoryKind) override {}  // nothing was reserved
  void Discard(mmu::GfnRange range, mmu::MemoryKind kind) override;
  absl::Status Move(mmu::GfnRange from, mmu::Gfn to) override { return ram_->Move(from, to); }

 private:
  struct Slot {
    mmu::GfnRange range;
    mmu::Pfn pfn;  // of its first frame, as the engine was told
    KvmFd memfd;
    std::vector<bool> is_private;  // by frame, as KVM has it; guarded by mutex_
  };
  // With mutex_ held.
  absl::Status SetAttributes(mmu::GfnRange range, bool is_private);
  absl::Status SetRegion(const Slot& slot, const Projection::Window& window, uint32_t number);
  Slot* Find(mmu::Gfn gfn);

  const KvmFd* const vm_;
  memory::GuestRam* const ram_;
  Projection* const trap_;
  // The list and its ranges: changed with both mutexes held. A slot stays while the engine has it.
  std::list<Slot> slots_;
  std::shared_mutex slots_mutex_;
  std::mutex mutex_;  // before slots_mutex_
  // What LetGo has poisoned. KVM reaches a poisoned page of the trap only where the frame is not
  // private, and would have the daemon killed: so it goes before the attribute does.
  std::set<mmu::Gfn> poisoned_;  // guarded by mutex_
};

}  // namespace twinroot::kvm

#endif  // TWINROOT_DAEMON_VCPU_KVM_NATIVE_MEMORY_H_
