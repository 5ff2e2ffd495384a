// One root of the engine, projected into host address space: for each memslot a window (a mapping
// of the backing's memfd) that KVM uses as guest memory and that userfaultfd watches. What the
// engine sets is mapped in the window; everything else stops the vCPU. KVM's own tables follow the
// window as a TLB would.
//
// Thread-safe. The daemon never touches a window: it would wait for itself.
#ifndef TWINROOT_DAEMON_VCPU_KVM_PROJECTION_H_
#define TWINROOT_DAEMON_VCPU_KVM_PROJECTION_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "daemon/memory/guest_ram.h"
#include "daemon/memory/mapping.h"
#include "daemon/vcpu/kvm/userfault.h"
#include "mmu/tables/external_tables.h"
#include "mmu/types/memory_kind.h"

namespace twinroot::kvm {

class Projection : public mmu::ExternalTables {
 public:
  struct Window {
    mmu::GfnRange range;
    memory::Mapping mapping;
  };

  Projection(mmu::MemoryKind kind, Userfault* userfault) : kind_(kind), userfault_(userfault) {}

  // Maps and registers a window for each slot.
  absl::Status Open(memory::GuestRam& ram);

  mmu::MemoryKind kind() const { return kind_; }
  const std::vector<Window>& windows() const { return windows_; }

  // The frame behind an address inside one of the windows.
  std::optional<mmu::Gfn> GfnAt(uint64_t address) const;
  // Lets vCPUs that wait for this frame try again.
  void Wake(mmu::Gfn gfn);
  // Takes everything away for good: whoever waits or comes gets an error instead of the page.
  void Revoke();

  // ExternalTables. 4K leaves; larger ones are a later step.
  mmu::Level MaxLevel() const override { return mmu::Level::k4K; }
  absl::Status Set(mmu::Gfn gfn, mmu::Level level, mmu::Access access, mmu::Pfn pfn) override;
  absl::Status Remove(mmu::GfnRange range) override;

 private:
  std::byte* AddressOf(mmu::Gfn gfn) const;

  const mmu::MemoryKind kind_;
  Userfault* const userfault_;
  std::vector<Window> windows_;  // fixed after Open
};

}  // namespace twinroot::kvm

#endif  // TWINROOT_DAEMON_VCPU_KVM_PROJECTION_H_
