// What may follow a command line that is being typed. The shells' scripts
// (cli/commands/completion.cc) only ask for it, so they stay short and never grow old. Pure
// functions, but for `Names`.
#ifndef TWINROOT_CLI_COMPLETION_H_
#define TWINROOT_CLI_COMPLETION_H_

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "cli/command_tree.h"

namespace twinroot::cli {

struct Candidate {
  std::string word;
  std::string description;
};

struct Completion {
  std::vector<Candidate> candidates;
  bool files = false;  // a path may stand here
};

// Common options that stand in the line already, by their first long name: "--endpoint" -> its
// value.
using GivenOptions = std::map<std::string, std::string>;
// The words that a value may be, by what the tree calls it ("NAME", "CONTEXT").
using Names = std::function<std::vector<Candidate>(const std::string& value, const GivenOptions&)>;

// `words` follow the program's name; the last is the one at the cursor, perhaps empty. Candidates
// are whole words that begin with it.
Completion Complete(const CommandEntry& root, const std::vector<std::string>& words,
                    const Names& names);

}  // namespace twinroot::cli

#endif  // TWINROOT_CLI_COMPLETION_H_
