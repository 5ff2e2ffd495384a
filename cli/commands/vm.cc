// hvctl vm get|list.
#include <map>
#include <memory>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "cli/commands/command.h"
#include "cli/commands/cpu_share_flags.h"
#include "cli/short_names.h"

namespace twinroot::cli {
namespace {

absl::Time ToTime(const google::protobuf::Timestamp& time) {
  return absl::FromUnixSeconds(time.seconds()) + absl::Nanoseconds(time.nanos());
}

// "5s", "3m", "7h", "12d": one unit, as much as a list needs.
std::string FormatAge(absl::Duration age) {
  if (age < absl::Minutes(2)) return absl::StrCat(absl::ToInt64Seconds(age), "s");
  if (age < absl::Hours(2)) return absl::StrCat(absl::ToInt64Minutes(age), "m");
  if (age < absl::Hours(48)) return absl::StrCat(absl::ToInt64Hours(age), "h");
  return absl::StrCat(absl::ToInt64Hours(age) / 24, "d");
}

// How a VM ended: its exit code, or the reason that it has none.
std::string Ending(const v1::Vm& vm) {
  return vm.has_exit_code() ? absl::StrCat(vm.exit_code()) : vm.stop_reason();
}

std::string Short(const google::protobuf::Duration& duration) {
  return ShortDuration(absl::Seconds(duration.seconds()) + absl::Nanoseconds(duration.nanos()));
}

std::string DescribeQuotas(const v1::ConversionPolicy& policy) {
  std::vector<std::string> quotas;
  if (policy.max_shared_bytes() != 0) {
    quotas.push_back(absl::StrCat("at most ", FormatSize(policy.max_shared_bytes()), " shared"));
  }
  if (policy.max_conversions_per_second() != 0) {
    quotas.push_back(absl::StrCat(policy.max_conversions_per_second(), " conversions a second",
                                  policy.conversion_burst() != 0
                                      ? absl::StrCat(", ", policy.conversion_burst(), " at once")
                                      : ""));
  }
  if (policy.ping_pong_limit() != 0) {
    quotas.push_back(absl::StrCat(policy.ping_pong_limit(), " turns of 2MiB in ",
                                  Short(policy.ping_pong_window())));
  }
  return absl::StrJoin(quotas, "; ");
}

std::string DescribePolicy(const v1::ConversionPolicy& policy) {
  std::string text = ShortName(policy.mode());
  if (policy.mode() != v1::ConversionPolicy::MODE_ORCHESTRATOR) return text;
  absl::StrAppend(&text, ", after ",
                  policy.has_decision_timeout() ? Short(policy.decision_timeout()) : "30s", " ",
                  policy.on_timeout() == v1::ConversionPolicy::ON_TIMEOUT_APPLY ? "APPLY" : "DENY");
  return text;
}

// "owner=me, tier=gold".
std::string LabelsInWords(const v1::Vm& vm) {
  std::string text;
  for (const auto& [key, value] :
       std::map<std::string, std::string>(vm.labels().begin(), vm.labels().end())) {
    absl::StrAppend(&text, text.empty() ? "" : ", ", key, "=", value);
  }
  return text;
}

std::string Describe(const v1::Vm& vm) {
  Sheet sheet;
  sheet.Add("Name", BareName(vm));
  sheet.Add("State", ShortName(vm.state()));
  if (vm.has_exit_code()) sheet.Add("Exit code", absl::StrCat(vm.exit_code()));
  sheet.Add("Stop reason", vm.stop_reason());
  sheet.Add("Stop message", vm.stop_message());
  sheet.Add("Backend", ShortName(vm.backend()));
  sheet.Add("Memory", FormatSize(vm.memory_bytes()));
  sheet.Add("vCPUs", absl::StrCat(vm.vcpus()));
  sheet.Add("Processors", absl::StrJoin(vm.placement().cpus(), ", "));
  sheet.Add("CPU share", DescribeCpuShare(vm.placement()));
  sheet.Add("Policy", DescribePolicy(vm.conversion_policy()));
  sheet.Add("Quotas", DescribeQuotas(vm.conversion_policy()));
  sheet.Add("Image", vm.image());
  if (vm.has_program()) {
    int steps = 0;
    for (const v1::VcpuProgram& vcpu : vm.program().vcpus()) steps += vcpu.steps_size();
    sheet.Add("Program", absl::StrCat(vm.program().vcpus_size(), " vCPUs, ", steps, " steps"));
  }
  sheet.Add("Command line", vm.cmdline());
  if (vm.nx_huge_pages() == v1::Vm::NX_HUGE_PAGES_ON) sheet.Add("NX huge pages", "ON");
  if (vm.mmu() == v1::Vm::MMU_SHADOW) sheet.Add("MMU", "SHADOW");
  sheet.Add("Labels", LabelsInWords(vm));
  if (vm.has_create_time()) {
    sheet.Add("Created", absl::FormatTime("%Y-%m-%d %H:%M:%S", ToTime(vm.create_time()),
                                          absl::LocalTimeZone()));
  }
  return sheet.Render();
}

// Enough of an image's hash to tell it from others.
std::string ShortImage(const v1::Vm& vm) {
  constexpr size_t kEnough = sizeof("images/") - 1 + 12;
  return vm.image().substr(0, kEnough);
}

int List(Session& session) {
  const v1::ListVmsResponse all = ListVms(session.client(), "cannot list vms");
  if (session.structured()) {
    session.Answer(all, "");
    return kOk;
  }
  std::vector<Column> columns = {{"NAME"},
                                 {"STATE"},
                                 {"EXIT"},
                                 {"BACKEND"},
                                 {"MEMORY", Align::kRight},
                                 {"VCPUS", Align::kRight},
                                 {"POLICY"}};
  // An age changes although nothing has happened.
  const bool ages = !session.options().watch;
  if (ages) columns.push_back({"AGE", Align::kRight});
  if (session.wide()) columns.insert(columns.end(), {{"MMU"}, {"IMAGE"}, {"QUOTAS"}, {"LABELS"}});
  Table table(columns);
  const absl::Time now = absl::Now();
  for (const v1::Vm& vm : all.vms()) {
    std::vector<std::string> row = {BareName(vm),
                                    ShortName(vm.state()),
                                    Ending(vm),
                                    ShortName(vm.backend()),
                                    FormatSize(vm.memory_bytes()),
                                    absl::StrCat(vm.vcpus()),
                                    ShortName(vm.conversion_policy().mode())};
    if (ages) row.push_back(vm.has_create_time() ? FormatAge(now - ToTime(vm.create_time())) : "");
    if (session.wide()) {
      row.insert(row.end(), {vm.mmu() == v1::Vm::MMU_SHADOW ? "SHADOW" : "TDP", ShortImage(vm),
                             DescribeQuotas(vm.conversion_policy()), LabelsInWords(vm)});
    }
    table.AddRow(std::move(row));
  }
  session.PrintTable(table);
  return kOk;
}

int Get(Session& session, const std::string& name) {
  const v1::Vm vm = GetVm(session, name, absl::StrCat("cannot get vm ", name));
  session.Answer(vm, Describe(vm));
  return kOk;
}

}  // namespace

v1::ListVmsResponse ListVms(Client& client, const std::string& what) {
  v1::ListVmsResponse all;
  v1::ListVmsRequest request;
  do {
    const auto page = client.Call<v1::ListVmsResponse>(
        what, [&](grpc::ClientContext* context, v1::ListVmsResponse* answer) {
          return client.vm().ListVms(context, request, answer);
        });
    // Watching from the first page's cursor misses nothing that a later page shows.
    if (all.cursor().empty()) all.set_cursor(page.cursor());
    all.mutable_vms()->MergeFrom(page.vms());
    request.set_page_token(page.next_page_token());
  } while (!request.page_token().empty());
  return all;
}

void AddVmCommands(CLI::App* root, Invocation* invocation) {
  CLI::App* vm = AddNoun(root, "vm", "Define, run and watch virtual machines");
  AddVmCreate(vm, invocation);
  AddWatch(AddVerb(vm, "list", "All VMs", invocation, List, NameOutput::kPrinted), invocation);
  const auto name = std::make_shared<std::string>();
  CLI::App* verb = AddVerb(
      vm, "get", "One VM in full", invocation,
      [name](Session& session) { return Get(session, *name); }, NameOutput::kPrinted);
  AddVmName(verb, name.get());
  AddWatch(verb, invocation);
  AddVmChangeCommands(vm, invocation);
  AddVmRunCommands(vm, invocation);
  AddVmConsole(vm, invocation);
}

}  // namespace twinroot::cli
