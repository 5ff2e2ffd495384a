// All of hvctl's nouns, in the order that its help shows.
#include "cli/commands/command.h"

namespace twinroot::cli {

void AddCommands(CLI::App* root, Invocation* invocation) {
  AddVmCommands(root, invocation);
  AddMemoryCommands(root, invocation);
  AddDirtyCommands(root, invocation);
  AddConversionCommands(root, invocation);
  AddEventsCommand(root, invocation);
  AddTopCommand(root, invocation);
  AddHostCommands(root, invocation);
  AddContextCommands(root, invocation);
  AddExplainCommand(root, invocation);
  AddManualCommand(root, invocation);
  AddCompletionCommands(root, invocation);
}

}  // namespace twinroot::cli
