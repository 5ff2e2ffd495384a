// hvctl memory map: private and shared, large and small, written and not mapped, in one picture.
#include "cli/memory_map.h"

#include <google/protobuf/struct.pb.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <fstream>
#include <memory>
#include <optional>

#include "absl/strings/str_cat.h"
#include "cli/commands/command.h"
#include "cli/render/map_picture.h"
#include "cli/short_names.h"

namespace twinroot::cli {
namespace {

struct Arguments {
  std::string name;
  std::string svg;
  uint64_t cell = 0;
};

void ReadAttributes(Session& session, const std::string& name, MemoryMap* map) {
  v1::GetMemoryAttributesRequest request;
  request.set_vm(name);
  grpc::ClientContext context;
  Client::SetDeadline(&context);
  const auto reader = session.client().memory().GetMemoryAttributes(&context, request);
  v1::GetMemoryAttributesResponse chunk;
  while (reader->Read(&chunk)) {
    for (const v1::MemoryRun& run : chunk.runs()) map->AddAttributes(run);
  }
  session.client().Check(absl::StrCat("cannot map memory of vm ", name), reader->Finish());
}

// How the log of now marks pages, as its event tells; nullopt if that is gone. The harvest would
// tell what was written, but would also begin the next round.
std::optional<WriteMark> MarkOfLog(Session& session, const std::string& name) {
  const std::string what = absl::StrCat("cannot map memory of vm ", name);
  v1::GetMemoryStatsRequest stats;
  stats.set_vm(name);
  const auto answer = session.client().Call<v1::GetMemoryStatsResponse>(
      what, [&](grpc::ClientContext* context, v1::GetMemoryStatsResponse* response) {
        return session.client().memory().GetMemoryStats(context, stats, response);
      });
  if (answer.stats().dirty_log().state() != v1::MemoryStats::DirtyLog::STATE_ON) {
    return WriteMark::kNone;
  }
  v1::ListEventsRequest events;
  events.mutable_filter()->add_vms(name);
  events.mutable_filter()->add_kinds(v1::EVENT_KIND_DIRTY_LOG_STATE);
  std::optional<WriteMark> mark;
  while (true) {
    const auto page = session.client().Call<v1::ListEventsResponse>(
        what, [&](grpc::ClientContext* context, v1::ListEventsResponse* response) {
          return session.client().event().ListEvents(context, events, response);
        });
    for (const v1::Event& event : page.events()) {
      if (!event.has_dirty_log_state()) continue;
      const bool protects =
          event.dirty_log_state().mode() == v1::EnableDirtyLogRequest::MODE_WRITE_PROTECT;
      mark = protects ? WriteMark::kWritable : WriteMark::kDirty;
    }
    if (page.next_cursor() == page.end_cursor() || page.next_cursor() == events.start_cursor()) {
      return mark;
    }
    events.set_start_cursor(page.next_cursor());
    events.set_end_cursor(page.end_cursor());
  }
}

// False where the caller may not see them or the VM has none; then `notes` says so.
bool ReadTables(Session& session, const std::string& name, WriteMark mark, MemoryMap* map,
                std::vector<std::string>* notes) {
  v1::DumpTablesRequest request;
  request.set_vm(name);
  // No deadline: a large VM has many.
  grpc::ClientContext context;
  const auto reader = session.client().memory().DumpTables(&context, request);
  v1::DumpTablesResponse answer;
  while (reader->Read(&answer)) map->AddTables(answer, mark);
  const grpc::Status status = reader->Finish();
  if (status.ok()) {
    map->TablesAreKnown();
    return true;
  }
  if (status.error_code() == grpc::StatusCode::PERMISSION_DENIED) {
    notes->push_back("pages are not shown: that takes the role admin");
  } else if (ReasonOf(status) == "NOT_ON_THIS_BACKEND") {
    notes->push_back("pages are not shown: this VM has no tables of its own to look at");
  } else {
    session.client().Check(absl::StrCat("cannot map memory of vm ", name), status);
  }
  return false;
}

const char* Word(Pages pages) {
  switch (pages) {
    case Pages::kLarge:
      return "LARGE";
    case Pages::kSmall:
      return "SMALL";
    case Pages::kNotMapped:
      return "NOT_MAPPED";
    case Pages::kNotKnown:
      return "NOT_KNOWN";
  }
  return "NOT_KNOWN";
}

google::protobuf::Struct ToStruct(const MapPicture& picture) {
  google::protobuf::Struct message;
  auto* runs = (*message.mutable_fields())["runs"].mutable_list_value();
  for (const MapRun& run : picture.runs) {
    auto& fields = *runs->add_values()->mutable_struct_value()->mutable_fields();
    fields["gpa"].set_string_value(absl::StrCat(run.gpa));
    fields["size"].set_string_value(absl::StrCat(run.size));
    fields["kind"].set_string_value(ShortName(run.kind));
    fields["pages"].set_string_value(Word(run.pages));
    if (picture.writes_known) fields["written"].set_bool_value(run.written);
  }
  return message;
}

void WriteFile(const std::string& path, const std::string& text) {
  std::ofstream file(path, std::ios::trunc);
  file << text;
  file.close();
  if (!file) throw Failure{kUsage, absl::StrCat("cannot write ", path), "name another file"};
}

size_t Width() {
  winsize size{};
  constexpr size_t kDefault = 80;
  return ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col != 0 ? size.ws_col : kDefault;
}

int Map(Session& session, const Arguments& arguments) {
  MapPicture picture;
  picture.vm = arguments.name;
  picture.cell = arguments.cell;
  MemoryMap map;
  ReadAttributes(session, arguments.name, &map);
  const std::optional<WriteMark> mark = MarkOfLog(session, arguments.name);
  picture.tables_known =
      ReadTables(session, arguments.name, mark.value_or(WriteMark::kNone), &map, &picture.notes);
  picture.writes_known =
      picture.tables_known && mark.value_or(WriteMark::kNone) != WriteMark::kNone;
  if (picture.tables_known && !mark.has_value()) {
    picture.notes.push_back(
        "what was written is not shown: the event that the dirty log began is not kept any more");
  }
  picture.runs = map.Runs();
  if (picture.runs.empty()) {
    throw Failure{kFailure, absl::StrCat("vm ", arguments.name, " has no memory"), ""};
  }
  if (!arguments.svg.empty()) {
    WriteFile(arguments.svg, RenderMapSvg(picture));
    session.out().Write(
        absl::StrCat("the map of vm ", arguments.name, " is in ", arguments.svg, "\n"));
  } else if (session.structured()) {
    session.Answer(ToStruct(picture), "");
  } else {
    session.out().Write(
        RenderMap(picture, Width(), session.out().colors() ? Colors::kOn : Colors::kOff));
  }
  return kOk;
}

}  // namespace

void AddMemoryMap(CLI::App* memory, Invocation* invocation) {
  const auto arguments = std::make_shared<Arguments>();
  CLI::App* verb = AddVerb(
      memory, "map", "A picture: private or shared, large or small pages, written, not mapped",
      invocation, [arguments](Session& session) { return Map(session, *arguments); });
  AddVmName(verb, &arguments->name);
  AddText(verb, "--svg", &arguments->svg, "Draw it into this file instead")->type_name("FILE");
  AddSize(verb, "--cell", &arguments->cell,
          "What one character or cell stands for, a power of two of at least 4KiB (as fits)");
  AddWatch(verb, invocation);
  verb->parse_complete_callback([arguments] {
    const uint64_t cell = arguments->cell;
    if (cell != 0 && (cell < kPageSize || (cell & (cell - 1)) != 0)) {
      throw CLI::ValidationError("--cell", absl::StrCat(FormatSize(cell),
                                                        " is no power of two of at least 4KiB: "
                                                        "write 64KiB or 2MiB"));
    }
  });
}

}  // namespace twinroot::cli
