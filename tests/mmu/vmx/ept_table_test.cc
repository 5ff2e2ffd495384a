// The walker against the manual's tables, over everything that is small enough to be enumerated.
#include <gtest/gtest.h>

#include <cstdint>
#include <cstdlib>
#include <iterator>
#include <random>
#include <vector>

#include "mmu/vmx/ept_walker.h"
#include "tests/mmu/vmx/ept_manual.h"
#include "tests/mmu/vmx/hand_made_tables.h"

namespace twinroot::mmu::vmx {
namespace {

using manual::Bit;
using manual::Expected;
using manual::Kind;
using manual::Processor;
using manual::Request;
using manual::Verdict;

constexpr uint64_t kGpa = (uint64_t{3} << 48) | 0x0000'1234'5678'9AB8;
constexpr uint64_t kGpaOf4Levels = 0x0000'1234'5678'9AB8;
constexpr uint64_t kAllRights = 0x407;  // bits 10 and 2:0

EptCapabilities CapabilitiesOf(const Processor& cpu) {
  EptCapabilities capabilities;
  capabilities.execute_only = cpu.execute_only;
  capabilities.mode_based_execute = cpu.mode_based;
  capabilities.page_2m = cpu.page_2m;
  capabilities.page_1g = cpu.page_1g;
  capabilities.advanced_exit_information = cpu.advanced;
  return capabilities;
}

GuestAccess AccessOf(uint64_t gpa, const Request& request) {
  GuestAccess access{Gpa(gpa), Access::Read()};
  if (request.kind == Kind::kWrite || request.kind == Kind::kWalkWrite) {
    access.needed = Access::Write();
  }
  if (request.kind == Kind::kFetch) access.needed = Access::Fetch();
  if (request.kind == Kind::kWalkRead || request.kind == Kind::kWalkWrite) {
    access.target = AccessTarget::kGuestPagingEntry;
  }
  access.mode = request.user_mode ? LinearMode::kUser : LinearMode::kSupervisor;
  access.page = {request.guest_writable, request.guest_execute_disable};
  return access;
}

// Tables from the root to a leaf of `leaf_level`, all rights everywhere.
class Tables {
 public:
  Tables(int levels, int leaf_level)
      : levels_(levels), leaf_level_(leaf_level), gpa_(levels == 5 ? kGpa : kGpaOf4Levels) {
    root_ = memory_.NewPage();
    for (int level = levels; level >= leaf_level; --level) {
      slots_.push_back(memory_.Slot(root_, levels, gpa_, level));
    }
    for (const uint64_t slot : slots_) entries_.push_back(memory_.Load(slot) | kAllRights);
    entries_.back() = PageOf(leaf_level) | 6 << 3 | kAllRights | (leaf_level > 1 ? Bit(7) : 0);
  }
  static uint64_t PageOf(int level) { return uint64_t{7} << (12 + 9 * (level - 1)); }

  const std::vector<uint64_t>& entries() const { return entries_; }
  int levels() const { return levels_; }
  int leaf_level() const { return leaf_level_; }
  size_t IndexOf(int level) const { return static_cast<size_t>(levels_ - level); }

  WalkOutcome Walk(const std::vector<uint64_t>& entries, const Processor& cpu,
                   const Request& request, bool flags) {
    for (size_t i = 0; i < slots_.size(); ++i) memory_.Store(slots_[i], entries[i]);
    const EptPointer eptp(root_ | 6 | static_cast<uint64_t>(levels_ - 1) << 3 |
                          (flags ? Bit(6) : 0));
    return EptWalker(&memory_, CapabilitiesOf(cpu), cpu.maxphyaddr)
        .Walk(eptp, AccessOf(gpa_, request));
  }

  uint64_t LeafNow() { return memory_.Load(slots_.back()); }

