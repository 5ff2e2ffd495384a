// hvctl: the command line of Twinroot. Talks to hvd through twinroot.v1 only.
//
// The one place where failures end: one line on stderr, a hint below it, an exit code (see
// cli/failure.h). Ctrl-C ends at once with 130; a reader of stdout that goes away ends quietly.
#include <signal.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>
#include <vector>

#include "cli/commands/command.h"
#include "cli/render/visible.h"

namespace twinroot::cli {
namespace {

constexpr char kExitCodes[] =
    "Sizes and addresses: 4096, 0x1000, 64KiB, 64M, 2GiB. Durations: 500ms, 30s, 2m, 1h.\n"
    "Exit codes: 0 done, 1 failed, 2 bad usage, 3 not found, 4 no daemon answers, 5 conflict with\n"
    "the state, 6 denied, 124 timeout, 125 the VM stopped for a reason (vm wait), 130 Ctrl-C.";

// `message` may hold words of the daemon or of a file.
int Report(const Failure& failure) {
  std::string text = "hvctl: " + VisibleLine(failure.message) + "\n";
  if (!failure.hint.empty()) text += "hint: " + VisibleLine(failure.hint) + "\n";
  std::fputs(text.c_str(), stderr);
  return failure.exit_code;
}

// "create, get, list": what may follow `app`.
std::string Subcommands(const CLI::App& app) {
  std::string names;
  for (const CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; })) {
    names += (names.empty() ? "" : ", ") + command->get_name();
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
  std::string message = error.what();
  if (app->get_require_subcommand_min() > 0) {
    // CLI11 says only that one is required, also where a misspelt one was given.
    const std::vector<std::string> given = app->remaining();
    message = given.empty() ? "`" + command + "` needs one of: "
                            : "`" + command + " " + given.front() + "` is none of: ";
    message += Subcommands(*app);
  }
  return Report({kUsage, message, "see `" + command + " --help`"});
}

// Whatever the command was doing, the daemon notices that the call is gone.
void Interrupted(int) { _exit(kInterrupted); }

int Run(int argc, char** argv) {
  CLI::App root("hvctl controls Twinroot, the hypervisor daemon for memory of confidential VMs.",
                "hvctl");
  root.footer(kExitCodes);
  root.require_subcommand(1);
  root.set_version_flag("--version", std::string("hvctl ") + kVersion);
  Invocation invocation;
  AddCommonOptions(&root, &invocation.options);
  AddVmCommands(&root, &invocation);
  AddMemoryCommands(&root, &invocation);
  AddDirtyCommands(&root, &invocation);
  AddConversionCommands(&root, &invocation);
  AddEventsCommand(&root, &invocation);
  AddHostCommands(&root, &invocation);
  try {
    root.parse(argc, argv);
  } catch (const CLI::Success& help) {
    root.exit(help);
    return kOk;
  } catch (const CLI::ParseError& error) {
    return ReportUsage(root, error);
  }
  Session session(invocation.options, FindEndpoint(invocation.options.endpoint));
  const int exit_code = invocation.run(session);
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
