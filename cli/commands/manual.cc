// hvctl man: the manual, for those who have not installed its pages and for the build that makes
// them.
#include "cli/render/manual.h"

#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "cli/command_tree.h"
#include "cli/commands/command.h"

namespace twinroot::cli {
namespace {

int Print(Session& session, const CommandEntry& tree, const std::string& noun) {
  if (noun.empty()) {
    session.out().Write(ManualPage(tree, kVersion));
    return kOk;
  }
  const CommandEntry* command = tree.Find(noun);
  if (command == nullptr || command->commands.empty()) {
    throw Failure{kUsage, absl::StrCat("there is no page about '", noun, "'"),
                  absl::StrCat("there are pages about: ", absl::StrJoin(ManualNouns(tree), ", "))};
  }
  session.out().Write(ManualPageOf(*command, kVersion));
  return kOk;
}

}  // namespace

void AddManualCommand(CLI::App* root, Invocation* invocation) {
  const auto noun = std::make_shared<std::string>();
  CLI::App* verb = AddLocalVerb(
      root, "man", "The manual page, or a noun's, as man reads it: hvctl man vm | man -l -",
      invocation,
      [root, noun](Session& session) { return Print(session, ReadTree(*root), *noun); });
  AddText(verb, "NOUN", noun.get(), "vm, memory ...; without it, hvctl(1)")->type_name("");
}

}  // namespace twinroot::cli
