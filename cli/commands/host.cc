// hvctl host show|audit|drain|metrics, hvctl version.
#include <google/protobuf/util/json_util.h>
#include <google/protobuf/wrappers.pb.h>

#include <memory>

#include "absl/strings/str_cat.h"
#include "cli/commands/command.h"
#include "cli/render/visible.h"
#include "cli/short_names.h"

namespace twinroot::cli {
namespace {

v1::Host GetHost(Session& session) {
  return session.client()
      .Call<v1::GetHostResponse>("cannot show the host",
                                 [&](grpc::ClientContext* context, v1::GetHostResponse* answer) {
                                   return session.client().host().GetHost(
                                       context, v1::GetHostRequest(), answer);
                                 })
      .host();
}

int Show(Session& session) {
  const v1::Host host = GetHost(session);
  if (session.structured()) {
    session.Answer(host, "");
    return kOk;
  }
  std::string backends;
  for (int i = 0; i < host.backends_size(); ++i) {
    absl::StrAppend(&backends, i == 0 ? "" : ", ", ShortName(host.backends(i)));
  }
  Sheet sheet;
  sheet.Add("Version", host.version());
  sheet.Add("Default backend", ShortName(host.default_backend()));
  sheet.Add("Because", host.default_backend_reason());
  sheet.Add("Backends", backends);
  sheet.Add("Shared bit", absl::StrCat(host.shared_bit()));
  sheet.Add("CPUs", absl::StrCat(host.cpus()));
  sheet.Add("Memory", FormatRoughSize(host.memory_bytes()));
  sheet.Add("VMs", absl::StrCat(host.vms(), " of ", host.max_vms()));
  sheet.Add("Largest VM", absl::StrCat(FormatRoughSize(host.max_memory_bytes()), ", ",
                                       host.max_vcpus(), " vCPUs"));
  if (host.admission() == v1::Host::ADMISSION_DRAINING) {
    sheet.Add("Admission", "DRAINING: takes no new VMs");
  }
  sheet.Add("Metrics", host.metrics_address().empty() ? "off" : host.metrics_address());
  session.out().Write(sheet.Render());
  if (host.checks().empty()) return kOk;
  session.out().Write("\n");
  Table table({{"CHECK"}, {"RESULT"}, {"DETAIL"}});
  for (const v1::Host::Check& check : host.checks()) {
    table.AddRow({check.name(), ShortName(check.result()), check.detail()});
  }
  session.PrintTable(table);
  return kOk;
}

// One line for each VM; `-o json` one object a line. Exit code 1 if a VM is broken.
int Audit(Session& session, const std::string& name) {
  v1::AuditRequest request;
  request.set_vm(name);
  grpc::ClientContext context;
  Client::SetDeadline(&context);
  const auto reader = session.client().host().Audit(&context, request);
  v1::AuditResponse answer;
  Table table({{"VM"}, {"VERDICT"}, {"DETAIL"}});
  bool broken = false;
  while (reader->Read(&answer)) {
    broken |= answer.verdict() != v1::AuditResponse::VERDICT_SOUND;
    if (session.structured()) {
      session.StreamObject(answer);
    } else {
      table.AddRow({answer.vm(), ShortName(answer.verdict()), answer.detail()});
    }
  }
  session.client().Check("cannot audit", reader->Finish());
  if (!session.structured()) session.PrintTable(table);
  return broken ? kFailure : kOk;
}

int Drain(Session& session, bool undo) {
  v1::DrainRequest request;
  request.set_admission(undo ? v1::Host::ADMISSION_OPEN : v1::Host::ADMISSION_DRAINING);
  const auto response = session.client().Call<v1::DrainResponse>(
      undo ? "cannot open the host" : "cannot drain the host",
      [&](grpc::ClientContext* context, v1::DrainResponse* answer) {
        return session.client().host().Drain(context, request, answer);
      });
  session.Answer(response, undo ? "the host takes new VMs\n"
                                : absl::StrCat("the host takes no new VMs; ", response.active_vms(),
                                               " run still\n"));
  return kOk;
}

int Metrics(Session& session) {
  const auto response = session.client().Call<v1::GetMetricsResponse>(
      "cannot show metrics", [&](grpc::ClientContext* context, v1::GetMetricsResponse* answer) {
        return session.client().host().GetMetrics(context, v1::GetMetricsRequest(), answer);
      });
  session.Answer(response, response.text());
  if (response.omitted_bytes() == 0) return kOk;
  throw Failure{kFailure,
                absl::StrCat(FormatRoughSize(response.omitted_bytes()), " more are left out"),
                "scrape the endpoint that `hvctl host show` names"};
}

// As a JSON string. No message of the API has both versions.
std::string Quote(const std::string& text) {
  google::protobuf::StringValue value;
  value.set_value(text);
  std::string json;
  if (!google::protobuf::util::MessageToJsonString(value, &json).ok()) {
    throw Failure{kFailure, "cannot print the versions", "try -o table"};
  }
  return json;
}

// Works without a daemon: then it says so in the daemon's place, and that is no failure.
int Version(Session& session) {
  std::string daemon;
  std::string why;
  try {
    daemon = GetHost(session).version();
  } catch (const Failure& failure) {
    why = failure.message;
  }
  if (!session.structured()) {
    session.out().Write(absl::StrCat(
        "hvctl ", kVersion, "\nhvd ",
        VisibleLine(why.empty() ? daemon : absl::StrCat("does not answer (", why, ")")), "\n"));
    return kOk;
  }
  session.out().Write(
      absl::StrCat("{\"hvctl\":", Quote(kVersion), ",\"hvd\":", Quote(daemon), "}\n"));
  return kOk;
}

}  // namespace

void AddHostCommands(CLI::App* root, Invocation* invocation) {
  CLI::App* host = AddNoun(root, "host", "The machine that the daemon runs on");
  AddVerb(host, "show", "What this host can do, and why", invocation, Show);
  const auto name = std::make_shared<std::string>();
  CLI::App* verb = AddVerb(host, "audit", "Check the engine's tables of all VMs or of one",
                           invocation, [name](Session& session) { return Audit(session, *name); });
  AddText(verb, "NAME", name.get(), "Only this VM")->type_name("");
  const auto undo = std::make_shared<bool>(false);
  verb = AddVerb(host, "drain", "Take no new VMs; those that run go on", invocation,
                 [undo](Session& session) { return Drain(session, *undo); });
  verb->add_flag("--undo", *undo, "Take new VMs again");
  AddVerb(host, "metrics", "What Prometheus would scrape now", invocation, Metrics);
  AddVerb(root, "version", "The versions of hvctl and of the daemon", invocation, Version);
}

}  // namespace twinroot::cli
