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

#include "cli/command_line.h"

namespace twinroot::cli {
namespace {

int Tell(const Failure& failure) {
  std::fputs(Report(failure).c_str(), stderr);
  return failure.exit_code;
}

// Whatever the command was doing, the daemon notices that the call is gone.
void Interrupted(int) { _exit(kInterrupted); }

int Run(const std::vector<std::string>& words) {
  CommandLine line;
  if (const auto text = line.Parse(words)) {
    std::fputs(text->c_str(), stdout);
    return kOk;
  }
  const Invocation& invocation = line.invocation();
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
    return Run({argv + (argc > 0), argv + argc});
  } catch (const Failure& failure) {
    return Tell(failure);
  } catch (const OutputClosed&) {
    return kOk;
  } catch (const std::exception& error) {
    return Tell({kFailure, error.what(), "this is a fault of hvctl"});
  }
}
