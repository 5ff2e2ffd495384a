// EventService and HostService of the fake daemon: a list of events, parked conversions, a host.
#ifndef TWINROOT_TESTS_CLI_FAKE_EVENT_SERVICE_H_
#define TWINROOT_TESTS_CLI_FAKE_EVENT_SERVICE_H_

#include <algorithm>
#include <cstdlib>
#include <mutex>
#include <string>

#include "tests/cli/fake_state.h"
#include "twinroot/v1/event.grpc.pb.h"
#include "twinroot/v1/host.grpc.pb.h"

namespace twinroot::cli {

class FakeEventService : public v1::EventService::Service {
 public:
  explicit FakeEventService(State* state) : state_(*state) {}

  Status ListEvents(ServerContext*, const v1::ListEventsRequest* request,
                    v1::ListEventsResponse* response) override {
    const std::lock_guard lock(state_.mutex);
    if (const Status status = state_.Enter(); !status.ok()) return status;
    size_t next = 0;
    if (const Status status = Find(request->start_cursor(), &next); !status.ok()) return status;
    for (; next < state_.events.size() &&
           response->events_size() < static_cast<int>(request->page_size());
         ++next) {
      const v1::Event& event = state_.events[next];
      if (Matches(request->filter(), event)) *response->add_events() = event;
    }
    response->set_next_cursor("e-" + std::to_string(next));
    response->set_end_cursor(request->end_cursor().empty()
                                 ? "e-" + std::to_string(state_.events.size())
                                 : request->end_cursor());
    return Status::OK;
  }

  Status WatchEvents(ServerContext* context, const v1::WatchEventsRequest* request,
                     grpc::ServerWriter<v1::WatchEventsResponse>* writer) override {
    std::unique_lock lock(state_.mutex);
    if (const Status status = state_.Enter(); !status.ok()) return status;
    size_t next = state_.events.size();
    if (!request->start_cursor().empty()) {
      if (const Status status = Find(request->start_cursor(), &next); !status.ok()) return status;
    }
    while (true) {
      for (; next < state_.events.size(); ++next) {
        v1::WatchEventsResponse batch;
        if (!Matches(request->filter(), state_.events[next])) continue;
        *batch.add_events() = state_.events[next];
        if (!writer->Write(batch)) return Status::OK;
      }
      if (state_.draining || context->IsCancelled()) return Status::OK;
      state_.WaitFor(lock, context, [&] { return next < state_.events.size(); });
    }
  }

  Status ListConversions(ServerContext*, const v1::ListConversionsRequest* request,
                         v1::ListConversionsResponse* response) override {
    const std::lock_guard lock(state_.mutex);
    if (const Status status = state_.Enter(); !status.ok()) return status;
    if (state_.vms.count(request->vm()) == 0) return NoSuchVm(request->vm());
    response->mutable_conversions()->Add(state_.parked.begin(), state_.parked.end());
    return Status::OK;
  }

  Status ResolveConversion(ServerContext*, const v1::ResolveConversionRequest* request,
                           v1::ResolveConversionResponse* response) override {
    const std::lock_guard lock(state_.mutex);
    if (const Status status = state_.Enter(); !status.ok()) return status;
    if (state_.vms.count(request->vm()) == 0) return NoSuchVm(request->vm());
    for (const uint64_t id : request->ids()) {
      const size_t erased =
          std::erase_if(state_.parked, [&](const auto& waiting) { return waiting.id() == id; });
      v1::ResolveConversionResponse::Result* result = response->add_results();
      result->set_id(id);
      result->set_outcome(erased == 0 ? v1::ResolveConversionResponse::OUTCOME_UNKNOWN
                                      : v1::ResolveConversionResponse::OUTCOME_DECIDED);
      if (erased == 0) continue;
      result->set_decision(request->decision() == v1::ResolveConversionRequest::DECISION_APPLY
                               ? v1::Conversion::DECISION_APPLIED
                               : v1::Conversion::DECISION_DENIED);
      result->set_decider(v1::Conversion::DECIDER_ORCHESTRATOR);
    }
    return Status::OK;
  }

