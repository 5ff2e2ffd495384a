#include "daemon/rpc/dirty_log_service.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "daemon/log_vm.h"
#include "daemon/reasons.h"
#include "daemon/rpc/checks.h"
#include "daemon/rpc/convert.h"
#include "daemon/rpc/find_vm.h"
#include "daemon/rpc/harvest_stream.h"
#include "daemon/rpc/status.h"
#include "daemon/rpc/unary.h"

namespace twinroot::rpc {
namespace {

constexpr uint32_t kMinRing = 129;
constexpr uint32_t kMaxRing = 65536;
constexpr uint64_t kHarvestAlignment = 64 * mmu::kPageSize;

absl::StatusOr<mmu::DirtyLogMode> ModeOf(v1::EnableDirtyLogRequest::Mode mode) {
  switch (mode) {
    case v1::EnableDirtyLogRequest::MODE_UNSPECIFIED:
    case v1::EnableDirtyLogRequest::MODE_WRITE_PROTECT:
      return mmu::DirtyLogMode::kWriteProtect;
    case v1::EnableDirtyLogRequest::MODE_DIRTY_BIT:
      return mmu::DirtyLogMode::kDirtyBit;
    case v1::EnableDirtyLogRequest::MODE_PML:
      return mmu::DirtyLogMode::kPml;
    default:
      return FieldError("mode",
                        absl::StrCat(mode, " is no mode: use WRITE_PROTECT, DIRTY_BIT or PML"),
                        reason::kInvalidField);
  }
}

absl::StatusOr<mmu::DirtyLogOptions> OptionsOf(const v1::EnableDirtyLogRequest& request) {
  mmu::DirtyLogOptions options;
  auto mode = ModeOf(request.mode());
  if (!mode.ok()) return mode.status();
  options.mode = *mode;
  options.clear = request.manual_clear() ? mmu::DirtyClear::kManual : mmu::DirtyClear::kAtHarvest;
  options.initially_all_set = request.initially_all_set();
  options.eager_split = !request.no_eager_split();
  options.ring_entries = request.ring_entries();
  if (options.initially_all_set && !request.manual_clear()) {
    return FieldError("initially_all_set",
                      "needs manual_clear: pages are protected when they are "
                      "first cleared",
                      reason::kInvalidField);
  }
  if (options.ring_entries == 0) return options;
  if (options.ring_entries < kMinRing || options.ring_entries > kMaxRing) {
    return FieldError("ring_entries",
                      absl::StrCat(options.ring_entries, " is neither 0 nor within ", kMinRing,
                                   " and ", kMaxRing),
                      reason::kInvalidField);
  }
  if (options.mode != mmu::DirtyLogMode::kWriteProtect || request.manual_clear()) {
    return FieldError("ring_entries", "rings need WRITE_PROTECT, and no manual_clear",
                      reason::kInvalidField);
  }
  return options;
}

}  // namespace

grpc::ServerUnaryReactor* DirtyLogService::EnableDirtyLog(grpc::CallbackServerContext* call,
                                                          const v1::EnableDirtyLogRequest* request,
                                                          v1::EnableDirtyLogResponse* response) {
  return OnceOnWorker(*context_, call, *request, response,
                      [this, request, response] { return Enable(*request, response); });
}

absl::Status DirtyLogService::Enable(const v1::EnableDirtyLogRequest& request,
                                     v1::EnableDirtyLogResponse* response) {
  auto vm = FindByBareName(*context_->registry, "vm", request.vm());
  if (!vm.ok()) return vm.status();
  auto options = OptionsOf(request);
  if (!options.ok()) return options.status();
  auto split = (*vm)->EnableDirtyLog(*options);
  if (!split.ok()) return AboutMemory(split.status(), request.vm());
  ToProto(*split, response->mutable_splits());
  LogVm(spdlog::level::info, request.vm(), "dirty log on");
  return absl::OkStatus();
}

grpc::ServerUnaryReactor* DirtyLogService::DisableDirtyLog(
    grpc::CallbackServerContext* call, const v1::DisableDirtyLogRequest* request,
    v1::DisableDirtyLogResponse* response) {
  return OnceOnWorker(*context_, call, *request, response,
                      [this, request, response] { return Disable(*request, response); });
}

absl::Status DirtyLogService::Disable(const v1::DisableDirtyLogRequest& request,
                                      v1::DisableDirtyLogResponse* response) {
  auto vm = FindByBareName(*context_->registry, "vm", request.vm());
  if (!vm.ok()) return vm.status();
  auto recovered = (*vm)->DisableDirtyLog();
  if (!recovered.ok()) return AboutMemory(recovered.status(), request.vm());
  response->set_collapsed(recovered->collapsed);
  LogVm(spdlog::level::info, request.vm(), "dirty log off");
  return absl::OkStatus();
}

grpc::ServerWriteReactor<v1::HarvestDirtyLogResponse>* DirtyLogService::HarvestDirtyLog(
    grpc::CallbackServerContext* call, const v1::HarvestDirtyLogRequest* request) {
  using Failed = FailedStream<v1::HarvestDirtyLogResponse>;
  auto vm = FindByBareName(*context_->registry, "vm", request->vm());
  if (!vm.ok()) return new Failed(vm.status());
  std::optional<mmu::GfnRange> range;
  if (request->has_range()) {
    auto checked = CheckRange("range", request->range());
    if (!checked.ok()) return new Failed(checked.status());
    if (request->range().gpa() % kHarvestAlignment != 0) {
      return new Failed(FieldError("range.gpa", "a harvest begins at a multiple of 256 KiB",
                                   reason::kInvalidRange));
    }
    range = *checked;
  }
  auto* stream = new HarvestStream(context_, call, *std::move(vm), range);
  stream->Wake();
  return stream;
}

grpc::ServerUnaryReactor* DirtyLogService::ClearDirtyLog(grpc::CallbackServerContext* call,
                                                         const v1::ClearDirtyLogRequest* request,
                                                         v1::ClearDirtyLogResponse*) {
  return OnWorker(context_->calls, call, [this, request] { return Clear(*request); });
}

absl::Status DirtyLogService::Clear(const v1::ClearDirtyLogRequest& request) {
  auto vm = FindByBareName(*context_->registry, "vm", request.vm());
  if (!vm.ok()) return vm.status();
  auto ranges = CheckRanges(request.ranges());
  if (!ranges.ok()) return ranges.status();
  return AboutMemory((*vm)->ClearDirty(*ranges), request.vm());
}

grpc::ServerUnaryReactor* DirtyLogService::SplitPages(grpc::CallbackServerContext* call,
                                                      const v1::SplitPagesRequest* request,
                                                      v1::SplitPagesResponse* response) {
  return OnWorker(context_->calls, call,
                  [this, request, response] { return Split(*request, response); });
}

absl::Status DirtyLogService::Split(const v1::SplitPagesRequest& request,
                                    v1::SplitPagesResponse* response) {
  auto vm = FindByBareName(*context_->registry, "vm", request.vm());
  if (!vm.ok()) return vm.status();
  auto ranges = CheckRanges(request.ranges());
  if (!ranges.ok()) return ranges.status();
  auto target = mmu::Level::k4K;
  if (request.page_size() == mmu::BytesPerEntry(mmu::Level::k2M)) {
    target = mmu::Level::k2M;
  } else if (request.page_size() != 0 && request.page_size() != mmu::kPageSize) {
    return FieldError("page_size",
                      absl::StrCat(request.page_size(), " is neither 4096 nor 2097152"),
                      reason::kInvalidField);
  }
  auto split = (*vm)->SplitPages(*ranges, target);
  if (!split.ok()) return AboutMemory(split.status(), request.vm());
  ToProto(*split, response->mutable_splits());
  return absl::OkStatus();
}

}  // namespace twinroot::rpc
