// Bits for pages become runs of pages. Pure; thread-safe.
#ifndef TWINROOT_DAEMON_HOST_PAGE_RUNS_H_
#define TWINROOT_DAEMON_HOST_PAGE_RUNS_H_

#include <bit>
#include <cstdint>
#include <vector>

#include "mmu/types/gfn_range.h"

namespace twinroot::host {

// Appends the maximal runs of set bits, bit i of words[k] being the page first + 64 k + i; the
// result is how many pages they have.
inline uint64_t AppendRuns(mmu::Gfn first, const std::vector<uint64_t>& words,
                           std::vector<mmu::GfnRange>& runs) {
  constexpr uint64_t kWordBits = 64;
  uint64_t count = 0;
  for (size_t i = 0; i < words.size(); ++i) {
    uint64_t word = words[i];
    for (uint64_t at = 0; word != 0;) {
      const auto clear = static_cast<uint64_t>(std::countr_zero(word));
      word >>= clear;
      at += clear;
      const auto set = static_cast<uint64_t>(std::countr_one(word));
      const mmu::Gfn begin = first + (i * kWordBits + at);
      if (!runs.empty() && runs.back().end() == begin) {
        runs.back().count += set;
      } else {
        runs.push_back({begin, set});
      }
      count += set;
      word = set == kWordBits ? 0 : word >> set;
      at += set;
    }
  }
  return count;
}

}  // namespace twinroot::host

#endif  // TWINROOT_DAEMON_HOST_PAGE_RUNS_H_
