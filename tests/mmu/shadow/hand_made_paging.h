// One way down through ordinary paging structures, written by hand as raw words, and the walker
// beside the manual on it.
#ifndef TWINROOT_TESTS_MMU_SHADOW_HAND_MADE_PAGING_H_
#define TWINROOT_TESTS_MMU_SHADOW_HAND_MADE_PAGING_H_

#include <gtest/gtest.h>

#include <cstdint>
#include <ios>
#include <variant>
#include <vector>

#include "mmu/shadow/guest_walker.h"
#include "tests/mmu/shadow/guest_words.h"
#include "tests/mmu/shadow/paging_manual.h"

namespace twinroot::mmu {

inline ControlRegisters RegistersOf(const manual::State& state, uint64_t cr3) {
  ControlRegisters registers;
  registers.cr0 = manual::Bit(31) | (state.wp ? manual::Bit(16) : 0);
  registers.cr3 = cr3;
  registers.cr4 = (state.pse ? manual::Bit(4) : 0) | (state.smep ? manual::Bit(20) : 0) |
                  (state.smap ? manual::Bit(21) : 0) | (state.pke ? manual::Bit(22) : 0) |
                  (state.pks ? manual::Bit(24) : 0);
  registers.efer = state.nxe ? manual::Bit(11) : 0;
  if (state.mode != manual::Mode::k32) registers.cr4 |= manual::Bit(5);
  if (state.mode == manual::Mode::k4) registers.efer |= manual::Bit(10);
  if (state.mode == manual::Mode::k5) {
    registers.efer |= manual::Bit(10);
    registers.cr4 |= manual::Bit(12);
  }
  registers.pkru = state.pkru;
  registers.pkrs = state.pkrs;
  return registers;
}

inline LinearAccess AccessOf(uint64_t address, const manual::Request& request) {
  LinearAccess access;
  access.address = address;
  access.needed = request.kind == manual::Kind::kRead    ? Access::Read()
                  : request.kind == manual::Kind::kWrite ? Access::Write()
                                                         : Access::Fetch();
  access.mode = request.user ? LinearMode::kUser : LinearMode::kSupervisor;
  access.implicit = request.implicit;
  access.eflags_ac = request.ac;
  return access;
}

// Tables on pages 1 to 5, the top on page 1; PDPTEs need none.
class HandMadePaging {
 public:
  static constexpr uint64_t kRwu = 7;

  HandMadePaging(manual::Mode mode, int leaf_level) : mode_(mode), leaf_level_(leaf_level) {
    address_ = mode == manual::Mode::k5   ? 0x0123'4567'89AB'CDE8
               : mode == manual::Mode::k4 ? 0x0000'4567'89AB'CDE8
                                          : 0x89AB'CDE8;
    uint64_t table = kTop;
    for (int level = levels(); level >= leaf_level; --level, table += 0x1000) {
      const uint64_t index =
          address_ >> manual::ShiftOf(level, mode) & (mode == manual::Mode::k32 ? 1023 : 511);
      slots_.push_back(table + index * static_cast<uint64_t>(entry_bytes()));
      entries_.push_back((table + 0x1000) | kRwu);
    }
    // The leaf's page is aligned to its size.
    entries_.back() =
        manual::Bit(leaf_level == 3 ? 31 : 24) | kRwu | (leaf_level > 1 ? manual::Bit(7) : 0);
  }

  int levels() const { return mode_ == manual::Mode::k5 ? 5 : mode_ == manual::Mode::k4 ? 4 : 2; }
  int leaf_level() const { return leaf_level_; }
  int entry_bytes() const { return mode_ == manual::Mode::k32 ? 4 : 8; }
  uint64_t address() const { return address_; }
  const std::vector<uint64_t>& entries() const { return entries_; }
  size_t IndexOf(int level) const { return static_cast<size_t>(levels() - level); }
  uint64_t slot(int level) const { return slots_[IndexOf(level)]; }
  GuestWords& memory() { return memory_; }

  Ia32Paging PagingOf(const manual::State& state) const {
    const PaePdpte pdpte(kTop | 1);
    return Ia32Paging(
        RegistersOf(state, kTop),
        {.page_1g = state.page_1g, .pse36 = state.pse36, .maxphyaddr = state.maxphyaddr},
        {pdpte, pdpte, pdpte, pdpte});
  }
  void Write(const std::vector<uint64_t>& entries) {
    for (size_t i = 0; i < slots_.size(); ++i) {
      memory_.Store(slots_[i], entries[i], entry_bytes());
    }
  }

  // The walker says what the manual says; the message is for the failure.
  ::testing::AssertionResult Agrees(const std::vector<uint64_t>& entries, manual::State state,
                                    const manual::Request& request) {
    state.mode = mode_;
    const manual::Expected expected = manual::Walk(entries, state, request);
    Write(entries);
    const GuestWalkOutcome outcome =
        WalkGuest(PagingOf(state), memory_, AccessOf(address_, request));
    const char* wrong = nullptr;
    uint32_t error = 0;
    if (const auto* fault = std::get_if<GuestPageFault>(&outcome)) {
      error = fault->error_code;
      if (!expected.fault) wrong = "translation";
      if (expected.error != error || fault->address != address_) wrong = "error code";
    } else if (const auto* found = std::get_if<GuestTranslation>(&outcome)) {
      const uint64_t offset = address_ & (manual::Bit(manual::ShiftOf(expected.level, mode_)) - 1);
      if (expected.fault) {
        wrong = "fault";
      } else if (static_cast<int>(found->level) != expected.level ||
                 found->page.value != expected.page || found->gpa.value != expected.page + offset) {
        wrong = "translation";
      }
    } else {
      wrong = "outcome";
    }
    for (size_t i = 0; i < slots_.size() && wrong == nullptr; ++i) {
      if (memory_.Load(slots_[i], entry_bytes()) != expected.afterwards[i]) wrong = "flags";
    }
    if (wrong == nullptr) return ::testing::AssertionSuccess();
    auto failure = ::testing::AssertionFailure() << "not the " << wrong << " of the manual:";
    for (const uint64_t entry : entries) failure << " 0x" << std::hex << entry;
    return failure << " kind " << static_cast<int>(request.kind) << " user " << request.user
                   << " implicit " << request.implicit << " ac " << request.ac << " mode "
                   << static_cast<int>(state.mode) << " wp " << state.wp << " smep " << state.smep
                   << " smap " << state.smap << " pke " << state.pke << " pks " << state.pks
                   << " nxe " << state.nxe << " pse " << state.pse << " maxphyaddr " << std::dec
                   << state.maxphyaddr << "; expected " << (expected.fault ? "fault 0x" : "page 0x")
                   << std::hex << (expected.fault ? expected.error : expected.page) << ", got "
                   << outcome.index() << " 0x" << error;
  }

 private:
  static constexpr uint64_t kTop = 0x1000;
  const manual::Mode mode_;
  const int leaf_level_;
  uint64_t address_ = 0;
  GuestWords memory_{8};
  std::vector<uint64_t> slots_;
  std::vector<uint64_t> entries_;
};

}  // namespace twinroot::mmu

#endif  // TWINROOT_TESTS_MMU_SHADOW_HAND_MADE_PAGING_H_
