#include "cli/render/visible.h"

#include <algorithm>
#include <cstdint>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace twinroot::cli {
namespace {

// How many bytes a character that begins with `lead` has; 0 if none begins so.
size_t SequenceLength(uint8_t lead) {
  if (lead < 0x80) return 1;
  if (lead >= 0xc2 && lead < 0xe0) return 2;
  if (lead >= 0xe0 && lead < 0xf0) return 3;
  if (lead >= 0xf0 && lead < 0xf5) return 4;
  return 0;
}

// Whether `second` may follow `lead`: excludes overlong forms, surrogates, what lies beyond
// U+10FFFF, and (C2 80..9F) the C1 controls, which some terminals obey.
bool MayFollow(uint8_t lead, uint8_t second) {
  uint8_t low = 0x80;
  uint8_t high = 0xbf;
  if (lead == 0xc2) low = 0xa0;
  if (lead == 0xe0) low = 0xa0;
  if (lead == 0xed) high = 0x9f;
  if (lead == 0xf0) low = 0x90;
  if (lead == 0xf4) high = 0x8f;
  return second >= low && second <= high;
}

// How many bytes of `text` (not empty) are a beginning of a character, up to a whole one.
size_t WellFormedBytes(std::string_view text) {
  const auto lead = static_cast<uint8_t>(text[0]);
  const size_t length = std::min(SequenceLength(lead), text.size());
  size_t good = std::min<size_t>(length, 1);
  while (good > 0 && good < length) {
    const auto next = static_cast<uint8_t>(text[good]);
    if (good == 1 ? !MayFollow(lead, next) : (next & 0xc0) != 0x80) break;
    ++good;
  }
  return good;
}

void AppendControl(char c, std::string* out) {
  *out += '^';
  *out += c == '\x7f' ? '?' : static_cast<char>(c + '@');
}

void AppendByte(char c, std::string* out) {
  absl::StrAppend(out, absl::StrFormat("\\x%02x", static_cast<unsigned>(static_cast<uint8_t>(c))));
}

bool IsControl(char c) { return static_cast<uint8_t>(c) < 0x20 || c == '\x7f'; }

}  // namespace

std::string VisibleText::Add(std::string_view bytes) {
  const std::string text = partial_ + std::string(bytes);
  partial_.clear();
  std::string out;
  for (size_t at = 0; at < text.size();) {
    const char c = text[at];
    if (IsControl(c) && c != '\n' && c != '\t') {
      AppendControl(c, &out);
      ++at;
      continue;
    }
    const std::string_view rest = std::string_view(text).substr(at);
    const size_t whole = SequenceLength(static_cast<uint8_t>(c));
    const size_t good = WellFormedBytes(rest);
    if (whole != 0 && good == whole) {
      out += rest.substr(0, whole);
      at += whole;
    } else if (good != 0 && good == rest.size()) {
      partial_ = std::string(rest);  // Cut off: the rest may come.
      break;
    } else {
      AppendByte(c, &out);
      ++at;
    }
  }
  return out;
}

std::string VisibleText::Finish() {
  std::string out;
  for (const char c : partial_) AppendByte(c, &out);
  partial_.clear();
  return out;
}

std::string VisibleLine(std::string_view text) {
  VisibleText visible;
  std::string line = visible.Add(text);
  line += visible.Finish();
  std::replace_if(
      line.begin(), line.end(), [](char c) { return c == '\n' || c == '\t'; }, ' ');
  return line;
}

}  // namespace twinroot::cli
