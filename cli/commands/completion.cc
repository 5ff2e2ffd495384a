// hvctl completion bash|zsh|fish, and the hidden `hvctl complete`, which their scripts ask.
//
// `complete -- WORD...` takes the words after the program's name up to the cursor and answers a
// line for each candidate, "word<TAB>description"; the line ":files" says that a path may stand
// there. It never fails: what cannot be found out is left out.
#include "cli/completion.h"

#include <chrono>
#include <memory>

#include "absl/strings/str_cat.h"
#include "cli/command_tree.h"
#include "cli/commands/command.h"
#include "cli/contexts.h"
#include "cli/explanations.h"
#include "cli/render/visible.h"

namespace twinroot::cli {
namespace {

// Nobody waits longer for a name.
constexpr std::chrono::milliseconds kPatience{1000};

// Where readline breaks words (at "=" and ":") it replaces only what follows the break.
constexpr char kBash[] = R"(# bash completion of hvctl: source <(hvctl completion bash)
_hvctl() {
    local line=${COMP_LINE:0:COMP_POINT} current=${COMP_WORDS[COMP_CWORD]} files='' before answer
    local -a words answers
    read -ra words <<<"$line"
    [[ $line == *[[:space:]] ]] && words+=('')
    before=${words[-1]}
    [[ $current == [=:] ]] || before=${before%"$current"}
    COMPREPLY=()
    mapfile -t answers < <("$1" complete -- "${words[@]:1}" 2>/dev/null)
    for answer in "${answers[@]}"; do
        if [[ $answer == :files ]]; then
            files=yes
        else
            answer=${answer%%$'\t'*}
            COMPREPLY+=("${answer#"$before"}")
        fi
    done
    if [[ $files ]]; then
        compopt -o filenames 2>/dev/null
        [[ $current == [=:] ]] && current=''
        mapfile -t -O "${#COMPREPLY[@]}" COMPREPLY < <(compgen -f -- "$current")
    fi
}
complete -F _hvctl hvctl
)";

constexpr char kZsh[] = R"(#compdef hvctl
# zsh completion of hvctl: source <(hvctl completion zsh), or a file _hvctl in $fpath
_hvctl() {
    local answer word files=
    local -a answers candidates
    answers=("${(@f)$(${words[1]} complete -- "${(@)words[2,CURRENT-1]}" "$PREFIX" 2>/dev/null)}")
    for answer in "${answers[@]}"; do
        if [[ $answer == :files ]]; then
            files=yes
        elif [[ -n $answer ]]; then
            word=${answer%%$'\t'*}
            candidates+=("${word//:/\\:}:${answer#*$'\t'}")
        fi
    done
    (( ${#candidates} )) && _describe -t values hvctl candidates
    [[ -n $files ]] && _files
    return 0
}
if [[ ${funcstack[1]} == _hvctl ]]; then
    _hvctl "$@"
else
    compdef _hvctl hvctl
fi
)";

constexpr char kFish[] = R"(# fish completion of hvctl: hvctl completion fish | source
function __hvctl_complete
    set -l words (commandline -opc) (commandline -ct)
    set -l program $words[1]
    set -e words[1]
    for answer in ($program complete -- $words 2>/dev/null)
        if test "$answer" = :files
            __fish_complete_path (commandline -ct)
        else
            echo -- $answer
        end
    end
end
complete -c hvctl -f -a '(__hvctl_complete)'
)";

std::string Given(const GivenOptions& given, const char* name) {
  const auto found = given.find(name);
  return found == given.end() ? "" : found->second;
}

// Of the daemon that the line names.
std::vector<Candidate> VmNames(const GivenOptions& given) {
  const std::string endpoint = Given(given, "--endpoint");
  CommonOptions options;
  options.endpoint = {Given(given, "--context"), endpoint, Given(given, "--ca"),
                      Given(given, "--cert"), Given(given, "--key")};
  Session session(options);
  std::vector<Candidate> names;
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + kPatience);
  v1::ListVmsRequest request;
  request.set_page_size(1000);
  v1::ListVmsResponse response;
  // A failure leaves the list empty.
  (void)session.client().vm().ListVms(&context, request, &response);
  for (const v1::Vm& vm : response.vms()) {
    names.push_back({BareName(vm), v1::Vm::State_Name(vm.state()).substr(sizeof("STATE_") - 1)});
  }
  return names;
}

std::vector<Candidate> ContextNames() {
  std::vector<Candidate> names;
  const Contexts contexts = LoadContexts();
  for (const auto& [name, context] : contexts.all) names.push_back({name, context.endpoint});
  return names;
}

std::vector<Candidate> Words(bool only_kinds_of_events) {
  std::vector<Candidate> words;
  for (const Explanation& explanation : Explanations()) {
    if (only_kinds_of_events && explanation.subject != Subject::kEventKind) continue;
    words.push_back({explanation.word, explanation.meaning});
  }
  return words;
}

std::vector<Candidate> NamesFor(const std::string& value, const GivenOptions& given) {
  try {
    if (value == "NAME") return VmNames(given);
    if (value == "CONTEXT") return ContextNames();
    if (value == "WORD" || value == "KIND") return Words(value == "KIND");
  } catch (const Failure&) {
    // No daemon, no context, an unreadable file: there is nothing to offer, and no place to say so.
  }
  return {};
}

int PrintCompletion(Session& session, const CommandEntry& tree,
                    const std::vector<std::string>& words) {
  const Completion completion = Complete(tree, words, NamesFor);
  for (const Candidate& candidate : completion.candidates) {
    session.out().Write(
        absl::StrCat(VisibleLine(candidate.word), "\t", VisibleLine(candidate.description), "\n"));
  }
  if (completion.files) session.out().Write(":files\n");
  return kOk;
}

}  // namespace

void AddCompletionCommands(CLI::App* root, Invocation* invocation) {
  const auto script = std::make_shared<const char*>(kBash);
  CLI::App* verb = AddLocalVerb(root, "completion", "A script that completes hvctl in your shell",
                                invocation, [script](Session& session) {
                                  session.out().Write(*script);
                                  return kOk;
                                });
  AddChoice<const char*>(verb, "SHELL", script.get(),
                         {{"bash", kBash}, {"zsh", kZsh}, {"fish", kFish}}, "Which")
      ->required();

  const auto words = std::make_shared<std::vector<std::string>>();
  CLI::App* complete = AddLocalVerb(root, "complete", "What the scripts ask", invocation,
                                    [root, words](Session& session) {
                                      return PrintCompletion(session, ReadTree(*root), *words);
                                    });
  complete->group("");  // hidden
  complete->add_option("WORD", *words)->allow_extra_args();
}

}  // namespace twinroot::cli
