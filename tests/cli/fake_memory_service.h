// MemoryService of the fake daemon: one shared window of real bytes, canned runs and walks.
#ifndef TWINROOT_TESTS_CLI_FAKE_MEMORY_SERVICE_H_
#define TWINROOT_TESTS_CLI_FAKE_MEMORY_SERVICE_H_

#include <mutex>
#include <string>

#include "tests/cli/fake_state.h"
#include "twinroot/v1/memory.grpc.pb.h"

namespace twinroot::cli {

inline constexpr uint64_t kPage = 4096;

class FakeMemoryService : public v1::MemoryService::Service {
 public:
  explicit FakeMemoryService(State* state) : state_(*state) {}

  Status SetMemoryAttributes(ServerContext*, const v1::SetMemoryAttributesRequest* request,
                             v1::SetMemoryAttributesResponse* response) override {
    const std::lock_guard lock(state_.mutex);
    if (const Status status = Check(request->vm()); !status.ok()) return status;
    state_.last_set = *request;
    for (const v1::MemoryRange& range : request->ranges()) {
      if (range.gpa() % kPage != 0 || range.size() % kPage != 0 || range.size() == 0) {
        return Refuse(StatusCode::INVALID_ARGUMENT,
                      "range " + std::to_string(range.gpa()) + " is not aligned to 4096",
                      "INVALID_RANGE");
      }
    }
    if (request->kind() == v1::MEMORY_KIND_SHARED &&
        request->content() == v1::SetMemoryAttributesRequest::CONTENT_PRESERVE) {
      return Refuse(StatusCode::PERMISSION_DENIED, "bytes of private memory are the guest's",
                    "PRESERVE_WOULD_DISCLOSE");
    }
    // Below 1 MiB everything is as it is asked to be; from 1 GiB on the host has no memory.
    using Result = v1::SetMemoryAttributesResponse::RangeResult;
    for (const v1::MemoryRange& range : request->ranges()) {
      Result* result = response->add_per_range();
      result->set_outcome(Result::OUTCOME_DONE);
      if (range.gpa() < (1 << 20)) continue;
      if (range.gpa() >= (1 << 30)) {
        result->set_outcome(Result::OUTCOME_REFUSED);
        result->set_detail("the host has no memory");
        continue;
      }
      if (request->kind() != v1::MEMORY_KIND_UNSPECIFIED) *response->add_converted() = range;
      if (request->has_deny()) *response->add_redenied() = range;
    }
    if (request->validate_only()) {
      v1::PageCount* zapped = response->mutable_plan()->add_zapped();
      zapped->set_root(v1::MEMORY_KIND_PRIVATE);
      zapped->set_page_size(kPage);
      zapped->set_count(16);
      response->mutable_plan()->set_flushes(1);
      response->mutable_plan()->set_bytes_discarded(64 << 10);
      return Status::OK;
    }
    response->set_conversion_id(response->converted().empty() ? 0 : 9);
    return Status::OK;
  }

  Status GetMemoryAttributes(ServerContext*, const v1::GetMemoryAttributesRequest* request,
                             grpc::ServerWriter<v1::GetMemoryAttributesResponse>* writer) override {
    const std::lock_guard lock(state_.mutex);
    if (const Status status = Check(request->vm()); !status.ok()) return status;
    // The shared run is cut by the end of a chunk.
    v1::GetMemoryAttributesResponse chunk;
    Add(0, kSharedBegin, v1::MEMORY_KIND_PRIVATE, &chunk);
    Add(kSharedBegin, kPage, v1::MEMORY_KIND_SHARED, &chunk);
    writer->Write(chunk);
    chunk.Clear();
    Add(kSharedBegin + kPage, kSharedSize - kPage, v1::MEMORY_KIND_SHARED, &chunk);
    Add(kSharedBegin + kSharedSize, 8 << 20, v1::MEMORY_KIND_PRIVATE, &chunk);
    chunk.mutable_runs(1)->set_denied("x");
    writer->Write(chunk);
    return Status::OK;
  }

