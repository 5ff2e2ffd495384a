#include "mmu/shadow/guest_walker.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <variant>
#include <vector>

#include "tests/mmu/shadow/hand_made_paging.h"
#include "tests/mmu/vmx/ept_manual.h"

namespace twinroot::mmu {
namespace {

using manual::Bit;
using manual::Mode;
using manual::State;

constexpr manual::Request kUserWrite{manual::Kind::kWrite, true, false, false};
constexpr manual::Request kUserRead{manual::Kind::kRead, true, false, false};

TEST(GuestWalkerTest, TheWayDownIsToldEntryByEntryWithTheFlagsThatItSet) {
  HandMadePaging tables(Mode::k4, 2);
  std::vector<uint64_t> entries = tables.entries();
  entries[1] &= ~uint64_t{2};  // the PDPTE is not writable
  tables.Write(entries);
  const GuestWalkOutcome outcome = WalkGuest(tables.PagingOf({.mode = Mode::k4}), tables.memory(),
                                             AccessOf(tables.address(), kUserRead));
  const auto& found = std::get<GuestTranslation>(outcome);
  ASSERT_EQ(found.depth, 3);
  for (int i = 0; i < 3; ++i) {
    const GuestStep& step = found.steps[static_cast<size_t>(i)];
    EXPECT_EQ(step.entry.value, tables.slot(4 - i));
    EXPECT_EQ(step.word, tables.memory().Load(tables.slot(4 - i)));
    EXPECT_EQ(step.word & 0x20, 0x20u);
    EXPECT_EQ(static_cast<int>(step.level), 4 - i);
  }
  EXPECT_EQ(found.steps[0].rights, GuestRights::All());
  EXPECT_EQ(found.steps[1].rights, GuestRights::User() | GuestRights::Execute());
  EXPECT_EQ(found.rights, GuestRights::User() | GuestRights::Execute());
  EXPECT_FALSE(found.dirty);
}

// Whoever writes the entry between its use and its flag wins: the walk begins again.
TEST(GuestWalkerTest, AnEntryThatChangesUnderTheWalkIsWalkedAgain) {
  HandMadePaging tables(Mode::k4, 1);
  tables.Write(tables.entries());
  int exchanges = 0;
  tables.memory().before_exchange = [&] {
    // As the leaf is about to be flagged, another processor takes W away.
    if (++exchanges == 4) tables.memory().Store(tables.slot(1), tables.entries().back() & ~2ull);
  };
  const GuestWalkOutcome outcome = WalkGuest(tables.PagingOf({.mode = Mode::k4}), tables.memory(),
                                             AccessOf(tables.address(), kUserWrite));
  ASSERT_TRUE(std::holds_alternative<GuestPageFault>(outcome));
  EXPECT_EQ(std::get<GuestPageFault>(outcome).error_code, 7u);
  // Nothing of the new entry was touched.
  EXPECT_EQ(tables.memory().Load(tables.slot(1)), tables.entries().back() & ~2ull);
}

TEST(GuestWalkerTest, AFlagThatIsSetAlreadyIsNotWrittenAgain) {
  HandMadePaging tables(Mode::k5, 3);
  std::vector<uint64_t> entries = tables.entries();
  for (uint64_t& entry : entries) entry |= 0x20;
  entries.back() |= 0x40;
  tables.Write(entries);
  int exchanges = 0;
  tables.memory().before_exchange = [&] { ++exchanges; };
  const GuestWalkOutcome outcome = WalkGuest(tables.PagingOf({.mode = Mode::k5}), tables.memory(),
                                             AccessOf(tables.address(), kUserWrite));
  EXPECT_TRUE(std::get<GuestTranslation>(outcome).dirty);
  EXPECT_EQ(exchanges, 0);
}

TEST(GuestWalkerTest, ATableWhereNoMemoryIsEndsTheWalk) {
  HandMadePaging tables(Mode::kPae, 1);
  std::vector<uint64_t> entries = tables.entries();
  entries[0] = 0x7F'F000 | 7;
  tables.Write(entries);
  const GuestWalkOutcome outcome = WalkGuest(tables.PagingOf({.mode = Mode::kPae}), tables.memory(),
                                             AccessOf(tables.address(), kUserRead));
  EXPECT_EQ(std::get<GuestTableMissing>(outcome).entry.value & ~uint64_t{0xFFF}, 0x7F'F000u);
}

TEST(GuestWalkerTest, WithoutPagingAnAddressIsItsOwn32BitsWide) {
  EXPECT_EQ(UnpagedAddress(0x1'2345'6789), Gpa(0x2345'6789));
}

TEST(GuestWalkerTest, C5_PdptesThatAreNotPresentAreLegalAndPresentOnesWithReservedBitsAreNot) {
  for (int bit = 0; bit < 64; ++bit) {
    for (const bool present : {false, true}) {
      for (uint64_t entry = 0; entry < 4; ++entry) {
        GuestWords memory(2);
        // The table of four is aligned to 32 bytes, not to a page.
        constexpr uint64_t kTable = 0x1F60;
        const uint64_t word = Bit(bit) | (present ? 1 : 0);
        memory.Store(kTable + 8 * entry, word);
        const LoadPdptesOutcome outcome = LoadPdptes(memory, kTable | 0x18, 40);
        const bool reserved = bit == 1 || bit == 2 || (bit >= 5 && bit <= 8) || bit >= 40;
        if ((word & 1) && reserved) {
          EXPECT_TRUE(std::holds_alternative<PdptesMalformed>(outcome)) << bit;
        } else {
          EXPECT_EQ(std::get<Pdptes>(outcome)[entry].raw(), word) << bit;
        }
      }
    }
  }
  GuestWords memory(1);
  EXPECT_EQ(std::get<GuestTableMissing>(LoadPdptes(memory, 0x1000, 40)).entry, Gpa(0x1000));
}

TEST(GuestWalkerTest, C5_AnAddressBelowAPdpteThatIsNotPresentFaultsAndTheOthersDoNot) {
  HandMadePaging tables(Mode::kPae, 1);
  tables.Write(tables.entries());
  const ControlRegisters registers = RegistersOf({.mode = Mode::kPae}, 0);
  const PaePdpte top(0x1001);
  // Address bits 31:30 are 2.
  const Ia32Paging with(registers, {}, {PaePdpte(), PaePdpte(), top, PaePdpte()});
  const Ia32Paging without(registers, {}, {top, top, PaePdpte(), top});
  const LinearAccess access = AccessOf(tables.address(), kUserRead);
  EXPECT_TRUE(std::holds_alternative<GuestTranslation>(WalkGuest(with, tables.memory(), access)));
  const GuestWalkOutcome outcome = WalkGuest(without, tables.memory(), access);
  EXPECT_EQ(std::get<GuestPageFault>(outcome).error_code, 4u);
}

// APM vol. 2, "Nested Paging": "accesses ... are treated as user", PDPTEs are walked in memory.
TEST(GuestWalkerTest, ANestedTableIsReadAsByUserAccessesAndHasItsPdptesInMemory) {
  HandMadePaging tables(Mode::kPae, 1);
  std::vector<uint64_t> entries = tables.entries();
  tables.Write(entries);
  const ControlRegisters registers = RegistersOf({.mode = Mode::kPae, .pke = true}, 0x7F40);
  const Ia32Paging nested = Ia32Paging::Nested(registers, {.maxphyaddr = 40});
  const LinearAccess read{tables.address(), Access::Read()};
  const auto error = [&] {
    const GuestWalkOutcome outcome = WalkGuest(nested, tables.memory(), read);
    const auto* fault = std::get_if<GuestPageFault>(&outcome);
    return fault != nullptr ? static_cast<int>(fault->error_code) : -1;
  };
  EXPECT_EQ(error(), 4);  // no PDPTE yet
  tables.memory().Store(0x7F40 + 2 * 8, 0x1001);
  EXPECT_EQ(error(), -1);
  tables.memory().Store(0x7F40 + 2 * 8, 0x1021);
  EXPECT_EQ(error(), 0xD);  // reserved
  tables.memory().Store(0x7F40 + 2 * 8, 0x1001);
  entries.back() &= ~uint64_t{4};
  tables.Write(entries);
  EXPECT_EQ(error(), 5);  // a supervisor page, though the access named no user
}

// The nested EPT walk against the manual's tables for EPT: rights of leaf and of one entry above,
// flags on and off, every access.
TEST(GuestWalkerTest, ANestedEptIsReadAsTheManualSaysOfEpt) {
  namespace ept = vmx::manual;
  constexpr uint64_t kGpa = 0x4567'89AB'CDE8;
  uint64_t cases = 0;
  for (const int leaf_level : {1, 2, 3}) {
    for (uint64_t bits = 0; bits < 64 * 64 * 4; ++bits) {
      GuestWords memory(8);
      std::vector<uint64_t> entries;
      std::vector<uint64_t> slots;
      uint64_t table = 0x1000;
      for (int level = 4; level >= leaf_level; --level, table += 0x1000) {
        slots.push_back(table + (kGpa >> (12 + 9 * (level - 1)) & 511) * 8);
        entries.push_back((table + 0x1000) | 7);
      }
      // The leaf: rights, A, D and a memory type; the top entry: rights, and one bit in 5:3.
      entries.back() = Bit(31) | (leaf_level > 1 ? Bit(7) : 0) | (bits & 7) |
                       (bits & 8 ? 6 << 3 : 2 << 3) | (bits & 16 ? Bit(8) : 0) |
                       (bits & 32 ? Bit(9) : 0);
      entries[0] = (entries[0] & ~uint64_t{7}) | (bits >> 6 & 7) | (bits >> 9 & 1) << 3;
      const bool flags = bits >> 12 & 1;
      ept::Processor cpu;
      cpu.execute_only = bits >> 13 & 1;
      EptCapabilities capabilities;
      capabilities.execute_only = cpu.execute_only;
      const EptPaging paging(EptPointer(0x1000 | 6 | 3 << 3 | (flags ? Bit(6) : 0)), capabilities,
                             52);
      for (const ept::Kind kind : {ept::Kind::kRead, ept::Kind::kWrite, ept::Kind::kFetch,
                                   ept::Kind::kWalkRead, ept::Kind::kWalkWrite}) {
        ++cases;
        for (size_t i = 0; i < slots.size(); ++i) memory.Store(slots[i], entries[i]);
        const ept::Expected expected = ept::Walk(entries, 4, cpu, {kind}, flags);
        NestedAccess access{Gpa(kGpa), Access::Read()};
        if (kind == ept::Kind::kWrite || kind == ept::Kind::kWalkWrite) {
          access.needed = Access::Write();
        }
        if (kind == ept::Kind::kFetch) access.needed = Access::Fetch();
        access.guest_page_walk = kind == ept::Kind::kWalkRead || kind == ept::Kind::kWalkWrite;
        const GuestWalkOutcome outcome = WalkGuest(paging, memory, access);
        if (expected.verdict == ept::Verdict::kMisconfiguration) {
          ASSERT_TRUE(std::holds_alternative<NestedEptMisconfiguration>(outcome)) << bits;
          ASSERT_EQ(static_cast<int>(std::get<NestedEptMisconfiguration>(outcome).level),
                    expected.level);
        } else if (expected.verdict == ept::Verdict::kViolation) {
          ASSERT_TRUE(std::holds_alternative<NestedEptViolation>(outcome)) << bits;
          ASSERT_EQ(std::get<NestedEptViolation>(outcome).qualification.raw(),
                    expected.qualification);
        } else {
          ASSERT_TRUE(std::holds_alternative<GuestTranslation>(outcome)) << bits;
          const auto& found = std::get<GuestTranslation>(outcome);
          ASSERT_EQ(found.rights.user() | found.rights.write() << 1 | found.rights.execute() << 2,
                    static_cast<int>(expected.rights));
          ASSERT_EQ(static_cast<int>(found.level), expected.level);
        }
        for (size_t i = 0; i < slots.size(); ++i) {
          ASSERT_EQ(memory.Load(slots[i]), expected.afterwards[i]) << bits;
        }
      }
    }
  }
  EXPECT_EQ(cases, 3u * 64 * 64 * 4 * 5);
}

TEST(GuestWalkerTest, AnAddressBeyondANestedEptIsAViolationThatNoEntryAllows) {
  GuestWords memory(2);
  const EptPaging paging(EptPointer(0x1000 | 6 | 3 << 3), {}, 52);
  const GuestWalkOutcome outcome =
      WalkGuest(paging, memory, {Gpa(uint64_t{1} << 48), Access::Read()});
  EXPECT_EQ(std::get<NestedEptViolation>(outcome).qualification.raw(), 0x181u);
  EXPECT_EQ(memory.reads, 0u);
}

}  // namespace
}  // namespace twinroot::mmu
