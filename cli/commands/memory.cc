// hvctl memory set|get|translate: attributes and the walks that they lead to.
#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "cli/commands/command.h"
#include "cli/short_names.h"

namespace twinroot::cli {
namespace {

struct SetArguments {
  std::string name;
  std::vector<AddressRange> ranges;
  bool make_private = false;
  bool make_shared = false;
  bool preserve = false;
};

int Set(Session& session, const SetArguments& arguments) {
  v1::SetMemoryAttributesRequest request;
  request.set_vm(arguments.name);
  SetRanges(arguments.ranges, request.mutable_ranges());
  request.set_kind(arguments.make_private ? v1::MEMORY_KIND_PRIVATE : v1::MEMORY_KIND_SHARED);
  request.set_content(arguments.preserve ? v1::SetMemoryAttributesRequest::CONTENT_PRESERVE
                                         : v1::SetMemoryAttributesRequest::CONTENT_DESTROY);
  const auto response = session.client().Call<v1::SetMemoryAttributesResponse>(
      absl::StrCat("cannot set memory of vm ", arguments.name),
      [&](grpc::ClientContext* context, v1::SetMemoryAttributesResponse* answer) {
        return session.client().memory().SetMemoryAttributes(context, request, answer);
      });

  const std::string kind = ShortName(request.kind());
  std::string text;
  for (const v1::MemoryRange& range : response.converted()) {
    absl::StrAppend(&text, FormatAddress(range.gpa()), " +", FormatSize(range.size()), " is now ",
                    kind,
                    response.conversion_id() != 0
                        ? absl::StrCat(" (conversion ", response.conversion_id(), ")\n")
                        : " (as a waiting conversion asked)\n");
  }
  if (text.empty()) text = absl::StrCat("nothing changed, all of it was ", kind, "\n");
  session.Answer(response, text);
  return kOk;
}

// Runs are maximal within one streamed chunk; where two chunks meet they may not be.
void AppendRun(const v1::MemoryRun& run, v1::GetMemoryAttributesResponse* all) {
  if (!all->runs().empty()) {
    v1::MemoryRun* last = all->mutable_runs(all->runs_size() - 1);
    if (last->gpa() + last->size() == run.gpa() && last->kind() == run.kind() &&
        last->denied() == run.denied()) {
      last->set_size(last->size() + run.size());
      return;
    }
  }
  *all->add_runs() = run;
}

int Get(Session& session, const std::string& name) {
  v1::GetMemoryAttributesRequest request;
  request.set_vm(name);
  grpc::ClientContext context;
  Client::SetDeadline(&context);
  const auto reader = session.client().memory().GetMemoryAttributes(&context, request);
  v1::GetMemoryAttributesResponse all;
  v1::GetMemoryAttributesResponse chunk;
  while (reader->Read(&chunk)) {
    for (const v1::MemoryRun& run : chunk.runs()) AppendRun(run, &all);
  }
  session.client().Check(absl::StrCat("cannot get memory of vm ", name), reader->Finish());

  if (session.json()) {
    session.Answer(all, "");
    return kOk;
  }
  Table table({{"GPA", Align::kRight}, {"SIZE", Align::kRight}, {"KIND"}, {"DENIED"}});
  for (const v1::MemoryRun& run : all.runs()) {
    table.AddRow(
        {FormatAddress(run.gpa()), FormatSize(run.size()), ShortName(run.kind()), run.denied()});
  }
  session.PrintTable(table);
  return kOk;
}

struct TranslateArguments {
  std::string name;
  uint64_t gpa = 0;
  v1::MemoryKind alias = v1::MEMORY_KIND_PRIVATE;
};

int Translate(Session& session, const TranslateArguments& arguments) {
  v1::TranslateRequest request;
  request.set_vm(arguments.name);
  request.set_gpa(arguments.gpa);
  request.set_alias(arguments.alias);
  const auto response = session.client().Call<v1::TranslateResponse>(
      absl::StrCat("cannot translate ", FormatAddress(arguments.gpa), " of vm ", arguments.name),
      [&](grpc::ClientContext* context, v1::TranslateResponse* answer) {
        return session.client().memory().Translate(context, request, answer);
      });
  if (session.json()) {
    session.Answer(response, "");
    return kOk;
  }
  const std::string alias = ShortName(arguments.alias);
  std::string result = absl::StrCat(FormatAddress(arguments.gpa), " is ",
                                    ShortName(response.kind()), "; the ", alias, " alias is ");
  if (response.outcome() == v1::TranslateResponse::OUTCOME_MAPPED) {
    absl::StrAppend(&result, "mapped to hpa ", FormatAddress(response.hpa()), ", ",
                    FormatSize(response.page_size()), " page, ", response.access());
  } else {
    absl::StrAppend(&result, "not mapped: an access is an EPT violation");
  }
  session.out().Write(
      absl::StrCat(result, "\nEPT pointer ", FormatAddress(response.ept_pointer()), "\n"));
  Table table({{"LEVEL", Align::kRight},
               {"INDEX", Align::kRight},
               {"ENTRY AT", Align::kRight},
               {"ENTRY", Align::kRight},
               {"MEANING"}});
  for (const v1::TranslateResponse::Step& step : response.steps()) {
    table.AddRow({absl::StrCat(step.level()), absl::StrCat(step.index()),
                  FormatAddress(step.entry_hpa()), absl::StrFormat("0x%016x", step.entry()),
                  step.meaning()});
  }
  session.PrintTable(table);
  return kOk;
}

void AddSet(CLI::App* memory, Invocation* invocation) {
  const auto arguments = std::make_shared<SetArguments>();
  CLI::App* verb = AddVerb(memory, "set", "Make ranges private or shared", invocation,
                           [arguments](Session& session) { return Set(session, *arguments); });
  AddVmName(verb, &arguments->name);
  AddRanges(verb, &arguments->ranges)->required();
  CLI::Option_group* kind = verb->add_option_group("Kind");
  kind->add_flag("--private", arguments->make_private, "Only the guest sees it");
  kind->add_flag("--shared", arguments->make_shared, "The guest and the host share it");
  kind->require_option(1);
  verb->add_flag("--preserve", arguments->preserve,
                 "Keep the bytes (to private only); otherwise converted pages read zero");
}

}  // namespace

void AddMemoryCommands(CLI::App* root, Invocation* invocation) {
  CLI::App* memory = AddNoun(root, "memory", "Private and shared memory of a VM");
  AddSet(memory, invocation);

  const auto name = std::make_shared<std::string>();
  CLI::App* verb = AddVerb(memory, "get", "Which memory is private and which shared", invocation,
                           [name](Session& session) { return Get(session, *name); });
  AddVmName(verb, name.get());

  const auto translate = std::make_shared<TranslateArguments>();
  verb = AddVerb(memory, "translate", "The walk of one address, entry by entry", invocation,
                 [translate](Session& session) { return Translate(session, *translate); });
  AddVmName(verb, &translate->name);
  AddSize(verb, "GPA", &translate->gpa, "The address, without the shared bit: 0x200000")
      ->required();
  AddChoice<v1::MemoryKind>(
      verb, "--alias", &translate->alias,
      {{"private", v1::MEMORY_KIND_PRIVATE}, {"shared", v1::MEMORY_KIND_SHARED}},
      "Through which root (private)");
  AddMemoryContentCommands(memory, invocation);
  AddMemoryPageCommands(memory, invocation);
  AddMemorySlotCommands(memory, invocation);
}

}  // namespace twinroot::cli
