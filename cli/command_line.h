// What the words of hvctl's command line say to do; and how a mistake in them, or any other
// failure, is told. Asks no daemon and opens nothing. Not thread-safe.
#ifndef TWINROOT_CLI_COMMAND_LINE_H_
#define TWINROOT_CLI_COMMAND_LINE_H_

#include <CLI/CLI.hpp>
#include <optional>
#include <string>
#include <vector>

#include "cli/commands/command.h"
#include "cli/failure.h"

namespace twinroot::cli {

class CommandLine {
 public:
  CommandLine();

  // Once. The text that answers it already (--help, --version); or nothing, and `invocation` says
  // what to run. Throws Failure{kUsage}: one sentence, and the next step.
  std::optional<std::string> Parse(std::vector<std::string> words);

  // What it runs lives as long as this object.
  const Invocation& invocation() const { return invocation_; }

 private:
  Failure Usage(const CLI::ParseError& error) const;

  CLI::App root_;
  Invocation invocation_;
};

// "hvctl: sentence\nhint: next step\n", for stderr. A message may hold words of the daemon or of a
// file: what could move a terminal's cursor is made visible.
std::string Report(const Failure& failure);

}  // namespace twinroot::cli

#endif  // TWINROOT_CLI_COMMAND_LINE_H_
