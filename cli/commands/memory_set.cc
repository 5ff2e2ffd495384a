// hvctl memory set: private or shared, and what is denied.
#include <memory>
#include <optional>

#include "absl/strings/str_cat.h"
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
  std::optional<std::string> deny;
  bool atomic = false;
  bool dry_run = false;
  std::string request_id;
};

v1::SetMemoryAttributesRequest RequestOf(const SetArguments& arguments) {
  v1::SetMemoryAttributesRequest request;
  request.set_vm(arguments.name);
  SetRanges(arguments.ranges, request.mutable_ranges());
  if (arguments.make_private) request.set_kind(v1::MEMORY_KIND_PRIVATE);
  if (arguments.make_shared) request.set_kind(v1::MEMORY_KIND_SHARED);
  request.set_content(arguments.preserve ? v1::SetMemoryAttributesRequest::CONTENT_PRESERVE
                                         : v1::SetMemoryAttributesRequest::CONTENT_DESTROY);
  if (arguments.deny.has_value()) request.set_deny(*arguments.deny);
  request.set_atomic(arguments.atomic);
  request.set_validate_only(arguments.dry_run);
  request.set_request_id(arguments.request_id);
  return request;
}

// "3 of 4KiB PRIVATE, 1 of 2MiB SHARED".
template <typename Field>
std::string PagesInWords(const Field& pages) {
  std::string text;
  for (const v1::PageCount& page : pages) {
    absl::StrAppend(&text, text.empty() ? "" : ", ", page.count(), " of ",
                    FormatSize(page.page_size()), " ", ShortName(page.root()));
  }
  return text.empty() ? "none" : text;
}

std::string PlanInWords(const v1::SetMemoryAttributesResponse::Plan& plan) {
  Sheet sheet;
  sheet.Add("Splits", PagesInWords(plan.split()));
  if (plan.splits_kept() != 0) sheet.Add("Go whole", absl::StrCat(plan.splits_kept()));
  sheet.Add("Tables needed", absl::StrCat(plan.tables_needed()));
  sheet.Add("Zapped", PagesInWords(plan.zapped()));
  sheet.Add("Restricted", PagesInWords(plan.restricted()));
  sheet.Add("Recovered", PagesInWords(plan.recovered()));
  sheet.Add("Flushes", absl::StrCat(plan.flushes()));
  sheet.Add("Bytes discarded", FormatRoughSize(plan.bytes_discarded()));
  sheet.Add("Bytes copied", FormatRoughSize(plan.bytes_copied()));
  return sheet.Render();
}

std::string Span(uint64_t gpa, uint64_t size) {
  return absl::StrCat(FormatAddress(gpa), " +", FormatSize(size));
}

// What changed, or would change.
std::string ChangesInWords(const v1::SetMemoryAttributesRequest& request,
                           const v1::SetMemoryAttributesResponse& response) {
  const bool dry = request.validate_only();
  const std::string kind = ShortName(request.kind());
  std::string text;
  for (const v1::MemoryRange& range : response.converted()) {
    absl::StrAppend(&text, Span(range.gpa(), range.size()), dry ? " would be " : " is now ", kind);
    if (!dry) {
      absl::StrAppend(&text, response.conversion_id() != 0
                                 ? absl::StrCat(" (conversion ", response.conversion_id(), ")")
                                 : " (as a waiting conversion asked)");
    }
    text += "\n";
  }
  for (const v1::MemoryRange& range : response.redenied()) {
    absl::StrAppend(&text, Span(range.gpa(), range.size()), dry ? " would deny " : " now denies ",
                    request.deny().empty() ? "nothing" : request.deny(), "\n");
  }
  return text;
}

int Set(Session& session, const SetArguments& arguments) {
  const v1::SetMemoryAttributesRequest request = RequestOf(arguments);
  const auto response = session.client().Call<v1::SetMemoryAttributesResponse>(
      absl::StrCat("cannot set memory of vm ", arguments.name),
      [&](grpc::ClientContext* context, v1::SetMemoryAttributesResponse* answer) {
        return session.client().memory().SetMemoryAttributes(context, request, answer);
      });
  std::string text = ChangesInWords(request, response);
  bool refused = false;
  for (int i = 0; i < response.per_range_size(); ++i) {
    const auto& result = response.per_range(i);
    if (result.outcome() != v1::SetMemoryAttributesResponse::RangeResult::OUTCOME_REFUSED) continue;
    refused = true;
    absl::StrAppend(&text, Span(request.ranges(i).gpa(), request.ranges(i).size()),
                    " is refused: ", result.detail(), "\n");
  }
  if (text.empty()) {
    text = request.kind() == v1::MEMORY_KIND_UNSPECIFIED || request.has_deny()
               ? "nothing changed, all of it was so\n"
               : absl::StrCat("nothing changed, all of it was ", ShortName(request.kind()), "\n");
  }
  if (response.has_plan()) text += PlanInWords(response.plan());
  session.Answer(response, text);
  return refused ? kFailure : kOk;
}

}  // namespace

// Not CLI11's option groups: to an empty word they are a subcommand, which never ends.
void AddMemorySet(CLI::App* memory, Invocation* invocation) {
  const auto arguments = std::make_shared<SetArguments>();
  CLI::App* verb =
      AddVerb(memory, "set", "Make ranges private or shared, deny accesses to them", invocation,
              [arguments](Session& session) {
                if (!arguments->make_private && !arguments->make_shared && !arguments->deny) {
                  throw Failure{kUsage, "give at least one of [--private,--shared,--deny]",
                                "see `hvctl memory set --help`"};
                }
                return Set(session, *arguments);
              });
  AddVmName(verb, &arguments->name);
  AddRanges(verb, &arguments->ranges)->required();
  CLI::Option* make_private =
      verb->add_flag("--private", arguments->make_private, "Only the guest sees it");
  verb->add_flag("--shared", arguments->make_shared, "The guest and the host share it")
      ->excludes(make_private);
  verb->add_option_function<std::string>(
          "--deny",
          [arguments](const std::string& given) {
            arguments->deny = given == "none" ? "" : given;
            if (given.empty() || arguments->deny->find_first_not_of("rwx") != std::string::npos) {
              throw CLI::ValidationError("--deny",
                                         "'" + given + "' is not some of the letters rwx, or none");
            }
          },
          "Accesses that stop the VM: some of rwx, or none")
      ->type_name("rwx|none");
  verb->add_flag("--preserve", arguments->preserve,
                 "Keep the bytes (to private only); otherwise converted pages read zero");
  verb->add_flag("--atomic", arguments->atomic, "All ranges, or none if the host refuses one");
  verb->add_flag("--dry-run", arguments->dry_run, "Change nothing; show what would be done");
  AddRequestId(verb, &arguments->request_id);
}

}  // namespace twinroot::cli
