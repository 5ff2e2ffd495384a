#include "cli/render/yaml.h"

#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <cctype>
#include <set>
#include <string_view>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace twinroot::cli {
namespace {

constexpr size_t kStep = 2;

// Begins with a letter and goes on so that no YAML reader takes it for anything but this text.
bool MayStandPlain(const std::string& text) {
  static const std::set<std::string> kWords = {"true", "false", "null", "yes", "no",
                                               "on",   "off",   "y",    "n"};
  return !text.empty() && std::isalpha(static_cast<unsigned char>(text[0])) != 0 &&
         text.back() != ' ' &&
         std::all_of(text.begin(), text.end(),
                     [](unsigned char c) {
                       return std::isalnum(c) != 0 || std::string_view(" ._/+()@-").find(c) < 10;
                     }) &&
         kWords.count(absl::AsciiStrToLower(text)) == 0;
}

std::string Quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      absl::StrAppend(&out, "\\", std::string(1, c));
    } else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
      absl::StrAppend(&out, absl::StrFormat("\\x%02x", static_cast<unsigned>(c)));
    } else {
      out += c;
    }
  }
  return out + "\"";
}

// yaml-cpp marks what stood in quotes with this tag.
bool IsText(const YAML::Node& node) { return node.IsScalar() && node.Tag() == "!"; }

std::string Inline(const YAML::Node& node) {
  if (node.IsMap()) return "{}";
  if (node.IsSequence()) return "[]";
  if (node.IsNull()) return "null";
  return IsText(node) && !MayStandPlain(node.Scalar()) ? Quoted(node.Scalar()) : node.Scalar();
}

bool IsBlock(const YAML::Node& node) {
  return (node.IsMap() || node.IsSequence()) && node.size() > 0;
}

std::string Block(const YAML::Node& node, size_t indent) {
  const std::string margin(indent, ' ');
  std::string out;
  if (node.IsMap()) {
    for (const auto& member : node) {
      absl::StrAppend(&out, margin, Inline(member.first), ":");
      const YAML::Node& value = member.second;
      const size_t inner = value.IsMap() ? indent + kStep : indent;
      absl::StrAppend(&out,
                      IsBlock(value) ? "\n" + Block(value, inner) : " " + Inline(value) + "\n");
    }
  } else {
    for (const YAML::Node& value : node) {
      absl::StrAppend(&out, margin, "- ",
                      IsBlock(value) ? Block(value, indent + kStep).substr(indent + kStep)
                                     : Inline(value) + "\n");
    }
  }
  return out;
}

}  // namespace

std::string JsonToYaml(const std::string& json) {
  const YAML::Node node = YAML::Load(json);
  return IsBlock(node) ? Block(node, 0) : Inline(node) + "\n";
}

}  // namespace twinroot::cli
