// hvctl memory dump-tables|age|recover-nx: the tables of a VM, and who used them.
#include <cstring>
#include <fstream>
#include <memory>

#include "absl/strings/str_cat.h"
#include "cli/commands/command.h"
#include "cli/short_names.h"

namespace twinroot::cli {
namespace {

struct DumpArguments {
  std::string name;
  v1::MemoryKind root = v1::MEMORY_KIND_UNSPECIFIED;
  std::string file;
};

// Entries that are not zero.
size_t UsedEntries(const std::string& entries) {
  size_t used = 0;
  for (size_t at = 0; at + sizeof(uint64_t) <= entries.size(); at += sizeof(uint64_t)) {
    uint64_t entry = 0;
    std::memcpy(&entry, entries.data() + at, sizeof(entry));
    used += entry != 0;
  }
  return used;
}

// A line for each table; with --file also its page, so that line i is page i of the file.
int DumpTables(Session& session, const DumpArguments& arguments) {
  v1::DumpTablesRequest request;
  request.set_vm(arguments.name);
  request.set_root(arguments.root);
  std::ofstream file;
  if (!arguments.file.empty()) {
    file.open(arguments.file, std::ios::binary | std::ios::trunc);
    if (!file) {
      throw Failure{kUsage, absl::StrCat("cannot write ", arguments.file), "name another file"};
    }
  }
  // No deadline: a large VM has many.
  grpc::ClientContext context;
  const auto reader = session.client().memory().DumpTables(&context, request);
  Table table({{"ROOT"},
               {"LEVEL", Align::kRight},
               {"GPA", Align::kRight},
               {"AT", Align::kRight},
               {"ENTRIES", Align::kRight}});
  v1::DumpTablesResponse answer;
  while (reader->Read(&answer)) {
    if (session.structured()) session.StreamObject(answer);
    for (const auto& page : answer.tables()) {
      file.write(page.entries().data(), static_cast<std::streamsize>(page.entries().size()));
      table.AddRow({ShortName(answer.root()), absl::StrCat(page.level()), FormatAddress(page.gpa()),
                    FormatAddress(page.hpa()), absl::StrCat(UsedEntries(page.entries()))});
    }
  }
  session.client().Check(absl::StrCat("cannot dump the tables of vm ", arguments.name),
                         reader->Finish());
  file.close();
  if (!arguments.file.empty() && !file) {
    throw Failure{kFailure, absl::StrCat("cannot write ", arguments.file), "is the disk full?"};
  }
  if (!session.structured()) session.PrintTable(table);
  return kOk;
}

struct AgeArguments {
  std::string name;
  std::vector<AddressRange> ranges;
};

void AgeOne(Session& session, const AgeArguments& arguments, const AddressRange* range,
            Table& table) {
  v1::AgePagesRequest request;
  request.set_vm(arguments.name);
  if (range != nullptr) {
    request.mutable_range()->set_gpa(range->gpa);
    request.mutable_range()->set_size(range->size);
  }
  grpc::ClientContext context;
  Client::SetDeadline(&context);
  const auto reader = session.client().memory().AgePages(&context, request);
  v1::AgePagesResponse answer;
  while (reader->Read(&answer)) {
    if (session.structured()) session.StreamObject(answer);
    for (const v1::MemoryRange& run : answer.runs()) {
      table.AddRow(
          {FormatAddress(run.gpa()), FormatSize(run.size()), absl::StrCat(run.size() / kPageSize)});
    }
  }
  session.client().Check(absl::StrCat("cannot age pages of vm ", arguments.name), reader->Finish());
}

int Age(Session& session, const AgeArguments& arguments) {
  Table table({{"GPA", Align::kRight}, {"SIZE", Align::kRight}, {"PAGES", Align::kRight}});
  if (arguments.ranges.empty()) AgeOne(session, arguments, nullptr, table);
  for (const AddressRange& range : arguments.ranges) AgeOne(session, arguments, &range, table);
  if (!session.structured()) session.PrintTable(table);
  return kOk;
}

struct RecoverArguments {
  std::string name;
  uint64_t max = 0;
};

int RecoverNx(Session& session, const RecoverArguments& arguments) {
  v1::RecoverNxPagesRequest request;
  request.set_vm(arguments.name);
  request.set_max_pages(arguments.max);
  const auto response = session.client().Call<v1::RecoverNxPagesResponse>(
      absl::StrCat("cannot recover pages of vm ", arguments.name),
      [&](grpc::ClientContext* context, v1::RecoverNxPagesResponse* answer) {
        return session.client().memory().RecoverNxPages(context, request, answer);
      });
  session.Answer(response, absl::StrCat(response.collapsed(), " tables became large pages\n"));
  return kOk;
}

}  // namespace

void AddMemoryTableCommands(CLI::App* memory, Invocation* invocation) {
  const auto dump = std::make_shared<DumpArguments>();
  CLI::App* verb = AddVerb(memory, "dump-tables", "A VM's page tables, page by page", invocation,
                           [dump](Session& session) { return DumpTables(session, *dump); });
  AddVmName(verb, &dump->name);
  AddChoice<v1::MemoryKind>(
      verb, "--root", &dump->root,
      {{"private", v1::MEMORY_KIND_PRIVATE}, {"shared", v1::MEMORY_KIND_SHARED}},
      "Of this root only");
  AddText(verb, "--file", &dump->file, "Write the pages there too, in the order of the lines")
      ->type_name("FILE");

  const auto age = std::make_shared<AgeArguments>();
  verb = AddVerb(memory, "age", "Which pages were accessed since the last look (on sim)",
                 invocation, [age](Session& session) { return Age(session, *age); });
  AddVmName(verb, &age->name);
  AddRanges(verb, &age->ranges);

  const auto recover = std::make_shared<RecoverArguments>();
  verb = AddVerb(memory, "recover-nx", "Make pages large again that instructions made small",
                 invocation, [recover](Session& session) { return RecoverNx(session, *recover); });
  AddVmName(verb, &recover->name);
  verb->add_option("--max", recover->max, "At most so many ranges of 2MiB")->type_name("N");
}

}  // namespace twinroot::cli
