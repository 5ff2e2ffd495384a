// What every command shares: the common options, the session that it runs in, and how it hangs in
// the tree of nouns and verbs.
//
// Parsing fills plain argument structs and picks one function; nothing is opened, read or sent
// before the whole command line was accepted. Not thread-safe.
#ifndef TWINROOT_CLI_COMMANDS_COMMAND_H_
#define TWINROOT_CLI_COMMANDS_COMMAND_H_

#include <google/protobuf/message.h>

#include <CLI/CLI.hpp>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "cli/client.h"
#include "cli/endpoint.h"
#include "cli/output.h"
#include "cli/quantity.h"
#include "cli/render/table.h"

namespace twinroot::cli {

inline constexpr char kVersion[] = "0.1.0";

enum class Format { kTable, kWide, kJson, kYaml, kName };
// Whether a verb's answer has names that `-o name` can print.
enum class NameOutput { kNone, kPrinted };

struct CommonOptions {
  Format format = Format::kTable;
  EndpointOptions endpoint;
  bool no_headers = false;
  bool watch = false;
};

// A running command: its options, its output, its daemon. Throws what FindEndpoint does when the
// daemon is first asked for; some commands need none.
class Session {
 public:
  explicit Session(const CommonOptions& options) : options_(options), out_(STDOUT_FILENO) {}

  const CommonOptions& options() const { return options_; }
  // The answer goes to a program: JSON, YAML or names, made from the message itself.
  bool structured() const {
    return options_.format != Format::kTable && options_.format != Format::kWide;
  }
  bool wide() const { return options_.format == Format::kWide; }
  Output& out() { return out_; }
  Client& client();

  // An answer as it is asked for; `text` is for people.
  void Answer(const google::protobuf::Message& message, const std::string& text);
  // One object of a stream: a line of JSON, or a document of YAML.
  void StreamObject(const google::protobuf::Message& message);
  void PrintTable(const Table& table);

