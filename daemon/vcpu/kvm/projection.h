// One root of the engine, projected into host address space: for each memslot a window (a mapping
// of the backing's memfd) that KVM uses as guest memory and that userfaultfd watches. What the
// engine sets is mapped in the window; everything else stops the vCPU. KVM's own tables follow the
// window as a TLB would.
//
// A 2M leaf is mapped as 512 entries at once, and later by one entry of the host's tables (Settle):
// that waits for every processor of the host, too long for a fault. Both live side by side in one
// window, which is always one VMA.
//
// Thread-safe. The daemon never touches a window: it would wait for itself.
#ifndef TWINROOT_DAEMON_VCPU_KVM_PROJECTION_H_
#define TWINROOT_DAEMON_VCPU_KVM_PROJECTION_H_

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <list>
#include <mutex>
#include <optional>
#include <shared_mutex>
#include <vector>

#include "absl/status/status.h"
#include "daemon/memory/guest_ram.h"
#include "daemon/memory/mapping.h"
#include "daemon/vcpu/kvm/userfault.h"
#include "daemon/vcpu/projection_counts.h"
#include "mmu/tables/external_tables.h"
#include "mmu/types/memory_kind.h"

namespace twinroot::kvm {

class Projection : public mmu::ExternalTables {
 public:
  // How 2 MiB of a window are mapped.
  enum class Block : uint8_t {
    kSmall,   // 4K leaves, or nothing
    kPieces,  // a 2M leaf as 512 entries
    kWhole,   // a 2M leaf as one entry
  };
  struct Window {
    mmu::GfnRange range;
    memory::Mapping mapping;
    int fd = -1;  // the backing's
    // Guarded by the projection's mutex_.
    std::vector<Block> blocks;
    std::vector<bool> listed;    // in unsettled_spots_ or busy_spots_
    std::vector<uint8_t> tries;  // to make it whole that failed
  };

  // `unsettled`: Settle has something to do; called often, by any thread.
  Projection(mmu::MemoryKind kind, Userfault* userfault, std::function<void()> unsettled)
      : kind_(kind), userfault_(userfault), unsettled_(std::move(unsettled)) {}

  // Maps and registers a window for each slot.
  absl::Status Open(memory::GuestRam& ram);
  // One for a slot that is added, which is not there before the result.
  absl::Status AddWindow(mmu::GfnRange range, const memory::Backing& pages);
  // Of an added slot in which nothing is mapped; no vCPU is there. Whoever else waits there gets an
  // error. None: nothing happens.
  void RemoveWindow(mmu::GfnRange range);

  mmu::MemoryKind kind() const { return kind_; }
  // Not beside a change of them. The window that begins there.
  const Window* WindowAt(mmu::Gfn first) const;
  const std::list<Window>& windows() const { return windows_; }
  void AddCounts(vcpu::ProjectionCounts& counts) const;

  // The frame behind an address inside one of the windows.
  std::optional<mmu::Gfn> GfnAt(uint64_t address) const;
  // Lets vCPUs that wait for this frame try again.
  void Wake(mmu::Gfn gfn);
  // Lets those that wait for this frame, and are no vCPUs, go on with an error; nothing is mapped
  // there. Until Remove an access to it ends badly, so nobody may come.
  absl::Status Poison(mmu::Gfn gfn);
  // Takes everything away for good: whoever waits or comes gets an error instead of the page.
  void Revoke();

  // Makes one 2M leaf that is in pieces whole. False: there is none, for now. One thread at a time.
  // A vCPU that touches that leaf meanwhile waits, and so does Remove.
  bool Settle();
  // Leaves cannot be whole where writes are watched, and the dirty log that watched them has ended:
  // NeedsRenewal. Renew begins the windows anew, with nothing mapped. While it works an access
  // fails: no vCPU may run.
  bool NeedsRenewal() const { return needs_renewal_.load(std::memory_order_acquire); }
  absl::Status Renew();

  // Within its life, Set on this thread is for a vCPU that waits for this frame: where the leaf was
  // there before, its neighbourhood is enough.
  class Faulting {
   public:
    explicit Faulting(mmu::Gfn gfn);
    ~Faulting();
    Faulting(const Faulting&) = delete;
    Faulting& operator=(const Faulting&) = delete;

   private:
    const mmu::Gfn gfn_;
  };

  // ExternalTables.
  mmu::Level MaxLevel() const override { return mmu::Level::k2M; }
  absl::Status Set(mmu::Gfn gfn, mmu::Level level, mmu::Access access, mmu::Pfn pfn) override;
  absl::Status Split(mmu::Gfn gfn, mmu::Level level) override;
  bool CanSplit() const override { return true; }
  absl::Status Merge(mmu::Gfn gfn, mmu::Level level) override;
  absl::Status WithholdWrite(mmu::GfnRange range) override;
  bool CanWithholdWrite() const override { return userfault_->can_watch_writes(); }
  absl::Status Remove(mmu::GfnRange range) override;
  void MoveSlot(mmu::GfnRange range, mmu::Gfn to) override;

 private:
  struct Spot {
    Window* window;
    size_t block;
  };
  // With use_ held; so what is found.
  Window* WindowOf(mmu::Gfn gfn);
  static std::byte* AddressOf(const Window& window, mmu::Gfn gfn);
  static Spot SpotOf(Window& window, mmu::Gfn gfn);

  template <typename Function>
  static void ForEachBlock(Window& window, mmu::GfnRange range, const Function& function);

  // With mutex_ held: until nothing of the range is being settled.
  void AwaitSettled(std::unique_lock<std::mutex>& lock, const Window& window, mmu::GfnRange range);
  // The rest with use_ held. How it was before.
  Block MakeLarge(Window& window, mmu::GfnRange leaf);
  absl::Status WatchWrites();
  absl::Status Map(const Window& window, mmu::GfnRange range, Userfault::Rights rights);
  absl::Status TakeAway(Window& window, mmu::GfnRange range);
  // What is mapped, taken away by itself: the process's other threads map and fault meanwhile, as
  // they cannot while a mapping is replaced. So it comes before that.
  static void Empty(const Window& window);
  void Revoke(const Window& window);

  const mmu::MemoryKind kind_;
  Userfault* const userfault_;
  const std::function<void()> unsettled_;
  // Changed with use_ and mutex_ held.
  std::list<Window> windows_;

  // Shared by whoever uses the windows, alone for Renew, Revoke and changes of them.
  mutable std::shared_mutex use_;
  std::atomic<bool> watches_writes_{false};  // set under watch_mutex_
  std::atomic<bool> needs_renewal_{false};
  std::atomic<bool> revoked_{false};
  std::mutex watch_mutex_;

  mutable std::mutex mutex_;
  std::condition_variable settled_;
  // Guarded by mutex_.
  std::deque<Spot> unsettled_spots_;
  std::deque<Spot> busy_spots_;  // to be tried again
  std::optional<Spot> settling_;
  vcpu::ProjectionCounts counts_;
};

// OK: this host makes leaves whole. Else the reason; leaves of 2M then stay in pieces.
absl::Status ProbeWholeLeaves();

}  // namespace twinroot::kvm

#endif  // TWINROOT_DAEMON_VCPU_KVM_PROJECTION_H_
