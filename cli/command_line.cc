#include "cli/command_line.h"

#include <algorithm>
#include <sstream>

#include "absl/strings/str_join.h"
#include "cli/render/visible.h"
#include "cli/suggestion.h"

namespace twinroot::cli {
namespace {

constexpr char kFooter[] =
    "Sizes and addresses: 4096, 0x1000, 64KiB, 64M, 2GiB. Durations: 500ms, 30s, 2m, 1h.\n"
    "Exit codes: 0 done, 1 failed, 2 bad usage, 3 not found, 4 no daemon answers,\n"
    "5 conflict with the state, 6 denied, 124 timeout, 125 the VM stopped for a reason\n"
    "(vm wait), 130 Ctrl-C; `hvctl explain` says more. `hvctl man` is the manual.";

// "create", "get", "list": what may follow `app`.
std::vector<std::string> Subcommands(const CLI::App& app) {
  std::vector<std::string> names;
  const auto shown = [](const CLI::App* command) { return !command->get_group().empty(); };
  for (const CLI::App* command : app.get_subcommands(shown)) names.push_back(command->get_name());
  return names;
}

std::vector<std::string> LongOptions(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::Option* option : app.get_options()) {
    for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
  }
  return names;
}

}  // namespace

CommandLine::CommandLine()
    : root_("hvctl controls Twinroot, the hypervisor daemon for memory of confidential VMs.",
            "hvctl") {
  root_.footer(kFooter);
  root_.require_subcommand(1);
  root_.set_version_flag("--version", std::string("hvctl ") + kVersion);
  AddCommonOptions(&root_, &invocation_.options);
  AddCommands(&root_, &invocation_);
}

std::optional<std::string> CommandLine::Parse(std::vector<std::string> words) {
  std::reverse(words.begin(), words.end());  // as CLI11 takes them
  try {
    root_.parse(std::move(words));
  } catch (const CLI::Success& help) {
    std::ostringstream text;
    root_.exit(help, text, text);
    return text.str();
  } catch (const CLI::ParseError& error) {
    throw Usage(error);
  }
  if (invocation_.options.format == Format::kName && invocation_.names == NameOutput::kNone) {
    throw Failure{kUsage, "-o name is for verbs that answer VMs or conversions",
                  "take -o table, json or yaml here"};
  }
  return std::nullopt;
}

// CLI11 knows exit codes of its own; ours are documented.
Failure CommandLine::Usage(const CLI::ParseError& error) const {
  const CLI::App* app = &root_;
  std::string command = "hvctl";
  while (!app->get_subcommands().empty()) {
    app = app->get_subcommands().front();
    command += " " + app->get_name();
  }
  const std::string help = "see `" + command + " --help`";
  const std::vector<std::string> extra = app->remaining();
  // Of several, what looks like an option is the mistake, and the rest was meant as its value.
  const auto option = std::find_if(
      extra.begin(), extra.end(), [](const std::string& word) { return word.rfind("--", 0) == 0; });
  const std::string given = option != extra.end() ? *option : extra.empty() ? "" : extra.front();
  if (app->get_require_subcommand_min() > 0) {
    // CLI11 says only that one is required, also where a misspelt one was given.
    const std::vector<std::string> verbs = Subcommands(*app);
    const std::string nearest = NearestTo(given, verbs);
    return {kUsage,
            (given.empty() ? "`" + command + "` needs one of: "
                           : "`" + command + " " + given + "` is none of: ") +
                absl::StrJoin(verbs, ", "),
            nearest.empty() ? help : "did you mean `" + command + " " + nearest + "`?"};
  }
  const std::string nearest = NearestTo(given.substr(0, given.find('=')), LongOptions(*app));
  return {kUsage,
          error.get_name() == "ExtrasError" && !given.empty()
              ? "The following argument was not expected: " + given
              : error.what(),
          nearest.empty() ? help : "did you mean " + nearest + "? " + help};
}

std::string Report(const Failure& failure) {
  std::string text = "hvctl: " + VisibleLine(failure.message) + "\n";
  if (!failure.hint.empty()) text += "hint: " + VisibleLine(failure.hint) + "\n";
  return text;
}

}  // namespace twinroot::cli
