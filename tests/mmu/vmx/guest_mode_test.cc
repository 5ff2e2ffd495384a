// The protocol by which others stop a vCPU, under stress; TSan sees every access that it lets by.
#include "mmu/vmx/guest_mode.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

#include "mmu/vmx/vcpu.h"
#include "tests/mmu/vmx/hand_made_tables.h"

namespace twinroot::mmu::vmx {
namespace {

// A plain word, which only the protocol protects.
TEST(GuestModeTest, NoAccessRunsBesideAStop) {
  GuestMode mode;
  uint64_t guarded = 0;
  std::atomic<int> stoppers_left{3};
  std::thread owner([&] {
    for (uint64_t i = 0; stoppers_left != 0; ++i) {
      mode.Enter();
      // Sometimes several accesses before it leaves, as in guest mode.
      for (uint64_t n = 0; n <= i % 5 && !mode.stop_requested(); ++n) guarded += 2;
      mode.Leave();
    }
  });
  uint64_t broken = 0;
  std::vector<std::thread> stoppers;
  for (int s = 0; s < 3; ++s) {
    stoppers.emplace_back([&] {
      for (int i = 0; i < 3000; ++i) {
        const GuestMode::Stop stop(mode);
        guarded += 1;  // odd only while somebody stands here
        if (guarded % 2 != 1) ++broken;
        std::atomic_signal_fence(std::memory_order_seq_cst);
        guarded += 1;
      }
      --stoppers_left;
    });
  }
  for (std::thread& stopper : stoppers) stopper.join();
  owner.join();
  EXPECT_EQ(broken, 0u);
  EXPECT_EQ(guarded % 2, 0u);
  EXPECT_GE(guarded, 18'000u);
}

// Several threads take a page away, flush, and reuse it, while the guest writes to it as fast as it
// can, in and out of guest mode: no store lands after the flush has returned.
TEST(GuestModeTest, NoStoreLandsAfterAFlushWhateverTheGuestDoes) {
  constexpr uint64_t kGpa = 0x40'0000;
  constexpr int kFlushers = 2;
  HandMadeTables memory;
  const uint64_t root = memory.NewPage();
  Vcpu vcpu(&memory, EptCapabilities(), 52);
  vcpu.LoadRoots(EptPointer(root | 0x5E), EptPointer(), std::nullopt);
  uint64_t pages[kFlushers][2];
  for (int f = 0; f < kFlushers; ++f) {
    for (uint64_t& page : pages[f]) page = memory.NewPage();
    memory.Map4K(root, kGpa + static_cast<uint64_t>(f) * 4096, pages[f][0]);
  }
  std::atomic<bool> stop{false};
  std::atomic<uint64_t> refused{0};
  std::thread guest([&] {
    for (uint64_t value = 1; !stop; ++value) {
      if (value % 64 == 1) vcpu.EnterGuest();
      const Gpa gpa(kGpa + value % kFlushers * 4096);
      if (!std::holds_alternative<AccessDone>(vcpu.Write(gpa, 8, value))) ++refused;
      if (value % 64 == 40) vcpu.LeaveGuest();
    }
    vcpu.LeaveGuest();
  });
  std::atomic<int> late_stores{0};
  std::vector<std::thread> flushers;
  for (int f = 0; f < kFlushers; ++f) {
    flushers.emplace_back([&, f] {
      const uint64_t gpa = kGpa + static_cast<uint64_t>(f) * 4096;
      for (int round = 0; round < 300; ++round) {
        const uint64_t away = pages[f][round % 2];
        // The guest is at work there, or there would be nothing to see.
        const bool stored = memory.WaitForStore(away);
        EXPECT_TRUE(stored);
        if (!stored) break;
        memory.Map4K(root, gpa, pages[f][(round + 1) % 2]);
        if (round % 8 == 0) {
          vcpu.FlushAll();
        } else {
          vcpu.FlushRange(MemoryKind::kPrivate, HwGfn(gpa >> 12), 1);
        }
        const uint64_t seen = memory.Load(away);
        std::this_thread::yield();
        if (memory.Load(away) != seen) ++late_stores;
      }
    });
  }
  for (std::thread& flusher : flushers) flusher.join();
  stop = true;
  guest.join();
  EXPECT_EQ(late_stores, 0);
  EXPECT_EQ(refused, 0u);
}

// An owner that never pauses does not hold a stop off.
TEST(GuestModeTest, AStopGoesBeforeTheNextAccess) {
  HandMadeTables memory;
  const uint64_t root = memory.NewPage();
  memory.Map4K(root, 0, memory.NewPage());
  Vcpu vcpu(&memory, EptCapabilities(), 52);
  vcpu.LoadRoots(EptPointer(root | 0x1E), EptPointer(), std::nullopt);
  std::atomic<bool> stop{false};
  std::atomic<uint64_t> accesses{0};
  std::thread guest([&] {
    vcpu.EnterGuest();
    while (!stop) {
      vcpu.Read(Gpa(0), 8);
      accesses.fetch_add(1, std::memory_order_relaxed);
    }
    vcpu.LeaveGuest();
  });
  while (accesses < 1000) std::this_thread::yield();
  for (int i = 0; i < 200; ++i) vcpu.FlushAll();
  stop = true;
  guest.join();
  EXPECT_GE(accesses, 1000u);
}

}  // namespace
}  // namespace twinroot::mmu::vmx
