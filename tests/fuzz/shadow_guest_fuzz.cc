// Guests on shadow tables that do what the fuzzer likes: they see what they see without shadows,
// and the audit is clean after each step.
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <iterator>
#include <string>

#include "tests/mmu/shadow/random_guest.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace twinroot::mmu;
  if (size == 0) return 0;
  size_t at = 1;
  // Two bytes for each choice; when there are no more, one choice is as good as another.
  const auto choice = [&]() -> uint64_t {
    const uint64_t low = at < size ? data[at] : at * 7;
    const uint64_t high = at + 1 < size ? data[at + 1] : at;
    at += 2;
    return low | (high & 0xFF) << 8;
  };
  RandomGuest guest(choice, kArrangements[data[0] % std::size(kArrangements)]);
  while (at < size) {
    if (const std::string wrong = guest.Step(); !wrong.empty()) {
      std::fprintf(stderr, "%s\n", wrong.c_str());
      std::abort();
    }
  }
  return 0;
}
