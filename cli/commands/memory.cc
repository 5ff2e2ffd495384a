// hvctl memory get|translate: attributes and the walks that they lead to.
#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "cli/commands/command.h"
#include "cli/short_names.h"

namespace twinroot::cli {
namespace {

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

  if (session.structured()) {
    session.Answer(all, "");
    return kOk;
  }
  std::vector<Column> columns = {
      {"GPA", Align::kRight}, {"SIZE", Align::kRight}, {"KIND"}, {"DENIED"}};
  if (session.wide()) {
    columns.insert(columns.end(), {{"END", Align::kRight}, {"PAGES", Align::kRight}});
  }
  Table table(columns);
  for (const v1::MemoryRun& run : all.runs()) {
    std::vector<std::string> row = {FormatAddress(run.gpa()), FormatSize(run.size()),
                                    ShortName(run.kind()), run.denied()};
    if (session.wide()) {
      // END is the first address behind it.
      row.insert(row.end(),
                 {FormatAddress(run.gpa() + run.size()), absl::StrCat(run.size() / kPageSize)});
    }
    table.AddRow(std::move(row));
  }
  session.PrintTable(table);
  return kOk;
}

// "4KiB page; 2MiB is vetoed by: attributes differ inside".
std::string WhyInWords(const v1::Explanation& why) {
  std::string text;
  if (why.mapping() == v1::Explanation::MAPPING_ALLOWED) {
    text = absl::StrCat(FormatSize(why.allowed_page_size()), " page");
    constexpr uint64_t kEntries = 512;
    if (why.veto() == v1::Explanation::VETO_NONE) {
      text += "; pages are no larger";
    } else {
      absl::StrAppend(&text, "; ", FormatSize(why.allowed_page_size() * kEntries),
                      " is vetoed by: ", why.veto_text());
    }
  } else if (why.mapping() == v1::Explanation::MAPPING_OTHER_KIND) {
    text = "no page: an access asks for a conversion";
  } else if (why.mapping() == v1::Explanation::MAPPING_NO_MEMORY) {
    text = "no page: there is no memory";
  }
  if (why.recoverable()) text += "; smaller pages stand there, `hvctl memory recover` joins them";
  if (!why.denied().empty()) absl::StrAppend(&text, "; denied: ", why.denied());
  if (why.dirty_log()) text += "; writes are logged";
  return text;
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
  if (session.structured()) {
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
  absl::StrAppend(&result, "\n");
  if (const std::string why = WhyInWords(response.why()); !why.empty()) {
    absl::StrAppend(&result, why, "\n");
  }
  session.out().Write(
      absl::StrCat(result, "EPT pointer ", FormatAddress(response.ept_pointer()), "\n"));
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

}  // namespace

void AddMemoryCommands(CLI::App* root, Invocation* invocation) {
  CLI::App* memory = AddNoun(root, "memory", "Private and shared memory of a VM");
  AddMemorySet(memory, invocation);

  const auto name = std::make_shared<std::string>();
  CLI::App* verb = AddVerb(memory, "get", "Which memory is private and which shared", invocation,
                           [name](Session& session) { return Get(session, *name); });
  AddVmName(verb, name.get());
  AddWatch(verb, invocation);

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
  AddMemoryMap(memory, invocation);
  AddMemoryContentCommands(memory, invocation);
  AddMemoryPageCommands(memory, invocation);
  AddMemorySlotCommands(memory, invocation);
  AddMemoryTableCommands(memory, invocation);
}

}  // namespace twinroot::cli
