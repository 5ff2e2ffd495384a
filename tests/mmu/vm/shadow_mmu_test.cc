// A VM on shadow tables, asked as a vCPU without paging asks: every address is its own.
#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "mmu/hw/guest_pte.h"
#include "mmu/tables/table_pool.h"
#include "mmu/vm/guest_address_space.h"
#include "tests/fakes/fake_page_source.h"
#include "tests/fakes/recording_flusher.h"
#include "tests/fakes/test_space.h"

namespace twinroot::mmu {
namespace {

constexpr uint64_t kFrames = uint64_t{4} << 18;  // 4 GiB
constexpr Pfn kPrivatePfn{uint64_t{1} << 20}, kSharedPfn{uint64_t{1} << 24};

class ShadowSpace : public HostMemory {
 public:
  explicit ShadowSpace(size_t pool_pages = 256, bool nx_huge_pages = false,
                       std::optional<int> shared_bit = {}, bool has_bytes = true)
      : pool_memory_(pool_pages), pool(Hpa(uint64_t{1} << 40), pool_memory_.get(), pool_pages) {
    const auto layout = GpaLayout::Create(shared_bit, 48, 48);
    auto made = GuestAddressSpace::Create({.layout = *layout,
                                           .mmu = MmuMode::kShadow,
                                           .capabilities = {},
                                           .nx_huge_pages = nx_huge_pages},
                                          {.pool = &pool,
                                           .pages = &pages,
                                           .flusher = &flusher_,
                                           .host_memory = has_bytes ? this : nullptr});
    status = made.status();
    if (!made.ok()) return;
    space = *std::move(made);
    status = space->AddMemslot({{Gfn(0), kFrames}, kPrivatePfn, kSharedPfn});
    status.Update(space->LoadPaging(0, {}).status());
  }
  ~ShadowSpace() override {
    if (space == nullptr) return;
    const absl::Status audit = space->Audit();
    EXPECT_TRUE(audit.ok()) << audit;
  }

  std::byte* At(Hpa hpa, size_t) override { return pages.At(hpa); }

  ShadowFaultOutcome Touch(uint64_t gfn, Access access = Access::Read()) {
    ShadowFault fault;
    fault.access.address = gfn << kPageShift;
    fault.access.needed = access;
    fault.bytes = 8;
    return space->HandleShadowFault(fault);
  }
  bool Maps(uint64_t gfn, Access access = Access::Read()) {
    return std::holds_alternative<ShadowRunOn>(Touch(gfn, access));
  }
  template <typename Exit>
  bool Exits(uint64_t gfn, Access access = Access::Read()) {
    const ShadowFaultOutcome outcome = Touch(gfn, access);
    const auto* exit = std::get_if<FaultOutcome>(&outcome);
    return exit != nullptr && std::holds_alternative<Exit>(*exit);
  }
  uint64_t leaves() const { return space->stats().shadow_leaves; }

  CallLog log;

 private:
  PoolMemory pool_memory_;
  RecordingFlusher flusher_{log};

