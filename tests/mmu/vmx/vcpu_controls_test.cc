// What a vCPU does under its controls: guest mode, mode-based execute, #VE; and with the entries
// that the engine makes on purpose for devices and for aliases.
#include <gtest/gtest.h>

#include <cstdint>

#include "mmu/hw/mmio_entry.h"
#include "mmu/hw/soft_bits.h"
#include "mmu/vmx/vcpu.h"
#include "tests/mmu/vmx/hand_made_tables.h"

namespace twinroot::mmu::vmx {
namespace {

constexpr uint64_t kGpa = 0x40'0000;
constexpr uint64_t kUserExecute = 0x400;
constexpr uint64_t kSuppressVe = uint64_t{1} << 63;

class VcpuControlsTest : public ::testing::Test {
 protected:
  void SetUp() override { Use({}); }
  // A new processor over the same tables.
  void Use(const EptCapabilities& capabilities) {
    vcpu_.emplace(&memory_, capabilities, 52);
    vcpu_->LoadRoots(EptPointer(root_ | 0x1E), EptPointer(), std::nullopt);
  }
  uint64_t Slot(int level = 1) { return memory_.Slot(root_, 4, kGpa, level); }
  uint64_t QualificationOf(const AccessOutcome& outcome) {
    const auto* exit = std::get_if<EptViolationExit>(&outcome);
    EXPECT_NE(exit, nullptr) << outcome.index();
    return exit != nullptr ? exit->qualification.raw() : 0;
  }
  template <typename Outcome>
  static bool Is(const AccessOutcome& outcome) {
    return std::holds_alternative<Outcome>(outcome);
  }

