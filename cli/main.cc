// hvctl: the command line of Twinroot. Talks to hvd through twinroot.v1 only.
//
// The one place where failures end: one line on stderr, a hint below it, an exit code (see
// cli/failure.h). Ctrl-C ends at once with 130; a reader of stdout that goes away ends quietly.
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>
#include <vector>

#include "absl/strings/str_join.h"
#include "cli/commands/command.h"
#include "cli/render/visible.h"
#include "cli/suggestion.h"

namespace twinroot::cli {
namespace {

constexpr char kFooter[] =
    "Sizes and addresses: 4096, 0x1000, 64KiB, 64M, 2GiB. Durations: 500ms, 30s, 2m, 1h.\n"
    "Exit codes: 0 done, 1 failed, 2 bad usage, 3 not found, 4 no daemon answers,\n"
    "5 conflict with the state, 6 denied, 124 timeout, 125 the VM stopped for a reason\n"
    "(vm wait), 130 Ctrl-C; `hvctl explain` says more. `hvctl man` is the manual.";

// `message` may hold words of the daemon or of a file.
int Report(const Failure& failure) {
  std::string text = "hvctl: " + VisibleLine(failure.message) + "\n";
  if (!failure.hint.empty()) text += "hint: " + VisibleLine(failure.hint) + "\n";
  std::fputs(text.c_str(), stderr);
  return failure.exit_code;
}

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

// CLI11 knows exit codes of its own; ours are documented.
int ReportUsage(const CLI::App& root, const CLI::ParseError& error) {
  const CLI::App* app = &root;
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
    return Report({kUsage,
                   (given.empty() ? "`" + command + "` needs one of: "
                                  : "`" + command + " " + given + "` is none of: ") +
                       absl::StrJoin(verbs, ", "),
                   nearest.empty() ? help : "did you mean `" + command + " " + nearest + "`?"});
  }
  const std::string nearest = NearestTo(given.substr(0, given.find('=')), LongOptions(*app));
  return Report({kUsage,
                 error.get_name() == "ExtrasError" && !given.empty()
                     ? "The following argument was not expected: " + given
                     : error.what(),
                 nearest.empty() ? help : "did you mean " + nearest + "? " + help});
}

// Whatever the command was doing, the daemon notices that the call is gone.
void Interrupted(int) { _exit(kInterrupted); }

int Run(int argc, char** argv) {
  CLI::App root("hvctl controls Twinroot, the hypervisor daemon for memory of confidential VMs.",
                "hvctl");
  root.footer(kFooter);
  root.require_subcommand(1);
  root.set_version_flag("--version", std::string("hvctl ") + kVersion);
  Invocation invocation;
  AddCommonOptions(&root, &invocation.options);
  AddCommands(&root, &invocation);
  try {
    root.parse(argc, argv);
  } catch (const CLI::Success& help) {
    root.exit(help);
    return kOk;
  } catch (const CLI::ParseError& error) {
    return ReportUsage(root, error);
  }
  if (invocation.options.format == Format::kName && invocation.names == NameOutput::kNone) {
    throw Failure{kUsage, "-o name is for verbs that answer VMs or conversions",
                  "take -o table, json or yaml here"};
  }
  Session session(invocation.options);
  const int exit_code =
      invocation.options.watch ? Watch(session, invocation.run) : invocation.run(session);
  session.out().Flush();
  return exit_code;
}

}  // namespace
}  // namespace twinroot::cli

int main(int argc, char** argv) {
  using namespace twinroot::cli;
  // gRPC's own log would stand between hvctl's lines; who debugs gRPC sets GRPC_VERBOSITY.
  setenv("GRPC_VERBOSITY", "NONE", /*overwrite=*/0);
  signal(SIGPIPE, SIG_IGN);
  signal(SIGINT, Interrupted);
  try {
    return Run(argc, argv);
  } catch (const Failure& failure) {
    return Report(failure);
  } catch (const OutputClosed&) {
    return kOk;
  } catch (const std::exception& error) {
    return Report({kFailure, error.what(), "this is a fault of hvctl"});
  }
}
