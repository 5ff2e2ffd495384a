// The nouns, verbs and options of a command line as data, read from the parser itself: what
// completion and the manual pages are made of, so that neither can know another command line.
// Pure functions.
#ifndef TWINROOT_CLI_COMMAND_TREE_H_
#define TWINROOT_CLI_COMMAND_TREE_H_

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

namespace twinroot::cli {

// The group of options that every verb takes; help and the manual show them apart.
inline constexpr char kCommonGroup[] = "Common options";

struct OptionEntry {
  // "-o", "--output"; of a positional its one name, "NAME".
  std::vector<std::string> names;
  // What it takes: "FILE", "a|b|c", a positional's name; empty for a flag.
  std::string value;
  std::string description;
  bool positional = false;
  bool required = false;
  bool repeats = false;
  bool common = false;

  // The words of "a|b|c"; empty if any text may be given.
  std::vector<std::string> Choices() const;
};

struct CommandEntry {
  std::string name;
  std::string description;
  std::string footer;
  std::vector<OptionEntry> options;  // positionals too, in their order
  std::vector<CommandEntry> commands;

  const CommandEntry* Find(const std::string& command) const;
};

// Without what is hidden (an empty group).
CommandEntry ReadTree(const CLI::App& app);

}  // namespace twinroot::cli

#endif  // TWINROOT_CLI_COMMAND_TREE_H_
