#include "cli/quantity.h"

#include <array>
#include <charconv>
#include <cmath>
#include <limits>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace twinroot::cli {
namespace {

constexpr std::array<std::string_view, 5> kUnits = {"B", "KiB", "MiB", "GiB", "TiB"};
constexpr unsigned kBitsPerUnit = 10;

absl::Status BadSize(std::string_view text, std::string_view why) {
  return absl::InvalidArgumentError(absl::StrCat("'", std::string(text),
                                                 "' is not a size or address: ", std::string(why),
                                                 "; write 4096, 0x1000, 64MiB, 64M or 2G"));
}

// The power of 1024 that a suffix means; false if it is none.
bool ParseUnit(std::string_view suffix, unsigned* power) {
  if (suffix.empty()) {
    *power = 0;
    return true;
  }
  constexpr std::string_view kLetters = "kmgt";
  const size_t at = kLetters.find(static_cast<char>(suffix[0] | 0x20));
  if (at == std::string_view::npos) return false;
  const std::string_view rest = suffix.substr(1);
  const bool binary = rest.size() == 2 && (rest[0] | 0x20) == 'i' && (rest[1] | 0x20) == 'b';
  if (!rest.empty() && !binary) return false;
  *power = static_cast<unsigned>(at) + 1;
  return true;
}

}  // namespace

absl::StatusOr<uint64_t> ParseSize(std::string_view text) {
  if (text.empty()) return BadSize(text, "it is empty");
  if (text[0] == '-') return BadSize(text, "it is negative");
  const bool hex = text.size() > 1 && text[0] == '0' && (text[1] | 0x20) == 'x';
  const std::string_view digits = hex ? text.substr(2) : text;
  uint64_t value = 0;
  const auto [end, error] =
      std::from_chars(digits.data(), digits.data() + digits.size(), value, hex ? 16 : 10);
  if (error == std::errc::invalid_argument) return BadSize(text, "it has no digits");
  if (error == std::errc::result_out_of_range) return BadSize(text, "it does not fit 64 bits");
  const std::string_view suffix = digits.substr(end - digits.data());
  if (!suffix.empty() && suffix[0] == '.') return BadSize(text, "fractions are not taken");
  unsigned power = 0;
  if (!ParseUnit(suffix, &power)) {
    const bool decimal = suffix.size() == 2 && (suffix[1] | 0x20) == 'b';
    return BadSize(text, decimal ? "units are binary, MB could mean either"
                                 : "the unit is none of K, M, G, T, KiB, MiB, GiB, TiB");
  }
  const unsigned shift = power * kBitsPerUnit;
  if (value > (std::numeric_limits<uint64_t>::max() >> shift)) {
    return BadSize(text, "it does not fit 64 bits");
  }
  return value << shift;
}

absl::StatusOr<AddressRange> ParseRange(std::string_view text) {
  const size_t colon = text.find(':');
  if (colon == std::string_view::npos) {
    return absl::InvalidArgumentError(absl::StrCat(
        "'", std::string(text), "' is not a range: write GPA:SIZE, for example 0x200000:64KiB"));
  }
  const absl::StatusOr<uint64_t> gpa = ParseSize(text.substr(0, colon));
  if (!gpa.ok()) return gpa.status();
  const absl::StatusOr<uint64_t> size = ParseSize(text.substr(colon + 1));
  if (!size.ok()) return size.status();
  if (*size > 0 && *gpa > std::numeric_limits<uint64_t>::max() - (*size - 1)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "'", std::string(text), "' wraps around the end of the address space; make it smaller"));
  }
  return AddressRange{*gpa, *size};
}

absl::StatusOr<std::vector<AddressRange>> ParseRanges(std::string_view text) {
  std::vector<AddressRange> ranges;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t comma = std::min(text.find(',', begin), text.size());
    absl::StatusOr<AddressRange> range = ParseRange(text.substr(begin, comma - begin));
    if (!range.ok()) return range.status();
    ranges.push_back(*range);
    begin = comma + 1;
  }
  return ranges;
}

absl::StatusOr<absl::Duration> ParseDuration(std::string_view text) {
  absl::Duration duration;
  const bool plain = !text.empty() && text[0] >= '0' && text[0] <= '9';
  if (!plain || !absl::ParseDuration(std::string(text), &duration) ||
      duration == absl::InfiniteDuration()) {
    return absl::InvalidArgumentError(absl::StrCat("'", std::string(text),
                                                   "' is not a duration: write 500ms, 30s, 2m or "
                                                   "1h"));
  }
  if (duration <= absl::ZeroDuration()) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", std::string(text), "' is too short: give more than zero, such as 500ms"));
  }
  return duration;
}

std::string FormatSize(uint64_t bytes) {
  unsigned power = 0;
  while (bytes != 0 && power + 1 < kUnits.size() && bytes % 1024 == 0) {
    bytes /= 1024;
    ++power;
  }
  return absl::StrCat(bytes, std::string(kUnits[power]));
}

std::string FormatRoughSize(uint64_t bytes) {
  double value = static_cast<double>(bytes);
  unsigned power = 0;
  while (value >= 1024 && power + 1 < kUnits.size()) {
    value /= 1024;
    ++power;
  }
  if (value == std::floor(value)) return FormatSize(bytes);
  return absl::StrFormat("%.1f%s", value, std::string(kUnits[power]));
}

std::string FormatAddress(uint64_t gpa) { return absl::StrFormat("0x%x", gpa); }

std::string ShortDuration(absl::Duration duration) {
  struct Unit {
    absl::Duration length;
    const char* name;
  };
  static constexpr int kUnitCount = 3;
  static const Unit kTimeUnits[kUnitCount] = {
      {absl::Seconds(1), "s"}, {absl::Milliseconds(1), "ms"}, {absl::Microseconds(1), "us"}};
  for (const Unit& unit : kTimeUnits) {
    if (duration < unit.length) continue;
    return absl::StrFormat("%.*g%s", duration >= 1000 * unit.length ? 9 : 3,
                           absl::FDivDuration(duration, unit.length), unit.name);
  }
  return absl::StrCat(absl::ToInt64Nanoseconds(duration), "ns");
}

}  // namespace twinroot::cli