 private:
  const CommonOptions& options_;
  Output out_;
  std::optional<Client> client_;
};

// Runs a command; the result is the exit code.
using Runner = std::function<int(Session&)>;

// --watch: runs it every second and prints its output whenever that is another one; in place on a
// terminal. Ends with the first failure.
int Watch(Session& session, const Runner& run);

// What the command line says to do.
struct Invocation {
  CommonOptions options;
  Runner run;
  NameOutput names = NameOutput::kNone;
};

// -o, --endpoint, --context and their files, --no-headers. They work before the noun and after the
// verb.
void AddCommonOptions(CLI::App* app, CommonOptions* options);

// A noun: needs one of its verbs.
CLI::App* AddNoun(CLI::App* root, const std::string& name, const std::string& description);

// A verb. `run` is taken when the command line names it.
CLI::App* AddVerb(CLI::App* noun, const std::string& name, const std::string& description,
                  Invocation* invocation, Runner run, NameOutput names = NameOutput::kNone);
// A verb that asks no daemon and prints text: without the common options.
CLI::App* AddLocalVerb(CLI::App* noun, const std::string& name, const std::string& description,
                       Invocation* invocation, Runner run);
// --watch, for a verb that shows what is: shown again whenever it has changed.
void AddWatch(CLI::App* verb, Invocation* invocation);

// An option whose value is a text; an empty one (an unset shell variable) is a usage error.
CLI::Option* AddText(CLI::App* verb, const std::string& name, std::string* value,
                     const std::string& description);

// The positional NAME of a VM.
CLI::Option* AddVmName(CLI::App* verb, std::string* name);

// Options in the notation of cli/quantity.h; what does not parse is a usage error.
// A number without a unit below `least_bare` has lost its unit, and is refused with one.
CLI::Option* AddSize(CLI::App* verb, const std::string& name, uint64_t* value,
                     const std::string& description, uint64_t least_bare = 0);
CLI::Option* AddDuration(CLI::App* verb, const std::string& name, absl::Duration* value,
                         const std::string& description);

// --range GPA:SIZE[,GPA:SIZE], as often as one likes.
CLI::Option* AddRanges(CLI::App* verb, std::vector<AddressRange>* ranges);
// Into a repeated field of MemoryRange.
template <typename Field>
void SetRanges(const std::vector<AddressRange>& ranges, Field* field) {
  for (const AddressRange& range : ranges) {
    auto* added = field->Add();
    added->set_gpa(range.gpa);
    added->set_size(range.size);
  }
}

// The VM as it is now. Throws a Failure that begins with `what`.
v1::Vm GetVm(Session& session, const std::string& name, const std::string& what);

// Without the collection: "demo" of "vms/demo".
std::string BareName(const v1::Vm& vm);

// Every page of the list.
v1::ListVmsResponse ListVms(Client& client, const std::string& what);

// "3 pages of 2MiB and 0 of 1GiB were split, 1 stay large".
std::string SplitsInWords(const v1::SplitCounts& splits);

// --etag and --request-id, for calls that change something.
CLI::Option* AddEtag(CLI::App* verb, std::string* etag);
CLI::Option* AddRequestId(CLI::App* verb, std::string* request_id);
// --label KEY=VALUE, as often as one likes.
CLI::Option* AddLabels(CLI::App* verb, std::map<std::string, std::string>* labels);

// One of a fixed set of words: `words` maps each to its value.
template <typename T>
CLI::Option* AddChoice(CLI::App* verb, const std::string& name, T* value,
                       const std::vector<std::pair<std::string, T>>& words,
                       const std::string& description) {
  std::string list;
  for (const auto& [word, ignored] : words) list += (list.empty() ? "" : "|") + word;
  return verb
      ->add_option_function<std::string>(
          name,
          [=](const std::string& given) {
            for (const auto& [word, meaning] : words) {
              if (word != given) continue;
              *value = meaning;
              return;
            }
            throw CLI::ValidationError(name, "'" + given + "' is none of " + list);
          },
          description)
      ->type_name(list);
}

// Every noun's verbs.
void AddVmCommands(CLI::App* root, Invocation* invocation);
void AddVmCreate(CLI::App* vm, Invocation* invocation);
void AddVmChangeCommands(CLI::App* vm, Invocation* invocation);  // update, start, stop, ...
void AddVmRunCommands(CLI::App* vm, Invocation* invocation);     // wait
void AddVmConsole(CLI::App* vm, Invocation* invocation);
void AddMemoryCommands(CLI::App* root, Invocation* invocation);
void AddMemoryMap(CLI::App* memory, Invocation* invocation);
void AddMemorySet(CLI::App* memory, Invocation* invocation);
void AddMemoryContentCommands(CLI::App* memory, Invocation* invocation);  // read, write
void AddMemoryPageCommands(CLI::App* memory, Invocation* invocation);     // split, recover, stats
void AddMemorySlotCommands(CLI::App* memory, Invocation* invocation);     // prefault, add, ...
void AddMemoryTableCommands(CLI::App* memory, Invocation* invocation);    // dump-tables, age, ...
void AddDirtyCommands(CLI::App* root, Invocation* invocation);
void AddConversionCommands(CLI::App* root, Invocation* invocation);
void AddEventsCommand(CLI::App* root, Invocation* invocation);
void AddHostCommands(CLI::App* root, Invocation* invocation);  // and version
void AddTopCommand(CLI::App* root, Invocation* invocation);
void AddContextCommands(CLI::App* root, Invocation* invocation);
void AddExplainCommand(CLI::App* root, Invocation* invocation);
void AddManualCommand(CLI::App* root, Invocation* invocation);
void AddCompletionCommands(CLI::App* root, Invocation* invocation);

// All of hvctl.
void AddCommands(CLI::App* root, Invocation* invocation);

}  // namespace twinroot::cli

#endif  // TWINROOT_CLI_COMMANDS_COMMAND_H_
