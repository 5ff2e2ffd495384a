// hvctl context list|use|set|delete: daemons by name.
#include <unistd.h>

#include <filesystem>
#include <memory>

#include "absl/strings/str_cat.h"
#include "cli/commands/command.h"
#include "cli/contexts.h"

namespace twinroot::cli {
namespace {

int List(Session& session) {
  const Contexts contexts = LoadContexts();
  Table table({{"CURRENT"}, {"NAME"}, {"ENDPOINT"}, {"CERTIFICATE"}});
  for (const auto& [name, context] : contexts.all) {
    table.AddRow({name == contexts.current ? "*" : " ", name, context.endpoint, context.cert});
  }
  session.PrintTable(table);
  return kOk;
}

int Use(Session& session, const std::string& name) {
  Contexts contexts = LoadContexts();
  const std::string endpoint = contexts.Get(name).endpoint;
  contexts.current = name;
  SaveContexts(contexts);
  session.out().Write(absl::StrCat("context ", name, " is in use: ", endpoint, "\n"));
  return kOk;
}

// From any folder the same file.
std::string Absolute(const std::string& path) {
  return path.empty() ? path : std::filesystem::absolute(path).lexically_normal().string();
}

int Set(Session& session, const std::string& name) {
  const EndpointOptions& given = session.options().endpoint;
  if (given.endpoint.empty()) {
    throw Failure{kUsage, absl::StrCat("context ", name, " needs --endpoint"),
                  "give --endpoint unix:PATH, or HOST:PORT with --ca, --cert and --key"};
  }
  Context context{given.endpoint, Absolute(given.ca), Absolute(given.cert), Absolute(given.key)};
  if (!IsTcp(context.endpoint)) {
    constexpr std::string_view kScheme = "unix:";
    const bool scheme = context.endpoint.rfind(kScheme, 0) == 0;
    context.endpoint =
        absl::StrCat(std::string(kScheme),
                     Absolute(scheme ? context.endpoint.substr(kScheme.size()) : context.endpoint));
  } else if (context.ca.empty() || context.cert.empty() || context.key.empty()) {
    throw Failure{kUsage, absl::StrCat("endpoint '", context.endpoint, "' is TCP"),
                  "give --ca, --cert and --key too"};
  }
  Contexts contexts = LoadContexts();
  const bool fresh = contexts.all.count(name) == 0;
  contexts.all[name] = context;
  SaveContexts(contexts);
  session.out().Write(absl::StrCat("context ", name,
                                   fresh ? " is set: " : " is changed: ", context.endpoint, "\n"));
  return kOk;
}

int Delete(Session& session, const std::string& name) {
  Contexts contexts = LoadContexts();
  contexts.Get(name);
  contexts.all.erase(name);
  if (contexts.current == name) contexts.current.clear();
  SaveContexts(contexts);
  session.out().Write(absl::StrCat("context ", name, " is deleted\n"));
  return kOk;
}

// A verb of one context.
void AddContextVerb(CLI::App* context, const char* verb_name, const char* description,
                    Invocation* invocation, int (*run)(Session&, const std::string&),
                    bool takes_endpoint) {
  const auto name = std::make_shared<std::string>();
  const auto runner = [name, run](Session& session) { return run(session, *name); };
  CLI::App* verb = takes_endpoint
                       ? AddVerb(context, verb_name, description, invocation, runner)
                       : AddLocalVerb(context, verb_name, description, invocation, runner);
  AddText(verb, "CONTEXT", name.get(), "Its name")->required()->type_name("");
}

}  // namespace

void AddContextCommands(CLI::App* root, Invocation* invocation) {
  CLI::App* context = AddNoun(root, "context", "Daemons by name, kept in a file of yours");
  CLI::App* verb = AddLocalVerb(context, "list", "All contexts", invocation, List);
  verb->add_flag("--no-headers", invocation->options.no_headers,
                 "Print the table without its header line");
  AddContextVerb(context, "use", "Talk to this daemon from now on", invocation, Use, false);
  AddContextVerb(context, "set", "Keep what --endpoint, --ca, --cert and --key say under a name",
                 invocation, Set, true);
  AddContextVerb(context, "delete", "Forget a context", invocation, Delete, false);
}

}  // namespace twinroot::cli
