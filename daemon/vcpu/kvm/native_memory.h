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
#include <optional>
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
  // Neither is owned; they outlive this object.
  NativeMemory(const KvmFd* vm, memory::GuestRam* ram) : vm_(vm), ram_(ram) {}

  // Makes a guest_memfd for each window of the trap, and of both a memslot, from `slot` on.
  absl::Status Open(const Projection& trap, uint32_t& slot);

  // ExternalTables. Large leaves are attributes of many frames, so they split and merge by nothing.
  mmu::Level MaxLevel() const override { return mmu::Level::k2M; }
  absl::Status Set(mmu::Gfn gfn, mmu::Level level, mmu::Access access, mmu::Pfn pfn) override;
  absl::Status Split(mmu::Gfn, mmu::Level) override { return absl::OkStatus(); }
  bool CanSplit() const override { return true; }
  absl::Status Merge(mmu::Gfn, mmu::Level) override { return absl::OkStatus(); }
  absl::Status Remove(mmu::GfnRange range) override;

  // PageSource.
  mmu::Level LargestLeaf(mmu::Gfn gfn, mmu::MemoryKind kind) override;
  std::optional<mmu::Level> Ready(mmu::Gfn gfn, mmu::MemoryKind kind) override;
  absl::StatusOr<Page> Resolve(mmu::Gfn gfn, mmu::MemoryKind kind, mmu::Level wanted) override;
  // kFailedPrecondition: pages are reserved to be copied into, and nobody can copy here.
  absl::Status Reserve(mmu::GfnRange range, mmu::MemoryKind kind) override;
  void Copy(mmu::GfnRange, mmu::MemoryKind, mmu::MemoryKind) override {}  // nothing was reserved
  void Discard(mmu::GfnRange range, mmu::MemoryKind kind) override;

 private:
  struct Slot {
    mmu::GfnRange range;
    mmu::Pfn pfn;  // of its first frame, as the engine was told
    KvmFd memfd;
  };
  absl::Status SetAttributes(mmu::GfnRange range, uint64_t attributes);
  const Slot* Find(mmu::Gfn gfn) const;

  const KvmFd* const vm_;
  memory::GuestRam* const ram_;
  std::vector<Slot> slots_;  // fixed after Open
};

}  // namespace twinroot::kvm

#endif  // TWINROOT_DAEMON_VCPU_KVM_NATIVE_MEMORY_H_
