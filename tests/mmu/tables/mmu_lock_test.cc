#include "mmu/tables/mmu_lock.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <type_traits>
#include <vector>

namespace twinroot::mmu {
namespace {

// The wrong token does not compile.
static_assert(!std::is_convertible_v<MmuLock::Shared&, const MmuLock::Exclusive&>);
static_assert(!std::is_convertible_v<MmuLock::Exclusive&, const MmuLock::Shared&>);
static_assert(std::is_convertible_v<MmuLock::Shared&, const MmuLock::Held&>);

TEST(MmuLockTest, ReadersThatNeverPauseDoNotStarveAWriter) {
  MmuLock mmu_lock;
  std::atomic<bool> stop{false};
  std::vector<std::thread> readers;
  for (int i = 0; i < 3; ++i) {
    readers.emplace_back([&] {
      while (!stop) {
        const MmuLock::Shared lock(mmu_lock);
        std::this_thread::sleep_for(std::chrono::microseconds(50));
      }
    });
  }
  for (int i = 0; i < 50; ++i) const MmuLock::Exclusive lock(mmu_lock);
  stop = true;
  for (std::thread& reader : readers) reader.join();
}

}  // namespace
}  // namespace twinroot::mmu
