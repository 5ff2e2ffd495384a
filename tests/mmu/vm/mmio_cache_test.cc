// Accesses outside of memslots that leave a mark.
#include <gtest/gtest.h>

#include <string>

#include "mmu/hw/mmio_entry.h"
#include "mmu/vmx/vcpu.h"
#include "tests/mmu/vm/slots_fixture.h"

namespace twinroot::mmu {
namespace {

constexpr auto kPrivate = MemoryKind::kPrivate;
constexpr auto kShared = MemoryKind::kShared;
constexpr SlotSpaceOptions kCaching{.mmio_caching = MmioCaching::kMisconfiguration};

EptEntry LastEntry(const SlotSpace& t, uint64_t gfn, MemoryKind kind) {
  return EptEntry(t.space->Translate(Gpa(gfn << kPageShift), kind)->steps.back().entry);
}
Level LastLevel(const SlotSpace& t, uint64_t gfn, MemoryKind kind) {
  return t.space->Translate(Gpa(gfn << kPageShift), kind)->steps.back().level;
}

// What the processor sees: the tables, and nothing else.
class Processor : private vmx::PhysicalMemory {
 public:
  explicit Processor(SlotSpace& t) : t_(t), vcpu_(this, EptCapabilities{}, 52) {
    vcpu_.LoadRoots(t.space->ept_pointer(kPrivate), t.space->ept_pointer(kShared), 46);
  }
  vmx::AccessOutcome Read(uint64_t gfn, MemoryKind kind) {
    return vcpu_.Read(t_.space->layout().GpaOf(Gfn(gfn), kind), 8);
  }

