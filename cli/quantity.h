// Numbers as people write them: sizes, addresses, ranges and durations, read and printed.
// Pure functions. Sizes are binary: 64M, 64MiB and 0x4000000 are the same. Every error is one
// sentence that shows what was given and a form that works.
#ifndef TWINROOT_CLI_QUANTITY_H_
#define TWINROOT_CLI_QUANTITY_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace twinroot::cli {

// What the API counts memory in.
inline constexpr uint64_t kPageSize = 4096;

struct AddressRange {
  uint64_t gpa = 0;
  uint64_t size = 0;
};

// A size or an address: digits or 0x and hex digits, then perhaps K, M, G or T (also KiB, kib, k).
absl::StatusOr<uint64_t> ParseSize(std::string_view text);

// "GPA:SIZE". A range that wraps around the address space is refused.
absl::StatusOr<AddressRange> ParseRange(std::string_view text);
// "GPA:SIZE,GPA:SIZE,...".
absl::StatusOr<std::vector<AddressRange>> ParseRanges(std::string_view text);

// "30s", "500ms", "2m", "1h30m"; more than zero.
absl::StatusOr<absl::Duration> ParseDuration(std::string_view text);

// Exact, in the largest unit that divides it: "64MiB", "4100B".
std::string FormatSize(uint64_t bytes);
// To one decimal where no large unit divides it, for quantities that are only read: "23.4GiB".
std::string FormatRoughSize(uint64_t bytes);
// "0x200000".
std::string FormatAddress(uint64_t gpa);
// Three digits at most and a unit: "63us", "1.25ms", "30s".
std::string ShortDuration(absl::Duration duration);

}  // namespace twinroot::cli

#endif  // TWINROOT_CLI_QUANTITY_H_