  Status Translate(ServerContext*, const v1::TranslateRequest* request,
                   v1::TranslateResponse* response) override {
    const std::lock_guard lock(state_.mutex);
    if (const Status status = Check(request->vm()); !status.ok()) return status;
    const bool mapped = request->alias() != v1::MEMORY_KIND_SHARED;
    response->set_outcome(mapped ? v1::TranslateResponse::OUTCOME_MAPPED
                                 : v1::TranslateResponse::OUTCOME_NOT_MAPPED);
    response->set_kind(v1::MEMORY_KIND_PRIVATE);
    response->set_ept_pointer(0x10001e);
    v1::TranslateResponse::Step* step = response->add_steps();
    step->set_level(4);
    step->set_entry_hpa(0x100000);
    step->set_entry(mapped ? 0x101007 : 0);
    step->set_meaning(mapped ? "rwx table" : "not present");
    if (mapped) {
      response->set_hpa(0x40000000 + request->gpa());
      response->set_page_size(kPage);
      response->set_access("rw-");
    }
    v1::Explanation* why = response->mutable_why();
    why->set_mapping(mapped ? v1::Explanation::MAPPING_ALLOWED
                            : v1::Explanation::MAPPING_OTHER_KIND);
    if (mapped) {
      why->set_allowed_page_size(kPage);
      why->set_veto(v1::Explanation::VETO_ATTRIBUTES);
      why->set_veto_text("attributes differ inside");
      why->set_denied("x");
      why->set_dirty_log(true);
    }
    return Status::OK;
  }

  Status RecoverPages(ServerContext*, const v1::RecoverPagesRequest* request,
                      v1::RecoverPagesResponse* response) override {
    const std::lock_guard lock(state_.mutex);
    if (const Status status = Check(request->vm()); !status.ok()) return status;
    response->set_collapsed(request->ranges(0).size() >> 21);
    return Status::OK;
  }

  // 40 MiB, or the range; private memory cannot be mapped as shared.
  Status Prefault(ServerContext*, const v1::PrefaultRequest* request,
                  grpc::ServerWriter<v1::PrefaultResponse>* writer) override {
    const std::lock_guard lock(state_.mutex);
    if (const Status status = Check(request->vm()); !status.ok()) return status;
    const uint64_t total = request->has_range() ? request->range().size() : 40 << 20;
    const bool stops = request->kind() == v1::MEMORY_KIND_SHARED;
    v1::PrefaultResponse answer;
    answer.set_bytes_total(total);
    answer.set_bytes_done(total / 2);
    answer.set_outcome(stops ? v1::PrefaultResponse::OUTCOME_STOPPED
                             : v1::PrefaultResponse::OUTCOME_GOES_ON);
    writer->Write(answer);
    if (stops) {
      return Refuse(StatusCode::FAILED_PRECONDITION, "a page is private", "WRONG_STATE");
    }
    answer.set_bytes_done(total);
    answer.set_outcome(v1::PrefaultResponse::OUTCOME_COMPLETE);
    writer->Write(answer);
    return Status::OK;
  }

  Status AddMemslot(ServerContext*, const v1::AddMemslotRequest* request,
                    v1::AddMemslotResponse*) override {
    const std::lock_guard lock(state_.mutex);
    if (const Status status = Check(request->vm()); !status.ok()) return status;
    if (request->range().gpa() != 0) return Status::OK;
    return Refuse(StatusCode::ALREADY_EXISTS, "memory is there", "MEMSLOT_EXISTS");
  }
  Status RemoveMemslot(ServerContext*, const v1::RemoveMemslotRequest* request,
                       v1::RemoveMemslotResponse*) override {
    const std::lock_guard lock(state_.mutex);
    if (const Status status = Check(request->vm()); !status.ok()) return status;
    if (request->gpa() != 0) return Status::OK;
    return Refuse(StatusCode::NOT_FOUND, "none begins at 0x0", "NO_SUCH_MEMSLOT");
  }
  Status MoveMemslot(ServerContext*, const v1::MoveMemslotRequest* request,
                     v1::MoveMemslotResponse*) override {
    const std::lock_guard lock(state_.mutex);
    if (const Status status = Check(request->vm()); !status.ok()) return status;
    if (request->new_gpa() != 0) return Status::OK;
    return Refuse(StatusCode::FAILED_PRECONDITION, "kvm runs it", "NOT_ON_THIS_BACKEND");
  }

  Status GetMemoryStats(ServerContext*, const v1::GetMemoryStatsRequest* request,
                        v1::GetMemoryStatsResponse* response) override {
    const std::lock_guard lock(state_.mutex);
    if (const Status status = Check(request->vm()); !status.ok()) return status;
    v1::MemoryStats* stats = response->mutable_stats();
    stats->mutable_faults()->set_fixed(6);
    stats->mutable_faults()->set_fast(2);
    stats->mutable_faults()->set_memory(1);
    stats->mutable_splits()->set_dirty_log(3);
    for (const uint64_t page_size : {4 << 10, 2 << 20, 1 << 30}) {
      v1::PageCount* leaves = stats->add_leaves();
      leaves->set_root(v1::MEMORY_KIND_PRIVATE);
      leaves->set_page_size(page_size);
      leaves->set_count(page_size == 4 << 10 ? 5 : page_size == 2 << 20 ? 1 : 0);
    }
    stats->set_table_pages(7);
    stats->set_table_pages_budget(100);
    stats->set_flushes_range(4);
    stats->set_invalidations(9);
    stats->set_private_bytes(64 << 20);
    stats->set_private_bytes_allocated(2 << 20);
    stats->mutable_dirty_log()->set_state(v1::MemoryStats::DirtyLog::STATE_ON);
    stats->mutable_dirty_log()->set_pages_harvested(8);
    stats->mutable_dirty_log()->set_vcpus_waiting(1);
    return Status::OK;
  }