 private:
  std::byte* At(Hpa hpa, size_t) override {
    const uint64_t bytes = t_.pool.pages() * kPageSize;
    if (hpa >= t_.pool.base() && hpa - t_.pool.base() < bytes) {
      return t_.pool_memory.get() + (hpa - t_.pool.base());
    }
    return t_.source.pages.At(hpa);
  }
  SlotSpace& t_;
  vmx::Vcpu vcpu_;
};

TEST(MmioCacheTest, F9_TheNextAccessIsAMisconfigurationThatNeedsNoLookUp) {
  SlotSpace t(kCaching);
  ASSERT_TRUE(t.Add(0, 512, 0).ok());
  Processor processor(t);
  ASSERT_TRUE(std::holds_alternative<vmx::EptViolationExit>(processor.Read(5000, kShared)));
  ASSERT_TRUE(std::holds_alternative<Mmio>(t.Touch(5000, kShared)));
  ASSERT_TRUE(std::holds_alternative<vmx::EptMisconfigurationExit>(processor.Read(5000, kShared)));
  const MmioOutcome outcome = t.Misconfigured(5000, kShared);
  ASSERT_TRUE(std::holds_alternative<CachedMmio>(outcome));
  EXPECT_EQ(std::get<CachedMmio>(outcome).gpa, Gpa((uint64_t{5000} << kPageShift) + 0x18));
  EXPECT_EQ(t.space->stats().mmio_cached, 1u);
  EXPECT_EQ(t.space->stats().faults_mmio, 1u);
  EXPECT_EQ(t.Leaves(), 0u);
  EXPECT_TRUE(t.space->Audit().ok()) << t.space->Audit();
}

TEST(MmioCacheTest, NoMarkIsLeftWhereTheVmDoesNotWantThem) {
  SlotSpace t;
  ASSERT_TRUE(t.Add(0, 512, 0).ok());
  ASSERT_TRUE(std::holds_alternative<Mmio>(t.Touch(5000, kShared)));
  EXPECT_EQ(LastEntry(t, 5000, kShared), kEmptyEntry);
}

TEST(MmioCacheTest, NoMarkIsLeftInTablesThatNoProcessorWalks) {
  SlotSpace t({.external = true, .mmio_caching = MmioCaching::kMisconfiguration});
  ASSERT_TRUE(t.Add(0, 512, 0).ok());
  ASSERT_TRUE(std::holds_alternative<Mmio>(t.Touch(5000, kShared)));
  EXPECT_EQ(LastEntry(t, 5000, kShared), kEmptyEntry);
}

TEST(MmioCacheTest, D1_APrivateAccessOutsideOfMemoryLeavesNone) {
  SlotSpace t(kCaching);
  ASSERT_TRUE(std::holds_alternative<MemoryFaultExit>(t.Touch(5000, kPrivate)));
  EXPECT_EQ(LastEntry(t, 5000, kPrivate), kEmptyEntry);
  EXPECT_EQ(LastEntry(t, 5000, kShared), kEmptyEntry);
}

TEST(MmioCacheTest, AVmWithoutASharedBitKeepsMarksToo) {
  SlotSpace t({.shared_bit = std::nullopt, .mmio_caching = MmioCaching::kMisconfiguration});
  ASSERT_TRUE(std::holds_alternative<Mmio>(t.Touch(5000, kPrivate)));
  EXPECT_TRUE(std::holds_alternative<CachedMmio>(t.Misconfigured(5000, kPrivate)));
}

TEST(MmioCacheTest, AMarkIsAsLargeAsTheHoleButNeverCoversMemory) {
  SlotSpace t(kCaching);
  ASSERT_TRUE(t.Add(0, 5, 0).ok());
  // A whole GiB without memory, 2 MiB beside memory, a page beside memory.
  for (const uint64_t gfn : {uint64_t{1} << 18, uint64_t{600}, uint64_t{5}}) {
    ASSERT_TRUE(std::holds_alternative<Mmio>(t.Touch(gfn, kShared)));
    EXPECT_TRUE(std::holds_alternative<CachedMmio>(t.Misconfigured(gfn, kShared)));
  }
  EXPECT_EQ(LastLevel(t, uint64_t{1} << 18, kShared), Level::k1G);
  EXPECT_EQ(LastLevel(t, 600, kShared), Level::k2M);
  EXPECT_EQ(LastLevel(t, 5, kShared), Level::k4K);
  EXPECT_EQ(LastEntry(t, 4, kShared), kEmptyEntry);
}

TEST(MmioCacheTest, F9_AMarkFromBeforeAChangeOfSlotsIsStaleAndIsMadeAnew) {
  SlotSpace t(kCaching);
  ASSERT_TRUE(t.Add(0, 512, 0).ok());
  const auto marked = [&] {
    return std::holds_alternative<CachedMmio>(t.Misconfigured(5000, kShared));
  };
  const auto stale = [&] { return std::holds_alternative<Retry>(t.Misconfigured(5000, kShared)); };
  const auto mark = [&] { ASSERT_TRUE(std::holds_alternative<Mmio>(t.Touch(5000, kShared))); };
  mark();
  ASSERT_TRUE(t.Add(512, 512, 512).ok());
  EXPECT_TRUE(stale());
  EXPECT_EQ(LastEntry(t, 5000, kShared), kEmptyEntry);
  mark();
  EXPECT_TRUE(marked());
  ASSERT_TRUE(t.space->MoveMemslot(Gfn(512), Gfn(1024)).ok());
  EXPECT_TRUE(stale());
  mark();
  EXPECT_TRUE(marked());
  ASSERT_TRUE(t.space->RemoveMemslot(Gfn(1024)).ok());
  EXPECT_TRUE(stale());
  // A change that failed is none.
  mark();
  EXPECT_FALSE(t.Add(0, 512, 512).ok());
  EXPECT_TRUE(marked());
}

TEST(MmioCacheTest, F9_MemoryThatComesWhereAMarkStoodIsMapped) {
  SlotSpace t(kCaching);
  ASSERT_TRUE(std::holds_alternative<Mmio>(t.Touch(5, kShared)));
  ASSERT_EQ(LastLevel(t, 5, kShared), Level::k1G);
  ASSERT_TRUE(t.Add(0, 512, 0).ok());
  ASSERT_TRUE(t.Convert({Frames(0, 512)}, kShared).ok());
  // By either way: the misconfiguration clears it, or a fault beside it replaces it.
  ASSERT_TRUE(t.Fixes(5, kShared));
  EXPECT_TRUE(std::holds_alternative<Retry>(t.Misconfigured(5, kShared)));
  EXPECT_TRUE(t.IsMapped(5, kShared));
  EXPECT_EQ(t.Leaves(), 1u);
  EXPECT_TRUE(t.space->Audit().ok()) << t.space->Audit();
}

TEST(MmioCacheTest, F9_WhenTheGenerationsStartOverAllMarksAreZapped) {
  // The slots below take generations up to the last but one.
  SlotSpace t({.mmio_caching = MmioCaching::kMisconfiguration,
               .first_mmio_generation = kMmioGenerationMask - 1});
  ASSERT_TRUE(t.Add(0, 512, 0).ok());
  ASSERT_TRUE(t.Fixes(5, kPrivate));
  ASSERT_TRUE(std::holds_alternative<Mmio>(t.Touch(5000, kShared)));
  ASSERT_EQ(MmioEntry::GenerationOf(LastEntry(t, 5000, kShared)), kMmioGenerationMask);
  ASSERT_TRUE(t.Add(512, 512, 512).ok());
  EXPECT_EQ(LastEntry(t, 5000, kShared), kEmptyEntry);
  // Zapped along with everything: it comes back by a fault.
  EXPECT_TRUE(t.Fixes(5, kPrivate));
  ASSERT_TRUE(std::holds_alternative<Mmio>(t.Touch(5000, kShared)));
  EXPECT_EQ(MmioEntry::GenerationOf(LastEntry(t, 5000, kShared)), 0u);
  EXPECT_TRUE(t.space->Audit().ok()) << t.space->Audit();
}

TEST(MmioCacheTest, F10_WithoutATableForTheMarkItIsMmioAllTheSame) {
  SlotSpace t({.pool_pages = 2, .mmio_caching = MmioCaching::kMisconfiguration});
  EXPECT_TRUE(std::holds_alternative<Mmio>(t.Touch(5000, kShared)));
  EXPECT_EQ(t.pool.stats().used, 2u);
  EXPECT_TRUE(t.space->Audit().ok()) << t.space->Audit();
}

TEST(MmioCacheTest, ZapAllTakesMarksToo) {
  SlotSpace t(kCaching);
  ASSERT_TRUE(std::holds_alternative<Mmio>(t.Touch(5000, kShared)));
  ASSERT_TRUE(t.space->ZapAll().ok());
  EXPECT_TRUE(std::holds_alternative<Retry>(t.Misconfigured(5000, kShared)));
  EXPECT_EQ(LastEntry(t, 5000, kShared), kEmptyEntry);
}

TEST(MmioCacheTest, ARealMisconfigurationBugsTheVm) {
  SlotSpace t(kCaching);
  ASSERT_TRUE(t.Add(0, 512, 0).ok());
  ASSERT_TRUE(t.Fixes(5, kPrivate));
  EXPECT_TRUE(std::holds_alternative<Retry>(t.Misconfigured(5, kPrivate)));
  EXPECT_EQ(t.space->bugged(), "");
  // Somebody writes over the table: reserved bits of a leaf.
  const TranslationStep leaf =
      t.space->Translate(Gpa(uint64_t{5} << kPageShift), kPrivate)->steps.back();
  auto* word = reinterpret_cast<std::atomic<uint64_t>*>(t.pool_memory.get() +
                                                        (leaf.entry_hpa - t.pool.base()));
  word->store((leaf.entry & ~EptEntry::kMemTypeMask) | EptEntry::kMemTypeMask);
  EXPECT_TRUE(std::holds_alternative<Failed>(t.Misconfigured(5, kPrivate)));
  EXPECT_NE(t.space->bugged().find("EPT misconfiguration"), std::string::npos);
}

}  // namespace
}  // namespace twinroot::mmu
