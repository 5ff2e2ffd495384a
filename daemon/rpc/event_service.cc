#include "daemon/rpc/event_service.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "daemon/access/gatekeeper.h"
#include "daemon/host/event_words.h"
#include "daemon/reasons.h"
#include "daemon/rpc/checks.h"
#include "daemon/rpc/convert.h"
#include "daemon/rpc/event_stream.h"
#include "daemon/rpc/find_vm.h"
#include "daemon/rpc/status.h"
#include "daemon/rpc/unary.h"

namespace twinroot::rpc {
namespace {

constexpr uint32_t kMaxPage = 1000;
constexpr int kMaxIds = 1024;
constexpr int kSmallBatch = 16;  // of decisions
constexpr int kMaxVms = 1024;
constexpr absl::Duration kMinHold = absl::Milliseconds(1);
constexpr absl::Duration kMaxHold = absl::Minutes(1);
// A list waits for the disk so long, and then ends where the disk has come to.
constexpr absl::Duration kSettle = absl::Seconds(2);

v1::ResolveConversionResponse::Outcome WordOf(host::ResolveResult::Outcome outcome) {
  switch (outcome) {
    case host::ResolveResult::Outcome::kDecided:
      return v1::ResolveConversionResponse::OUTCOME_DECIDED;
    case host::ResolveResult::Outcome::kAlreadyDecided:
      return v1::ResolveConversionResponse::OUTCOME_ALREADY_DECIDED;
    case host::ResolveResult::Outcome::kExpired:
      return v1::ResolveConversionResponse::OUTCOME_EXPIRED;
    case host::ResolveResult::Outcome::kUnknown:
      return v1::ResolveConversionResponse::OUTCOME_UNKNOWN;
  }
  return v1::ResolveConversionResponse::OUTCOME_UNSPECIFIED;
}

// A filter may name a VM that is not there (yet), but not one that cannot be.
absl::StatusOr<events::Filter> CheckFilter(const v1::EventFilter& filter) {
  if (!filter.vm().empty()) {
    if (absl::Status status = CheckBareName("filter.vm", filter.vm()); !status.ok()) return status;
  }
  if (filter.vms_size() > kMaxVms) {
    return FieldError("filter.vms",
                      absl::StrCat(filter.vms_size(), " names; a filter takes at most ", kMaxVms),
                      reason::kInvalidField);
  }
  for (int i = 0; i < filter.vms_size(); ++i) {
    absl::Status status = CheckBareName(absl::StrCat("filter.vms[", i, "]"), filter.vms(i));
    if (!status.ok()) return status;
  }
  for (int i = 0; i < filter.kinds_size(); ++i) {
    if (v1::EventKind_IsValid(filter.kinds(i)) && filter.kinds(i) != v1::EVENT_KIND_UNSPECIFIED) {
      continue;
    }
    return FieldError(absl::StrCat("filter.kinds[", i, "]"),
                      absl::StrCat(filter.kinds(i), " is no kind of event: see EventKind"),
                      reason::kInvalidField);
  }
  return events::Filter(filter);
}

// nullopt: the watch holds nobody.
absl::StatusOr<std::optional<absl::Duration>> CheckHold(const grpc::CallbackServerContext& call,
                                                        const v1::WatchEventsRequest& request) {
  if (!request.has_lossless_hold()) return std::nullopt;
  auto hold = CheckDuration("lossless_hold", request.lossless_hold(), kMinHold, kMaxHold);
  if (!hold.ok()) return hold.status();
  if (absl::Status status = access::Require(call, access::Role::kOperator); !status.ok()) {
    return status;
  }
  return *hold;
}

}  // namespace

grpc::ServerWriteReactor<v1::WatchEventsResponse>* EventService::WatchEvents(
    grpc::CallbackServerContext* call, const v1::WatchEventsRequest* request) {
  using Failed = FailedStream<v1::WatchEventsResponse>;
  auto filter = CheckFilter(request->filter());
  if (!filter.ok()) return new Failed(filter.status());
  if (!v1::WatchEventsRequest::InitialState_IsValid(request->initial_state())) {
    return new Failed(FieldError(
        "initial_state", absl::StrCat(request->initial_state(), " is no choice: use OMIT or SEND"),
        reason::kInvalidField));
  }
  const bool initial_state = request->initial_state() == v1::WatchEventsRequest::INITIAL_STATE_SEND;
  if (initial_state && !request->start_cursor().empty()) {
    return new Failed(FieldError("initial_state",
                                 "SEND does not go together with start_cursor: give one of them",
                                 reason::kInvalidField));
  }
  auto hold = CheckHold(*call, *request);
  if (!hold.ok()) return new Failed(hold.status());
  auto position =
      context_->journal->PositionOf(request->start_cursor(), events::Journal::IfEmpty::kNow);
  if (!position.ok()) return new Failed(position.status());

  events::LosslessWatches::Handle lossless;
  if (hold->has_value()) {
    lossless = context_->journal->lossless().Add(*filter, *position, **hold);
    if (absl::Status status = context_->journal->CheckKept(*position); !status.ok()) {
      return new Failed(std::move(status));
    }
  }
  auto* stream = new EventStream(context_, *position, *std::move(filter), std::move(lossless));
  // The VMs are looked at after the position was taken: what changes meanwhile is told again,
  // and nothing is missed.
  if (initial_state) stream->BeginWithState();
  stream->Begin();
  return stream;
}

grpc::ServerUnaryReactor* EventService::ListEvents(grpc::CallbackServerContext* call,
                                                   const v1::ListEventsRequest* request,
                                                   v1::ListEventsResponse* response) {
  return OnWorker(context_->calls, call,
                  [this, request, response] { return List(*request, response); });
}

absl::Status EventService::List(const v1::ListEventsRequest& request,
                                v1::ListEventsResponse* response) {
  auto filter = CheckFilter(request.filter());
  if (!filter.ok()) return filter.status();
  auto page_size = CheckPageSize(request.page_size(), kMaxPage, kMaxPage);
  if (!page_size.ok()) return page_size.status();
  using events::Journal;
  const Journal& journal = *context_->journal;
  auto end =
      journal.PositionOf(request.end_cursor(), Journal::IfEmpty::kNow, Journal::IfTooOld::kCount);
  if (!end.ok()) return end.status();
  auto position = journal.PositionOf(
      request.start_cursor(), Journal::IfEmpty::kBeginning,
      request.end_cursor().empty() ? Journal::IfTooOld::kRefuse : Journal::IfTooOld::kCount);
  if (!position.ok()) return position.status();

  // What happened before the call is in the list, or the disk is in trouble.
  *end = journal.WaitCommitted(*end, kSettle);
  const Journal::Page page =
      ReadPage(*context_, *position, *page_size, *filter, TellIn(response), *end);
  response->set_next_cursor(journal.CursorAt(std::min(page.next, *end)));
  response->set_end_cursor(journal.CursorAt(*end));
  return absl::OkStatus();
}

grpc::ServerUnaryReactor* EventService::ListConversions(grpc::CallbackServerContext* call,
                                                        const v1::ListConversionsRequest* request,
                                                        v1::ListConversionsResponse* response) {
  return Inline(call, [&] {
    auto vm = FindByBareName(*context_->registry, "vm", request->vm());
    if (!vm.ok()) return vm.status();
    for (const host::PendingConversion& pending : (*vm)->Pending()) {
      host::Describe(pending, *response->add_conversions());
    }
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* EventService::ResolveConversion(
    grpc::CallbackServerContext* call, const v1::ResolveConversionRequest* request,
    v1::ResolveConversionResponse* response) {
  return OnWorker(
      context_->calls, call, [this, request, response] { return Resolve(*request, response); },
      // A denied access ends its VM.
      request->decision() == v1::ResolveConversionRequest::DECISION_APPLY &&
              request->ids_size() <= kSmallBatch
          ? Weight::kSmall
          : Weight::kLarge);
}

absl::Status EventService::Resolve(const v1::ResolveConversionRequest& request,
                                   v1::ResolveConversionResponse* response) {
  auto vm = FindByBareName(*context_->registry, "vm", request.vm());
  if (!vm.ok()) return vm.status();
  host::Resolution resolution;
  switch (request.decision()) {
    case v1::ResolveConversionRequest::DECISION_APPLY:
      resolution = host::Resolution::kApply;
      break;
    case v1::ResolveConversionRequest::DECISION_DENY:
      resolution = host::Resolution::kDeny;
      break;
    case v1::ResolveConversionRequest::DECISION_UNSPECIFIED:
      return FieldError("decision", "say APPLY or DENY", reason::kMissingField);
    default:
      return FieldError("decision",
                        absl::StrCat(request.decision(), " is no decision: use APPLY or DENY"),
                        reason::kInvalidField);
  }
  if (request.ids().empty()) {
    return FieldError("ids", "give the ids of the conversions to decide", reason::kMissingField);
  }
  if (request.ids_size() > kMaxIds) {
    return FieldError("ids",
                      absl::StrCat(request.ids_size(), " ids; a call takes at most ", kMaxIds,
                                   ": split it into several calls"),
                      reason::kInvalidField);
  }
  for (const uint64_t id : request.ids()) {
    v1::ResolveConversionResponse::Result* result = response->add_results();
    result->set_id(id);
    const host::ResolveResult resolved = (*vm)->Resolve(id, resolution);
    result->set_outcome(WordOf(resolved.outcome));
    if (resolved.verdict.has_value()) {
      result->set_decision(host::WordOf(resolved.verdict->decision));
      result->set_decider(host::WordOf(resolved.verdict->decider));
    }
  }
  return absl::OkStatus();
}

}  // namespace twinroot::rpc