 private:
  static bool Matches(const v1::EventFilter& filter, const v1::Event& event) {
    const auto& vms = filter.vms();
    const auto& kinds = filter.kinds();
    return (vms.empty() || std::count(vms.begin(), vms.end(), event.vm()) != 0) &&
           (kinds.empty() || std::count(kinds.begin(), kinds.end(), int{event.kind_case()}) != 0);
  }

  Status Find(const std::string& cursor, size_t* next) {
    if (cursor.empty()) return Status::OK;
    if (cursor.rfind("e-", 0) != 0) {
      return Refuse(StatusCode::OUT_OF_RANGE, "cursor '" + cursor + "' is of another journal",
                    "CURSOR_OTHER_EPOCH", {{"oldest_cursor", "e-0"}});
    }
    *next = std::strtoull(cursor.c_str() + 2, nullptr, 10);
    return Status::OK;
  }

  State& state_;
};

class FakeHostService : public v1::HostService::Service {
 public:
  explicit FakeHostService(State* state) : state_(*state) {}

  Status GetHost(ServerContext*, const v1::GetHostRequest*,
                 v1::GetHostResponse* response) override {
    const std::lock_guard lock(state_.mutex);
    if (const Status status = state_.Enter(); !status.ok()) return status;
    v1::Host& host = *response->mutable_host();
    host.set_version("9.8.7");
    host.set_default_backend(v1::BACKEND_SIM);
    host.set_default_backend_reason("there is no /dev/kvm");
    host.add_backends(v1::BACKEND_SIM);
    v1::Host::Check* check = host.add_checks();
    check->set_name("/dev/kvm");
    check->set_result(v1::Host::Check::RESULT_MISSING);
    check->set_detail("No such file or directory; VMs run on sim");
    host.set_cpus(2);
    host.set_memory_bytes(25'125'978'112);
    host.set_vms(static_cast<uint32_t>(state_.vms.size()));
    host.set_max_vms(4096);
    host.set_max_vcpus(64);
    host.set_max_memory_bytes(uint64_t{64} << 30);
    host.set_metrics_address("127.0.0.1:9464");
    host.set_shared_bit(47);
    return Status::OK;
  }

  Status Drain(ServerContext*, const v1::DrainRequest* request,
               v1::DrainResponse* response) override {
    const std::lock_guard lock(state_.mutex);
    state_.Note(*request);
    response->set_active_vms(3);
    return Status::OK;
  }

  Status GetMetrics(ServerContext*, const v1::GetMetricsRequest*,
                    v1::GetMetricsResponse* response) override {
    const std::lock_guard lock(state_.mutex);
    if (const Status status = state_.Enter(); !status.ok()) return status;
    // "demo" converts seven pages between two looks; nobody has heard of the other VMs.
    state_.conversions += 7;
    response->set_text("twinroot_build_info 1\ntwinroot_conversions_total{vm=\"demo\"} " +
                       std::to_string(state_.conversions) + "\n");
    return Status::OK;
  }

  // Only "demo" is sound.
  Status Audit(ServerContext*, const v1::AuditRequest* request,
               grpc::ServerWriter<v1::AuditResponse>* writer) override {
    const std::lock_guard lock(state_.mutex);
    if (const Status status = state_.Enter(); !status.ok()) return status;
    if (!request->vm().empty() && state_.vms.count(request->vm()) == 0) {
      return NoSuchVm(request->vm());
    }
    for (const auto& [name, vm] : state_.vms) {
      if (!request->vm().empty() && name != request->vm()) continue;
      v1::AuditResponse answer;
      answer.set_vm(name);
      answer.set_verdict(name == "demo" ? v1::AuditResponse::VERDICT_SOUND
                                        : v1::AuditResponse::VERDICT_BROKEN);
      if (name != "demo") answer.set_detail("a table is lost");
      writer->Write(answer);
    }
    return Status::OK;
  }

 private:
  State& state_;
};

}  // namespace twinroot::cli

#endif  // TWINROOT_TESTS_CLI_FAKE_EVENT_SERVICE_H_
