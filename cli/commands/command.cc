#include "cli/commands/command.h"

#include "cli/render/json.h"

namespace twinroot::cli {

void Session::Answer(const google::protobuf::Message& message, const std::string& text) {
  out_.Write(json() ? ToJson(message) : text);
}

void Session::StreamJson(const google::protobuf::Message& message) {
  out_.Write(ToJsonLine(message));
}

void Session::PrintTable(const Table& table) {
  out_.Write(table.Render(options_.no_headers ? Header::kOmit : Header::kPrint));
}

void AddCommonOptions(CLI::App* app, CommonOptions* options) {
  AddChoice<Format>(app, "-o,--output", &options->format,
                    {{"table", Format::kTable}, {"json", Format::kJson}}, "How to print answers")
      ->group("Common options");
  EndpointOptions& endpoint = options->endpoint;
  app->add_option("--endpoint", endpoint.endpoint,
                  "The daemon's socket, PATH or unix:PATH, or its TCP address, HOST:PORT; else "
                  "$HVCTL_ENDPOINT, else /run/twinroot/hvd.sock (root) or "
                  "$XDG_RUNTIME_DIR/twinroot/hvd.sock")
      ->type_name("PATH|HOST:PORT")
      ->group("Common options");
  app->add_option("--ca", endpoint.ca,
                  "For TCP: who signs the daemon's certificate (PEM); else $HVCTL_CA")
      ->type_name("FILE")
      ->group("Common options");
  app->add_option("--cert", endpoint.cert,
                  "For TCP: the certificate that says who you are (PEM); else $HVCTL_CERT")
      ->type_name("FILE")
      ->group("Common options");
  app->add_option("--key", endpoint.key, "For TCP: the key of --cert (PEM); else $HVCTL_KEY")
      ->type_name("FILE")
      ->group("Common options");
  app->add_flag("--no-headers", options->no_headers, "Print tables without their header line")
      ->group("Common options");
}

CLI::App* AddNoun(CLI::App* root, const std::string& name, const std::string& description) {
  return root->add_subcommand(name, description)->require_subcommand(1);
}

CLI::App* AddVerb(CLI::App* noun, const std::string& name, const std::string& description,
                  Invocation* invocation, Runner run) {
  CLI::App* verb = noun->add_subcommand(name, description);
  AddCommonOptions(verb, &invocation->options);
  verb->callback([invocation, run = std::move(run)] { invocation->run = run; });
  return verb;
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
                     const std::string& description) {
  return verb
      ->add_option_function<std::string>(
          name,
          [=](const std::string& given) {
            const absl::StatusOr<uint64_t> size = ParseSize(given);
            if (!size.ok()) throw CLI::ValidationError(name, std::string(size.status().message()));
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
