// Page walks of a guest on Bochs beside the engine's guest walker (mmu/shadow): 32-bit, PAE and
// 4-level paging under every control register bit that decides. Each probe must end with the same
// translation or the same page fault and error code, and leave the same words in the guest's
// tables, accessed and dirty flags with them.
//
// Not compared, for Bochs 2.7's processor does not have it: 5 levels, keys of supervisor pages
// (PKS), physical addresses beyond 40 bits. Nor implicit accesses: a guest of two instructions
// makes none.
#include <gtest/gtest.h>

#include <cstdint>
#include <iostream>
#include <map>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_format.h"
#include "tests/bochs/bochs_machine.h"
#include "tests/mmu/shadow/hand_made_paging.h"
#include "tests/properties/engine_operations.h"

namespace twinroot::bochs {
namespace {

using mmu::HandMadePaging;
using namespace mmu::manual;

constexpr int kMemoryMib = 192;
constexpr Mode kModes[] = {Mode::k32, Mode::kPae, Mode::k4};
int LargestLeaf(Mode mode) { return mode == Mode::k4 ? 3 : 2; }

// EPT: the guest's first 64 MiB lie kOffset higher in the machine; the gigabyte from 2G on, which
// is the page of the 1G leaf, at 0. Everything is allowed, without flags.
constexpr uint64_t kOffset = uint64_t{64} << 20, kBacked = uint64_t{64} << 20;
constexpr uint64_t k1GPageAt = uint64_t{2} << 30;
constexpr uint64_t kEptRoot = 0x100'0000, kEptPdpt = 0x100'1000, kEptPd = 0x100'2000;
constexpr uint64_t kEptp = kEptRoot | 6 | 3 << 3;
// HandMadePaging has pages 1 to 5 for tables, the top on page 1; the code and its tables come
// behind what GuestWords holds. Linear page 1 is the code for ring 0, page 2 for ring 3.
constexpr uint64_t kTop = 0x1000, kCode = 0x8000, kCodePdpt = 0x9000, kCodePd = 0xA000,
                   kCodePt = 0xB000, kCodePt32 = 0xC000;
constexpr uint64_t kLink = 0x27, kRing0Page = 0x61, kRing3Page = 0x65;  // P, R/W, U/S, A, D
constexpr uint64_t kReadAt = 0x00, kWriteAt = 0x10, kFetchAt = 0x20;
constexpr uint64_t kTarget = 0xC101'0F5A'5A5A'5AB8;  // mov $0x5A5A5A5A, %eax; vmcall
constexpr uint64_t kRead = kTarget & 0xFFFF'FFFF, kFetched = kTarget >> 8 & 0xFFFF'FFFF;
constexpr uint64_t kWritten = 0x1357'9BDF;
constexpr uint64_t kReasonException = 0, kReasonVmcall = 18, kPageFault = 14;

std::optional<uint64_t> HpaOf(mmu::Gpa gpa) {
  if (gpa.value < kBacked) return gpa.value + kOffset;
  if (gpa.value >> 30 == k1GPageAt >> 30) return gpa.value - k1GPageAt;
  return std::nullopt;
}

class GuestWalksOnBochs : public testing::Test {
 protected:
  GuestWalksOnBochs() {
    PageWords root = {}, pdpt = {}, pd = {}, code = {};
    root[0] = kEptPdpt | 7;
    pdpt[0] = kEptPd | 7;
    pdpt[2] = 7 | 6 << 3 | 1 << 7;
    for (uint64_t i = 0; i < kBacked >> 21; ++i)
      pd[i] = (kOffset + (i << 21)) | 7 | 6 << 3 | 1 << 7;
    machine_.Load(kEptRoot, root);
    machine_.Load(kEptPdpt, pdpt);
    machine_.Load(kEptPd, pd);
    code[kReadAt / 8] = 0xC1'010F'038B;   // mov (%rbx), %eax; vmcall
    code[kWriteAt / 8] = 0xC1'010F'1389;  // mov %edx, (%rbx); vmcall
    code[kFetchAt / 8] = 0xE3FF;          // jmp *%rbx
    machine_.Load(kOffset + kCode, code);
    PageWords page = {};
    page[0] = kCodePd | kLink;
    machine_.Load(kOffset + kCodePdpt, page);
    page[0] = kCodePt | kLink;
    machine_.Load(kOffset + kCodePd, page);
    page = {0, kCode | kRing0Page, kCode | kRing3Page};
    machine_.Load(kOffset + kCodePt, page);
    page = {(kCode | kRing0Page) << 32, kCode | kRing3Page};
    machine_.Load(kOffset + kCodePt32, page);
  }

