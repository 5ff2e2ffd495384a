// Whether a vCPU's thread makes accesses right now, and how others stop it: as a hypervisor kicks a
// vCPU out of guest mode. Cheap for the owner, who asks for every access; dear for those who stop.
//
// The owner is one thread (one at a time, handed over with synchronization). Everybody else is a
// stopper. What the owner touches in guest mode, stoppers may touch while a Stop stands.
//
//   owner                                       stopper
//   Enter: inside = 1 (a)                       Stop: stops += 1 (c)
//          stops == 0? (b) else back off        wait until inside == 0 (d)
//   accesses, each: stops == 0? (e)             change what the owner reads
//   Leave: inside = 0, release (f)              ~Stop: stops -= 1, release (g)
//
// No access beside a Stop. a, b, c and d are sequentially consistent. If b misses c, then
// a < b < c < d in their order, so d sees the 1 of a (or a later f) and the stopper waits; if b
// sees c, the owner backs off and waits for 0. So two that race see each other on one side at
// least. Once inside, an access that has read 0 at e is a proof that nobody has been let through
// since a: d still sees 1. When d reads the 0 of f, all accesses before f are over and visible
// (acquire of a release); when b or e reads the 0 of g, or a later 0, the changes are visible to
// the next access (g's decrements are one release sequence). So a Stop waits for the access under
// way, goes before the next one, and an owner that makes access after access cannot hold it off.
//
// In guest mode, e is a load of a line that nobody writes; outside, an access costs a locked
// instruction (a) as well. An owner in guest mode must not block on what a stopper may hold, and
// must not stop itself: it leaves first.
#ifndef TWINROOT_MMU_VMX_GUEST_MODE_H_
#define TWINROOT_MMU_VMX_GUEST_MODE_H_

#include <atomic>
#include <mutex>
#include <thread>

namespace twinroot::mmu::vmx {

class GuestMode {
 public:
  // Owner. Returns when no Stop stands.
  void Enter() {
    for (;;) {
      inside_.store(true, std::memory_order_seq_cst);
      if (stops_.load(std::memory_order_seq_cst) == 0) return;
      Leave();
      while (stop_requested()) std::this_thread::yield();
    }
  }
  // Owner.
  void Leave() { inside_.store(false, std::memory_order_release); }
  // Owner, inside: somebody waits, so leave and enter again before the next access.
  bool stop_requested() const { return stops_.load(std::memory_order_acquire) != 0; }

  // While it stands, the owner is outside. Stops exclude each other.
  class Stop {
   public:
    explicit Stop(GuestMode& mode) : mode_(mode) {
      mode_.stops_.fetch_add(1, std::memory_order_seq_cst);
      mode_.mutex_.lock();
      while (mode_.inside_.load(std::memory_order_seq_cst)) std::this_thread::yield();
    }
    ~Stop() {
      mode_.mutex_.unlock();
      mode_.stops_.fetch_sub(1, std::memory_order_release);
    }
    Stop(const Stop&) = delete;
    Stop& operator=(const Stop&) = delete;

   private:
    GuestMode& mode_;
  };

 private:
  std::atomic<bool> inside_{false};
  // Away from what the owner writes.
  alignas(64) std::atomic<int> stops_{0};
  std::mutex mutex_;
};

}  // namespace twinroot::mmu::vmx

#endif  // TWINROOT_MMU_VMX_GUEST_MODE_H_