 public:
  TablePool pool;
  FakePageSource pages{kFrames, kPrivatePfn, kSharedPfn, log};
  absl::Status status;
  std::unique_ptr<GuestAddressSpace> space;
};

TEST(ShadowMmuTest, A6_StolenBitsAreRefusedWithTheReason) {
  const ShadowSpace stolen(64, false, 47);
  EXPECT_EQ(stolen.status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(stolen.status.message().find("stolen GPA bits"), std::string::npos) << stolen.status;
  const ShadowSpace blind(64, false, {}, false);
  EXPECT_EQ(blind.status.code(), absl::StatusCode::kInvalidArgument) << blind.status;
}

TEST(ShadowMmuTest, AFaultMapsWhatTheAttributeSaysAndMmioIsOutside) {
  ShadowSpace t;
  ASSERT_TRUE(t.status.ok()) << t.status;
  EXPECT_TRUE(t.Maps(5, Access::Write()));
  EXPECT_EQ(t.leaves(), 1u);
  EXPECT_TRUE(t.Exits<Mmio>(kFrames + 1));
  ASSERT_TRUE(
      t.space->SetMemoryAttributes({.ranges = {{Gfn(5), 1}}, .kind = MemoryKind::kShared}).ok());
  EXPECT_EQ(t.leaves(), 0u);
  EXPECT_TRUE(t.Maps(5));  // D8: the audit compares its frame with the shared backing
  EXPECT_TRUE(t.Maps(6));
  EXPECT_TRUE(t.space->Audit().ok());
}

TEST(ShadowMmuTest, F7_ZapAllLeavesNothingThatAProcessorCouldUse) {
  ShadowSpace t;
  for (uint64_t i = 0; i < 4; ++i) ASSERT_TRUE(t.Maps(i << 18, Access::Write()));
  const Hpa old = std::get<ShadowRunOn>(t.Touch(0)).root;
  ASSERT_TRUE(t.space->ZapAll().ok());
  // The root that processors still have links nothing.
  for (unsigned i = 0; i < kEntriesPerTable; ++i) {
    EXPECT_EQ(t.pool.At(old)->slots[i].Load(), kEmptyEntry);
  }
  EXPECT_NE(std::get<ShadowRunOn>(t.Touch(0)).root, old);
  const uint64_t before = t.space->stats().shadow_pages;
  while (t.space->ReclaimTables(2) != 0) {
  }
  EXPECT_LT(t.space->stats().shadow_pages, before);
  EXPECT_EQ(t.leaves(), 1u);
}

TEST(ShadowMmuTest, D11_WhatADenialLeavesIsWhatAShadowGrants) {
  ShadowSpace t;
  ASSERT_TRUE(t.Maps(5, Access::Write()));
  ASSERT_TRUE(
      t.space->SetMemoryAttributes({.ranges = {{Gfn(5), 1}}, .deny = Access::Write()}).ok());
  EXPECT_TRUE(t.Maps(5));
  EXPECT_TRUE(t.Exits<MemoryFaultExit>(5, Access::Write()));
  // Ordinary paging has no page that may be executed and not read.
  EXPECT_EQ(t.space->SetMemoryAttributes({.ranges = {{Gfn(6), 1}}, .deny = Access::Read()})
                .status()
                .code(),
            absl::StatusCode::kFailedPrecondition);
  const Access all = Access::Read() | Access::Fetch();
  ASSERT_TRUE(t.space->SetMemoryAttributes({.ranges = {{Gfn(6), 1}}, .deny = all}).ok());
  EXPECT_TRUE(t.Exits<MemoryFaultExit>(6));
}

TEST(ShadowMmuTest, F8_AFetchMakesAPageSmallUnderTheMitigation) {
  ShadowSpace t(256, true);
  ASSERT_TRUE(t.Maps(512, Access::Write()));
  EXPECT_EQ(t.leaves(), 1u);
  ASSERT_TRUE(t.Maps(513, Access::Fetch()));
  ASSERT_TRUE(t.Maps(514, Access::Read()));
  EXPECT_EQ(t.leaves(), 2u);  // two small ones in its place
}

TEST(ShadowMmuTest, F13_APageThatIsOnItsWayIsWaitedFor) {
  ShadowSpace t;
  t.pages.fail_resolve = absl::UnavailableError("on its way");
  EXPECT_TRUE(t.Exits<PagePending>(5));
  t.pages.fail_resolve.reset();
  EXPECT_EQ(t.space->PageReady(Gfn(5), MemoryKind::kPrivate), std::vector<uint32_t>{0});
  EXPECT_TRUE(t.Maps(5));
}

TEST(ShadowMmuTest, APageThatIsConvertedWhileItIsResolvedIsLookedAtAgain) {
  ShadowSpace t;
  t.pages.on_resolve = [&t, first = true](Gfn, MemoryKind) mutable {
    if (!std::exchange(first, false)) return;
    EXPECT_TRUE(
        t.space->SetMemoryAttributes({.ranges = {{Gfn(5), 1}}, .kind = MemoryKind::kShared}).ok());
  };
  EXPECT_TRUE(t.Maps(5));
  EXPECT_EQ(t.pages.allocated(MemoryKind::kShared), 1u);
}

TEST(ShadowMmuTest, APageThatIsDiscardedWhileItIsResolvedIsResolvedAgain) {
  ShadowSpace t;
  int resolved = 0;
  t.pages.on_resolve = [&](Gfn, MemoryKind) {
    if (++resolved > 1) return;
    for (const MemoryKind kind : {MemoryKind::kShared, MemoryKind::kPrivate}) {
      EXPECT_TRUE(t.space->SetMemoryAttributes({.ranges = {{Gfn(5), 1}}, .kind = kind}).ok());
    }
  };
  EXPECT_TRUE(t.Maps(5));
  EXPECT_EQ(resolved, 2);
}

TEST(ShadowMmuTest, AConversionOfAGuestsTableTakesItsShadowsAlong) {
  ShadowSpace t;
  constexpr Gfn kDirectory{16}, kTable{17}, kPage{32};
  const auto entry = [](Gfn gfn) { return static_cast<uint32_t>(gfn.value << kPageShift | 7); };
  const auto put = [&](Gfn table, uint32_t word) {
    std::memcpy(t.pages.Bytes(table, MemoryKind::kPrivate), &word, sizeof(word));
  };
  put(kDirectory, entry(kTable));
  put(kTable, entry(kPage));
  GuestPaging paging;
  paging.registers.cr0 = ControlRegisters::kCr0Pe | ControlRegisters::kCr0Pg;
  paging.registers.cr3 = kDirectory.value << kPageShift;
  ASSERT_TRUE(t.space->LoadPaging(0, paging).ok());
  ASSERT_TRUE(t.Maps(0));
  EXPECT_EQ(t.leaves(), 1u);
  ASSERT_TRUE(
      t.space->SetMemoryAttributes({.ranges = {{kTable, 1}}, .kind = MemoryKind::kShared}).ok());
  EXPECT_EQ(t.leaves(), 0u) << "the bytes that it came from are discarded";
  EXPECT_TRUE(std::holds_alternative<GuestPageFault>(t.Touch(0)));
}

TEST(ShadowMmuTest, F4_TheDirtyLogSplitsAndHearsEachFirstWrite) {
  ShadowSpace t;
  t.pages.ready = true;
  ASSERT_TRUE(t.Maps(512, Access::Write()));
  const auto split = t.space->EnableDirtyLog({});
  ASSERT_TRUE(split.ok()) << split.status();
  EXPECT_GT(split->split_1g + split->split_2m, 0u);
  ASSERT_TRUE(t.Maps(513));
  EXPECT_EQ(t.space->HarvestDirty({Gfn(512), 64})->words, std::vector<uint64_t>{0});
  ASSERT_TRUE(t.Maps(513, Access::Write()));
  EXPECT_EQ(t.space->HarvestDirty({Gfn(512), 64})->words, std::vector<uint64_t>{2});
  EXPECT_EQ(t.space->HarvestDirty({Gfn(512), 64})->words, std::vector<uint64_t>{0});
  ASSERT_TRUE(t.Maps(513, Access::Write()));
  EXPECT_EQ(t.space->HarvestDirty({Gfn(512), 64})->words, std::vector<uint64_t>{2});
  EXPECT_GT(t.space->DisableDirtyLog()->collapsed, 0u);
  EXPECT_EQ(t.space->EnableDirtyLog({.mode = DirtyLogMode::kDirtyBit}).status().code(),
            absl::StatusCode::kFailedPrecondition);
}

TEST(ShadowMmuTest, MorePagesThanThePoolHoldsComeAndGo) {
  ShadowSpace t(40);
  t.pages.max_level = Level::k4K;
  for (int round = 0; round < 2; ++round) {
    for (uint64_t region = 0; region < 100; ++region) {
      ASSERT_TRUE(t.Maps(region * 512 + 7, Access::Write())) << region;
    }
  }
  EXPECT_LE(t.space->stats().shadow_pages, 40u);
}

TEST(ShadowMmuTest, F6_WhatProcessorsAccessedIsToldOnce) {
  ShadowSpace t;
  t.pages.max_level = Level::k4K;
  const Hpa root = std::get<ShadowRunOn>(t.Touch(5)).root;
  Table* table = t.pool.At(root);
  while (table->level() != Level::k4K) table = t.pool.At(table->slots[0].Load().address());
  std::atomic_ref(*reinterpret_cast<uint64_t*>(&table->slots[5])) |= GuestPte::kAccessed;
  t.log.Take();
  EXPECT_EQ(t.space->TestAndClearAccessed({Gfn(0), 64})->words, std::vector<uint64_t>{32});
  EXPECT_FALSE(t.log.Take().empty()) << "an access by a TLB would set no flag";
  EXPECT_EQ(t.space->TestAndClearAccessed({Gfn(0), 64})->words, std::vector<uint64_t>{0});
  EXPECT_TRUE(t.log.Take().empty());
}

}  // namespace
}  // namespace twinroot::mmu
