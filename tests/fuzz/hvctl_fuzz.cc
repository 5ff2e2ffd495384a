// hvctl's command line, a word a line: it is understood, or refused with one sentence that a
// terminal can show, a next step, and exit code 2.
#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/str_split.h"
#include "cli/command_line.h"
#include "tests/fuzz/require.h"

namespace twinroot::cli {
namespace {

using fuzz::Require;

constexpr size_t kMostWords = 64;

void CheckReport(const std::string& report, bool has_hint) {
  Require(report.rfind("hvctl: ", 0) == 0 && report.size() > 10, "it says something: " + report);
  Require(std::count(report.begin(), report.end(), '\n') == (has_hint ? 2 : 1),
          "a line, and a line for the next step: " + report);
  for (const char c : report) {
    Require(c == '\n' || c == '\t' || (static_cast<unsigned char>(c) >= ' ' && c != 127),
            "nothing in it moves a cursor: " + report);
  }
}

void Run(const std::vector<std::string>& words) {
  try {
    CommandLine line;
    const auto text = line.Parse(words);
    Require(text.has_value() ? !text->empty() : line.invocation().run != nullptr,
            "a text, or something to do");
  } catch (const Failure& failure) {
    Require(failure.exit_code == kUsage, "bad usage ends with 2");
    CheckReport(Report(failure), !failure.hint.empty());
  }
}

}  // namespace
}  // namespace twinroot::cli

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  std::vector<std::string> words = absl::StrSplit(text, '\n');
  // Files end with a newline.
  if (words.back().empty()) words.pop_back();
  // The kernel gives no word with a zero in it.
  for (std::string& word : words) word.erase(std::find(word.begin(), word.end(), '\0'), word.end());
  if (words.size() <= twinroot::cli::kMostWords) twinroot::cli::Run(words);
  return 0;
}
