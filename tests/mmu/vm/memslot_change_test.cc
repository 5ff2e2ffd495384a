// Memslots that are removed and moved, also in the middle of a fault.
#include <gtest/gtest.h>

#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "tests/mmu/vm/slots_fixture.h"
#include "tests/properties/guest.h"

namespace twinroot::mmu {
namespace {

constexpr auto kPrivate = MemoryKind::kPrivate;
constexpr auto kShared = MemoryKind::kShared;

std::string Words(const std::vector<AttributeRun>& runs) {
  std::string words;
  for (const AttributeRun& run : runs) {
    words += NameOf(run.kind) + " " + std::to_string(run.range.first.value) + "+" +
             std::to_string(run.range.count) + " ";
  }
  return words;
}

TEST(MemslotRemoveTest, F7_NothingIsLeftOfARemovedSlot) {
  SlotSpace t;
  ASSERT_TRUE(t.Add(0, 2048, 0).ok());
  ASSERT_TRUE(t.Add(4096, 512, 4096).ok());
  ASSERT_TRUE(t.Convert({Frames(600, 100)}, kShared).ok());
  ASSERT_TRUE(t.Fixes(5, kPrivate));
  ASSERT_TRUE(t.Fixes(601, kShared));
  ASSERT_TRUE(t.Fixes(4100, kPrivate));
  ASSERT_TRUE(t.space->RemoveMemslot(Gfn(0)).ok());
  EXPECT_FALSE(t.IsMapped(5, kPrivate));
  EXPECT_FALSE(t.IsMapped(601, kShared));
  EXPECT_TRUE(t.IsMapped(4100, kPrivate));
  // Outside of memslots: MMIO through the shared alias, a memory fault through the private one.
  EXPECT_TRUE(std::holds_alternative<Mmio>(t.Touch(5, kShared)));
  EXPECT_TRUE(std::holds_alternative<MemoryFaultExit>(t.Touch(5, kPrivate)));
  const AddressSpaceStats stats = t.space->stats();
  EXPECT_EQ(stats.private_frames_attribute, 512u);
  EXPECT_EQ(stats.shared_frames_attribute, 0u);
  EXPECT_EQ(Words(t.space->GetMemoryAttributes()), "private 4096+512 ");
  EXPECT_TRUE(t.space->Audit().ok()) << t.space->Audit();
}

TEST(MemslotRemoveTest, A4_BothAliasesAreFlushedAndRemovedFromTheExternalTables) {
  SlotSpace t({.max_level = Level::k4K, .external = true});
  ASSERT_TRUE(t.Add(0, 2048, 0).ok());
  ASSERT_TRUE(t.Convert({Frames(6, 1)}, kShared).ok());
  ASSERT_TRUE(t.Fixes(5, kPrivate));
  ASSERT_TRUE(t.Fixes(6, kShared));
  t.log.Take();
  ASSERT_TRUE(t.space->RemoveMemslot(Gfn(0)).ok());
  EXPECT_EQ(t.external_private.frames(), 0u);
  EXPECT_EQ(t.external_shared.frames(), 0u);
  const std::vector<std::string> calls = t.log.Take();
  int flushes = 0;
  for (const std::string& call : calls) flushes += call.find("flush") == 0;
  EXPECT_EQ(flushes, 2);
}

TEST(MemslotRemoveTest, ANewSlotInTheSamePlaceBeginsPrivateWithItsOwnFrames) {
  SlotSpace t;
  ASSERT_TRUE(t.Add(0, 512, 0).ok());
  ASSERT_TRUE(t.Convert({Frames(0, 512)}, kShared).ok());
  ASSERT_TRUE(t.Fixes(7, kShared));
  ASSERT_TRUE(t.space->RemoveMemslot(Gfn(0)).ok());
  t.source.Drop(Gfn(0));
  ASSERT_TRUE(t.Add(0, 512, 1024).ok());
  EXPECT_EQ(Words(t.space->GetMemoryAttributes()), "private 0+512 ");
  ASSERT_TRUE(t.Fixes(7, kPrivate));
  EXPECT_EQ(PfnOf(t.HpaOf(7, kPrivate)), TestSpace::kPrivatePfn + 1024 + 7);
  EXPECT_TRUE(t.space->Audit().ok()) << t.space->Audit();
}

TEST(MemslotRemoveTest, WhatIsNoSlotIsNotFoundAndNothingChanges) {
  SlotSpace t;
  ASSERT_TRUE(t.Add(512, 512, 0).ok());
  ASSERT_TRUE(t.Fixes(520, kPrivate));
  EXPECT_TRUE(absl::IsNotFound(t.space->RemoveMemslot(Gfn(0))));
  EXPECT_TRUE(absl::IsNotFound(t.space->RemoveMemslot(Gfn(513))));
  EXPECT_TRUE(absl::IsNotFound(t.space->MoveMemslot(Gfn(513), Gfn(8192))));
  EXPECT_TRUE(t.IsMapped(520, kPrivate));
}

TEST(MemslotRemoveTest, AnExternalTableThatKeepsSomethingBugsTheVmAndTheSlotStays) {
  SlotSpace t({.external = true});
  ASSERT_TRUE(t.Add(0, 512, 0).ok());
  ASSERT_TRUE(t.Fixes(5, kPrivate));
  t.external_private.fail_removes = 2;
  EXPECT_TRUE(absl::IsInternal(t.space->RemoveMemslot(Gfn(0))));
  EXPECT_NE(t.space->bugged(), "");
  EXPECT_EQ(t.space->stats().private_frames_attribute, 512u);
}

// A thread that removes the slot while the fault asks for its page.
struct Remover {
  explicit Remover(SlotSpace& t) : t(t) {}
  void Begin() {
    const uint64_t before = t.space->stats().invalidations;
    thread = std::thread([this] {
      status = t.space->RemoveMemslot(Gfn(0));
      t.source.Drop(Gfn(0));
      done = true;
    });
    while (t.space->stats().invalidations == before) std::this_thread::yield();
  }
  SlotSpace& t;
  std::thread thread;
  absl::Status status;
  std::atomic<bool> done{false};
};

TEST(MemslotRemoveTest, F7_AFaultWhoseSlotGoesWhileItsPageIsResolvedRetriesAndThenIsMmio) {
  SlotSpace t({.shared_bit = std::nullopt});
  ASSERT_TRUE(t.Add(0, 512, 0).ok());
  Remover remover(t);
  bool dropped_under_us = false;
  t.source.on_resolve = [&](Gfn, MemoryKind) {
    remover.Begin();
    // The backing stays as long as this fault asks for it.
    for (int i = 0; i < 1000; ++i) std::this_thread::yield();
    dropped_under_us = remover.done;
  };
  EXPECT_TRUE(std::holds_alternative<Retry>(t.Touch(5, kPrivate)));
  remover.thread.join();
  EXPECT_TRUE(remover.status.ok());
  EXPECT_FALSE(dropped_under_us);
  t.source.on_resolve = nullptr;
  EXPECT_TRUE(std::holds_alternative<Mmio>(t.Touch(5, kPrivate)));
  EXPECT_EQ(t.Leaves(), 0u);
  EXPECT_TRUE(t.space->Audit().ok()) << t.space->Audit();
}

TEST(MemslotRemoveTest, ARemovalDoesNotWaitForFaultsElsewhere) {
  SlotSpace t;
  ASSERT_TRUE(t.Add(0, 512, 0).ok());
  ASSERT_TRUE(t.Add(512, 512, 512).ok());
  absl::Status removed = absl::UnknownError("not yet");
  t.source.on_resolve = [&](Gfn, MemoryKind) { removed = t.space->RemoveMemslot(Gfn(0)); };
  EXPECT_TRUE(std::holds_alternative<Retry>(t.Touch(520, kPrivate)));
  EXPECT_TRUE(removed.ok()) << removed;
  t.source.on_resolve = nullptr;
  EXPECT_TRUE(t.Fixes(520, kPrivate));
}

// The page was that of the old slot when it was resolved, and is not the new one's: no bug.
TEST(MemslotRemoveTest, APageThatWasResolvedForAMovedSlotIsNotMappedAndIsNoBug) {
  SlotSpace t;
  ASSERT_TRUE(t.Add(0, 512, 0).ok());
  ASSERT_TRUE(t.Add(4096, 512, 2048).ok());
  t.source.after_resolve = [&](Gfn, MemoryKind) {
    t.source.after_resolve = nullptr;
    ASSERT_TRUE(t.space->MoveMemslot(Gfn(0), Gfn(8192)).ok());
    ASSERT_TRUE(t.space->MoveMemslot(Gfn(4096), Gfn(0)).ok());
  };
  EXPECT_TRUE(std::holds_alternative<Retry>(t.Touch(5, kPrivate)));
  EXPECT_EQ(t.space->bugged(), "");
  ASSERT_TRUE(t.Fixes(5, kPrivate));
  EXPECT_EQ(PfnOf(t.HpaOf(5, kPrivate)), TestSpace::kPrivatePfn + 2048 + 5);
}

TEST(MemslotMoveTest, F7_ContentAndAttributesGoAlong) {
  SlotSpace t;
  ASSERT_TRUE(t.Add(0, 2048, 0).ok());
  ASSERT_TRUE(t.Convert({Frames(512, 512), Frames(1030, 3)}, kShared).ok());
  ASSERT_TRUE(t.Fixes(5, kPrivate));
  ASSERT_TRUE(t.Fixes(1031, kShared));
  t.source.pages.Mark(Gfn(5), kPrivate) = 55;
  constexpr uint64_t kNew = uint64_t{1} << 18;
  ASSERT_TRUE(t.space->MoveMemslot(Gfn(0), Gfn(kNew)).ok());
  EXPECT_EQ(Words(t.space->GetMemoryAttributes()),
            "private 262144+512 shared 262656+512 private 263168+6 shared 263174+3 "
            "private 263177+1015 ");
  EXPECT_FALSE(t.IsMapped(5, kPrivate));
  EXPECT_FALSE(t.IsMapped(1031, kShared));
  EXPECT_TRUE(std::holds_alternative<Mmio>(t.Touch(5, kShared)));
  ASSERT_TRUE(t.Fixes(kNew + 5, kPrivate));
  EXPECT_EQ(*reinterpret_cast<uint64_t*>(t.source.pages.At(t.HpaOf(kNew + 5, kPrivate))), 55u);
  ASSERT_TRUE(t.Fixes(kNew + 1031, kShared));
  EXPECT_EQ(t.space->stats().private_frames_attribute, 2048u - 515);
  EXPECT_EQ(t.space->stats().shared_frames_attribute, 515u);
  EXPECT_TRUE(t.space->Audit().ok()) << t.space->Audit();
}

TEST(MemslotMoveTest, TheOldAndTheNewPlaceMayOverlap) {
  SlotSpace t;
  ASSERT_TRUE(t.Add(0, 2048, 0).ok());
  ASSERT_TRUE(t.Convert({Frames(1024, 512)}, kShared).ok());
  ASSERT_TRUE(t.Fixes(600, kPrivate));
  ASSERT_TRUE(t.space->MoveMemslot(Gfn(0), Gfn(512)).ok());
  EXPECT_EQ(Words(t.space->GetMemoryAttributes()),
            "private 512+1024 shared 1536+512 private 2048+512 ");
  EXPECT_FALSE(t.IsMapped(600, kPrivate));
  ASSERT_TRUE(t.Fixes(600, kPrivate));
  EXPECT_EQ(PfnOf(t.HpaOf(600, kPrivate)), TestSpace::kPrivatePfn + 88);
  EXPECT_TRUE(std::holds_alternative<Mmio>(t.Touch(5, kShared)));
  EXPECT_TRUE(t.space->Audit().ok()) << t.space->Audit();
}

// Old and new attributes of neighbours pass through every equal pair on the way.
TEST(MemslotMoveTest, APlaceAFewPagesAwayKeepsEveryAttribute) {
  for (const int64_t by : {1, 3, 64, 100, 255, 256, 511, 600}) {
    for (const bool back : {false, true}) {
      SlotSpace t;
      const uint64_t from = back ? 1024 + by : 1024, to = back ? 1024 : 1024 + by;
      ASSERT_TRUE(t.Add(from, 256, 0).ok());
      ASSERT_TRUE(t.Add(from + 2000, 10, 256).ok());
      ASSERT_TRUE(
          t.Convert({Frames(from, 64), Frames(from + 70, 1), Frames(from + 128, 128)}, kShared)
              .ok());
      const std::vector<AttributeRun> before = t.space->GetMemoryAttributes();
      ASSERT_TRUE(t.space->MoveMemslot(Gfn(from), Gfn(to)).ok());
      std::vector<AttributeRun> expected = before;
      expected.pop_back();  // the neighbour stays
      for (AttributeRun& run : expected) run.range.first = run.range.first - from + to;
      expected.push_back(before.back());
      EXPECT_EQ(Words(t.space->GetMemoryAttributes()), Words(expected)) << by;
      for (const uint64_t outside : {to - 1, to + 256}) {
        EXPECT_TRUE(std::holds_alternative<Mmio>(t.Touch(outside, kShared))) << by;
      }
      EXPECT_TRUE(t.space->Audit().ok()) << t.space->Audit();
    }
  }
}

TEST(MemslotMoveTest, TheDirtyLogKnowsTheNewPlaceAsDirtyAndItsNeighboursAsTheyWere) {
  SlotSpace t;
  ASSERT_TRUE(t.Add(0, 64, 0).ok());
  ASSERT_TRUE(t.Add(512, 64, 64).ok());
  ASSERT_TRUE(t.space->EnableDirtyLog({}).ok());
  ASSERT_TRUE(std::holds_alternative<Fixed>(t.Touch(515, kPrivate, Access::Write())));
  ASSERT_TRUE(t.space->MoveMemslot(Gfn(0), Gfn(1024)).ok());
  const auto moved = t.space->HarvestDirty(Frames(1024, 64));
  ASSERT_TRUE(moved.ok()) << moved.status();
  for (uint64_t gfn = 1024; gfn < 1088; ++gfn) EXPECT_TRUE(Contains(*moved, gfn)) << gfn;
  const auto neighbour = t.space->HarvestDirty(Frames(512, 64));
  ASSERT_TRUE(neighbour.ok()) << neighbour.status();
  EXPECT_TRUE(Contains(*neighbour, 515));
  EXPECT_FALSE(Contains(*neighbour, 516));
}

TEST(MemslotMoveTest, ErrorsChangeNothing) {
  SlotSpace t;
  ASSERT_TRUE(t.Add(0, 512, 0).ok());
  ASSERT_TRUE(t.Add(1024, 512, 1024).ok());
  ASSERT_TRUE(t.Fixes(5, kPrivate));
  EXPECT_TRUE(absl::IsAlreadyExists(t.space->MoveMemslot(Gfn(0), Gfn(1000))));
  EXPECT_TRUE(
      absl::IsInvalidArgument(t.space->MoveMemslot(Gfn(0), t.space->layout().gfn_limit() - 100)));
  t.source.fail_move = absl::UnavailableError("not now");
  EXPECT_TRUE(absl::IsUnavailable(t.space->MoveMemslot(Gfn(0), Gfn(4096))));
  EXPECT_TRUE(t.IsMapped(5, kPrivate));
  EXPECT_EQ(Words(t.space->GetMemoryAttributes()), "private 0+512 private 1024+512 ");
  EXPECT_EQ(t.space->stats().private_frames_attribute, 1024u);
}

TEST(MemslotChangeTest, TwoHundredAndFiftySixSlotsComeMoveAndGo) {
  SlotSpace t({.max_level = Level::k4K});
  constexpr uint64_t kSlots = 256, kFrames = 4, kApart = 512, kAway = uint64_t{1} << 20;
  for (uint64_t i = 0; i < kSlots; ++i) {
    ASSERT_TRUE(t.Add(i * kApart, kFrames, i * kFrames).ok());
    if (i % 16 == 0) {
      ASSERT_TRUE(t.Fixes(i * kApart + 1, kPrivate));
    }
  }
  for (uint64_t i = 0; i < kSlots; i += 2) {
    ASSERT_TRUE(t.space->MoveMemslot(Gfn(i * kApart), Gfn(kAway + i * kApart)).ok());
  }
  EXPECT_EQ(t.space->stats().private_frames_attribute, kSlots * kFrames);
  for (uint64_t i = 0; i < kSlots; i += 64) {
    ASSERT_TRUE(t.Fixes(kAway + i * kApart + 3, kPrivate));
    EXPECT_EQ(PfnOf(t.HpaOf(kAway + i * kApart + 3, kPrivate)),
              TestSpace::kPrivatePfn + i * kFrames + 3);
    ASSERT_TRUE(t.Fixes((i + 1) * kApart + 2, kPrivate));
  }
  EXPECT_TRUE(t.space->Audit().ok()) << t.space->Audit();
  for (uint64_t i = 0; i < kSlots; ++i) {
    ASSERT_TRUE(t.space->RemoveMemslot(Gfn((i % 2 == 0 ? kAway : 0) + i * kApart)).ok());
  }
  EXPECT_EQ(t.Leaves(), 0u);
  EXPECT_EQ(t.space->stats().private_frames_attribute, 0u);
  EXPECT_TRUE(t.space->GetMemoryAttributes().empty());
  EXPECT_TRUE(t.space->Audit().ok()) << t.space->Audit();
}

// On the processor, whose TLBs keep what nobody flushed.
TEST(MemslotProcessorTest, F7_NoTranslationOfARemovedSlotIsUsedAgain) {
  for (const bool deaf : {false, true}) {
    ProcessorGuest guest({}, deaf);
    GuestAddressSpace& space = *guest.t().space;
    ASSERT_TRUE(space.SetMemoryAttributes({.ranges = {Frames(600, 1)}, .kind = kShared}).ok());
    for (const int vcpu : {0, 1}) {
      ASSERT_TRUE(std::holds_alternative<Touched>(guest.Access(vcpu, Gfn(5), kPrivate, 77)));
      ASSERT_TRUE(std::holds_alternative<Touched>(guest.Access(vcpu, Gfn(600), kShared, 78)));
    }
    ASSERT_TRUE(space.RemoveMemslot(Gfn(0)).ok());
    for (const int vcpu : {0, 1}) {
      const Touch private_touch = guest.Access(vcpu, Gfn(5), kPrivate, std::nullopt);
      const Touch shared_touch = guest.Access(vcpu, Gfn(600), kShared, std::nullopt);
      // Without the flushes this test must see the old pages.
      EXPECT_EQ(std::holds_alternative<Touched>(private_touch), deaf);
      EXPECT_EQ(std::holds_alternative<Touched>(shared_touch), deaf);
      if (deaf) continue;
      EXPECT_TRUE(std::holds_alternative<Refused>(private_touch));
      EXPECT_EQ(std::get<Broken>(shared_touch).what, "MMIO inside the slot");
    }
  }
}

// vCPUs fault while slots go, come back and move; a frame is only ever mapped by its own slot.
TEST(MemslotStressTest, FaultsBesideComingAndGoingSlots) {
  SlotSpace t({.mmio_caching = MmioCaching::kMisconfiguration});
  ASSERT_TRUE(t.Add(0, 512, 0).ok());
  ASSERT_TRUE(t.Add(1024, 512, 1024).ok());
  std::atomic<bool> stop{false};
  std::atomic<int> failed{0};
  std::vector<std::thread> vcpus;
  for (int i = 0; i < 3; ++i) {
    vcpus.emplace_back([&, i] {
      for (uint64_t n = i; !stop; ++n) {
        const uint64_t gfn = n * 37 % 4096;
        if (std::holds_alternative<Failed>(t.Touch(gfn, static_cast<MemoryKind>(n % 2)))) ++failed;
        if (std::holds_alternative<Failed>(t.Misconfigured(gfn, kShared))) ++failed;
      }
    });
  }
  for (int round = 0; round < 150; ++round) {
    ASSERT_TRUE(t.space->RemoveMemslot(Gfn(0)).ok());
    t.source.Drop(Gfn(0));
    ASSERT_TRUE(t.space->MoveMemslot(Gfn(1024), Gfn(2048)).ok());
    ASSERT_TRUE(t.Add(0, 512, 0).ok());
    ASSERT_TRUE(t.space->MoveMemslot(Gfn(2048), Gfn(1024)).ok());
    if (round % 10 == 0) {
      ASSERT_TRUE(t.space->ZapAll().ok());
    }
    if (round % 10 == 5) {
      const absl::Status audit = t.space->Audit();
      EXPECT_TRUE(audit.ok()) << audit;
      if (!audit.ok()) break;
    }
    t.space->ReclaimTables(2);
  }
  stop = true;
  for (std::thread& vcpu : vcpus) vcpu.join();
  EXPECT_EQ(failed, 0);
  EXPECT_TRUE(t.space->Audit().ok()) << t.space->Audit();
}

}  // namespace
}  // namespace twinroot::mmu
