// F3: page-modification logging as the SDM has it (vol. 3C, "Page-Modification Logging").
#include "mmu/vmx/pml.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cstdint>
#include <set>
#include <thread>
#include <vector>

#include "mmu/vmx/vcpu.h"
#include "tests/mmu/vmx/hand_made_tables.h"

namespace twinroot::mmu::vmx {
namespace {

constexpr uint64_t kGpa = 0x40'0000;
constexpr uint64_t kAccessed = 0x100, kDirty = 0x200;

TEST(PageModificationLogTest, F3_FillsFromEntry511DownAndIsFullBelowEntry0) {
  PageModificationLog log;
  EXPECT_EQ(log.index(), 511);
  log.Write(Gpa(0x1234'5678));
  EXPECT_EQ(log.index(), 510);
  for (int i = 1; i < 511; ++i) log.Write(Gpa(uint64_t{0x1000} * i));
  EXPECT_EQ(log.index(), 0);
  EXPECT_FALSE(log.full());
  log.Write(Gpa(0xFFF));
  EXPECT_EQ(log.index(), 0xFFFF);
  EXPECT_TRUE(log.full());
  const std::vector<Gpa> taken = log.Take();
  ASSERT_EQ(taken.size(), 512u);
  EXPECT_EQ(taken.front(), Gpa(0x1234'5000));  // bits 11:0 are always 0
  EXPECT_EQ(taken[5], Gpa(0x5000));
  EXPECT_EQ(taken.back(), Gpa(0));
  EXPECT_EQ(log.index(), 511);
  EXPECT_TRUE(log.Take().empty());
}

class PmlTest : public ::testing::Test {
 protected:
  PmlTest() : vcpu_(&memory_, EptCapabilities(), 52) { Load(true); }
  void Load(bool flags) {
    vcpu_.LoadRoots(EptPointer(root_ | 0x1E | (flags ? 0x40 : 0)), EptPointer(), std::nullopt);
  }
  // Maps pages [kGpa, kGpa + count pages) all to one page of memory.
  void MapPages(uint64_t count) {
    const uint64_t page = memory_.NewPage();
    for (uint64_t i = 0; i < count; ++i) memory_.Map4K(root_, kGpa + i * 4096, page);
  }
  bool Writes(uint64_t gpa) {
    return std::holds_alternative<AccessDone>(vcpu_.Write(Gpa(gpa), 8, 1));
  }
  uint64_t FlagsOf(uint64_t gpa, int level = 1) {
    return memory_.Load(memory_.Slot(root_, 4, gpa, level)) & (kAccessed | kDirty);
  }
  // As software does beside a processor that sets flags: it never undoes one that it has not seen.
  void ClearDirty(uint64_t gpa) {
    const Hpa slot(memory_.Slot(root_, 4, gpa, 1));
    std::atomic_ref<uint64_t>(*reinterpret_cast<uint64_t*>(memory_.At(slot, 8))).fetch_and(~kDirty);
  }

  HandMadeTables memory_;
  const uint64_t root_ = memory_.NewPage();
  Vcpu vcpu_;
};

TEST_F(PmlTest, F3_PmlLogsAPageWhenItsDirtyFlagGoesFrom0To1) {
  MapPages(3);
  vcpu_.EnablePml();
  EXPECT_TRUE(Writes(kGpa + 0x128));
  EXPECT_TRUE(Writes(kGpa + 0x130));  // dirty already
  EXPECT_TRUE(std::holds_alternative<AccessDone>(vcpu_.Read(Gpa(kGpa + 0x1000), 8)));
  EXPECT_TRUE(std::holds_alternative<AccessDone>(vcpu_.Fetch(Gpa(kGpa + 0x1000))));
  EXPECT_EQ(vcpu_.TakePml(), std::vector<Gpa>{Gpa(kGpa)});
  EXPECT_TRUE(Writes(kGpa + 0x1008));  // after a read that was cached
  EXPECT_EQ(vcpu_.TakePml(), std::vector<Gpa>{Gpa(kGpa + 0x1000)});
  // Cleared and flushed, it is logged again; cleared only, the cached translation writes on.
  ClearDirty(kGpa);
  EXPECT_TRUE(Writes(kGpa));
  EXPECT_TRUE(vcpu_.TakePml().empty());
  vcpu_.FlushRange(MemoryKind::kPrivate, HwGfn(kGpa >> 12), 1);
  EXPECT_TRUE(Writes(kGpa));
  EXPECT_EQ(vcpu_.TakePml(), std::vector<Gpa>{Gpa(kGpa)});
}

TEST_F(PmlTest, F3_PmlLogsNothingForAWriteThatSetsAccessedFlagsOnly) {
  const uint64_t page = memory_.NewPage();
  memory_.Store(memory_.Slot(root_, 4, kGpa, 1), page | kDirty | 0x37);
  vcpu_.EnablePml();
  EXPECT_TRUE(Writes(kGpa));
  EXPECT_EQ(FlagsOf(kGpa), kAccessed | kDirty);
  EXPECT_TRUE(vcpu_.TakePml().empty());
}

TEST_F(PmlTest, F3_PmlLogsThe4KPageOfTheAccessInsideALargePage) {
  const uint64_t leaf = memory_.Slot(root_, 4, kGpa, 2);
  memory_.Store(leaf, (uint64_t{1} << 40) | 0xB7);
  vcpu_.EnablePml();
  vcpu_.Write(Gpa(kGpa + 0x12'3458), 8, 1);  // nothing is there: the walk has set its flags before
  EXPECT_EQ(memory_.Load(leaf) & (kAccessed | kDirty), kAccessed | kDirty);
  EXPECT_EQ(vcpu_.TakePml(), std::vector<Gpa>{Gpa(kGpa + 0x12'3000)});
}

TEST_F(PmlTest, F3_PmlLogsTheGuestsOwnPageWalks) {
  MapPages(1);
  vcpu_.EnablePml();
  EXPECT_TRUE(std::holds_alternative<AccessDone>(vcpu_.ReadGuestPagingEntry(Gpa(kGpa + 16))));
  EXPECT_EQ(vcpu_.TakePml(), std::vector<Gpa>{Gpa(kGpa)});
}

TEST_F(PmlTest, F3_PmlLogsNothingWithoutFlagsOrWhenItIsOff) {
  MapPages(2);
  EXPECT_TRUE(Writes(kGpa));
  EXPECT_TRUE(vcpu_.TakePml().empty());
  vcpu_.EnablePml();
  Load(false);
  EXPECT_TRUE(Writes(kGpa + 0x1000));
  EXPECT_EQ(FlagsOf(kGpa + 0x1000), 0u);
  EXPECT_TRUE(vcpu_.TakePml().empty());
  // What was logged outlives the end of logging.
  Load(true);
  EXPECT_TRUE(Writes(kGpa + 0x1000));
  vcpu_.DisablePml();
  ClearDirty(kGpa);
  vcpu_.FlushAll();
  EXPECT_TRUE(Writes(kGpa));
  EXPECT_EQ(vcpu_.TakePml(), std::vector<Gpa>{Gpa(kGpa + 0x1000)});
}

TEST_F(PmlTest, F3_PmlLogFullExitsBeforeTheAccessAndBeforeAnyFlag) {
  MapPages(514);
  vcpu_.EnablePml();
  for (uint64_t i = 0; i < 512; ++i) ASSERT_TRUE(Writes(kGpa + i * 4096));
  const uint64_t last = kGpa + 512 * 4096;
  memory_.Map4K(root_, last, memory_.NewPage());
  const uint64_t page = memory_.Load(memory_.Slot(root_, 4, last, 1)) & ~uint64_t{0xFFF};
  const AccessOutcome full = vcpu_.Write(Gpa(last + 8), 8, 7);
  ASSERT_TRUE(std::holds_alternative<PmlFullExit>(full));
  EXPECT_EQ(std::get<PmlFullExit>(full).gpa, Gpa(last + 8));
  EXPECT_EQ(FlagsOf(last), 0u);
  EXPECT_EQ(FlagsOf(last, 2), 0u);  // its table was not used before
  EXPECT_EQ(memory_.Load(page + 8), 0u);
  // An accessed flag that has to be set asks for room too; what needs no flag goes on.
  EXPECT_TRUE(std::holds_alternative<PmlFullExit>(vcpu_.Read(Gpa(last), 8)));
  EXPECT_EQ(FlagsOf(last), 0u);
  EXPECT_TRUE(Writes(kGpa));
  vcpu_.FlushAll();
  EXPECT_TRUE(Writes(kGpa));
  // A violation comes first: its flags would not be set anyway.
  EXPECT_TRUE(std::holds_alternative<EptViolationExit>(vcpu_.Write(Gpa(last + (1 << 21)), 8, 1)));
  EXPECT_EQ(vcpu_.TakePml().size(), 512u);
  EXPECT_TRUE(Writes(last + 8));
  EXPECT_EQ(memory_.Load(page + 8), 1u);
}

// A harvester drains and clears while the guest writes: a write that the guest has made is in what
// was taken, or its page is still dirty, or it is in the log at the end.
TEST_F(PmlTest, F3_PmlLogsEveryWriteThatAHarvesterRacesWith) {
  constexpr uint64_t kPages = 16;
  MapPages(kPages);
  vcpu_.EnablePml();
  std::atomic<uint64_t> writes[kPages] = {};
  std::atomic<bool> stop{false};
  std::thread guest([&] {
    for (uint64_t i = 0; !stop; ++i) {
      const uint64_t page = i * 7 % kPages;
      while (!Writes(kGpa + page * 4096)) std::this_thread::yield();
      writes[page].fetch_add(1);
    }
  });
  uint64_t harvested = 0;
  uint64_t lost = 0;
  for (int round = 0; round < 150; ++round) {
    // As a harvester does: the log, then the flags of what it names, then the flush.
    const std::vector<Gpa> logged = vcpu_.TakePml();
    harvested += logged.size();
    for (const Gpa gpa : logged) ClearDirty(gpa.value);
    vcpu_.FlushAll();
    // From here on, a page that is written is dirty: look at one.
    const uint64_t page = static_cast<uint64_t>(round) % kPages;
    const uint64_t before = writes[page].load();
    while (writes[page].load() < before + 2) std::this_thread::yield();
    if ((FlagsOf(kGpa + page * 4096) & kDirty) == 0) ++lost;
  }
  stop = true;
  guest.join();
  EXPECT_EQ(lost, 0u);
  EXPECT_GT(harvested, 150u);
  // Each page that is dirty now has been logged since it was cleared.
  std::set<uint64_t> logged;
  for (const Gpa gpa : vcpu_.TakePml()) logged.insert(gpa.value);
  for (uint64_t page = 0; page < kPages; ++page) {
    EXPECT_EQ(logged.count(kGpa + page * 4096) != 0, (FlagsOf(kGpa + page * 4096) & kDirty) != 0);
  }
}

}  // namespace
}  // namespace twinroot::mmu::vmx
