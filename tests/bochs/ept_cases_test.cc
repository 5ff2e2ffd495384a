// The manual's tables of EPT (tests/mmu/vmx/ept_manual.h) and the software processor (mmu/vmx),
// case by case beside Bochs: rights, low bits and high bits of every kind of entry, flags, for
// every access. So three that were written apart agree.
//
// Not compared, for Bochs 2.7 does not have it: 5 levels, mode-based execute control, processors
// without execute-only pages, physical addresses beyond 40 bits, qualification bits 11:9. Left out
// case by case, with the reason there: bit 12 of large leaves; bit 0 of a page walk's
// qualification.
#include <gtest/gtest.h>

#include <array>
#include <cstdint>
#include <cstring>
#include <iostream>
#include <string>
#include <vector>

#include "mmu/vmx/ept_walker.h"
#include "tests/bochs/bochs_machine.h"
#include "tests/bochs/guest_kit.h"
#include "tests/mmu/vmx/ept_manual.h"

namespace twinroot::bochs {
namespace {

using mmu::Gpa;
using mmu::Hpa;
namespace manual = mmu::vmx::manual;
using manual::Bit;

constexpr int kMemoryMib = 128, kLevels = 4;
constexpr manual::Processor kCpu = {.maxphyaddr = kBochsMaxphyaddr};

// Where what lies. Tables have a bit of 20:13 set, so that a link that turns into a large leaf is
// seen by more than bit 12 to be none.
constexpr uint64_t kTables = 0x101'0000, kTablePages = 16;
constexpr uint64_t kRoot = kTables + 0x2000, kKitPdpt = kTables + 0x4000, kKitPd = kTables + 0x6000;
constexpr uint64_t kWay[] = {kRoot, kTables + 0x8000, kTables + 0xA000, kTables + 0xC000};
constexpr uint64_t kKitGpa = 0x1'0000, kKitHpa = 0x201'0000;
// The probed address: of the PML4's second entry, which nothing else uses.
constexpr uint64_t kGpa = Bit(39) | 0x567'8008;
constexpr uint64_t k4KAt = 0x600'0000, k2MAt = 0x400'0000;
constexpr uint64_t kAllRights = 7, kWriteBack = 6 << 3, kLargePage = 1 << 7;
constexpr uint64_t kValue = 0x1234'5678;

// The tables as the software processor sees them.
class TableMemory : public mmu::vmx::PhysicalMemory {
 public:
  std::byte* At(Hpa hpa, size_t size) override {
    if (hpa.value < kTables || hpa.value + size > kTables + sizeof(words_)) return nullptr;
    return reinterpret_cast<std::byte*>(words_.data()) + (hpa.value - kTables);
  }
  uint64_t& Word(uint64_t hpa) { return words_.at((hpa - kTables) / 8); }
  void LoadInto(BochsMachine& machine) const {
    for (uint64_t page = 0; page < kTablePages; ++page) {
      PageWords content;
      std::memcpy(content.data(), &words_[page * 512], sizeof(content));
      machine.Load(kTables + page * mmu::kPageSize, content);
    }
  }

