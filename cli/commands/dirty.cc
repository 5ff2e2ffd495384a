// hvctl dirty enable|harvest|clear|disable: which pages of a VM were written.
#include <memory>
#include <optional>

#include "absl/strings/str_cat.h"
#include "cli/commands/command.h"

namespace twinroot::cli {
namespace {

constexpr uint64_t kPageSize = 4096;

struct EnableArguments {
  std::string name;
  v1::EnableDirtyLogRequest::Mode mode = v1::EnableDirtyLogRequest::MODE_WRITE_PROTECT;
  bool manual_clear = false;
  bool initially_all_set = false;
  bool no_eager_split = false;
  uint32_t ring_entries = 0;
  std::string request_id;
};

struct DisableArguments {
  std::string name;
  std::string request_id;
};

int Enable(Session& session, const EnableArguments& arguments) {
  v1::EnableDirtyLogRequest request;
  request.set_vm(arguments.name);
  request.set_mode(arguments.mode);
  request.set_manual_clear(arguments.manual_clear);
  request.set_initially_all_set(arguments.initially_all_set);
  request.set_no_eager_split(arguments.no_eager_split);
  request.set_ring_entries(arguments.ring_entries);
  request.set_request_id(arguments.request_id);
  const auto response = session.client().Call<v1::EnableDirtyLogResponse>(
      absl::StrCat("cannot enable the dirty log of vm ", arguments.name),
      [&](grpc::ClientContext* context, v1::EnableDirtyLogResponse* answer) {
        return session.client().dirty_log().EnableDirtyLog(context, request, answer);
      });
  session.Answer(response, absl::StrCat("the dirty log of vm ", arguments.name, " is on; ",
                                        SplitsInWords(response.splits()), "\n"));
  return kOk;
}

int Disable(Session& session, const DisableArguments& arguments) {
  const std::string& name = arguments.name;
  v1::DisableDirtyLogRequest request;
  request.set_vm(name);
  request.set_request_id(arguments.request_id);
  const auto response = session.client().Call<v1::DisableDirtyLogResponse>(
      absl::StrCat("cannot disable the dirty log of vm ", name),
      [&](grpc::ClientContext* context, v1::DisableDirtyLogResponse* answer) {
        return session.client().dirty_log().DisableDirtyLog(context, request, answer);
      });
  session.Answer(response, absl::StrCat("the dirty log of vm ", name, " is off; ",
                                        response.collapsed(), " tables became large pages\n"));
  return kOk;
}

struct RangeArguments {
  std::string name;
  std::vector<AddressRange> ranges;
};

// One call for each range: the API takes one at a time.
void HarvestInto(Session& session, const std::string& name,
                 const std::optional<AddressRange>& range, v1::HarvestDirtyLogResponse* all) {
  v1::HarvestDirtyLogRequest request;
  request.set_vm(name);
  if (range.has_value()) {
    request.mutable_range()->set_gpa(range->gpa);
    request.mutable_range()->set_size(range->size);
  }
  grpc::ClientContext context;
  Client::SetDeadline(&context);
  const auto reader = session.client().dirty_log().HarvestDirtyLog(&context, request);
  v1::HarvestDirtyLogResponse chunk;
  while (reader->Read(&chunk)) all->MergeFrom(chunk);
  session.client().Check(absl::StrCat("cannot harvest the dirty log of vm ", name),
                         reader->Finish());
}

int Harvest(Session& session, const RangeArguments& arguments) {
  v1::HarvestDirtyLogResponse all;
  if (arguments.ranges.empty()) HarvestInto(session, arguments.name, std::nullopt, &all);
  for (const AddressRange& range : arguments.ranges) {
    HarvestInto(session, arguments.name, range, &all);
  }
  if (session.structured()) {
    session.Answer(all, "");
    return kOk;
  }
  Table table({{"GPA", Align::kRight}, {"SIZE", Align::kRight}, {"PAGES", Align::kRight}});
  for (const v1::MemoryRange& run : all.runs()) {
    table.AddRow(
        {FormatAddress(run.gpa()), FormatSize(run.size()), absl::StrCat(run.size() / kPageSize)});
  }
  session.PrintTable(table);
  return kOk;
}

int Clear(Session& session, const RangeArguments& arguments) {
  v1::ClearDirtyLogRequest request;
  request.set_vm(arguments.name);
  SetRanges(arguments.ranges, request.mutable_ranges());
  const auto response = session.client().Call<v1::ClearDirtyLogResponse>(
      absl::StrCat("cannot clear the dirty log of vm ", arguments.name),
      [&](grpc::ClientContext* context, v1::ClearDirtyLogResponse* answer) {
        return session.client().dirty_log().ClearDirtyLog(context, request, answer);
      });
  std::string text;
  for (const AddressRange& range : arguments.ranges) {
    absl::StrAppend(&text, FormatAddress(range.gpa), " +", FormatSize(range.size), " is clean\n");
  }
  session.Answer(response, text);
  return kOk;
}

void AddEnable(CLI::App* dirty, Invocation* invocation) {
  const auto arguments = std::make_shared<EnableArguments>();
  CLI::App* verb = AddVerb(dirty, "enable", "Log writes from now on", invocation,
                           [arguments](Session& session) { return Enable(session, *arguments); });
  AddVmName(verb, &arguments->name);
  AddChoice<v1::EnableDirtyLogRequest::Mode>(
      verb, "--mode", &arguments->mode,
      {{"write-protect", v1::EnableDirtyLogRequest::MODE_WRITE_PROTECT},
       {"dirty-bit", v1::EnableDirtyLogRequest::MODE_DIRTY_BIT},
       {"pml", v1::EnableDirtyLogRequest::MODE_PML}},
      "How writes are seen (write-protect)");
  verb->add_flag("--manual-clear", arguments->manual_clear,
                 "Only `dirty clear` makes pages clean; otherwise the harvest does");
  verb->add_flag("--initially-all-set", arguments->initially_all_set,
                 "Every page counts as written at first; needs --manual-clear");
  verb->add_flag("--no-eager-split", arguments->no_eager_split,
                 "Split large pages at their first write, not now");
  verb->add_option("--ring-entries", arguments->ring_entries,
                   "Pages in each vCPU's ring, 129 to 65536; a vCPU whose ring is full waits for "
                   "a harvest (0: no rings)")
      ->type_name("NUMBER");
  AddRequestId(verb, &arguments->request_id);
}

}  // namespace

void AddDirtyCommands(CLI::App* root, Invocation* invocation) {
  CLI::App* dirty = AddNoun(root, "dirty", "Which pages of a VM were written");
  AddEnable(dirty, invocation);

  const auto harvest = std::make_shared<RangeArguments>();
  CLI::App* verb =
      AddVerb(dirty, "harvest", "The pages that were written since the last harvest", invocation,
              [harvest](Session& session) { return Harvest(session, *harvest); });
  AddVmName(verb, &harvest->name);
  AddRanges(verb, &harvest->ranges);

  const auto clear = std::make_shared<RangeArguments>();
  verb = AddVerb(dirty, "clear", "Make pages clean (with --manual-clear)", invocation,
                 [clear](Session& session) { return Clear(session, *clear); });
  AddVmName(verb, &clear->name);
  AddRanges(verb, &clear->ranges)->required();

  const auto disable = std::make_shared<DisableArguments>();
  verb = AddVerb(dirty, "disable", "End the log; pages become large again", invocation,
                 [disable](Session& session) { return Disable(session, *disable); });
  AddVmName(verb, &disable->name);
  AddRequestId(verb, &disable->request_id);
}

}  // namespace twinroot::cli
