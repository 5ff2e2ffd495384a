// hvctl events: what is kept, and with --follow what comes after it, without a hole between.
#include <google/protobuf/util/time_util.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "cli/commands/command.h"
#include "cli/render/event_line.h"
#include "cli/short_names.h"

namespace twinroot::cli {
namespace {

constexpr uint32_t kPageSize = 1000;
constexpr char kWhat[] = "cannot read events";
// --since now: nothing of what is kept.
constexpr char kNow[] = "now";

struct Arguments {
  bool follow = false;
  absl::Duration lossless;  // zero: not given
  std::string since;
  std::vector<std::string> vms;
  std::vector<v1::EventKind> kinds;

  v1::EventFilter Filter() const {
    v1::EventFilter filter;
    filter.mutable_vms()->Assign(vms.begin(), vms.end());
    filter.mutable_kinds()->Assign(kinds.begin(), kinds.end());
    return filter;
  }
};

// "vm-state" for EVENT_KIND_VM_STATE.
std::string WordOf(const google::protobuf::EnumValueDescriptor& kind) {
  std::string word = absl::AsciiStrToLower(ShortName(kind));
  std::replace(word.begin(), word.end(), '_', '-');
  return word;
}

v1::EventKind KindOf(const std::string& word) {
  std::string list;
  const google::protobuf::EnumDescriptor& kinds = *v1::EventKind_descriptor();
  for (int i = 0; i < kinds.value_count(); ++i) {
    const google::protobuf::EnumValueDescriptor& kind = *kinds.value(i);
    if (kind.number() == v1::EVENT_KIND_UNSPECIFIED) continue;
    if (WordOf(kind) == word) return static_cast<v1::EventKind>(kind.number());
    absl::StrAppend(&list, list.empty() ? "" : "|", WordOf(kind));
  }
  throw CLI::ValidationError("--kind", absl::StrCat("'", word, "' is none of ", list));
}

class EventPrinter {
 public:
  explicit EventPrinter(Session* session)
      : session_(session), lines_(session->out().colors() ? Colors::kOn : Colors::kOff) {}

  bool printed() const { return printed_; }

  template <typename Batch>
  void Print(const Batch& batch) {
    printed_ |= !batch.events().empty();
    for (const v1::Event& event : batch.events()) {
      if (session_->structured()) {
        session_->StreamObject(event);
      } else {
        session_->out().Write(lines_.Render(event));
      }
    }
    session_->out().Flush();
  }

 private:
  Session* const session_;
  EventLines lines_;
  bool printed_ = false;
};

// Prints what is kept from `cursor` on; the result is where to go on.
std::string PrintKept(Session& session, const Arguments& arguments, EventPrinter& printer) {
  v1::ListEventsRequest request;
  request.set_start_cursor(arguments.since);
  *request.mutable_filter() = arguments.Filter();
  request.set_page_size(kPageSize);
  while (true) {
    const auto page = session.client().Call<v1::ListEventsResponse>(
        kWhat, [&](grpc::ClientContext* context, v1::ListEventsResponse* answer) {
          return session.client().event().ListEvents(context, request, answer);
        });
    printer.Print(page);
    // The second would be a daemon that makes no progress.
    if (page.next_cursor() == page.end_cursor() || page.next_cursor() == request.start_cursor()) {
      return page.next_cursor();
    }
    request.set_start_cursor(page.next_cursor());
    request.set_end_cursor(page.end_cursor());
  }
}

int Follow(Session& session, const Arguments& arguments, const std::string& cursor,
           EventPrinter& printer) {
  v1::WatchEventsRequest request;
  request.set_start_cursor(cursor);
  *request.mutable_filter() = arguments.Filter();
  if (arguments.lossless > absl::ZeroDuration()) {
    *request.mutable_lossless_hold() = google::protobuf::util::TimeUtil::NanosecondsToDuration(
        absl::ToInt64Nanoseconds(arguments.lossless));
  }
  grpc::ClientContext context;
  const auto reader = session.client().event().WatchEvents(&context, request);
  v1::WatchEventsResponse batch;
  std::string last = cursor;
  while (reader->Read(&batch)) {
    printer.Print(batch);
    if (!batch.events().empty()) last = batch.events(batch.events_size() - 1).cursor();
  }
  session.client().Check(kWhat, reader->Finish());
  throw Failure{kUnavailable, "the event stream ended: hvd is shutting down",
                absl::StrCat("go on with --since ", last, " when it serves again")};
}

int Events(Session& session, const Arguments& arguments) {
  EventPrinter printer(&session);
  const std::string cursor =
      arguments.since == kNow ? std::string() : PrintKept(session, arguments, printer);
  // A deleted VM has events and no VM, a new one may have a VM and no events yet.
  if (!arguments.follow && !printer.printed()) {
    for (const std::string& vm : arguments.vms) GetVm(session, vm, kWhat);
  }
  return arguments.follow ? Follow(session, arguments, cursor, printer) : kOk;
}

}  // namespace

void AddEventsCommand(CLI::App* root, Invocation* invocation) {
  const auto arguments = std::make_shared<Arguments>();
  CLI::App* verb =
      AddVerb(root, "events", "What happened, oldest first; gaps are shown", invocation,
              [arguments](Session& session) { return Events(session, *arguments); });
  verb->add_flag("-f,--follow", arguments->follow, "Go on with what happens next");
  AddDuration(verb, "--lossless", &arguments->lossless,
              "With --follow: guests wait at their next conversion, each time at most so long, "
              "rather than that an event is missed")
      ->needs("--follow");
  verb->add_option("--since", arguments->since,
                   "Begin after this event (a cursor of the JSON output), or at `now`; else with "
                   "the oldest event kept")
      ->type_name("CURSOR");
  verb->add_option_function<std::vector<std::string>>(
          "--vm",
          [arguments](const std::vector<std::string>& names) {
            for (const std::string& name : names) {
              if (name.empty()) throw CLI::ValidationError("--vm", "the value is empty");
            }
            arguments->vms = names;
          },
          "Only events of this VM; may be repeated")
      ->expected(1)
      ->take_all()
      ->type_name("NAME");
  verb->add_option_function<std::vector<std::string>>(
          "--kind",
          [arguments](const std::vector<std::string>& words) {
            for (const std::string& word : words) arguments->kinds.push_back(KindOf(word));
          },
          "Only events of this kind (vm-state, conversion, memory-fault ...); may be repeated")
      ->expected(1)
      ->take_all()
      ->type_name("KIND");
}

}  // namespace twinroot::cli
