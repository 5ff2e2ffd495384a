#include "daemon/rpc/checks.h"

#include <algorithm>
#include <numeric>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/time.h"
#include "daemon/reasons.h"
#include "daemon/rpc/status.h"
#include "mmu/types/address.h"

namespace twinroot::rpc {
namespace {

constexpr char kVms[] = "vms/";
constexpr char kTokenKind[] = "after:";
constexpr size_t kMaxName = 63;

bool IsBareName(const std::string& name) {
  if (name.empty() || name.size() > kMaxName || !absl::ascii_islower(name[0])) return false;
  return std::all_of(name.begin(), name.end(), [](unsigned char c) {
    return absl::ascii_islower(c) || absl::ascii_isdigit(c) || c == '-';
  });
}

// What a caller sent, short and printable, for a message.
std::string Quoted(const std::string& text) {
  constexpr size_t kShown = 80;
  return absl::StrCat("\"", absl::CHexEscape(text.substr(0, kShown)),
                      text.size() > kShown ? "...\"" : "\"");
}

}  // namespace

absl::Status CheckBareName(const std::string& field, const std::string& name) {
  if (IsBareName(name)) return absl::OkStatus();
  if (name.empty()) return FieldError(field, "give the VM's name", reason::kMissingField);
  const char* hint = absl::StartsWith(name, kVms) ? " (here without \"vms/\")" : "";
  return FieldError(
      field,
      absl::StrCat(Quoted(name), " is no VM name: use 1 to 63 of a-z, 0-9 and -, a letter first",
                   hint),
      reason::kInvalidName);
}

absl::StatusOr<std::string> BareNameOf(const std::string& field, const std::string& resource_name) {
  if (resource_name.empty()) {
    return FieldError(field, "give the VM's name, \"vms/NAME\"", reason::kMissingField);
  }
  if (absl::StartsWith(resource_name, kVms)) {
    std::string bare = resource_name.substr(sizeof(kVms) - 1);
    if (IsBareName(bare)) return bare;
  }
  return FieldError(field,
                    absl::StrCat(Quoted(resource_name),
                                 " is no VM: write \"vms/NAME\", NAME being 1 to 63 of a-z, 0-9 "
                                 "and -, a letter first"),
                    reason::kInvalidName);
}

std::string ResourceNameOf(const std::string& bare_name) { return absl::StrCat(kVms, bare_name); }

absl::StatusOr<mmu::GfnRange> CheckRange(const std::string& field, const v1::MemoryRange& range) {
  if (range.size() == 0) {
    return FieldError(field + ".size", "0 is no size: give at least 4096 bytes",
                      reason::kInvalidRange);
  }
  if ((range.gpa() & mmu::kPageOffsetMask) != 0) {
    return FieldError(field + ".gpa", absl::StrFormat("%#x is not a multiple of 4096", range.gpa()),
                      reason::kInvalidRange);
  }
  if ((range.size() & mmu::kPageOffsetMask) != 0) {
    return FieldError(field + ".size",
                      absl::StrFormat("%#x is not a multiple of 4096", range.size()),
                      reason::kInvalidRange);
  }
  // The last byte, not the end: a range may end where the address space does.
  if (range.gpa() + (range.size() - 1) < range.gpa()) {
    return FieldError(field,
                      absl::StrFormat("%#x bytes from %#x on wrap around the end of the address "
                                      "space",
                                      range.size(), range.gpa()),
                      reason::kInvalidRange);
  }
  return mmu::GfnRange{mmu::Gfn(range.gpa() >> mmu::kPageShift), range.size() >> mmu::kPageShift};
}

absl::StatusOr<std::vector<mmu::GfnRange>> CheckRanges(
    const google::protobuf::RepeatedPtrField<v1::MemoryRange>& ranges) {
  if (ranges.empty()) {
    return FieldError("ranges", "give at least one range", reason::kMissingField);
  }
  if (ranges.size() > kMaxRanges) {
    return FieldError("ranges",
                      absl::StrCat(ranges.size(), " ranges; a call takes at most ", kMaxRanges,
                                   ": split it into several calls"),
                      reason::kTooManyRanges);
  }
  std::vector<mmu::GfnRange> checked;
  checked.reserve(ranges.size());
  for (int i = 0; i < ranges.size(); ++i) {
    auto range = CheckRange(absl::StrCat("ranges[", i, "]"), ranges[i]);
    if (!range.ok()) return range.status();
    checked.push_back(*range);
  }

  std::vector<int> by_address(checked.size());
  std::iota(by_address.begin(), by_address.end(), 0);
  std::sort(by_address.begin(), by_address.end(),
            [&](int a, int b) { return checked[a].first < checked[b].first; });
  for (size_t i = 1; i < by_address.size(); ++i) {
    const int a = by_address[i - 1];
    const int b = by_address[i];
    if (!checked[a].Overlaps(checked[b])) continue;
    return FieldError(
        absl::StrCat("ranges[", std::max(a, b), "]"),
        absl::StrFormat("%#x:%#x overlaps ranges[%d] (%#x:%#x)", ranges[std::max(a, b)].gpa(),
                        ranges[std::max(a, b)].size(), std::min(a, b), ranges[std::min(a, b)].gpa(),
                        ranges[std::min(a, b)].size()),
        reason::kRangesOverlap);
  }
  return checked;
}

absl::StatusOr<absl::Duration> CheckDuration(const std::string& field,
                                             const google::protobuf::Duration& duration,
                                             absl::Duration least, absl::Duration most) {
  const absl::Duration checked =
      absl::Seconds(duration.seconds()) + absl::Nanoseconds(duration.nanos());
  const bool signs_agree = duration.seconds() < 0 || duration.nanos() >= 0;
  if (duration.nanos() > 999'999'999 || !signs_agree || checked < least || checked > most) {
    return FieldError(
        field,
        absl::StrCat(absl::FormatDuration(checked), " is not within ", absl::FormatDuration(least),
                     " and ", absl::FormatDuration(most)),
        reason::kInvalidField);
  }
  return checked;
}

std::string EtagOf(uint64_t version) { return absl::StrCat(absl::Hex(version, absl::kZeroPad16)); }

absl::StatusOr<std::optional<uint64_t>> ParseEtag(const std::string& field,
                                                  const std::string& etag) {
  if (etag.empty()) return std::optional<uint64_t>();
  uint64_t version = 0;
  if (absl::SimpleHexAtoi(etag, &version) && EtagOf(version) == etag) {
    return std::optional<uint64_t>(version);
  }
  return FieldError(field, absl::StrCat(Quoted(etag), " is no etag that an answer gave"),
                    reason::kInvalidField);
}

absl::StatusOr<size_t> CheckPageSize(uint32_t page_size, uint32_t by_default, uint32_t most) {
  if (page_size > most) {
    return FieldError("page_size", absl::StrCat(page_size, " is over the most, ", most),
                      reason::kInvalidField);
  }
  return page_size == 0 ? by_default : page_size;
}

std::string PageTokenAfter(const std::string& bare_name) {
  std::string token;
  absl::WebSafeBase64Escape(kTokenKind + bare_name, &token);
  return token;
}

absl::StatusOr<std::string> ParsePageToken(const std::string& token) {
  if (token.empty()) return std::string();
  std::string text;
  if (absl::WebSafeBase64Unescape(token, &text) && absl::StartsWith(text, kTokenKind)) {
    std::string name = text.substr(sizeof(kTokenKind) - 1);
    // One spelling for each place: a token is compared with what we would have given.
    if (IsBareName(name) && PageTokenAfter(name) == token) return name;
  }
  return FieldError("page_token", "not a token of a list: leave it empty to begin anew",
                    reason::kInvalidPageToken);
}

}  // namespace twinroot::rpc
