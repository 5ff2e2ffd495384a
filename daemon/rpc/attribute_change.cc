// MemoryService::SetMemoryAttributes.
#include <utility>

#include "absl/strings/str_cat.h"
#include "daemon/reasons.h"
#include "daemon/rpc/checks.h"
#include "daemon/rpc/convert.h"
#include "daemon/rpc/find_vm.h"
#include "daemon/rpc/memory_service.h"
#include "daemon/rpc/status.h"
#include "daemon/rpc/unary.h"

namespace twinroot::rpc {
namespace {

// No more than this is a small call.
constexpr int kSmallRanges = 16;
constexpr uint64_t kSmallBytes = 2 << 20;

absl::StatusOr<mmu::Content> ContentOf(v1::SetMemoryAttributesRequest::Content content) {
  switch (content) {
    case v1::SetMemoryAttributesRequest::CONTENT_UNSPECIFIED:
    case v1::SetMemoryAttributesRequest::CONTENT_DESTROY:
      return mmu::Content::kDestroy;
    case v1::SetMemoryAttributesRequest::CONTENT_PRESERVE:
      return mmu::Content::kPreserve;
    default:
      return FieldError("content", absl::StrCat(content, " is no choice: use DESTROY or PRESERVE"),
                        reason::kInvalidField);
  }
}

absl::StatusOr<mmu::Access> DenialsOf(const std::string& letters) {
  mmu::Access denied;
  for (const char letter : letters) {
    const mmu::Access right = letter == 'r'   ? mmu::Access::Read()
                              : letter == 'w' ? mmu::Access::Write()
                              : letter == 'x' ? mmu::Access::Fetch()
                                              : mmu::Access::None();
    if (right.empty() || denied.Includes(right)) {
      return FieldError("deny", "give some of the letters r, w and x, each once, or none",
                        reason::kInvalidField);
    }
    denied = denied | right;
  }
  return denied;
}

absl::StatusOr<mmu::AttributeChange> ChangeOf(const v1::SetMemoryAttributesRequest& request) {
  mmu::AttributeChange change;
  if (request.has_deny()) {
    auto denied = DenialsOf(request.deny());
    if (!denied.ok()) return denied.status();
    change.deny = *denied;
  }
  // Without a denial, a kind is what the call is about.
  if (request.kind() != v1::MEMORY_KIND_UNSPECIFIED || !request.has_deny()) {
    auto kind = KindOf("kind", request.kind());
    if (!kind.ok()) return kind.status();
    change.kind = *kind;
  }
  auto content = ContentOf(request.content());
  if (!content.ok()) return content.status();
  change.content = *content;
  auto ranges = CheckRanges(request.ranges());
  if (!ranges.ok()) return ranges.status();
  change.ranges = *std::move(ranges);
  change.atomicity = request.atomic() ? mmu::Atomicity::kAllOrNothing : mmu::Atomicity::kEach;
  return change;
}

absl::Status About(absl::Status status, const v1::SetMemoryAttributesRequest& request) {
  status = DefaultReason(std::move(status), absl::StatusCode::kPermissionDenied,
                         reason::kPreserveWouldDisclose);
  if (request.has_deny()) {
    status = DefaultReason(std::move(status), absl::StatusCode::kFailedPrecondition,
                           reason::kDenialUnsupported, "vm", request.vm());
  }
  return AboutMemory(std::move(status), request.vm());
}

Weight WeightOf(const v1::SetMemoryAttributesRequest& request) {
  if (request.ranges_size() > kSmallRanges ||
      request.content() == v1::SetMemoryAttributesRequest::CONTENT_PRESERVE) {
    return Weight::kLarge;
  }
  uint64_t bytes = 0;
  for (const v1::MemoryRange& range : request.ranges()) {
    if (range.size() > kSmallBytes) return Weight::kLarge;
    bytes += range.size();
  }
  return bytes <= kSmallBytes ? Weight::kSmall : Weight::kLarge;
}

// What was refused when nothing was done; else OK.
absl::Status RefusalOf(const mmu::AttributeChangeResult& result) {
  absl::Status first;
  for (const mmu::RangeChange& range : result.per_range) {
    if (range.status.ok()) return absl::OkStatus();
    first.Update(range.status);
  }
  return first;
}

}  // namespace

grpc::ServerUnaryReactor* MemoryService::SetMemoryAttributes(
    grpc::CallbackServerContext* call, const v1::SetMemoryAttributesRequest* request,
    v1::SetMemoryAttributesResponse* response) {
  auto set = [this, request, response] { return Set(*request, response); };
  if (request->validate_only()) return OnWorker(context_->calls, call, set);
  return OnceOnWorker(*context_, call, *request, response, set, WeightOf(*request));
}

absl::Status MemoryService::Set(const v1::SetMemoryAttributesRequest& request,
                                v1::SetMemoryAttributesResponse* response) {
  auto vm = FindByBareName(*context_->registry, "vm", request.vm());
  if (!vm.ok()) return vm.status();
  auto change = ChangeOf(request);
  if (!change.ok()) return change.status();
  if (request.validate_only()) {
    auto plan = (*vm)->PlanChange(*std::move(change));
    if (!plan.ok()) return About(plan.status(), request);
    if (absl::Status refused = RefusalOf(plan->result); !refused.ok()) {
      return About(std::move(refused), request);
    }
    ToProto(plan->result, response);
    ToProto(*plan, response->mutable_plan());
    return absl::OkStatus();
  }
  auto result = (*vm)->Change(*std::move(change));
  if (!result.ok()) return About(result.status(), request);
  if (absl::Status refused = RefusalOf(*result); !refused.ok()) {
    return About(std::move(refused), request);
  }
  ToProto(*result, response);
  response->set_conversion_id(result->id);
  return absl::OkStatus();
}

}  // namespace twinroot::rpc
