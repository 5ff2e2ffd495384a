// The guest walker against the manual, over everything that is small enough to be enumerated, and
// over random mixtures of the rest.
#include <gtest/gtest.h>

#include <cstdint>
#include <cstdlib>
#include <random>
#include <vector>

#include "tests/mmu/shadow/hand_made_paging.h"

namespace twinroot::mmu {
namespace {

using manual::Bit;
using manual::Kind;
using manual::Mode;
using manual::Request;
using manual::State;

constexpr Mode kModes[] = {Mode::k32, Mode::kPae, Mode::k4, Mode::k5};
int LargestLeaf(Mode mode) { return mode == Mode::k32 || mode == Mode::kPae ? 2 : 3; }

// Every kind of access: user mode; supervisor mode with and without EFLAGS.AC, and implicit.
std::vector<Request> AllRequests() {
  std::vector<Request> requests;
  for (const Kind kind : {Kind::kRead, Kind::kWrite, Kind::kFetch}) {
    requests.push_back({kind, true, false, false});
    requests.push_back({kind, false, false, false});
    requests.push_back({kind, false, false, true});
    requests.push_back({kind, false, true, true});
  }
  return requests;
}

// Keys 0: everything; 1: nothing; 2: no writes; the two registers differ in key 3.
constexpr uint32_t kKeyRights = 1 << 2 | 2 << 4;

// WP, SMEP, SMAP, and where they exist NXE, PKE, PKS: every mixture.
std::vector<State> AllStates(Mode mode) {
  std::vector<State> states;
  const unsigned count = mode == Mode::k32 ? 8 : mode == Mode::kPae ? 16 : 64;
  for (unsigned i = 0; i < count; ++i) {
    State state;
    state.mode = mode;
    state.wp = i & 1;
    state.smep = i & 2;
    state.smap = i & 4;
    state.nxe = i & 8;
    state.pke = i & 16;
    state.pks = i & 32;
    state.pse = true;
    state.maxphyaddr = 40;
    state.pkru = kKeyRights | 1 << 6;
    state.pkrs = kKeyRights;
    states.push_back(state);
  }
  return states;
}

TEST(GuestWalkTableTest, EveryLeafForEveryAccessUnderEveryControl) {
  const std::vector<Request> requests = AllRequests();
  uint64_t cases = 0;
  for (const Mode mode : kModes) {
    for (int leaf_level = 1; leaf_level <= LargestLeaf(mode); ++leaf_level) {
      HandMadePaging tables(mode, leaf_level);
      for (const State& state : AllStates(mode)) {
        const bool keys = state.pke || state.pks;  // of 4 and 5 levels
        for (unsigned bits = 0; bits < 128; ++bits) {
          for (uint64_t key = 0; key < (keys ? 4 : 1); ++key) {
            std::vector<uint64_t> entries = tables.entries();
            entries.back() = WithBits(entries.back(), bits, mode, leaf_level, true) | key << 59;
            for (const Request& request : requests) {
              ++cases;
              ASSERT_TRUE(tables.Agrees(entries, state, request));
            }
          }
        }
      }
    }
  }
  EXPECT_EQ(cases, (2u * (8 + 16) + 6u * (16 + 48 * 4)) * 128 * 12);
}

TEST(GuestWalkTableTest, EveryUpperEntryWithEveryLeafUnderEveryControl) {
  const std::vector<Request> requests = AllRequests();
  uint64_t cases = 0;
  for (const Mode mode : kModes) {
    for (int leaf_level = 1; leaf_level <= LargestLeaf(mode); ++leaf_level) {
      HandMadePaging tables(mode, leaf_level);
      for (int level = tables.levels(); level > leaf_level; --level) {
        for (const State& state : AllStates(mode)) {
          if (state.pke || state.pks) continue;  // keys stand in leaves alone
          for (unsigned upper = 0; upper < 32; ++upper) {
            for (unsigned leaf = 0; leaf < 8; ++leaf) {
              std::vector<uint64_t> entries = tables.entries();
              entries.back() = WithBits(entries.back(), leaf << 1 | 1, mode, leaf_level, true);
              uint64_t& entry = entries[tables.IndexOf(level)];
              entry = WithBits(entry, upper, mode, level, false);
              for (const Request& request : requests) {
                ++cases;
                ASSERT_TRUE(tables.Agrees(entries, state, request));
              }
            }
          }
        }
      }
    }
  }
  // Upper entries: one of 32-bit and one of PAE, 3 + 2 + 1 of four levels, 4 + 3 + 2 of five.
  EXPECT_EQ(cases, (8 + 16 + (6 + 9) * 16) * 32u * 8 * 12);
}

// Every value of bits 11:0 of every kind of entry.
TEST(GuestWalkTableTest, LowBitsOfEveryKindOfEntryMeanWhatTheManualSays) {
  for (const Mode mode : kModes) {
    for (int leaf_level = 1; leaf_level <= LargestLeaf(mode); ++leaf_level) {
      HandMadePaging tables(mode, leaf_level);
      for (int level = tables.levels(); level >= leaf_level; --level) {
        for (uint64_t low = 0; low < 4096; ++low) {
          std::vector<uint64_t> entries = tables.entries();
          uint64_t& entry = entries[tables.IndexOf(level)];
          entry = (entry & ~uint64_t{0xFFF}) | low;
          for (const bool features : {false, true}) {
            State state;
            state.mode = mode;
            state.pse = state.page_1g = features;
            // A leaf that turns into a link leads on to where nothing is: another test's matter.
            if (level == leaf_level && level > 1 && (low & 1) &&
                !manual::HasReserved(entry, level, state) &&
                !manual::MapsPage(entry, level, state)) {
              continue;
            }
            ASSERT_TRUE(tables.Agrees(entries, state, {Kind::kWrite, true, false, false}))
                << "level " << level;
          }
        }
      }
    }
  }
}

// Each of the upper bits alone, at every physical-address width, with and without XD.
TEST(GuestWalkTableTest, HighBitsAreReservedAsTheManualSaysAtEveryWidth) {
  int reserved = 0;
  for (const Mode mode : kModes) {
    for (int leaf_level = 1; leaf_level <= LargestLeaf(mode); ++leaf_level) {
      HandMadePaging tables(mode, leaf_level);
      for (int level = tables.levels(); level >= leaf_level; --level) {
        for (int width = 36; width <= 52; ++width) {
          for (int bit = 12; bit < 8 * tables.entry_bytes(); ++bit) {
            for (const bool features : {false, true}) {
              std::vector<uint64_t> entries = tables.entries();
              entries[tables.IndexOf(level)] ^= Bit(bit);
              State state;
              state.mode = mode;
              state.pse = true;
              state.nxe = state.pse36 = features;
              state.maxphyaddr = width;
              const bool wrong = manual::HasReserved(entries[tables.IndexOf(level)], level, state);
              reserved += wrong;
              // Another table than ours: that the entry itself is fine is what matters.
              if (!wrong && level != leaf_level && bit < 52) {
                tables.Write(entries);
                const GuestWalkOutcome outcome = WalkGuest(tables.PagingOf(state), tables.memory(),
                                                           AccessOf(tables.address(), {}));
                const auto* fault = std::get_if<GuestPageFault>(&outcome);
                EXPECT_TRUE(fault == nullptr || !(fault->error_code & 8)) << bit;
                continue;
              }
              ASSERT_TRUE(tables.Agrees(entries, state, {})) << "bit " << bit;
            }
          }
        }
      }
    }
  }
  EXPECT_GT(reserved, 4000);
}

// Everything at once: each entry of the way is a random mixture, biased towards ways that lead on.
TEST(GuestWalkTableTest, RandomMixturesOverAllLevels) {
  const char* given = std::getenv("TWINROOT_SEED");
  const uint64_t seed =
      given != nullptr ? std::strtoull(given, nullptr, 0) : std::random_device{}();
  SCOPED_TRACE(::testing::Message() << "TWINROOT_SEED=" << seed);
  std::mt19937_64 random(seed);
  const std::vector<Request> requests = AllRequests();
  uint64_t translated = 0;
  for (int round = 0; round < 300; ++round) {
    const Mode mode = kModes[random() % 4];
    HandMadePaging tables(mode, 1 + static_cast<int>(random() % 2) % LargestLeaf(mode));
    for (int i = 0; i < 1000; ++i) {
      State state;
      state.mode = mode;
      const uint64_t controls = random();
      state.wp = controls & 1;
      state.smep = controls & 2;
      state.smap = controls & 4;
      state.nxe = controls & 8;
      state.pke = controls & 16;
      state.pks = controls & 32;
      state.pse = true;  // else the way ends elsewhere
      state.pkru = static_cast<uint32_t>(random());
      state.pkrs = static_cast<uint32_t>(random());
      state.maxphyaddr = 36 + static_cast<int>(random() % 17);
      std::vector<uint64_t> entries = tables.entries();
      for (uint64_t& entry : entries) {
        // Bits of rights, flags and keys at random; now and then one bit anywhere.
        entry ^= random() & random() & 0x66;
        if (mode != Mode::k32) {
          if (random() % 4 == 0 && state.nxe) entry |= Bit(63);
          if (mode != Mode::kPae) entry |= (random() & 15) << 59;
          if (random() % 16 == 0) entry ^= Bit(52 + static_cast<int>(random() % 12));
        }
        if (random() % 32 == 0) entry ^= 1;
      }
      const Request& request = requests[random() % requests.size()];
      translated += !manual::Walk(entries, state, request).fault;
      ASSERT_TRUE(tables.Agrees(entries, state, request));
    }
  }
  EXPECT_GT(translated, 30'000u);
}

}  // namespace
}  // namespace twinroot::mmu
