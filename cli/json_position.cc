#include "cli/json_position.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace twinroot::cli {
namespace {

constexpr int kMaxDepth = 100;  // As protobuf's parser; deeper texts have no place to show.

// A recursive descent over one JSON text that stops at the first syntax error, or at the first
// place whose path is `wanted`.
class Scanner {
 public:
  Scanner(std::string_view json, std::optional<std::string> wanted)
      : json_(json), wanted_(std::move(wanted)) {}

  // True: all of it is JSON (and `wanted` was not met).
  bool Scan() {
    Space();
    if (!Value("", 0)) return false;
    Space();
    return at_ == json_.size();
  }
  size_t at() const { return at_; }
  std::optional<size_t> found() const { return found_; }

 private:
  char Peek() const { return at_ < json_.size() ? json_[at_] : '\0'; }
  bool Take(char c) {
    if (at_ >= json_.size() || json_[at_] != c) return false;
    ++at_;
    return true;
  }
  void Space() { at_ = std::min(json_.find_first_not_of(" \t\r\n", at_), json_.size()); }

  bool Meet(const std::string& path, size_t place) {
    if (!wanted_.has_value() || path != *wanted_) return false;
    found_ = place;
    return true;
  }

  bool Value(const std::string& path, int depth) {
    if (depth > kMaxDepth) return false;
    switch (Peek()) {
      case '{':
        return Object(path, depth);
      case '[':
        return Array(path, depth);
      case '"':
        return String(nullptr);
      default:
        return Scalar();
    }
  }

  bool Object(const std::string& path, int depth) {
    Take('{');
    Space();
    if (Take('}')) return true;
    do {
      Space();
      const size_t place = at_;
      std::string key;
      if (!String(&key)) return false;
      const std::string member = path.empty() ? key : absl::StrCat(path, ".", key);
      if (Meet(member, place)) return false;
      Space();
      if (!Take(':')) return false;
      Space();
      if (!Value(member, depth + 1)) return false;
      Space();
    } while (Take(','));
    return Take('}');
  }

  bool Array(const std::string& path, int depth) {
    Take('[');
    Space();
    if (Take(']')) return true;
    size_t index = 0;
    do {
      Space();
      const std::string element = absl::StrCat(path, "[", index++, "]");
      if (Meet(element, at_) || !Value(element, depth + 1)) return false;
      Space();
    } while (Take(','));
    return Take(']');
  }

  // Keys with escapes keep them: no field name has any.
  bool String(std::string* text) {
    if (!Take('"')) return false;
    const size_t begin = at_;
    while (at_ < json_.size() && json_[at_] != '"' &&
           static_cast<unsigned char>(json_[at_]) >= 0x20) {
      at_ += json_[at_] == '\\' && at_ + 1 < json_.size() ? 2 : 1;
    }
    if (text != nullptr) *text = std::string(json_.substr(begin, at_ - begin));
    return Take('"');
  }

  bool Scalar() {
    for (const std::string_view word : {"true", "false", "null"}) {
      if (json_.substr(at_, word.size()) == word) {
        at_ += word.size();
        return true;
      }
    }
    const size_t begin = at_;
    Take('-');
    const size_t digits = at_;
    at_ = std::min(json_.find_first_not_of("0123456789.eE+-", at_), json_.size());
    if (at_ == digits) at_ = begin;
    return at_ != begin;
  }

  const std::string_view json_;
  const std::optional<std::string> wanted_;
  size_t at_ = 0;
  std::optional<size_t> found_;
};

}  // namespace

TextPosition PositionOfOffset(std::string_view text, size_t offset) {
  TextPosition position;
  for (const char c : text.substr(0, std::min(offset, text.size()))) {
    position.column = c == '\n' ? 1 : position.column + 1;
    if (c == '\n') ++position.line;
  }
  return position;
}

std::optional<size_t> FindJsonSyntaxError(std::string_view json) {
  Scanner scanner(json, std::nullopt);
  if (scanner.Scan()) return std::nullopt;
  return scanner.at();
}

std::optional<size_t> FindJsonPath(std::string_view json, const std::string& path) {
  Scanner scanner(json, path);
  scanner.Scan();
  return scanner.found();
}

}  // namespace twinroot::cli
