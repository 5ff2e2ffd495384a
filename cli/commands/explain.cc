// hvctl explain WORD: what a reason, an exit code or a kind of event means, and what to do.
#include <memory>

#include "absl/strings/str_cat.h"
#include "cli/commands/command.h"
#include "cli/explanations.h"
#include "cli/suggestion.h"

namespace twinroot::cli {
namespace {

std::string SubjectInWords(const Explanation& explanation) {
  switch (explanation.subject) {
    case Subject::kReason:
      return absl::StrCat("reason of an error, exit code ", ExitCodeOf(explanation.code));
    case Subject::kStopReason:
      return "reason why a VM stopped";
    case Subject::kExitCode:
      return "exit code";
    case Subject::kEventKind:
      return "kind of event";
  }
  return "";
}

std::string NextInWords(const Explanation& explanation) {
  return NextStep(explanation, [](const std::string&) { return std::string(); });
}

int List(Session& session) {
  Table table({{"WORD"}, {"WHAT IT IS"}});
  for (const Explanation& explanation : Explanations()) {
    table.AddRow({explanation.word, SubjectInWords(explanation)});
  }
  session.PrintTable(table);
  return kOk;
}

int Run(Session& session, const std::string& word) {
  if (word.empty()) return List(session);
  const std::vector<const Explanation*> found = Explain(word);
  if (found.empty()) {
    std::vector<std::string> words;
    for (const Explanation& explanation : Explanations()) words.emplace_back(explanation.word);
    const std::string nearest = NearestTo(word, words);
    throw Failure{kUsage, absl::StrCat("'", word, "' is no reason, exit code or kind of event"),
                  nearest.empty()
                      ? "`hvctl explain` lists them all"
                      : absl::StrCat("did you mean ", nearest, "? `hvctl explain` lists them all")};
  }
  for (size_t i = 0; i < found.size(); ++i) {
    session.out().Write(absl::StrCat(i == 0 ? "" : "\n", found[i]->word, ": ",
                                     SubjectInWords(*found[i]), "\n  ", found[i]->meaning,
                                     "\n  What to do: ", NextInWords(*found[i]), "\n"));
  }
  return kOk;
}

}  // namespace

void AddExplainCommand(CLI::App* root, Invocation* invocation) {
  const auto word = std::make_shared<std::string>();
  CLI::App* verb = AddLocalVerb(
      root, "explain", "What a reason, an exit code or a kind of event means, and what to do",
      invocation, [word](Session& session) { return Run(session, *word); });
  AddText(verb, "WORD", word.get(), "NO_SUCH_VM, 125, vm-state ...; without it, a list")
      ->type_name("");
}

}  // namespace twinroot::cli
