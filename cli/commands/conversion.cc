// hvctl conversion list|approve|deny: decisions that parked vCPUs wait for.
#include <algorithm>
#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "cli/commands/command.h"
#include "cli/render/event_line.h"
#include "cli/short_names.h"

namespace twinroot::cli {
namespace {

constexpr int kMaxIds = 1024;  // Of one call.

v1::ListConversionsResponse Waiting(Session& session, const std::string& name) {
  v1::ListConversionsRequest request;
  request.set_vm(name);
  return session.client().Call<v1::ListConversionsResponse>(
      absl::StrCat("cannot list conversions of vm ", name),
      [&](grpc::ClientContext* context, v1::ListConversionsResponse* answer) {
        return session.client().event().ListConversions(context, request, answer);
      });
}

// Until the deadline decides, in whole seconds.
std::string TimeLeft(const v1::ConversionRequest& waiting) {
  if (waiting.state() == v1::ConversionRequest::STATE_APPLYING) return "";
  const absl::Duration left = absl::FromUnixSeconds(waiting.deadline().seconds()) - absl::Now();
  return absl::FormatDuration(absl::Trunc(std::max(left, absl::ZeroDuration()), absl::Seconds(1)));
}

int List(Session& session, const std::string& name) {
  const v1::ListConversionsResponse response = Waiting(session, name);
  if (session.structured()) {
    session.Answer(response, "");
    return kOk;
  }
  std::vector<Column> columns = {{"ID", Align::kRight},
                                 {"VCPU", Align::kRight},
                                 {"GPA", Align::kRight},
                                 {"SIZE", Align::kRight},
                                 {"DIRECTION"},
                                 {"CAUSE"},
                                 {"STATE"},
                                 {"DEADLINE"}};
  // What is left changes although nothing has happened.
  const bool left = session.wide() && !session.options().watch;
  if (session.wide()) columns.push_back({"PAGES", Align::kRight});
  if (left) columns.push_back({"LEFT", Align::kRight});
  Table table(columns);
  for (const v1::ConversionRequest& waiting : response.conversions()) {
    std::vector<std::string> row = {absl::StrCat(waiting.id()),
                                    absl::StrCat(waiting.vcpu()),
                                    FormatAddress(waiting.gpa()),
                                    FormatSize(waiting.size()),
                                    ShortName(waiting.direction()),
                                    ShortName(waiting.cause()),
                                    ShortName(waiting.state()),
                                    waiting.state() == v1::ConversionRequest::STATE_APPLYING
                                        ? absl::StrCat(FormatSize(waiting.done()), " done")
                                        : FormatClock(waiting.deadline())};
    if (session.wide()) row.push_back(absl::StrCat(waiting.size() / kPageSize));
    if (left) row.push_back(TimeLeft(waiting));
    table.AddRow(std::move(row));
  }
  session.PrintTable(table);
  return kOk;
}

struct ResolveArguments {
  std::string name;
  std::vector<uint64_t> ids;
  bool all = false;
};

int Resolve(Session& session, const ResolveArguments& arguments,
            v1::ResolveConversionRequest::Decision decision) {
  std::vector<uint64_t> ids = arguments.ids;
  if (arguments.all) {
    // Named, because a range-for would keep the conversions of a temporary and not the temporary.
    const v1::ListConversionsResponse response = Waiting(session, arguments.name);
    for (const v1::ConversionRequest& waiting : response.conversions()) {
      if (waiting.state() == v1::ConversionRequest::STATE_WAITING) ids.push_back(waiting.id());
    }
  }
  v1::ResolveConversionResponse all;
  for (size_t begin = 0; begin < ids.size(); begin += kMaxIds) {
    v1::ResolveConversionRequest request;
    request.set_vm(arguments.name);
    request.set_decision(decision);
    const size_t end = std::min(ids.size(), begin + kMaxIds);
    request.mutable_ids()->Add(ids.begin() + begin, ids.begin() + end);
    const auto response = session.client().Call<v1::ResolveConversionResponse>(
        absl::StrCat("cannot decide conversions of vm ", arguments.name),
        [&](grpc::ClientContext* context, v1::ResolveConversionResponse* answer) {
          return session.client().event().ResolveConversion(context, request, answer);
        });
    all.mutable_results()->MergeFrom(response.results());
  }
  if (session.structured()) {
    session.Answer(all, "");
    return kOk;
  }
  Table table({{"ID", Align::kRight}, {"OUTCOME"}, {"DECISION"}, {"DECIDER"}});
  for (const v1::ResolveConversionResponse::Result& result : all.results()) {
    const bool known = result.decision() != v1::Conversion::DECISION_UNSPECIFIED;
    table.AddRow({absl::StrCat(result.id()), ShortName(result.outcome()),
                  known ? ShortName(result.decision()) : "-",
                  known ? ShortName(result.decider()) : "-"});
  }
  session.PrintTable(table);
  return kOk;
}

void AddResolve(CLI::App* conversion, const char* name, const char* description,
                v1::ResolveConversionRequest::Decision decision, Invocation* invocation) {
  const auto arguments = std::make_shared<ResolveArguments>();
  CLI::App* verb = AddVerb(
      conversion, name, description, invocation,
      [arguments, decision](Session& session) { return Resolve(session, *arguments, decision); });
  AddVmName(verb, &arguments->name);
  CLI::Option* ids =
      verb->add_option("ID", arguments->ids, "Which, as `conversion list` names them")
          ->type_name("");
  CLI::Option* all = verb->add_flag("--all", arguments->all, "All that wait now");
  verb->parse_complete_callback([ids, all] {
    if ((ids->count() > 0) == (all->count() > 0)) {
      throw CLI::ValidationError("ID", "give the ids to decide, or --all");
    }
  });
}

}  // namespace

void AddConversionCommands(CLI::App* root, Invocation* invocation) {
  CLI::App* conversion = AddNoun(root, "conversion", "Conversions that wait for a decision");
  const auto name = std::make_shared<std::string>();
  CLI::App* verb = AddVerb(
      conversion, "list", "The waiting conversions of a VM, oldest first", invocation,
      [name](Session& session) { return List(session, *name); }, NameOutput::kPrinted);
  AddVmName(verb, name.get());
  AddWatch(verb, invocation);
  AddResolve(conversion, "approve", "Apply waiting conversions",
             v1::ResolveConversionRequest::DECISION_APPLY, invocation);
  AddResolve(conversion, "deny", "Refuse waiting conversions",
             v1::ResolveConversionRequest::DECISION_DENY, invocation);
}

}  // namespace twinroot::cli
