// hvd's configuration file, and its options (an input that begins with "hvd", a word a line): they
// are understood, the same each time and within the documented limits, or refused with sentences
// that say where and what.
#include <algorithm>
#include <cctype>
#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "absl/strings/str_split.h"
#include "daemon/config.h"
#include "daemon/config_file.h"
#include "tests/fuzz/require.h"

namespace twinroot {
namespace {

using fuzz::Require;

constexpr char kPath[] = "/etc/hvd.yaml";

void CheckLine(const std::string& line) {
  for (const char c : line) {
    Require(static_cast<unsigned char>(c) >= ' ' && c != 127, "one line of text: " + line);
  }
}

// "/etc/hvd.yaml:3:10: backend: ..."
void CheckMistake(const std::string& mistake, size_t lines) {
  CheckLine(mistake);
  const std::vector<std::string> parts = absl::StrSplit(mistake, absl::MaxSplits(':', 3));
  Require(parts.size() == 4 && parts[0] == kPath && parts[3].size() > 3,
          "file, line, column, sentence: " + mistake);
  for (const size_t i : {1u, 2u}) {
    Require(!parts[i].empty() && parts[i].size() < 10 &&
                std::all_of(parts[i].begin(), parts[i].end(), ::isdigit),
            "line and column are numbers: " + mistake);
  }
  const size_t line = std::stoul(parts[1]);
  Require(line >= 1 && line <= lines, "the line is one of the file: " + mistake);
}

void CheckLimits(const Config& config) {
  Require(config.socket_mode <= 0777 && (config.socket_mode & 0600) == 0600, "socket_mode");
  Require(config.max_vm_series <= 1'000'000, "max_vm_series");
  Require(
      config.metrics_address.empty() || CheckAddress(config.metrics_address, Off::kAllowed).empty(),
      "metrics_address");
  const access::Limits& limits = config.rules.limits;
  Require(limits.calls_per_principal >= 1 && limits.connections_per_principal >= 1 &&
              limits.streams_per_connection >= 1 && limits.message_bytes >= 2u << 20,
          "limits");
  Require(config.journal.max_events >= 1000 && config.journal.max_age_hours >= 1 &&
              config.journal.max_mebibytes >= 1,
          "journal");
  for (const access::Grant& grant : config.rules.grants) {
    Require(grant.role != access::Role::kNone, "a grant gives a role");
  }
  if (config.tcp.has_value()) {
    Require(CheckAddress(config.tcp->address, Off::kRefused).empty() &&
                config.tcp->files.certificate[0] == '/' && config.tcp->files.key[0] == '/' &&
                config.tcp->files.client_ca[0] == '/' && config.tcp->files.refresh_seconds >= 1,
            "tcp");
  }
}

void ReadFile(const std::string& text) {
  Config config;
  config.rules = access::DefaultRules();
  Config again = config;
  const std::vector<std::string> mistakes = ReadConfigText(text, kPath, &config);
  // YAML has more line ends than one.
  const size_t lines = 2 + static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) {
                         return c == '\n' || c == '\r';
                       }));
  for (const std::string& mistake : mistakes) CheckMistake(mistake, lines);
  Require(ReadConfigText(text, kPath, &again) == mistakes, "a second look finds the same");
  if (!mistakes.empty()) return;
  // On a command line paths may be relative, and are the shell's.
  Require(config.socket.empty() || config.socket[0] == '/', "socket is a path");
  Require(config.state_dir.empty() || config.state_dir[0] == '/', "state_dir is a path");
  CheckLimits(config);
  Require(NeedsRestart(config, again).empty() && config.log_level == again.log_level &&
              config.rules.grants.size() == again.rules.grants.size(),
          "the same text says the same");
}

void ReadOptions(std::vector<std::string> words) {
  words.erase(words.begin());
  for (std::string& word : words) {
    word.erase(std::find(word.begin(), word.end(), '\0'), word.end());
    // No file of this host is read.
    if (word.find("config") != std::string::npos) return;
  }
  const Environment nobody = {true, [](const char*) { return std::string(); }, "/no/such/folder"};
  const auto parsed = ParseConfig(words, nobody);
  if (const auto* config = std::get_if<Config>(&parsed)) return CheckLimits(*config);
  const auto& exit = std::get<Exit>(parsed);
  if (exit.code == 0) {
    Require(!exit.output.empty() && exit.error.empty(), "help or version");
    return;
  }
  Require(exit.code == 2 && exit.output.empty(), "bad usage ends with 2");
  const std::vector<std::string> said = absl::StrSplit(exit.error, '\n');
  Require(said.size() == 3 && said[0].rfind("hvd: ", 0) == 0 && said[2].empty(),
          "a line, and a line for the next step: " + exit.error);
  CheckLine(said[0]);
}

}  // namespace
}  // namespace twinroot

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  std::vector<std::string> words = absl::StrSplit(text, '\n');
  if (words[0] == "hvd") {
    if (words.back().empty()) words.pop_back();
    twinroot::ReadOptions(words);
  } else {
    twinroot::ReadFile(text);
  }
  return 0;
}
