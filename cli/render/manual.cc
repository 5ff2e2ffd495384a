#include "cli/render/manual.h"

#include <algorithm>
#include <cctype>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "cli/explanations.h"

namespace twinroot::cli {
namespace {

// Changes with the version.
constexpr char kDate[] = "2026-11-22";
constexpr size_t kLineLength = 76;

std::string Escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '\\') {
      out += "\\e";
    } else if (c == '-') {
      out += "\\-";
    } else {
      out += c;
    }
  }
  return out;
}

// A paragraph: what stands in backquotes is bold; each sentence begins a line, as roff wants it.
std::string Prose(const std::string& text) {
  std::string marked;
  bool bold = false;
  for (const char c : text) {
    if (c == '`') {
      bold = !bold;
      marked += bold ? "\\fB" : "\\fR";
    } else {
      marked += Escaped(std::string(1, c));
    }
  }
  std::string out;
  std::string line;
  const auto flush = [&] {
    if (line.empty()) return;
    absl::StrAppend(&out, line[0] == '.' || line[0] == '\'' ? "\\&" : "", line, "\n");
    line.clear();
  };
  for (const std::string& word : std::vector<std::string>(
           absl::StrSplit(marked, absl::ByAnyChar(" \n"), absl::SkipEmpty()))) {
    if (line.size() + 1 + word.size() > kLineLength) flush();
    line += (line.empty() ? "" : " ") + word;
    if (word.back() == '.' && word != "\\-.") flush();
  }
  flush();
  return out;
}

std::string Sentence(const std::string& text) {
  return text.empty() || text.back() == '.' ? text : text + ".";
}

std::string Heading(const std::string& title, const std::string& version) {
  return absl::StrCat(".TH ", Escaped(absl::AsciiStrToUpper(title)), " 1 \"", kDate,
                      "\" \"Twinroot ", version, "\" \"User Commands\"\n");
}

std::string NameSection(const std::string& name, const std::string& purpose) {
  std::string text = purpose;
  text[0] = static_cast<char>(std::tolower(static_cast<unsigned char>(text[0])));
  if (text.back() == '.') text.pop_back();
  return absl::StrCat(".SH NAME\n", Escaped(name), " \\- ", Escaped(text), "\n");
}

std::string OptionTag(const OptionEntry& option) {
  std::string tag;
  for (const std::string& name : option.names) {
    absl::StrAppend(&tag, tag.empty() ? "" : ", ", "\\fB", Escaped(name), "\\fR");
  }
  if (!option.value.empty() && !option.positional) {
    absl::StrAppend(&tag, " \\fI", Escaped(option.value), "\\fR");
  }
  return tag;
}

bool IsHelp(const OptionEntry& option) { return option.names.back() == "--help"; }

std::string Options(const CommandEntry& command, bool common, bool help) {
  std::string out;
  for (const OptionEntry& option : command.options) {
    if (option.common != common || (IsHelp(option) && !help)) continue;
    std::string text = Sentence(option.description);
    if (!option.Choices().empty() && option.positional)
      absl::StrAppend(&text, " One of ", option.value, ".");
    if (option.required && !option.positional) text += " Needed.";
    absl::StrAppend(&out, ".TP\n", OptionTag(option), "\n", Prose(text));
  }
  return out;
}

// "hvctl vm create [options] NAME".
std::string Synopsis(const std::string& path, const CommandEntry& command) {
  std::string line = absl::StrCat("\\fB", Escaped(path), "\\fR");
  const bool any =
      std::any_of(command.options.begin(), command.options.end(),
                  [](const OptionEntry& option) { return !option.positional && !IsHelp(option); });
  if (any) line += " [\\fIoptions\\fR]";
  for (const OptionEntry& option : command.options) {
    if (!option.positional) continue;
    absl::StrAppend(&line, option.required ? " \\fI" : " [\\fI", Escaped(option.names.front()),
                    option.repeats ? "\\fR ..." : "\\fR", option.required ? "" : "]");
  }
  return line;
}

std::string Verb(const std::string& path, const CommandEntry& command) {
  return absl::StrCat(".SS ", Escaped(command.name), "\n", Synopsis(path, command), "\n.PP\n",
                      Prose(Sentence(command.description)),
                      Options(command, /*common=*/false, /*help=*/false));
}

std::string ExitStatus() {
  std::string out = ".SH EXIT STATUS\n";
  for (const Explanation& explanation : Explanations()) {
    if (explanation.subject != Subject::kExitCode) continue;
    absl::StrAppend(&out, ".TP\n\\fB", explanation.word, "\\fR\n", Prose(explanation.meaning));
  }
  return out;
}