  HandMadeTables memory_;
  const uint64_t root_ = memory_.NewPage();
  std::optional<Vcpu> vcpu_;
};

TEST_F(VcpuControlsTest, F9_MisconfiguredMmioEntriesExitAsMisconfigurationsAndAreNeverCached) {
  const uint64_t page = memory_.NewPage();
  for (const int level : {1, 2, 3}) {
    for (const uint64_t generation : {uint64_t{0}, uint64_t{0x2'5A5A}, kMmioGenerationMask}) {
      const EptEntry marker = MmioEntry::Make(MmioEntryForm::kMisconfigured, generation);
      memory_.Store(Slot(level), marker.raw());
      vcpu_->FlushAll();
      for (const AccessOutcome& outcome :
           {vcpu_->Read(Gpa(kGpa + 8), 4), vcpu_->Write(Gpa(kGpa + 8), 4, 1),
            vcpu_->Fetch(Gpa(kGpa + 8))}) {
        const auto* exit = std::get_if<EptMisconfigurationExit>(&outcome);
        ASSERT_NE(exit, nullptr);
        EXPECT_EQ(exit->gpa, Gpa(kGpa + 8));
        EXPECT_EQ(static_cast<int>(exit->level), level);
      }
      EXPECT_EQ(memory_.Load(Slot(level)), marker.raw());  // no flags
      memory_.Store(Slot(level), 0);
    }
  }
  // A leaf in its place needs no flush.
  memory_.Store(Slot(), MmioEntry::Make(MmioEntryForm::kMisconfigured, 1).raw());
  EXPECT_TRUE(Is<EptMisconfigurationExit>(vcpu_->Read(Gpa(kGpa), 8)));
  memory_.Map4K(root_, kGpa, page);
  EXPECT_TRUE(Is<AccessDone>(vcpu_->Read(Gpa(kGpa), 8)));
}

TEST_F(VcpuControlsTest, F9_NotPresentMmioEntriesBecomeVirtualizationExceptionsInTheGuest) {
  vcpu_->SetEptViolationVe(true);
  memory_.Store(Slot(), MmioEntry::Make(MmioEntryForm::kNotPresent, 0x2'5A5A).raw());
  const AccessOutcome outcome = vcpu_->Write(Gpa(kGpa + 16), 8, 1);
  ASSERT_TRUE(Is<VirtualizationException>(outcome));
  EXPECT_EQ(std::get<VirtualizationException>(outcome).gpa, Gpa(kGpa + 16));
  EXPECT_EQ(std::get<VirtualizationException>(outcome).qualification.raw(), 0x182u);
  // Until the guest's handler is done with the first one, the next one exits.
  EXPECT_TRUE(Is<EptViolationExit>(vcpu_->Read(Gpa(kGpa), 8)));
  vcpu_->ClearVeInformation();
  EXPECT_TRUE(Is<VirtualizationException>(vcpu_->Read(Gpa(kGpa), 8)));
  vcpu_->ClearVeInformation();
  // Empty and frozen slots of such tables are the hypervisor's.
  for (const EptEntry entry : {kEmptySuppressVe, kFrozenSuppressVe}) {
    memory_.Store(Slot(), entry.raw());
    EXPECT_EQ(QualificationOf(vcpu_->Read(Gpa(kGpa), 8)), 0x181u);
  }
  // So is everything while the control is off.
  memory_.Store(Slot(), MmioEntry::Make(MmioEntryForm::kNotPresent, 1).raw());
  vcpu_->SetEptViolationVe(false);
  EXPECT_EQ(QualificationOf(vcpu_->Read(Gpa(kGpa), 8)), 0x181u);
}

TEST_F(VcpuControlsTest, F9_ALeafsOwnBitDecidesWhetherAMissingRightIsConvertible) {
  vcpu_->SetEptViolationVe(true);
  const uint64_t page = memory_.NewPage();
  memory_.Map4K(root_, kGpa, page, 1);
  EXPECT_TRUE(Is<VirtualizationException>(vcpu_->Write(Gpa(kGpa), 8, 1)));
  vcpu_->ClearVeInformation();
  memory_.Store(Slot(), memory_.Load(Slot()) | kSuppressVe);
  EXPECT_EQ(QualificationOf(vcpu_->Write(Gpa(kGpa), 8, 1)), 0x182u | 1 << 3);
  // Beyond the walk no entry decides.
  EXPECT_TRUE(Is<EptViolationExit>(vcpu_->Read(Gpa(uint64_t{1} << 50), 8)));
}

TEST_F(VcpuControlsTest, F1_ModeBasedExecuteAsksForTheRightOfTheModeThatFetches) {
  EptCapabilities mode_based;
  mode_based.mode_based_execute = true;
  Use(mode_based);
  const uint64_t page = memory_.NewPage();
  memory_.Map4K(root_, kGpa, page, 1 | 4);
  for (const int level : {4, 3, 2}) memory_.Store(Slot(level), memory_.Load(Slot(level)) | 0x400);
  EXPECT_TRUE(Is<AccessDone>(vcpu_->Fetch(Gpa(kGpa))));
  vcpu_->SetMode(LinearMode::kUser);  // what is cached for the other mode does not serve this one
  EXPECT_EQ(QualificationOf(vcpu_->Fetch(Gpa(kGpa))), 0x184u | 5 << 3);
  EXPECT_TRUE(Is<AccessDone>(vcpu_->Read(Gpa(kGpa), 8)));
  memory_.Map4K(root_, kGpa, page, 1 | kUserExecute);
  EXPECT_TRUE(Is<AccessDone>(vcpu_->Fetch(Gpa(kGpa))));
  vcpu_->SetMode(LinearMode::kSupervisor);
  EXPECT_EQ(QualificationOf(vcpu_->Fetch(Gpa(kGpa))), 0x184u | 1 << 3 | 1 << 6);
}

// A10: the alias is another address in the same root, no more.
TEST_F(VcpuControlsTest, A10_ExecuteOnlyAliasRunsAndSaysPreciselyWhatItRefuses) {
  constexpr uint64_t kAlias = kGpa | uint64_t{1} << 45;
  const uint64_t page = memory_.NewPage();
  memory_.Map4K(root_, kGpa, page);
  memory_.Map4K(root_, kAlias, page, 4);
  EXPECT_TRUE(Is<AccessDone>(vcpu_->Write(Gpa(kGpa), 8, 0xC3)));
  const AccessOutcome fetched = vcpu_->Fetch(Gpa(kAlias));
  ASSERT_TRUE(Is<AccessDone>(fetched));
  EXPECT_EQ(std::get<AccessDone>(fetched).value, 0xC3u);
  EXPECT_EQ(QualificationOf(vcpu_->Read(Gpa(kAlias), 8)), 0x181u | 4 << 3);
  EXPECT_EQ(QualificationOf(vcpu_->Write(Gpa(kAlias), 8, 1)), 0x182u | 4 << 3);
  EXPECT_TRUE(Is<AccessDone>(vcpu_->Fetch(Gpa(kAlias))));
  EXPECT_TRUE(Is<AccessDone>(vcpu_->Read(Gpa(kGpa), 8)));
  // Without the capability such a leaf is a misconfiguration.
  Use({.execute_only = false});
  EXPECT_TRUE(Is<EptMisconfigurationExit>(vcpu_->Fetch(Gpa(kAlias))));
  EXPECT_TRUE(Is<AccessDone>(vcpu_->Fetch(Gpa(kGpa))));
}

// D11: an entry grants what is left after denials, and what is cached grants no more.
TEST_F(VcpuControlsTest, D11_ACachedTranslationServesOnlyWhatTheEntryGranted) {
  const uint64_t page = memory_.NewPage();
  for (const uint64_t rights : {1, 3, 4, 5, 7}) {
    memory_.Map4K(root_, kGpa, page, rights);
    vcpu_->FlushAll();
    vcpu_->EnterGuest();
    for (int twice = 0; twice < 2; ++twice) {
      EXPECT_EQ(Is<AccessDone>(vcpu_->Read(Gpa(kGpa), 8)), (rights & 1) != 0) << rights;
      EXPECT_EQ(Is<AccessDone>(vcpu_->Write(Gpa(kGpa), 8, 1)), (rights & 2) != 0) << rights;
      EXPECT_EQ(Is<AccessDone>(vcpu_->Fetch(Gpa(kGpa))), (rights & 4) != 0) << rights;
    }
    vcpu_->LeaveGuest();
  }
}

// An exit leaves guest mode, so the handler's flush of this very vCPU does not wait for it.
TEST_F(VcpuControlsTest, EveryExitLeavesGuestMode) {
  vcpu_->EnterGuest();
  EXPECT_TRUE(Is<EptViolationExit>(vcpu_->Read(Gpa(kGpa), 8)));
  vcpu_->FlushAll();
  memory_.Store(Slot(), 6);
  vcpu_->EnterGuest();
  EXPECT_TRUE(Is<EptMisconfigurationExit>(vcpu_->Read(Gpa(kGpa), 8)));
  vcpu_->FlushAll();
  memory_.Map4K(root_, kGpa, uint64_t{1} << 40);
  vcpu_->EnterGuest();
  EXPECT_TRUE(Is<MachineCheck>(vcpu_->Read(Gpa(kGpa), 8)));
  vcpu_->FlushAll();
}

TEST_F(VcpuControlsTest, StaleTranslationIsUsedInGuestModeTooUntilItIsFlushed) {
  const uint64_t page = memory_.NewPage();
  memory_.Map4K(root_, kGpa, page);
  vcpu_->EnterGuest();
  EXPECT_TRUE(Is<AccessDone>(vcpu_->Read(Gpa(kGpa), 8)));
  memory_.Unmap4K(root_, kGpa);
  EXPECT_TRUE(Is<AccessDone>(vcpu_->Read(Gpa(kGpa), 8)));
  vcpu_->LeaveGuest();
  // A page beside it, then its own.
  vcpu_->FlushRange(MemoryKind::kPrivate, HwGfn((kGpa >> 12) + 1), 1);
  EXPECT_TRUE(Is<AccessDone>(vcpu_->Read(Gpa(kGpa), 8)));
  vcpu_->FlushRange(MemoryKind::kPrivate, HwGfn(kGpa >> 12), 1);
  EXPECT_TRUE(Is<EptViolationExit>(vcpu_->Read(Gpa(kGpa), 8)));
}

// Clearing counts generations and starts over when they run out: nothing of an old one comes back.
TEST_F(VcpuControlsTest, NothingCachedComesBackAfterManyFlushes) {
  const uint64_t page = memory_.NewPage();
  memory_.Map4K(root_, kGpa, page);
  EXPECT_TRUE(Is<AccessDone>(vcpu_->Read(Gpa(kGpa), 8)));
  memory_.Unmap4K(root_, kGpa);
  vcpu_->FlushRange(MemoryKind::kPrivate, HwGfn(kGpa >> 12), 1);
  AccessTlb tlb;
  std::byte bytes[8];
  tlb.Insert(Gpa(kGpa), bytes, {true, true, true});
  ASSERT_TRUE(tlb.Hits(AccessKind::kWrite, Gpa(kGpa)));
  for (int flush = 0; flush < 10'000; ++flush) {
    tlb.Clear();
    ASSERT_FALSE(tlb.Hits(AccessKind::kRead, Gpa(kGpa))) << flush;
  }
  EXPECT_TRUE(Is<EptViolationExit>(vcpu_->Read(Gpa(kGpa), 8)));
}

}  // namespace
}  // namespace twinroot::mmu::vmx