  Status ReadGuestMemory(ServerContext*, const v1::ReadGuestMemoryRequest* request,
                         v1::ReadGuestMemoryResponse* response) override {
    const std::lock_guard lock(state_.mutex);
    if (const Status status = CheckShared(request->vm(), request->gpa(), request->size());
        !status.ok()) {
      return status;
    }
    response->set_data(state_.shared.substr(request->gpa() - kSharedBegin, request->size()));
    return Status::OK;
  }

  Status WriteGuestMemory(ServerContext*, const v1::WriteGuestMemoryRequest* request,
                          v1::WriteGuestMemoryResponse*) override {
    const std::lock_guard lock(state_.mutex);
    if (const Status status = CheckShared(request->vm(), request->gpa(), request->data().size());
        !status.ok()) {
      return status;
    }
    state_.shared.replace(request->gpa() - kSharedBegin, request->data().size(), request->data());
    return Status::OK;
  }

  Status DumpTables(ServerContext*, const v1::DumpTablesRequest* request,
                    grpc::ServerWriter<v1::DumpTablesResponse>* writer) override {
    const std::lock_guard lock(state_.mutex);
    if (const Status status = Check(request->vm()); !status.ok()) return status;
    for (const v1::MemoryKind root : {v1::MEMORY_KIND_PRIVATE, v1::MEMORY_KIND_SHARED}) {
      if (request->root() != v1::MEMORY_KIND_UNSPECIFIED && request->root() != root) continue;
      v1::DumpTablesResponse answer;
      answer.set_root(root);
      answer.set_ept_pointer(0x101e);
      auto* table = answer.add_tables();
      table->set_hpa(0x1000);
      table->set_level(4);
      table->set_entries(std::string("\x07") + std::string(4095, '\0'));
      writer->Write(answer);
    }
    return Status::OK;
  }

  Status AgePages(ServerContext*, const v1::AgePagesRequest* request,
                  grpc::ServerWriter<v1::AgePagesResponse>* writer) override {
    const std::lock_guard lock(state_.mutex);
    if (const Status status = Check(request->vm()); !status.ok()) return status;
    v1::AgePagesResponse answer;
    *answer.add_runs() = request->range();
    writer->Write(answer);
    return Status::OK;
  }

  Status RecoverNxPages(ServerContext*, const v1::RecoverNxPagesRequest* request,
                        v1::RecoverNxPagesResponse* response) override {
    const std::lock_guard lock(state_.mutex);
    if (const Status status = Check(request->vm()); !status.ok()) return status;
    response->set_collapsed(request->max_pages());
    return Status::OK;
  }

 private:
  static void Add(uint64_t gpa, uint64_t size, v1::MemoryKind kind,
                  v1::GetMemoryAttributesResponse* chunk) {
    v1::MemoryRun* run = chunk->add_runs();
    run->set_gpa(gpa);
    run->set_size(size);
    run->set_kind(kind);
  }

  Status Check(const std::string& vm) {
    if (const Status status = state_.Enter(); !status.ok()) return status;
    return state_.vms.count(vm) == 0 ? NoSuchVm(vm) : Status::OK;
  }

  Status CheckShared(const std::string& vm, uint64_t gpa, uint64_t size) {
    if (const Status status = Check(vm); !status.ok()) return status;
    if (size == 0 || size > (1 << 20)) {
      return Refuse(StatusCode::INVALID_ARGUMENT, "size is not 1 to 1 MiB", "INVALID_RANGE");
    }
    if (gpa < kSharedBegin || gpa + size > kSharedBegin + kSharedSize) {
      return Refuse(StatusCode::PERMISSION_DENIED, "the range touches private memory",
                    "PRIVATE_MEMORY");
    }
    return Status::OK;
  }

  State& state_;
};

}  // namespace twinroot::cli

#endif  // TWINROOT_TESTS_CLI_FAKE_MEMORY_SERVICE_H_
