// hvctl memory prefault|add|remove|move: what memory a VM has, and filling it before it is used.
#include <memory>
#include <optional>

#include "absl/strings/str_cat.h"
#include "cli/commands/command.h"
#include "cli/commands/progress.h"

namespace twinroot::cli {
namespace {

struct PrefaultArguments {
  std::string name;
  std::vector<AddressRange> ranges;
  v1::MemoryKind kind = v1::MEMORY_KIND_UNSPECIFIED;
};

// One call; the last message it brought. Throws where the daemon stopped.
v1::PrefaultResponse PrefaultOne(Session& session, const PrefaultArguments& arguments,
                                 const AddressRange* range) {
  v1::PrefaultRequest request;
  request.set_vm(arguments.name);
  request.set_kind(arguments.kind);
  if (range != nullptr) {
    request.mutable_range()->set_gpa(range->gpa);
    request.mutable_range()->set_size(range->size);
  }
  // No deadline: it goes on as long as it takes, and tells so.
  grpc::ClientContext context;
  const auto reader = session.client().memory().Prefault(&context, request);
  std::optional<Progress> progress;
  v1::PrefaultResponse last;
  v1::PrefaultResponse answer;
  while (reader->Read(&answer)) {
    last = answer;
    if (!progress.has_value()) progress.emplace("mapping memory", last.bytes_total());
    progress->Show(last.bytes_done());
  }
  progress.reset();
  session.client().Check(absl::StrCat("cannot prefault vm ", arguments.name, " (",
                                      FormatRoughSize(last.bytes_done()), " are mapped)"),
                         reader->Finish());
  return last;
}

int Prefault(Session& session, const PrefaultArguments& arguments) {
  v1::PrefaultResponse all;
  if (arguments.ranges.empty()) all = PrefaultOne(session, arguments, nullptr);
  for (const AddressRange& range : arguments.ranges) {
    const v1::PrefaultResponse one = PrefaultOne(session, arguments, &range);
    all.set_bytes_done(all.bytes_done() + one.bytes_done());
    all.set_bytes_total(all.bytes_total() + one.bytes_total());
    all.set_outcome(one.outcome());
  }
  session.Answer(all, absl::StrCat(FormatRoughSize(all.bytes_done()), " of vm ", arguments.name,
                                   " are mapped\n"));
  return kOk;
}

struct SlotArguments {
  std::string name;
  uint64_t gpa = 0;
  uint64_t size = 0;
  uint64_t new_gpa = 0;
  std::string request_id;
  bool dry_run = false;
};

int Add(Session& session, const SlotArguments& arguments) {
  v1::AddMemslotRequest request;
  request.set_vm(arguments.name);
  request.mutable_range()->set_gpa(arguments.gpa);
  request.mutable_range()->set_size(arguments.size);
  request.set_request_id(arguments.request_id);
  request.set_validate_only(arguments.dry_run);
  const auto response = session.client().Call<v1::AddMemslotResponse>(
      absl::StrCat("cannot add memory to vm ", arguments.name),
      [&](grpc::ClientContext* context, v1::AddMemslotResponse* answer) {
        return session.client().memory().AddMemslot(context, request, answer);
      });
  session.Answer(
      response,
      absl::StrCat("vm ", arguments.name, arguments.dry_run ? " could have " : " has ",
                   FormatSize(arguments.size), " more at ", FormatAddress(arguments.gpa), "\n"));
  return kOk;
}

int Remove(Session& session, const SlotArguments& arguments) {
  v1::RemoveMemslotRequest request;
  request.set_vm(arguments.name);
  request.set_gpa(arguments.gpa);
  request.set_request_id(arguments.request_id);
  const auto response = session.client().Call<v1::RemoveMemslotResponse>(
      absl::StrCat("cannot remove memory of vm ", arguments.name),
      [&](grpc::ClientContext* context, v1::RemoveMemslotResponse* answer) {
        return session.client().memory().RemoveMemslot(context, request, answer);
      });
  session.Answer(response, absl::StrCat("the memory at ", FormatAddress(arguments.gpa), " of vm ",
                                        arguments.name, " is gone\n"));
  return kOk;
}

int Move(Session& session, const SlotArguments& arguments) {
  v1::MoveMemslotRequest request;
  request.set_vm(arguments.name);
  request.set_gpa(arguments.gpa);
  request.set_new_gpa(arguments.new_gpa);
  request.set_request_id(arguments.request_id);
  const auto response = session.client().Call<v1::MoveMemslotResponse>(
      absl::StrCat("cannot move memory of vm ", arguments.name),
      [&](grpc::ClientContext* context, v1::MoveMemslotResponse* answer) {
        return session.client().memory().MoveMemslot(context, request, answer);
      });
  session.Answer(response,
                 absl::StrCat("the memory at ", FormatAddress(arguments.gpa), " of vm ",
                              arguments.name, " is at ", FormatAddress(arguments.new_gpa), "\n"));
  return kOk;
}

}  // namespace

void AddMemorySlotCommands(CLI::App* memory, Invocation* invocation) {
  const auto prefault = std::make_shared<PrefaultArguments>();
  CLI::App* verb = AddVerb(memory, "prefault", "Map memory before it is used", invocation,
                           [prefault](Session& session) { return Prefault(session, *prefault); });
  AddVmName(verb, &prefault->name);
  AddRanges(verb, &prefault->ranges);
  AddChoice<v1::MemoryKind>(
      verb, "--kind", &prefault->kind,
      {{"private", v1::MEMORY_KIND_PRIVATE}, {"shared", v1::MEMORY_KIND_SHARED}},
      "Through this root only; otherwise each page by its attribute");

  const auto slot = std::make_shared<SlotArguments>();
  verb = AddVerb(memory, "add", "Give a VM more memory (on sim)", invocation,
                 [slot](Session& session) { return Add(session, *slot); });
  AddVmName(verb, &slot->name);
  AddSize(verb, "GPA", &slot->gpa, "Where: a multiple of 2MiB without memory")->required();
  AddSize(verb, "SIZE", &slot->size, "How much: a multiple of 2MiB")->required();
  AddRequestId(verb, &slot->request_id);
  verb->add_flag("--dry-run", slot->dry_run, "Add nothing; say what would be wrong");

  verb = AddVerb(memory, "remove", "Take memory away that was added", invocation,
                 [slot](Session& session) { return Remove(session, *slot); });
  AddVmName(verb, &slot->name);
  AddSize(verb, "GPA", &slot->gpa, "Where it begins")->required();
  AddRequestId(verb, &slot->request_id);

  verb = AddVerb(memory, "move", "Move memory that was added", invocation,
                 [slot](Session& session) { return Move(session, *slot); });
  AddVmName(verb, &slot->name);
  AddSize(verb, "GPA", &slot->gpa, "Where it begins")->required();
  AddSize(verb, "NEW_GPA", &slot->new_gpa, "Where it shall begin")->required();
  AddRequestId(verb, &slot->request_id);
}

}  // namespace twinroot::cli
