// hvctl vm wait: until a guest has ended.
#include <algorithm>
#include <chrono>
#include <memory>

#include "absl/strings/str_cat.h"
#include "cli/commands/command.h"

namespace twinroot::cli {
namespace {

constexpr uint32_t kMaxExitCode = 255;

struct WaitArguments {
  std::string name;
  absl::Duration timeout = absl::InfiniteDuration();
};

int Wait(Session& session, const WaitArguments& arguments) {
  v1::WaitVmRequest request;
  request.set_name(VmResource(arguments.name));
  grpc::ClientContext context;
  const bool bounded = arguments.timeout != absl::InfiniteDuration();
  if (bounded) {
    context.set_deadline(std::chrono::system_clock::now() +
                         absl::ToChronoNanoseconds(arguments.timeout));
  }
  v1::WaitVmResponse response;
  const grpc::Status status = session.client().vm().WaitVm(&context, request, &response);
  if (bounded && status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED) {
    throw Failure{kTimeout,
                  absl::StrCat("vm ", arguments.name, " did not stop within ",
                               ShortDuration(arguments.timeout)),
                  absl::StrCat("`hvctl vm get ", arguments.name, "` shows its state")};
  }
  session.client().Check(absl::StrCat("cannot wait for vm ", arguments.name), status);

  const v1::Vm& vm = response.vm();
  session.Answer(vm, "");
  // The exit code is the answer, and a code that does not fit must not look like success.
  if (vm.has_exit_code()) return static_cast<int>(std::min(vm.exit_code(), kMaxExitCode));
  session.out().Flush();
  throw Failure{kVmStopped,
                absl::StrCat("vm ", arguments.name, " stopped: ", vm.stop_reason(),
                             vm.stop_message().empty() ? "" : ": ", vm.stop_message()),
                ""};
}

}  // namespace

void AddVmRunCommands(CLI::App* vm, Invocation* invocation) {
  const auto wait = std::make_shared<WaitArguments>();
  CLI::App* verb = AddVerb(vm, "wait",
                           "Wait until a VM has stopped and exit with the guest's exit code (125: "
                           "it stopped for a reason, 124: --timeout)",
                           invocation, [wait](Session& session) { return Wait(session, *wait); });
  AddVmName(verb, &wait->name);
  AddDuration(verb, "--timeout", &wait->timeout, "Give up after this long: 50s, 2m");
}

}  // namespace twinroot::cli