 private:
  std::array<uint64_t, kTablePages* 512> words_ = {};
};

constexpr uint64_t SlotOf(int level) {
  return kWay[kLevels - level] + (kGpa >> (12 + 9 * (level - 1)) & 511) * 8;
}
uint64_t LeafPage(int level) { return level == 1 ? k4KAt : level == 2 ? k2MAt : 0; }
// All rights everywhere, down to a leaf.
std::vector<uint64_t> WayTo(int leaf_level) {
  std::vector<uint64_t> entries;
  for (int level = kLevels; level > leaf_level; --level) {
    entries.push_back(kWay[kLevels - level + 1] | kAllRights);
  }
  entries.push_back(LeafPage(leaf_level) | kWriteBack | kAllRights |
                    (leaf_level > 1 ? kLargePage : 0));
  return entries;
}

class EptCasesOnBochs : public testing::Test {
 protected:
  EptCasesOnBochs() {
    tables_.Word(kRoot) = kKitPdpt | kAllRights;
    tables_.Word(kKitPdpt) = kKitPd | kAllRights;
    tables_.Word(kKitPd) = (kKitHpa & ~uint64_t{0x1F'FFFF}) | kWriteBack | kLargePage | kAllRights;
    tables_.LoadInto(machine_);
    kit_.LoadInto(machine_);
  }

  // `elsewhere`: the page is not the usual one, so nobody knows what is read.
  void Add(const std::vector<uint64_t>& entries, Doing doing, bool flags, bool elsewhere = false) {
    const int leaf_level = kLevels + 1 - static_cast<int>(entries.size());
    const mmu::EptPointer eptp(kRoot | 6 | (kLevels - 1) << 3 | (flags ? Bit(6) : 0));
    Case one{.entries = entries, .doing = doing, .flags = flags, .elsewhere = elsewhere};
    const Hpa at(LeafPage(leaf_level) + (kGpa & (Bit(12 + 9 * (leaf_level - 1)) - 1)));
    Probe probe = kit_.Make(eptp, Gpa(kGpa), doing, at, kValue);
    one.first_word = probe.pokes_count;
    for (size_t i = 0; i < entries.size(); ++i) {
      const uint64_t slot = SlotOf(kLevels - static_cast<int>(i));
      probe.pokes[probe.pokes_count++] = {slot, entries[i]};
      tables_.Word(slot) = entries[i];
    }
    one.result = machine_.Run(probe);

    const manual::Request request{doing == Doing::kRead    ? manual::Kind::kRead
                                  : doing == Doing::kWrite ? manual::Kind::kWrite
                                  : doing == Doing::kFetch ? manual::Kind::kFetch
                                                           : manual::Kind::kWalkRead};
    const manual::Expected expected = manual::Walk(entries, kLevels, kCpu, request, flags);
    one.ending = expected.verdict == manual::Verdict::kTranslated
                     ? Ending{kReasonVmcall, 0, 0, GuestKit::Value(doing, kValue)}
                 : expected.verdict == manual::Verdict::kViolation
                     ? Ending{kReasonViolation, expected.qualification, kGpa, 0}
                     : Ending{kReasonMisconfiguration, 0, kGpa, 0};
    one.afterwards = expected.afterwards;
    const Ending ours = kit_.OnSoftware(walker_, eptp, Gpa(kGpa), doing, kValue);
    ASSERT_EQ(ours, one.ending) << Text(one) << "\nmanual:  " << one.ending.Text()
                                << "\nmmu/vmx: " << ours.Text();
    for (size_t i = 0; i < entries.size(); ++i) {
      ASSERT_EQ(tables_.Word(SlotOf(kLevels - static_cast<int>(i))), one.afterwards[i])
          << Text(one);
    }
    cases_.push_back(std::move(one));
  }

  void RunAll() {
    const auto report = machine_.Boot();
    ASSERT_TRUE(report.ok()) << report.status();
    for (const Case& one : cases_) {
      const ProbeResult& result = report->results[one.result];
      Ending bochs = GuestKit::OnBochs(result);
      if (one.elsewhere && bochs.reason == kReasonVmcall) bochs.value = one.ending.value;
      ASSERT_EQ(bochs, GuestKit::WithoutBochsLimits(one.ending))
          << Text(one) << "\nmanual: " << one.ending.Text() << "\nBochs:  " << bochs.Text();
      for (size_t i = 0; i < one.entries.size(); ++i) {
        ASSERT_EQ(result.words[one.first_word + i], one.afterwards[i])
            << Text(one) << "\nentry " << i << " afterwards";
      }
    }
    std::cout << cases_.size() << " cases\n";
  }

  struct Case {
    std::vector<uint64_t> entries;
    Doing doing;
    bool flags;
    bool elsewhere;
    size_t result = 0;
    uint64_t first_word = 0;
    Ending ending = {};
    std::vector<uint64_t> afterwards = {};
  };
  static std::string Text(const Case& one) {
    std::string text = absl::StrFormat(
        "access %d, flags %d, entries from the root:", static_cast<int>(one.doing), one.flags);
    for (const uint64_t entry : one.entries) text += absl::StrFormat(" 0x%x", entry);
    return text;
  }

  BochsMachine machine_{kMemoryMib};
  TableMemory tables_;
  const GuestKit kit_{Gpa(kKitGpa), Hpa(kKitHpa)};
  const mmu::vmx::EptWalker walker_{&tables_, mmu::EptCapabilities{.walk_length_5 = false},
                                    kBochsMaxphyaddr};
  std::vector<Case> cases_;
};

TEST_F(EptCasesOnBochs, RightsOfEveryEntryDecideEveryAccessAndFlagsAreSetWhereTheyAreUsed) {
  for (const int leaf_level : {1, 2, 3}) {
    for (int level = leaf_level; level <= kLevels; ++level) {
      for (uint64_t one = 0; one < 8; ++one) {
        for (uint64_t leaf = 0; leaf < (level == leaf_level ? 1u : 8u); ++leaf) {
          std::vector<uint64_t> entries = WayTo(leaf_level);
          if (level != leaf_level) entries.back() = (entries.back() & ~kAllRights) | leaf;
          uint64_t& entry = entries[static_cast<size_t>(kLevels - level)];
          entry = (entry & ~kAllRights) | one;
          for (const Doing doing : kAllDoings) {
            for (const bool flags : {false, true}) Add(entries, doing, flags);
          }
        }
      }
    }
    // Flags that stand already.
    for (uint64_t before = 0; before < 4; ++before) {
      std::vector<uint64_t> entries = WayTo(leaf_level);
      for (uint64_t& entry : entries) entry |= before << 8;
      for (const Doing doing : kAllDoings) {
        for (const bool flags : {false, true}) Add(entries, doing, flags);
      }
    }
  }
  if (!HasFatalFailure()) RunAll();
}

TEST_F(EptCasesOnBochs, EveryBitOfEveryKindOfEntryMeansWhatTheManualSays) {
  for (const int leaf_level : {1, 2, 3}) {
    // Links once, below a 4K leaf.
    for (int level = leaf_level; level <= (leaf_level == 1 ? kLevels : leaf_level); ++level) {
      const bool leaf = level == leaf_level;
      const size_t index = static_cast<size_t>(kLevels - level);
      for (uint64_t low = 0; low < 4096; ++low) {
        std::vector<uint64_t> entries = WayTo(leaf_level);
        entries[index] = (entries[index] & ~uint64_t{0xFFF}) | low;
        // A large leaf that turns into a link leads to where no table is.
        if (leaf && level > 1 && !manual::Has(low, 7) && manual::Present(low, kCpu) &&
            !manual::Misconfigured(entries[index], level, kCpu)) {
          continue;
        }
        Add(entries, Doing::kRead, low % 2 == 0);
      }
      for (int bit = 12; bit < 64; ++bit) {
        // Bochs 2.7 does not look at bit 12 of a large leaf, which is reserved.
        if (leaf && level > 1 && bit == 12) continue;
        // An address bit of a link leads to another table.
        if (!leaf && bit < kBochsMaxphyaddr) continue;
        std::vector<uint64_t> entries = WayTo(leaf_level);
        entries[index] ^= Bit(bit);
        Add(entries, Doing::kRead, true, /*elsewhere=*/bit < kBochsMaxphyaddr);
      }
    }
  }
  if (!HasFatalFailure()) RunAll();
}

}  // namespace
}  // namespace twinroot::bochs
