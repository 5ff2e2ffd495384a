// hvctl vm update|start|pause|resume|stop|delete.
#include <unistd.h>

#include <cstdio>
#include <map>
#include <memory>

#include "absl/strings/str_cat.h"
#include "cli/commands/command.h"
#include "cli/commands/cpu_share_flags.h"
#include "cli/commands/policy_flags.h"
#include "cli/short_names.h"

namespace twinroot::cli {
namespace {

struct Arguments {
  std::string name;
  std::string etag;
  std::string request_id;
  bool yes = false;
};

// A call that takes a VM to another state.
template <typename Request, typename Response>
int ChangeState(Session& session, const char* verb, const Arguments& arguments, Request request,
                grpc::Status (v1::VmService::Stub::*method)(grpc::ClientContext*, const Request&,
                                                            Response*)) {
  request.set_name(VmResource(arguments.name));
  request.set_etag(arguments.etag);
  const auto response = session.client().Call<Response>(
      absl::StrCat("cannot ", verb, " vm ", arguments.name),
      [&](grpc::ClientContext* context, Response* answer) {
        return (session.client().vm().*method)(context, request, answer);
      });
  session.Answer(response.vm(), absl::StrCat("vm ", arguments.name, " is ",
                                             ShortName(response.vm().state()), "\n"));
  return kOk;
}

int Start(Session& session, const Arguments& arguments) {
  v1::StartVmRequest request;
  request.set_request_id(arguments.request_id);
  return ChangeState(session, "start", arguments, request, &v1::VmService::Stub::StartVm);
}
int Pause(Session& session, const Arguments& arguments) {
  return ChangeState(session, "pause", arguments, v1::PauseVmRequest(),
                     &v1::VmService::Stub::PauseVm);
}
int Resume(Session& session, const Arguments& arguments) {
  return ChangeState(session, "resume", arguments, v1::ResumeVmRequest(),
                     &v1::VmService::Stub::ResumeVm);
}
int Stop(Session& session, const Arguments& arguments) {
  return ChangeState(session, "stop", arguments, v1::StopVmRequest(), &v1::VmService::Stub::StopVm);
}

// Scripts have no terminal and mean what they say.
bool Confirmed(const std::string& name) {
  if (isatty(STDIN_FILENO) != 1) return true;
  std::fprintf(stderr, "Delete vm %s and its memory? [y/N] ", name.c_str());
  char answer[16] = {};
  if (std::fgets(answer, sizeof(answer), stdin) == nullptr) return false;
  return answer[0] == 'y' || answer[0] == 'Y';
}

int Delete(Session& session, const Arguments& arguments) {
  if (!arguments.yes && !Confirmed(arguments.name)) {
    throw Failure{kFailure, absl::StrCat("vm ", arguments.name, " was not deleted"),
                  "answer y, or give --yes"};
  }
  v1::DeleteVmRequest request;
  request.set_name(VmResource(arguments.name));
  request.set_etag(arguments.etag);
  request.set_request_id(arguments.request_id);
  const auto response = session.client().Call<v1::DeleteVmResponse>(
      absl::StrCat("cannot delete vm ", arguments.name),
      [&](grpc::ClientContext* context, v1::DeleteVmResponse* answer) {
        return session.client().vm().DeleteVm(context, request, answer);
      });
  session.Answer(response, absl::StrCat("vm ", arguments.name, " is deleted\n"));
  return kOk;
}

struct UpdateArguments : Arguments {
  PolicyFlags policy;
  CpuShareFlags cpu_share;
  std::map<std::string, std::string> labels;
  bool no_labels = false;
  bool dry_run = false;
};

v1::UpdateVmRequest RequestOf(const UpdateArguments& arguments) {
  v1::UpdateVmRequest request;
  request.set_request_id(arguments.request_id);
  request.set_validate_only(arguments.dry_run);
  v1::Vm& vm = *request.mutable_vm();
  vm.set_name(VmResource(arguments.name));
  vm.set_etag(arguments.etag);
  const auto change = [&request](const std::string& path) {
    request.mutable_update_mask()->add_paths(path);
  };
  *vm.mutable_conversion_policy() = arguments.policy.policy();
  for (const std::string& field : arguments.policy.fields()) change("conversion_policy." + field);
  arguments.cpu_share.WriteTo(vm.mutable_placement());
  for (const std::string& field : arguments.cpu_share.fields()) change("placement." + field);
  if (arguments.no_labels || !arguments.labels.empty()) {
    vm.mutable_labels()->insert(arguments.labels.begin(), arguments.labels.end());
    change("labels");
  }
  if (request.update_mask().paths().empty()) {
    throw Failure{kUsage, "there is nothing to change",
                  "see `hvctl vm update --help` for what can change"};
  }
  return request;
}

int Update(Session& session, const UpdateArguments& arguments) {
  const v1::UpdateVmRequest request = RequestOf(arguments);
  const auto response = session.client().Call<v1::UpdateVmResponse>(
      absl::StrCat("cannot update vm ", arguments.name),
      [&](grpc::ClientContext* context, v1::UpdateVmResponse* answer) {
        return session.client().vm().UpdateVm(context, request, answer);
      });
  session.Answer(response.vm(),
                 absl::StrCat("vm ", arguments.name,
                              arguments.dry_run ? " could be changed so\n" : " is changed\n"));
  return kOk;
}

void AddUpdate(CLI::App* vm, Invocation* invocation) {
  const auto arguments = std::make_shared<UpdateArguments>();
  CLI::App* verb =
      AddVerb(vm, "update", "Change a VM's policy, labels or processor time", invocation,
              [arguments](Session& session) { return Update(session, *arguments); });
  AddVmName(verb, &arguments->name);
  arguments->policy.AddTo(verb);
  arguments->cpu_share.AddTo(verb);
  CLI::Option* labels = AddLabels(verb, &arguments->labels);
  labels->description("The VM's labels from now on: these instead of those that it has");
  verb->add_flag("--no-labels", arguments->no_labels, "Take all labels away")->excludes(labels);
  AddEtag(verb, &arguments->etag);
  AddRequestId(verb, &arguments->request_id);
  verb->add_flag("--dry-run", arguments->dry_run, "Change nothing; say what would be wrong");
}

// A verb that takes a VM and an etag.
CLI::App* AddChange(CLI::App* vm, const char* name, const char* description, Invocation* invocation,
                    int (*run)(Session&, const Arguments&),
                    const std::shared_ptr<Arguments>& arguments) {
  CLI::App* verb = AddVerb(vm, name, description, invocation,
                           [arguments, run](Session& session) { return run(session, *arguments); });
  AddVmName(verb, &arguments->name);
  AddEtag(verb, &arguments->etag);
  return verb;
}

}  // namespace

void AddVmChangeCommands(CLI::App* vm, Invocation* invocation) {
  AddUpdate(vm, invocation);
  const auto arguments = std::make_shared<Arguments>();
  CLI::App* verb = AddChange(vm, "start", "Start a defined VM", invocation, Start, arguments);
  AddRequestId(verb, &arguments->request_id);
  AddChange(vm, "pause", "Stop every vCPU of a running VM where it is", invocation, Pause,
            arguments);
  AddChange(vm, "resume", "Let a paused VM go on", invocation, Resume, arguments);
  AddChange(vm, "stop", "Stop a VM for good", invocation, Stop, arguments);
  verb = AddChange(vm, "delete", "Stop a VM and forget it and its memory", invocation, Delete,
                   arguments);
  AddRequestId(verb, &arguments->request_id);
  verb->add_flag("-y,--yes", arguments->yes, "Do not ask (asks only on a terminal)");
}

}  // namespace twinroot::cli
