// Guest tables made of whatever the fuzzer likes: the walker ends, agrees with the manual, and
// finds the same again when it walks a second time.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <variant>
#include <vector>

#include "mmu/shadow/guest_walker.h"
#include "tests/mmu/shadow/guest_words.h"
#include "tests/mmu/shadow/hand_made_paging.h"
#include "tests/mmu/shadow/paging_manual.h"

namespace twinroot::mmu {
namespace {

void Require(bool holds) {
  if (!holds) std::abort();
}

// The first bytes of an input, or zeroes.
class Bytes {
 public:
  Bytes(const uint8_t* data, size_t size) : data_(data), size_(size) {}
  uint64_t Take(size_t bytes) {
    uint64_t value = 0;
    const size_t there = bytes < size_ ? bytes : size_;
    if (there != 0) std::memcpy(&value, data_, there);
    data_ += there;
    size_ -= there;
    return value;
  }
  bool empty() const { return size_ == 0; }

 private:
  const uint8_t* data_;
  size_t size_;
};

constexpr size_t kPages = 8;

void Run(Bytes input) {
  manual::State state;
  const uint64_t controls = input.Take(2);
  state.mode = static_cast<manual::Mode>(controls & 3);
  state.wp = controls & 4;
  state.smep = controls & 8;
  state.smap = controls & 16;
  state.pke = controls & 32;
  state.pks = controls & 64;
  state.pse = controls & 128;
  state.nxe = controls & 256;
  state.page_1g = controls & 512;
  state.pse36 = controls & 1024;
  state.maxphyaddr = 36 + static_cast<int>(input.Take(1) % 17);
  state.pkru = static_cast<uint32_t>(input.Take(4));
  state.pkrs = static_cast<uint32_t>(input.Take(4));
  const uint64_t how = input.Take(1);
  const manual::Request request{static_cast<manual::Kind>(how % 3), (how & 4) != 0, (how & 12) == 8,
                                (how & 16) != 0};
  const uint64_t address = input.Take(8);
  const bool is_32bit = state.mode == manual::Mode::k32;
  const int bytes = is_32bit ? 4 : 8;

  // The entries of the way down, wherever each leads next; loops are welcome.
  GuestWords memory(kPages);
  const uint64_t top = 0x1000;
  const uint64_t shown =
      is_32bit || state.mode == manual::Mode::kPae ? address & 0xFFFF'FFFF : address;
  std::vector<uint64_t> slots;
  std::vector<uint64_t> entries;
  const int levels = state.mode == manual::Mode::k5 ? 5 : state.mode == manual::Mode::k4 ? 4 : 2;
  uint64_t table = top;
  bool missing = false;
  for (int level = levels; level >= 1; --level) {
    const uint64_t slot =
        table + (shown >> manual::ShiftOf(level, state.mode) & (is_32bit ? 1023 : 511)) *
                    static_cast<uint64_t>(bytes);
    if (!memory.Holds(Gpa(slot), bytes)) {
      missing = true;
      break;
    }
    // A word that a loop comes back to keeps its first value.
    if (memory.Load(slot, bytes) == 0) memory.Store(slot, input.Take(8), bytes);
    const uint64_t entry = memory.Load(slot, bytes);
    slots.push_back(slot);
    entries.push_back(entry);
    if (!manual::Has(entry, 0) || manual::HasReserved(entry, level, state) ||
        manual::MapsPage(entry, level, state)) {
      break;
    }
    table = entry & 0x000F'FFFF'FFFF'F000;
  }

  const PaePdpte pdpte(top | 1);
  const Ia32Paging paging(
      RegistersOf(state, top),
      {.page_1g = state.page_1g, .pse36 = state.pse36, .maxphyaddr = state.maxphyaddr},
      {pdpte, pdpte, pdpte, pdpte});
  const GuestWalkOutcome outcome = WalkGuest(paging, memory, AccessOf(address, request));
  if (missing) {
    Require(std::holds_alternative<GuestTableMissing>(outcome));
    return;
  }
  const manual::Expected expected = manual::Walk(entries, state, request);
  if (const auto* fault = std::get_if<GuestPageFault>(&outcome)) {
    Require(expected.fault && fault->error_code == expected.error && fault->address == shown);
    return;
  }
  const auto& found = std::get<GuestTranslation>(outcome);
  Require(!expected.fault && found.page.value == expected.page && found.depth <= levels);
  Require(found.gpa.value - found.page.value < uint64_t{1} << 30);
  const GuestWalkOutcome again = WalkGuest(paging, memory, AccessOf(address, request));
  // Flags that it set in a table which is also a table of the way may lead it elsewhere; else not.
  for (size_t i = 0; i < slots.size(); ++i) {
    for (size_t j = 0; j < i; ++j) {
      if (slots[i] == slots[j]) return;
    }
  }
  Require(std::get<GuestTranslation>(again).gpa == found.gpa);
  for (size_t i = 0; i < slots.size(); ++i) {
    Require(memory.Load(slots[i], bytes) == expected.afterwards[i]);
  }
}

}  // namespace
}  // namespace twinroot::mmu

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  twinroot::mmu::Run({data, size});
  return 0;
}