  // Whether the walker does what the manual says; the message is for the failure.
  ::testing::AssertionResult Agrees(const std::vector<uint64_t>& entries, const Processor& cpu,
                                    const Request& request, bool flags) {
    const Expected expected = manual::Walk(entries, levels_, cpu, request, flags);
    const WalkOutcome outcome = Walk(entries, cpu, request, flags);
    const char* wrong = nullptr;
    if (expected.verdict == Verdict::kMisconfiguration) {
      const auto* exit = std::get_if<EptMisconfigurationExit>(&outcome);
      if (exit == nullptr || static_cast<int>(exit->level) != expected.level ||
          exit->gpa.value != gpa_) {
        wrong = "misconfiguration";
      }
    } else if (expected.verdict == Verdict::kViolation) {
      const auto* exit = std::get_if<EptViolationExit>(&outcome);
      if (exit == nullptr || exit->qualification.raw() != expected.qualification ||
          exit->convertible != expected.convertible || exit->gpa.value != gpa_) {
        wrong = "violation";
      }
    } else {
      const auto* found = std::get_if<EptTranslation>(&outcome);
      if (found == nullptr || found->access.bits() != expected.rights ||
          static_cast<int>(found->level) != expected.level ||
          found->page.value != (entries.back() & 0x000F'FFFF'FFFF'F000)) {
        wrong = "translation";
      }
    }
    for (size_t i = 0; i < slots_.size(); ++i) {
      if (memory_.Load(slots_[i]) != expected.afterwards[i]) wrong = "flags";
    }
    if (wrong == nullptr) return ::testing::AssertionSuccess();
    auto failure = ::testing::AssertionFailure() << "not the " << wrong << " of the manual; ";
    for (const uint64_t entry : entries) failure << std::hex << "0x" << entry << " ";
    return failure << "kind " << static_cast<int>(request.kind) << " user " << request.user_mode
                   << " flags " << flags << " mode-based " << cpu.mode_based << " execute-only "
                   << cpu.execute_only << " advanced " << cpu.advanced << " outcome "
                   << outcome.index() << " qualification " << expected.qualification;
  }

 private:
  HandMadeTables memory_{16};
  const int levels_;
  const int leaf_level_;
  const uint64_t gpa_;
  uint64_t root_ = 0;
  std::vector<uint64_t> slots_;
  std::vector<uint64_t> entries_;
};

const Request kRequests[] = {
    {Kind::kRead},      {Kind::kRead, true, false, true},
    {Kind::kWrite},     {Kind::kWrite, true},
    {Kind::kFetch},     {Kind::kFetch, true, true, true},
    {Kind::kWalkRead},  {Kind::kWalkRead, true},
    {Kind::kWalkWrite},
};

// Rights R, W, X, XU as bits 0 to 3.
uint64_t WithRights(uint64_t entry, uint64_t rights) {
  return (entry & ~kAllRights) | (rights & 7) | (rights & 8 ? Bit(10) : 0);
}

// For each processor that differs in what rights mean.
template <typename Body>
void ForEachProcessor(const Body& body) {
  for (int i = 0; i < 4; ++i) {
    Processor cpu;
    cpu.execute_only = i & 1;
    cpu.mode_based = i & 2;
    body(cpu);
  }
}

// Rights missing anywhere: every mixture in one entry of the way (or in the leaf alone), and every
// mixture in the leaf, for every access, with and without flags. Both walk lengths, all leaf sizes.
TEST(EptTableTest, F1_RightsOfEveryEntryDecideEveryAccess) {
  uint64_t cases = 0;
  for (const int levels : {4, 5}) {
    for (const int leaf_level : {1, 2, 3}) {
      Tables tables(levels, leaf_level);
      for (int level = levels; level >= leaf_level; --level) {
        for (uint64_t upper = 0; upper < 16; ++upper) {
          for (uint64_t leaf = 0; leaf < (level == leaf_level ? 1u : 16u); ++leaf) {
            std::vector<uint64_t> entries = tables.entries();
            if (level != leaf_level) entries.back() = WithRights(entries.back(), leaf);
            uint64_t& one = entries[tables.IndexOf(level)];
            one = WithRights(one, upper);
            ForEachProcessor([&](const Processor& cpu) {
              for (const Request& request : kRequests) {
                for (const bool flags : {false, true}) {
                  ++cases;
                  ASSERT_TRUE(tables.Agrees(entries, cpu, request, flags));
                }
              }
            });
            if (HasFatalFailure()) return;
          }
        }
      }
    }
  }
  // Leaf rights alone 16, with those of one entry above 256: 6 shapes, 15 entries above leaves.
  EXPECT_EQ(cases, (6 * 16 + (3 + 2 + 1 + 4 + 3 + 2) * 256) * 4u * std::size(kRequests) * 2);
}

// Every value of bits 11:0 of every kind of entry, for every processor.
TEST(EptTableTest, F1_LowBitsOfEveryKindOfEntryMeanWhatTheManualSays) {
  for (int level = 1; level <= 5; ++level) {
    for (const bool large : {false, true}) {
      // Leaves of large pages stand at 2 and 3; links at 2 to 5; the 4K leaf at 1.
      if (large && level != 2 && level != 3) continue;
      Tables tables(5, large ? level : 1);
      ForEachProcessor([&](Processor cpu) {
        for (const bool large_pages : {true, false}) {
          cpu.page_2m = cpu.page_1g = large_pages;
          for (uint64_t low = 0; low < 4096; ++low) {
            std::vector<uint64_t> entries = tables.entries();
            uint64_t& entry = entries[tables.IndexOf(level)];
            // A link that turns into a leaf has the address of a table, which is not aligned: that
            // is a misconfiguration too, and the manual's text says so.
            entry = (entry & ~uint64_t{0xFFF}) | low;
            // A leaf that turns into a link leads to where nothing is.
            if (large && !manual::Has(low, 7) && manual::Present(entry, cpu) &&
                !manual::Misconfigured(entry, level, cpu)) {
              EXPECT_TRUE(std::holds_alternative<MachineCheck>(
                  tables.Walk(entries, cpu, {Kind::kRead}, false)));
              continue;
            }
            ASSERT_TRUE(tables.Agrees(entries, cpu, {Kind::kRead}, true)) << "level " << level;
          }
        }
      });
      if (HasFatalFailure()) return;
    }
  }
}

// Each of the upper bits alone, at every physical-address width.
TEST(EptTableTest, F1_HighBitsAreReservedFromMaxphyaddrOnAndIgnoredFrom52On) {
  int reserved = 0;
  for (int maxphyaddr = 39; maxphyaddr <= 52; ++maxphyaddr) {
    Processor cpu;
    cpu.maxphyaddr = maxphyaddr;
    for (const int leaf_level : {1, 2, 3}) {
      Tables tables(5, leaf_level);
      for (int level = 5; level >= leaf_level; --level) {
        for (int bit = 12; bit < 64; ++bit) {
          std::vector<uint64_t> entries = tables.entries();
          uint64_t& entry = entries[tables.IndexOf(level)];
          entry ^= Bit(bit);
          const bool wrong = manual::Misconfigured(entry, level, cpu);
          reserved += wrong;
          if (!wrong && level != leaf_level && bit < 52) {
            // A link to somewhere else: what matters is that the entry itself is fine.
            const WalkOutcome outcome = tables.Walk(entries, cpu, {Kind::kRead}, false);
            const auto* exit = std::get_if<EptMisconfigurationExit>(&outcome);
            EXPECT_TRUE(exit == nullptr || static_cast<int>(exit->level) < level) << bit;
            continue;
          }
          ASSERT_TRUE(tables.Agrees(entries, cpu, {Kind::kWrite}, true))
              << "bit " << bit << " level " << level << " width " << maxphyaddr;
        }
      }
    }
  }
  // 12 entries, sum over widths of 52 - width; low bits of 2M (9) and 1G (18) leaves, 14 widths,
  // less those that are set in the address already (none).
  EXPECT_EQ(reserved, 12 * 91 + 14 * (9 + 18));
}

TEST(EptTableTest, F1_QualificationHasAdvancedInformationForTranslatedAddressesOnly) {
  Tables tables(4, 1);
  std::vector<uint64_t> entries = tables.entries();
  entries.back() = WithRights(entries.back(), 0);
  for (const bool advanced : {false, true}) {
    Processor cpu;
    cpu.advanced = advanced;
    for (const Kind kind : {Kind::kRead, Kind::kWrite, Kind::kFetch, Kind::kWalkRead}) {
      for (int i = 0; i < 8; ++i) {
        const Request request{kind, (i & 1) != 0, (i & 2) != 0, (i & 4) != 0};
        EXPECT_TRUE(tables.Agrees(entries, cpu, request, false));
        EXPECT_TRUE(tables.Agrees(entries, cpu, request, true));
      }
    }
  }
}

// Bit 63 decides in the entry that is not present or in the leaf, nowhere else.
TEST(EptTableTest, F9_SuppressVeDecidesInTheLastEntryOfTheWalk) {
  for (const int leaf_level : {1, 2, 3}) {
    Tables tables(4, leaf_level);
    for (int absent = 4; absent >= leaf_level - 1; --absent) {  // leaf_level - 1: none is
      for (uint64_t suppress = 0; suppress < 16; ++suppress) {
        std::vector<uint64_t> entries = tables.entries();
        for (size_t i = 0; i < entries.size(); ++i) {
          entries[i] |= manual::Has(suppress, static_cast<int>(i)) ? Bit(63) : 0;
        }
        if (absent >= leaf_level) {
          uint64_t& entry = entries[tables.IndexOf(absent)];
          entry = WithRights(entry, 0);
        } else {
          entries.back() = WithRights(entries.back(), 1);
        }
        EXPECT_TRUE(tables.Agrees(entries, {}, {Kind::kWrite}, true));
      }
    }
  }
}

// F6: who sets which flag. Flags that stand already stay, whatever the access.
TEST(EptTableTest, F6_FlagsAreSetByUsedTranslationsWhereTheEptPointerEnablesThem) {
  for (const int leaf_level : {1, 2, 3}) {
    Tables tables(5, leaf_level);
    for (uint64_t before = 0; before < 4; ++before) {
      std::vector<uint64_t> entries = tables.entries();
      for (uint64_t& entry : entries) entry |= before << 8;
      for (const Request& request : kRequests) {
        EXPECT_TRUE(tables.Agrees(entries, {}, request, true));
        EXPECT_TRUE(tables.Agrees(entries, {}, request, false));
      }
    }
  }
}

TEST(EptTableTest, F6_AGuestsPageWalkDirtiesThePageOfItsTablesIfFlagsAreOn) {
  Tables tables(4, 1);
  const auto flags_after = [&](Kind kind, bool flags) {
    tables.Walk(tables.entries(), {}, {kind}, flags);
    return tables.LeafNow() & 0x300;
  };
  EXPECT_EQ(flags_after(Kind::kWalkRead, true), 0x300u);
  EXPECT_EQ(flags_after(Kind::kRead, true), 0x100u);
  EXPECT_EQ(flags_after(Kind::kWalkRead, false), 0u);
}

// Everything at once: each entry of the way is a random mixture, biased towards ways that lead on,
// for a random processor. What comes first in the walk decides, wherever it stands.
TEST(EptTableTest, F1_RandomMixturesOverAllLevelsAndProcessors) {
  const char* given = std::getenv("TWINROOT_SEED");
  const uint64_t seed =
      given != nullptr ? std::strtoull(given, nullptr, 0) : std::random_device{}();
  SCOPED_TRACE(::testing::Message() << "TWINROOT_SEED=" << seed);
  std::mt19937_64 random(seed);
  const auto one_of = [&random](unsigned n) { return random() % n == 0; };
  uint64_t verdicts[3] = {};
  for (const int levels : {4, 5}) {
    for (const int leaf_level : {1, 2, 3}) {
      Tables tables(levels, leaf_level);
      for (int i = 0; i < 60'000; ++i) {
        Processor cpu;
        cpu.execute_only = one_of(2);
        cpu.mode_based = one_of(2);
        cpu.advanced = one_of(2);
        cpu.page_2m = !one_of(8);
        cpu.page_1g = !one_of(8);
        cpu.maxphyaddr = 39 + static_cast<int>(random() % 14);
        std::vector<uint64_t> entries = tables.entries();
        for (uint64_t& entry : entries) {
          // Rights are lost, flags stand already, #VE is suppressed; now and then one bit anywhere
          // but where it makes a link lead elsewhere.
          if (one_of(2)) entry = WithRights(entry, random() | (one_of(8) ? 0 : 1));
          entry |= random() & (3 << 8 | Bit(63));
          const int bit = static_cast<int>(random() % 64);
          const bool large = tables.leaf_level() > 1 && bit == 7;
          if (one_of(8) && !large && (bit < 12 || bit >= cpu.maxphyaddr)) entry ^= Bit(bit);
        }
        Request request = kRequests[random() % std::size(kRequests)];
        request.user_mode = one_of(2);
        request.guest_writable = one_of(2);
        request.guest_execute_disable = one_of(2);
        const bool flags = one_of(2);
        ++verdicts[static_cast<int>(manual::Walk(entries, levels, cpu, request, flags).verdict)];
        ASSERT_TRUE(tables.Agrees(entries, cpu, request, flags));
      }
    }
  }
  for (const uint64_t count : verdicts) EXPECT_GT(count, 20'000u);
}

}  // namespace
}  // namespace twinroot::mmu::vmx