constexpr char kNotation[] = R"(.SH NOTATION
Sizes and addresses are written 4096, 0x1000, 64KiB, 64M or 2GiB; units are
powers of 1024.
Durations are written 500ms, 30s, 2m or 1h.
)";

constexpr char kSurroundings[] = R"(.SH ENVIRONMENT
.TP
\fBHVCTL_ENDPOINT\fR
Where the daemon answers, if neither \fB\-\-endpoint\fR nor
\fB\-\-context\fR says it.
.TP
\fBHVCTL_CONTEXT\fR
The context, if none of these says more.
.TP
\fBHVCTL_CA\fR, \fBHVCTL_CERT\fR, \fBHVCTL_KEY\fR
PEM files for TCP, if neither options nor the context name them.
.TP
\fBNO_COLOR\fR
Set and not empty: no colours.
Without a terminal there are none anyway.
.SH FILES
.TP
\fB$XDG_RUNTIME_DIR/twinroot/hvd.sock\fR
The socket of a daemon that a user runs.
.TP
\fB/run/twinroot/hvd.sock\fR, \fB/run/twinroot/operator.sock\fR, \fB/run/twinroot/viewer.sock\fR
The sockets of a daemon that systemd runs.
Root takes the first; a user who runs none, the first that may be opened.
.TP
\fB$XDG_CONFIG_HOME/twinroot/hvctl.yaml\fR, \fB~/.config/twinroot/hvctl.yaml\fR
Contexts: daemons by name.
.SH EXAMPLES
.nf
hvctl vm create demo \-\-memory 64MiB \-\-vcpus 1 \-\-image guest.elf
hvctl vm start demo
hvctl events \-\-vm demo \-\-follow
hvctl memory map demo
hvctl vm list \-o json
source <(hvctl completion bash)
.fi
)";

}  // namespace

std::vector<std::string> ManualNouns(const CommandEntry& root) {
  std::vector<std::string> nouns;
  for (const CommandEntry& command : root.commands) {
    if (!command.commands.empty()) nouns.push_back(command.name);
  }
  return nouns;
}

std::string ManualPage(const CommandEntry& root, const std::string& version) {
  std::string out = absl::StrCat(Heading("hvctl", version),
                                 NameSection("hvctl",
                                             "control Twinroot, the hypervisor daemon for "
                                             "memory of confidential VMs"),
                                 ".SH SYNOPSIS\n\\fBhvctl\\fR [\\fIoptions\\fR] \\fInoun\\fR "
                                 "\\fIverb\\fR ...\n.SH NOUNS\n");
  std::string verbs;
  std::string pages = "\\fBhvd\\fR(8), \\fBhvd.yaml\\fR(5)";
  for (const CommandEntry& command : root.commands) {
    if (command.commands.empty()) {
      absl::StrAppend(&verbs, Verb("hvctl " + command.name, command));
      continue;
    }
    absl::StrAppend(&out, ".TP\n\\fB", Escaped(command.name), "\\fR\n",
                    Prose(Sentence(command.description)), "See \\fBhvctl\\-", Escaped(command.name),
                    "\\fR(1).\n");
    absl::StrAppend(&pages, ",\n\\fBhvctl\\-", Escaped(command.name), "\\fR(1)");
  }
  return absl::StrCat(out, ".SH VERBS WITHOUT A NOUN\n", verbs,
                      ".SH OPTIONS\nThese stand before the noun or after the verb.\n",
                      Options(root, /*common=*/false, /*help=*/true),
                      Options(root, /*common=*/true, /*help=*/true), kNotation, ExitStatus(),
                      kSurroundings, ".SH SEE ALSO\n", pages, "\n");
}

std::string ManualPageOf(const CommandEntry& noun, const std::string& version) {
  const std::string name = "hvctl-" + noun.name;
  std::string out =
      absl::StrCat(Heading(name, version), NameSection(name, noun.description), ".SH SYNOPSIS\n");
  std::string verbs;
  for (const CommandEntry& verb : noun.commands) {
    const std::string path = absl::StrCat("hvctl ", noun.name, " ", verb.name);
    absl::StrAppend(&out, verbs.empty() ? "" : ".br\n", Synopsis(path, verb), "\n");
    absl::StrAppend(&verbs, Verb(path, verb));
  }
  return absl::StrCat(out,
                      ".SH VERBS\nThe options that all verbs take, such as \\fB\\-h\\fR and "
                      "\\fB\\-\\-help\\fR, the exit\ncodes and the environment are described "
                      "in \\fBhvctl\\fR(1).\n",
                      verbs, kNotation, ".SH SEE ALSO\n\\fBhvctl\\fR(1), \\fBhvd\\fR(8)\n");
}

}  // namespace twinroot::cli
