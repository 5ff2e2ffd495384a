// DirtyLogService of the fake daemon: a switch, and canned runs that come in two messages.
#ifndef TWINROOT_TESTS_CLI_FAKE_DIRTY_LOG_SERVICE_H_
#define TWINROOT_TESTS_CLI_FAKE_DIRTY_LOG_SERVICE_H_

#include <mutex>
#include <string>

#include "tests/cli/fake_state.h"
#include "twinroot/v1/dirty_log.grpc.pb.h"

namespace twinroot::cli {

class FakeDirtyLogService : public v1::DirtyLogService::Service {
 public:
  explicit FakeDirtyLogService(State* state) : state_(*state) {}

  Status EnableDirtyLog(ServerContext*, const v1::EnableDirtyLogRequest* request,
                        v1::EnableDirtyLogResponse* response) override {
    const std::lock_guard lock(state_.mutex);
    if (const Status status = Check(request->vm()); !status.ok()) return status;
    if (state_.dirty_log_on) {
      return Refuse(StatusCode::FAILED_PRECONDITION, "the dirty log is on already", "DIRTY_LOG_ON",
                    {{"vm", request->vm()}});
    }
    state_.dirty_log_on = true;
    state_.last_enable = *request;
    response->mutable_splits()->set_split_2m(3);
    response->mutable_splits()->set_kept(request->no_eager_split() ? 0 : 1);
    return Status::OK;
  }

  Status DisableDirtyLog(ServerContext*, const v1::DisableDirtyLogRequest* request,
                         v1::DisableDirtyLogResponse* response) override {
    const std::lock_guard lock(state_.mutex);
    if (const Status status = CheckOn(request->vm()); !status.ok()) return status;
    state_.dirty_log_on = false;
    response->set_collapsed(3);
    return Status::OK;
  }

  Status HarvestDirtyLog(ServerContext*, const v1::HarvestDirtyLogRequest* request,
                         grpc::ServerWriter<v1::HarvestDirtyLogResponse>* writer) override {
    const std::lock_guard lock(state_.mutex);
    if (const Status status = CheckOn(request->vm()); !status.ok()) return status;
    if (request->has_range()) {
      // All of it was written.
      v1::HarvestDirtyLogResponse all;
      *all.add_runs() = request->range();
      writer->Write(all);
      return Status::OK;
    }
    for (const uint64_t gpa : {0x200000, 0x600000}) {
      v1::HarvestDirtyLogResponse chunk;
      chunk.add_runs()->set_gpa(gpa);
      chunk.mutable_runs(0)->set_size(gpa >> 9);
      writer->Write(chunk);
    }
    return Status::OK;
  }

  Status ClearDirtyLog(ServerContext*, const v1::ClearDirtyLogRequest* request,
                       v1::ClearDirtyLogResponse*) override {
    const std::lock_guard lock(state_.mutex);
    if (const Status status = CheckOn(request->vm()); !status.ok()) return status;
    if (state_.last_enable.manual_clear()) return Status::OK;
    return Refuse(StatusCode::FAILED_PRECONDITION, "harvests clear this log",
                  "DIRTY_LOG_NOT_MANUAL", {{"vm", request->vm()}});
  }

  Status SplitPages(ServerContext*, const v1::SplitPagesRequest* request,
                    v1::SplitPagesResponse* response) override {
    const std::lock_guard lock(state_.mutex);
    if (const Status status = Check(request->vm()); !status.ok()) return status;
    const bool to_2m = request->page_size() == 2 << 20;
    response->mutable_splits()->set_split_1g(to_2m ? request->ranges_size() : 0);
    response->mutable_splits()->set_split_2m(to_2m ? 0 : request->ranges_size());
    return Status::OK;
  }

 private:
  Status Check(const std::string& vm) {
    if (const Status status = state_.Enter(); !status.ok()) return status;
    return state_.vms.count(vm) == 0 ? NoSuchVm(vm) : Status::OK;
  }
  Status CheckOn(const std::string& vm) {
    if (const Status status = Check(vm); !status.ok()) return status;
    if (state_.dirty_log_on) return Status::OK;
    return Refuse(StatusCode::FAILED_PRECONDITION, "the dirty log is off", "DIRTY_LOG_OFF",
                  {{"vm", vm}});
  }

  State& state_;
};

}  // namespace twinroot::cli

#endif  // TWINROOT_TESTS_CLI_FAKE_DIRTY_LOG_SERVICE_H_
