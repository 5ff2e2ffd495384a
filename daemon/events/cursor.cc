#include "daemon/events/cursor.h"

#include <algorithm>
#include <random>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace twinroot::events {
namespace {

constexpr size_t kEpochDigits = 16;

// Digits only: SimpleAtoi would take "+1" and " 1".
bool ParsePosition(const std::string& text, uint64_t* position) {
  if (text.empty() || (text.size() > 1 && text[0] == '0')) return false;
  return std::all_of(text.begin(), text.end(), absl::ascii_isdigit) &&
         absl::SimpleAtoi(text, position);
}

}  // namespace

std::string NewEpoch() {
  std::random_device random;
  return absl::StrFormat("%016x", (uint64_t{random()} << 32) | random());
}

bool IsEpoch(const std::string& text) {
  return text.size() == kEpochDigits && std::all_of(text.begin(), text.end(), [](char c) {
           return absl::ascii_isxdigit(c) && !absl::ascii_isupper(c);
         });
}

std::string CursorText(const std::string& epoch, uint64_t position) {
  return absl::StrCat(epoch, "-", position);
}

std::optional<ParsedCursor> ParseCursor(const std::string& text) {
  const size_t dash = text.find('-');
  if (dash == std::string::npos) return std::nullopt;
  ParsedCursor cursor = {text.substr(0, dash), 0};
  if (!IsEpoch(cursor.epoch) || !ParsePosition(text.substr(dash + 1), &cursor.position)) {
    return std::nullopt;
  }
  return cursor;
}

}  // namespace twinroot::events
