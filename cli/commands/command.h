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
#include <string>
#include <vector>

#include "cli/client.h"
#include "cli/endpoint.h"
#include "cli/output.h"
#include "cli/quantity.h"
#include "cli/render/table.h"

namespace twinroot::cli {

inline constexpr char kVersion[] = "0.1.0";

enum class Format { kTable, kJson };

struct CommonOptions {
  Format format = Format::kTable;
  EndpointOptions endpoint;
  bool no_headers = false;
};

// A running command: its options, its output, its daemon.
class Session {
 public:
  Session(const CommonOptions& options, Endpoint endpoint)
      : options_(options), out_(STDOUT_FILENO), client_(std::move(endpoint)) {}

  bool json() const { return options_.format == Format::kJson; }
  Output& out() { return out_; }
  Client& client() { return client_; }

  // An answer: JSON where that is asked for, else `text`.
  void Answer(const google::protobuf::Message& message, const std::string& text);
  // One object of a stream, as a line of JSON.
  void StreamJson(const google::protobuf::Message& message);
  void PrintTable(const Table& table);

 private:
  const CommonOptions& options_;
  Output out_;
  Client client_;
};

// Runs a command; the result is the exit code.
using Runner = std::function<int(Session&)>;

// What the command line says to do.
struct Invocation {
  CommonOptions options;
  Runner run;
};

// -o, --endpoint and its files, --no-headers. They work before the noun and after the verb.
void AddCommonOptions(CLI::App* app, CommonOptions* options);

// A noun: needs one of its verbs.
CLI::App* AddNoun(CLI::App* root, const std::string& name, const std::string& description);

// A verb. `run` is taken when the command line names it.
CLI::App* AddVerb(CLI::App* noun, const std::string& name, const std::string& description,
                  Invocation* invocation, Runner run);

// An option whose value is a text; an empty one (an unset shell variable) is a usage error.
CLI::Option* AddText(CLI::App* verb, const std::string& name, std::string* value,
                     const std::string& description);

// The positional NAME of a VM.
CLI::Option* AddVmName(CLI::App* verb, std::string* name);

// Options in the notation of cli/quantity.h; what does not parse is a usage error.
CLI::Option* AddSize(CLI::App* verb, const std::string& name, uint64_t* value,
                     const std::string& description);
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
void AddMemorySet(CLI::App* memory, Invocation* invocation);
void AddMemoryContentCommands(CLI::App* memory, Invocation* invocation);  // read, write
void AddMemoryPageCommands(CLI::App* memory, Invocation* invocation);     // split, recover, stats
void AddMemorySlotCommands(CLI::App* memory, Invocation* invocation);     // prefault, add, ...
void AddMemoryTableCommands(CLI::App* memory, Invocation* invocation);    // dump-tables, age, ...
void AddDirtyCommands(CLI::App* root, Invocation* invocation);
void AddConversionCommands(CLI::App* root, Invocation* invocation);
void AddEventsCommand(CLI::App* root, Invocation* invocation);
void AddHostCommands(CLI::App* root, Invocation* invocation);  // and version

}  // namespace twinroot::cli

#endif  // TWINROOT_CLI_COMMANDS_COMMAND_H_
