#include "cli/commands/command.h"

#include <google/protobuf/descriptor.h>

#include "absl/strings/str_cat.h"
#include "cli/command_tree.h"
#include "cli/render/json.h"
#include "cli/render/yaml.h"

namespace twinroot::cli {

std::string BareName(const v1::Vm& vm) {
  constexpr std::string_view kCollection = "vms/";
  return vm.name().rfind(kCollection, 0) == 0 ? vm.name().substr(kCollection.size()) : vm.name();
}

namespace {

// A line for each; only verbs with NameOutput::kPrinted come here.
std::string NamesOf(const google::protobuf::Message& message) {
  std::string lines;
  if (const auto* vm = dynamic_cast<const v1::Vm*>(&message)) {
    absl::StrAppend(&lines, BareName(*vm), "\n");
  } else if (const auto* list = dynamic_cast<const v1::ListVmsResponse*>(&message)) {
    for (const v1::Vm& listed : list->vms()) absl::StrAppend(&lines, BareName(listed), "\n");
  } else if (const auto* waiting = dynamic_cast<const v1::ListConversionsResponse*>(&message)) {
    for (const auto& conversion : waiting->conversions()) {
      absl::StrAppend(&lines, conversion.id(), "\n");
    }
  }
  return lines;
}

}  // namespace

Client& Session::client() {
  if (!client_.has_value()) client_.emplace(FindEndpoint(options_.endpoint));
  return *client_;
}

void Session::Answer(const google::protobuf::Message& message, const std::string& text) {
  switch (options_.format) {
    case Format::kJson:
      // What is shown again and again is a stream of objects.
      return out_.Write(options_.watch ? ToJsonLine(message) : ToJson(message));
    case Format::kYaml:
      return out_.Write((options_.watch ? "---\n" : "") + JsonToYaml(ToJsonLine(message)));
    case Format::kName:
      return out_.Write(NamesOf(message));
    default:
      out_.Write(text);
  }
}

void Session::StreamObject(const google::protobuf::Message& message) {
  const std::string json = ToJsonLine(message);
  out_.Write(options_.format == Format::kYaml ? "---\n" + JsonToYaml(json) : json);
}

void Session::PrintTable(const Table& table) {
  out_.Write(table.Render(options_.no_headers ? Header::kOmit : Header::kPrint));
}

void AddCommonOptions(CLI::App* app, CommonOptions* options) {
  AddChoice<Format>(app, "-o,--output", &options->format,
                    {{"table", Format::kTable},
                     {"wide", Format::kWide},
                     {"json", Format::kJson},
                     {"yaml", Format::kYaml},
                     {"name", Format::kName}},
                    "How to print answers (table)")
      ->group(kCommonGroup);
  EndpointOptions& endpoint = options->endpoint;
  CLI::Option* address =
      app->add_option("--endpoint,--socket", endpoint.endpoint,
                      "The daemon's socket, PATH or unix:PATH, or its TCP address, HOST:PORT; else "
                      "$HVCTL_ENDPOINT, else a context, else /run/twinroot/hvd.sock (root), or "
                      "$XDG_RUNTIME_DIR/twinroot/hvd.sock or what you may open in /run/twinroot")
          ->type_name("PATH|HOST:PORT")
          ->group(kCommonGroup);
  app->add_option(
         "--context", endpoint.context,
         "The daemon of this name (`hvctl context set`); else $HVCTL_CONTEXT, else the one "
         "that `hvctl context use` has chosen")
      ->type_name("CONTEXT")
      ->group(kCommonGroup)
      ->excludes(address);
  app->add_option("--ca", endpoint.ca,
                  "For TCP: who signs the daemon's certificate (PEM); else $HVCTL_CA")
      ->type_name("FILE")
      ->group(kCommonGroup);
  app->add_option("--cert", endpoint.cert,
                  "For TCP: the certificate that says who you are (PEM); else $HVCTL_CERT")
      ->type_name("FILE")
      ->group(kCommonGroup);
  app->add_option("--key", endpoint.key, "For TCP: the key of --cert (PEM); else $HVCTL_KEY")
      ->type_name("FILE")
      ->group(kCommonGroup);
  app->add_flag("--no-headers", options->no_headers, "Print tables without their header line")
      ->group(kCommonGroup);
}

CLI::App* AddNoun(CLI::App* root, const std::string& name, const std::string& description) {
  return root->add_subcommand(name, description)->require_subcommand(1);
}

CLI::App* AddVerb(CLI::App* noun, const std::string& name, const std::string& description,
                  Invocation* invocation, Runner run, NameOutput names) {
  CLI::App* verb = noun->add_subcommand(name, description);
  AddCommonOptions(verb, &invocation->options);
  verb->callback([invocation, run = std::move(run), names] {
    invocation->run = run;
    invocation->names = names;
  });
  return verb;
}

CLI::App* AddLocalVerb(CLI::App* noun, const std::string& name, const std::string& description,
                       Invocation* invocation, Runner run) {
  CLI::App* verb = noun->add_subcommand(name, description);
  verb->callback([invocation, run = std::move(run)] { invocation->run = run; });
  return verb;
}

void AddWatch(CLI::App* verb, Invocation* invocation) {
  verb->add_flag("-w,--watch", invocation->options.watch,
                 "Show it again whenever it has changed, until Ctrl-C");
}

CLI::Option* AddText(CLI::App* verb, const std::string& name, std::string* value,
                     const std::string& description) {
  return verb->add_option_function<std::string>(
      name,
      [=](const std::string& given) {
        if (given.empty()) throw CLI::ValidationError(name, "the value is empty");
        *value = given;
      },
      description);
}

CLI::Option* AddVmName(CLI::App* verb, std::string* name) {
  return AddText(verb, "NAME", name, "The VM's name")->required()->type_name("");
}

CLI::Option* AddEtag(CLI::App* verb, std::string* etag) {
  return AddText(verb, "--etag", etag,
                 "Only if the VM is still as `hvctl vm get -o json` showed it with this etag")
      ->type_name("ETAG");
}

CLI::Option* AddRequestId(CLI::App* verb, std::string* request_id) {
  return AddText(verb, "--request-id", request_id,
                 "Any text of your own, best a UUID: repeating the command with it does nothing "
                 "and gives the first answer")
      ->type_name("ID");
}

CLI::Option* AddLabels(CLI::App* verb, std::map<std::string, std::string>* labels) {
  return verb
      ->add_option_function<std::vector<std::string>>(
          "--label",
          [labels](const std::vector<std::string>& given) {
            for (const std::string& text : given) {
              const size_t equals = text.find('=');
              if (equals == std::string::npos || equals == 0) {
                throw CLI::ValidationError("--label", "'" + text + "' is not KEY=VALUE");
              }
              (*labels)[text.substr(0, equals)] = text.substr(equals + 1);
            }
          },
          "A word of your own about the VM, as often as you like")
      ->allow_extra_args(false)
      ->type_name("KEY=VALUE");
}

v1::Vm GetVm(Session& session, const std::string& name, const std::string& what) {
  v1::GetVmRequest request;
  request.set_name(VmResource(name));
  return session.client()
      .Call<v1::GetVmResponse>(what,
                               [&](grpc::ClientContext* context, v1::GetVmResponse* answer) {
                                 return session.client().vm().GetVm(context, request, answer);
                               })
      .vm();
}

CLI::Option* AddSize(CLI::App* verb, const std::string& name, uint64_t* value,
                     const std::string& description, uint64_t least_bare) {
  return verb
      ->add_option_function<std::string>(
          name,
          [=](const std::string& given) {
            const absl::StatusOr<uint64_t> size = ParseSize(given);
            if (!size.ok()) throw CLI::ValidationError(name, std::string(size.status().message()));
            const bool bare = given.find_first_not_of("0123456789") == std::string::npos;
            if (bare && *size != 0 && *size < least_bare) {
              throw CLI::ValidationError(name, absl::StrCat(given, " is ", given, " bytes; write ",
                                                            given, "MiB or ", given, "GiB"));
            }
            *value = *size;
          },
          description)
      ->type_name(name.rfind("--", 0) == 0 ? "SIZE" : "");
}

CLI::Option* AddRanges(CLI::App* verb, std::vector<AddressRange>* ranges) {
  return verb
      ->add_option_function<std::vector<std::string>>(
          "--range",
          [ranges](const std::vector<std::string>& given) {
            for (const std::string& text : given) {
              const auto parsed = ParseRanges(text);
              if (!parsed.ok()) {
                throw CLI::ValidationError("--range", std::string(parsed.status().message()));
              }
              ranges->insert(ranges->end(), parsed->begin(), parsed->end());
            }
          },
          "Which memory: 0x200000:64KiB, several with commas")
      ->allow_extra_args(false)
      ->type_name("GPA:SIZE[,GPA:SIZE]");
}

CLI::Option* AddDuration(CLI::App* verb, const std::string& name, absl::Duration* value,
                         const std::string& description) {
  return verb
      ->add_option_function<std::string>(
          name,
          [=](const std::string& given) {
            const absl::StatusOr<absl::Duration> duration = ParseDuration(given);
            if (!duration.ok()) {
              throw CLI::ValidationError(name, std::string(duration.status().message()));
            }
            *value = *duration;
          },
          description)
      ->type_name("DURATION");
}

}  // namespace twinroot::cli
