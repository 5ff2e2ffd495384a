#include "daemon/vcpu/sim/guest_registers.h"

#include <gtest/gtest.h>

#include <variant>

namespace twinroot::sim {
namespace {

using program::Register;

constexpr uint64_t kPe = 1, kPg = 0x8000'0000, kPae = 0x20, kLa57 = 0x1000, kLme = 0x100;

struct Registers : GuestRegisters {
  explicit Registers(const Features& features = {}) : GuestRegisters(features) {}
  Outcome To(Register to, uint64_t value) {
    return Move(to, value, [this](uint64_t cr3) {
      ++pdptes_read;
      last_cr3 = cr3;
      return pdptes;
    });
  }
  bool Moves(Register to, uint64_t value) { return std::holds_alternative<Moved>(To(to, value)); }
  bool Faults(Register to, uint64_t value) {
    const mmu::GuestPaging before = paging();
    const bool faulted = std::holds_alternative<GeneralProtection>(To(to, value));
    // What is refused changes nothing.
    return faulted && paging().registers == before.registers;
  }
  mmu::PagingMode mode() const { return paging().registers.mode(); }

  mmu::LoadPdptesOutcome pdptes = mmu::Pdptes{};
  int pdptes_read = 0;
  uint64_t last_cr3 = 0;
};

TEST(GuestRegistersTest, LongModeIsEnteredAndLeftByPagingAlone) {
  Registers registers;
  EXPECT_TRUE(registers.Faults(Register::kCr0, kPg));  // without PE
  EXPECT_TRUE(registers.Moves(Register::kEfer, kLme));
  EXPECT_TRUE(registers.Faults(Register::kCr0, kPg | kPe));  // without PAE
  EXPECT_TRUE(registers.Moves(Register::kCr4, kPae));
  EXPECT_TRUE(registers.Moves(Register::kCr0, kPg | kPe));
  EXPECT_EQ(registers.mode(), mmu::PagingMode::k4Level);
  EXPECT_TRUE(registers.Faults(Register::kCr4, 0));
  EXPECT_TRUE(registers.Faults(Register::kCr4, kPae | kLa57));
  EXPECT_TRUE(registers.Faults(Register::kEfer, 0));
  EXPECT_TRUE(registers.Faults(Register::kCr3, uint64_t{1} << 52));
  EXPECT_TRUE(registers.Moves(Register::kCr0, kPe));
  EXPECT_EQ(registers.mode(), mmu::PagingMode::kNone);
  EXPECT_TRUE(registers.Moves(Register::kCr4, kPae | kLa57));
  EXPECT_TRUE(registers.Moves(Register::kCr0, kPg | kPe));
  EXPECT_EQ(registers.mode(), mmu::PagingMode::k5Level);
  EXPECT_EQ(registers.pdptes_read, 0);
}

TEST(GuestRegistersTest, PdptesAreLoadedWithCr3AndWithWhatChangesTheirMeaning) {
  Registers registers;
  EXPECT_TRUE(registers.Moves(Register::kCr4, kPae));
  EXPECT_TRUE(registers.Moves(Register::kCr3, 0x1020));
  EXPECT_EQ(registers.pdptes_read, 0);
  EXPECT_TRUE(registers.Moves(Register::kCr0, kPg | kPe));
  EXPECT_EQ(registers.mode(), mmu::PagingMode::kPae);
  EXPECT_EQ(registers.pdptes_read, 1);
  EXPECT_EQ(registers.last_cr3, 0x1020u);
  EXPECT_TRUE(registers.Moves(Register::kCr3, 0x2000));
  EXPECT_EQ(registers.pdptes_read, 2);
  EXPECT_TRUE(registers.Moves(Register::kCr4, kPae | 0x80));  // PGE
  EXPECT_EQ(registers.pdptes_read, 3);
  EXPECT_TRUE(registers.Moves(Register::kCr4, kPae | 0x80 | 0x200000));  // SMAP
  EXPECT_TRUE(registers.Moves(Register::kCr0, kPg | kPe | 0x10000));     // WP
  EXPECT_EQ(registers.pdptes_read, 3);
  registers.pdptes = mmu::PdptesMalformed{};
  EXPECT_TRUE(registers.Faults(Register::kCr3, 0x3000));
  registers.pdptes = mmu::GuestTableMissing{mmu::Gpa(0x3000)};
  EXPECT_TRUE(
      std::holds_alternative<GuestRegisters::TableMissing>(registers.To(Register::kCr3, 0x3000)));
  EXPECT_EQ(registers.paging().registers.cr3, 0x2000u);
}

TEST(GuestRegistersTest, A6_LegacyPagingIsRefusedWhereABitIsStolen) {
  Registers plain, stolen({.legacy = false});
  EXPECT_TRUE(plain.Moves(Register::kCr0, kPg | kPe));
  EXPECT_EQ(plain.mode(), mmu::PagingMode::k32Bit);
  EXPECT_TRUE(
      std::holds_alternative<GuestRegisters::Refused>(stolen.To(Register::kCr0, kPg | kPe)));
  EXPECT_FALSE(stolen.paging().on());
  EXPECT_TRUE(stolen.Moves(Register::kCr4, kPae));
  EXPECT_TRUE(stolen.Moves(Register::kCr0, kPg | kPe));
  // By the way of CR4, too.
  EXPECT_TRUE(std::holds_alternative<GuestRegisters::Refused>(stolen.To(Register::kCr4, 0)));
}

TEST(GuestRegistersTest, WhatTheProcessorDoesNotKnowIsRefused) {
  Registers registers({.keys = false});
  EXPECT_TRUE(registers.Faults(Register::kCr0, 1 << 6));
  EXPECT_TRUE(registers.Faults(Register::kCr4, uint64_t{1} << 17));  // PCIDE
  EXPECT_TRUE(registers.Faults(Register::kCr4, uint64_t{1} << 22));  // PKE
  EXPECT_TRUE(registers.Faults(Register::kEfer, 1 << 12));
  EXPECT_TRUE(registers.Faults(Register::kPkru, uint64_t{1} << 32));
}

TEST(GuestRegistersTest, AddressesAreCanonicalOrCutAsTheModeHasThem) {
  mmu::GuestPaging paging;
  EXPECT_EQ(LinearAddress(paging, uint64_t{1} << 60), uint64_t{1} << 60);
  paging.registers.cr0 = kPg | kPe;
  EXPECT_EQ(LinearAddress(paging, 0x5'0000'1000), 0x1000u);
  paging.registers.cr4 = kPae;
  paging.registers.efer = mmu::ControlRegisters::kEferLma;
  EXPECT_EQ(LinearAddress(paging, uint64_t{1} << 47), std::nullopt);
  EXPECT_EQ(LinearAddress(paging, 0xFFFF'8000'0000'0000), 0xFFFF'8000'0000'0000);
  EXPECT_EQ(paging.LinearMask(), 0xFFFF'FFFF'FFFFu);
  paging.registers.cr4 |= kLa57;
  EXPECT_EQ(LinearAddress(paging, uint64_t{1} << 47), uint64_t{1} << 47);
}

}  // namespace
}  // namespace twinroot::sim