  // From here on probes are about these tables.
  void Begin(const HandMadePaging& tables, Mode mode) {
    PageWords top = {};
    if (mode == Mode::k4) top[0] = kCodePdpt | kLink;
    if (mode == Mode::k32) top[0] = kCodePt32 | kLink;
    machine_.Load(kOffset + kTop, top);
    for (const uint64_t page : {0, 2, 3, 4, 5, 6, 7}) machine_.Load(kOffset + page * 0x1000, {});
    mode_ = mode;
    bytes_ = tables.entry_bytes();
  }

  void Add(HandMadePaging& tables, const std::vector<uint64_t>& entries, State state,
           const Request& request) {
    state.mode = mode_;
    state.maxphyaddr = kBochsMaxphyaddr;
    tables.Write(entries);
    const mmu::GuestWalkOutcome outcome = mmu::WalkGuest(tables.PagingOf(state), tables.memory(),
                                                         mmu::AccessOf(tables.address(), request));
    Case one{.state = state, .request = request, .entries = entries};
    const auto* fault = std::get_if<mmu::GuestPageFault>(&outcome);
    const auto* found = std::get_if<mmu::GuestTranslation>(&outcome);
    std::optional<uint64_t> at;
    if (fault != nullptr) {
      one.fault = true;
      one.error = fault->error_code;
      at = HpaOf(mmu::Gpa(uint64_t{16} << 20));  // nobody looks
    } else if (found != nullptr && (at = HpaOf(found->gpa)) && found->gpa.value >= 0x1'0000) {
      one.value = request.kind == Kind::kWrite ? 0 : request.kind == Kind::kRead ? kRead : kFetched;
      one.target =
          request.kind == Kind::kWrite ? (kTarget & ~uint64_t{0xFFFF'FFFF}) | kWritten : kTarget;
    } else {
      return;  // leads to where no memory is
    }

    Probe probe;
    const mmu::ControlRegisters registers = mmu::RegistersOf(state, kTop);
    probe.eptp = kEptp;
    probe.cr0 = registers.cr0 | 0x21;  // NE, PE
    probe.cr3 = mode_ == Mode::kPae ? kTop : registers.cr3;
    probe.cr4 = registers.cr4 | 1 << 13;                            // VMXE
    probe.efer = registers.efer | (registers.efer & 1 << 10) >> 2;  // LME as LMA
    probe.rip = (request.user ? 0x2000u : 0x1000u) | (request.kind == Kind::kRead    ? kReadAt
                                                      : request.kind == Kind::kWrite ? kWriteAt
                                                                                     : kFetchAt);
    probe.rflags = 2 | (request.ac ? 1 << 18 : 0);
    probe.rbx = tables.address();
    probe.rdx = kWritten;
    probe.segments = (request.user ? Probe::kRing3 : 0) | (mode_ == Mode::k4 ? 0 : Probe::kCode32);
    probe.pkru = state.pkru;
    probe.pdptes[0] = kCodePd | 1;
    probe.pdptes[2] = kTop | 1;
    probe.pokes[probe.pokes_count++] = {*at, kTarget};
    for (size_t i = 0; i < entries.size(); ++i) {
      const uint64_t slot = tables.slot(tables.levels() - static_cast<int>(i));
      probe.pokes[probe.pokes_count++] = {slot + kOffset, entries[i]};
      one.afterwards.push_back(tables.memory().Load(slot, bytes_));
    }
    one.bytes = bytes_;
    one.linear = tables.address();
    one.result = machine_.Run(probe);
    cases_.push_back(std::move(one));
  }

  void RunAll() {
    const auto report = machine_.Boot();
    ASSERT_TRUE(report.ok()) << report.status();
    std::map<std::string, uint64_t> seen;
    uint64_t differ = 0;
    for (const Case& one : cases_) {
      const ProbeResult& result = report->results[one.result];
      if (!Agree(one, result)) {
        if (++differ <= 5) ADD_FAILURE() << Text(one, result);
      } else if (one.fault) {
        ++seen[absl::StrFormat("page faults with error code 0x%02x", one.error)];
      } else {
        ++seen["translations"];
      }
    }
    EXPECT_EQ(differ, 0u) << "of " << cases_.size();
    for (const auto& [what, count] : seen) std::cout << what << ": " << count << "\n";
    EXPECT_GT(seen["translations"], 5000u);
    EXPECT_GE(seen.size(), 19u);  // kinds of faults, and translations
  }

  // Ring 3; ring 0 with and without EFLAGS.AC.
  static std::vector<Request> Requests() {
    std::vector<Request> requests;
    for (const Kind kind : {Kind::kRead, Kind::kWrite, Kind::kFetch}) {
      requests.push_back({kind, true, false, false});
      requests.push_back({kind, false, false, false});
      requests.push_back({kind, false, false, true});
    }
    return requests;
  }
  // WP, SMEP, SMAP, and where they exist NXE and PKE: every mixture. Keys 0: everything; 1:
  // nothing; 2: no writes.
  static std::vector<State> States(Mode mode) {
    std::vector<State> states;
    for (unsigned i = 0; i < (mode == Mode::k32 ? 8u : mode == Mode::kPae ? 16u : 32u); ++i) {
      State state;
      state.wp = i & 1;
      state.smep = i & 2;
      state.smap = i & 4;
      state.nxe = i & 8;
      state.pke = i & 16;
      state.pse = true;
      state.pkru = 1 << 2 | 2 << 4;
      states.push_back(state);
    }
    return states;
  }

  struct Case {
    State state;
    Request request;
    std::vector<uint64_t> entries;
    bool fault = false;
    uint32_t error = 0;
    uint64_t linear = 0, value = 0, target = 0;
    int bytes = 8;
    std::vector<uint64_t> afterwards = {};
    size_t result = 0;
  };
  static bool Agree(const Case& one, const ProbeResult& result) {
    for (size_t i = 0; i < one.entries.size(); ++i) {
      const uint64_t word = result.words[1 + i];
      if ((one.bytes == 8 ? word : word & 0xFFFF'FFFF) != one.afterwards[i]) return false;
    }
    if (!one.fault) {
      return result.reason == kReasonVmcall && result.rax == one.value &&
             result.words[0] == one.target;
    }
    return result.reason == kReasonException && (result.interruption & 0xFF) == kPageFault &&
           result.qualification == one.linear &&
           (result.error_code & ~NotCompared(one)) == one.error;
  }
  // Bochs 2.7 asks PKRU about accesses of user mode, whatever the address. The manual asks it about
  // addresses: "whether user-mode addresses with that protection key may be read or written"
  // ("Protection Keys"), and flag PK speaks of them alone. So ring 3 faults at a supervisor-mode
  // address with PK set on Bochs, which is not compared, and a data access of ring 0 to a page with
  // a key that denies something is not made at all.
  static uint64_t NotCompared(const Case& one) {
    bool user_address = true;
    for (const uint64_t entry : one.entries) user_address = user_address && Has(entry, 2);
    return one.state.pke && one.request.user && !user_address ? uint64_t{1} << 5 : 0;
  }
  static std::string Text(const Case& one, const ProbeResult& result) {
    const State& s = one.state;
    std::string text = absl::StrFormat(
        "mode %d wp %d smep %d smap %d nxe %d pke %d pse %d; kind %d user %d ac %d; expected %s "
        "0x%x",
        static_cast<int>(s.mode), s.wp, s.smep, s.smap, s.nxe, s.pke, s.pse,
        static_cast<int>(one.request.kind), one.request.user, one.request.ac,
        one.fault ? "fault" : "value", one.fault ? one.error : one.value);
    text += absl::StrFormat(
        "\nBochs: reason 0x%x interruption 0x%x error 0x%x qualification 0x%x value 0x%x target "
        "0x%x",
        result.reason, result.interruption, result.error_code, result.qualification, result.rax,
        result.words[0]);
    for (size_t i = 0; i < one.entries.size(); ++i) {
      text += absl::StrFormat("\nentry 0x%x, afterwards 0x%x, on Bochs 0x%x", one.entries[i],
                              one.afterwards[i], result.words[1 + i]);
    }
    return text;
  }

  BochsMachine machine_{kMemoryMib, "tigerlake"};  // has protection keys
  Mode mode_ = Mode::k4;
  int bytes_ = 8;
  std::vector<Case> cases_;
};

TEST_F(GuestWalksOnBochs, EveryLeafForEveryAccessUnderEveryControl) {
  for (const Mode mode : kModes) {
    for (int leaf_level = 1; leaf_level <= LargestLeaf(mode); ++leaf_level) {
      HandMadePaging tables(mode, leaf_level);
      Begin(tables, mode);
      for (const State& state : States(mode)) {
        for (unsigned bits = 0; bits < 128; ++bits) {
          // With keys: entries that are fine otherwise.
          if (state.pke && (bits & 0x71) != 1) continue;
          for (uint64_t key = 0; key < (state.pke ? 3 : 1); ++key) {
            std::vector<uint64_t> entries = tables.entries();
            entries.back() = WithBits(entries.back(), bits, mode, leaf_level, true) | key << 59;
            for (const Request& request : Requests()) {
              // See NotCompared.
              if (key != 0 && !request.user && request.kind != Kind::kFetch) continue;
              Add(tables, entries, state, request);
            }
          }
        }
      }
    }
  }
  RunAll();
}

TEST_F(GuestWalksOnBochs, UpperEntriesAndSingleBits) {
  const uint64_t seed = mmu::TestSeed();
  std::cout << "TWINROOT_TEST_SEED=" << seed << "\n";
  std::mt19937_64 random(seed);
  for (const Mode mode : kModes) {
    for (int leaf_level = 1; leaf_level <= LargestLeaf(mode); ++leaf_level) {
      HandMadePaging tables(mode, leaf_level);
      Begin(tables, mode);
      for (int level = tables.levels(); level >= leaf_level; --level) {
        // An upper entry with a leaf, every mixture of bits, some of the states and accesses.
        for (unsigned upper = 0; level > leaf_level && upper < 64; ++upper) {
          for (unsigned leaf = 0; leaf < 8; ++leaf) {
            std::vector<uint64_t> entries = tables.entries();
            entries.back() = WithBits(entries.back(), leaf << 1 | 1, mode, leaf_level, true);
            uint64_t& entry = entries[tables.IndexOf(level)];
            entry = WithBits(entry, upper, mode, level, false);
            const std::vector<State> states = States(mode);
            const std::vector<Request> requests = Requests();
            for (int i = 0; i < 12; ++i) {
              Add(tables, entries, states[random() % states.size()],
                  requests[random() % requests.size()]);
            }
          }
        }
        // Every value of bits 8:0, and each higher bit alone.
        for (const bool on : {false, true}) {
          State state;
          state.pse = state.nxe = on;
          for (uint64_t low = 0; low < 512; ++low) {
            std::vector<uint64_t> entries = tables.entries();
            uint64_t& entry = entries[tables.IndexOf(level)];
            entry = (entry & ~uint64_t{0xFFF}) | low;
            Add(tables, entries, state, {Kind::kRead});
          }
          for (int bit = 9; bit < 8 * tables.entry_bytes(); ++bit) {
            std::vector<uint64_t> entries = tables.entries();
            entries[tables.IndexOf(level)] ^= Bit(bit);
            Add(tables, entries, state, {Kind::kWrite});
          }
        }
      }
    }
  }
  RunAll();
}

}  // namespace
}  // namespace twinroot::bochs
