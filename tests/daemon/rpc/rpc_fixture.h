// A real server on a unix socket over the fake registry, and clients of it.
#ifndef TWINROOT_TESTS_DAEMON_RPC_RPC_FIXTURE_H_
#define TWINROOT_TESTS_DAEMON_RPC_RPC_FIXTURE_H_

#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "daemon/events/journal.h"
#include "daemon/rpc/server.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "grpcpp/grpcpp.h"
#include "gtest/gtest.h"
#include "tests/daemon/fakes/fake_vm_registry.h"
#include "twinroot/v1/dirty_log.grpc.pb.h"
#include "twinroot/v1/event.grpc.pb.h"
#include "twinroot/v1/host.grpc.pb.h"
#include "twinroot/v1/memory.grpc.pb.h"
#include "twinroot/v1/vm.grpc.pb.h"

namespace twinroot::rpc {

// One error detail, or an empty message.
template <typename Detail>
Detail DetailOf(const grpc::Status& status) {
  google::rpc::Status details;
  Detail detail;
  if (!details.ParseFromString(status.error_details())) return detail;
  for (const auto& any : details.details()) {
    if (any.Is<Detail>()) any.UnpackTo(&detail);
  }
  return detail;
}

inline google::rpc::ErrorInfo InfoOf(const grpc::Status& status) {
  return DetailOf<google::rpc::ErrorInfo>(status);
}

inline void ExpectError(const grpc::Status& status, grpc::StatusCode code,
                        const std::string& reason) {
  EXPECT_EQ(status.error_code(), code) << status.error_message();
  EXPECT_EQ(InfoOf(status).reason(), reason) << status.error_message();
  EXPECT_EQ(InfoOf(status).domain(), "twinroot");
  EXPECT_FALSE(status.error_message().empty());
}

// INVALID_ARGUMENT that names `field`.
inline void ExpectBadField(const grpc::Status& status, const std::string& reason,
                           const std::string& field) {
  ExpectError(status, grpc::StatusCode::INVALID_ARGUMENT, reason);
  const auto bad = DetailOf<google::rpc::BadRequest>(status);
  ASSERT_EQ(bad.field_violations_size(), 1) << status.error_message();
  EXPECT_EQ(bad.field_violations(0).field(), field);
}

// Waits until `condition` holds; a test's own time limit ends a wait in vain.
template <typename Condition>
void Eventually(Condition condition) {
  while (!condition()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
}

class RpcFixture : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string folder = ::testing::TempDir() + "/hvdXXXXXX";
    // A socket's path is short, and Bazel's folders may not be.
    if (folder.size() > 80) folder = "/tmp/hvdXXXXXX";
    ASSERT_NE(mkdtemp(folder.data()), nullptr);
    folder_ = folder;
    Restart(65536, absl::Seconds(3600));
  }

  void TearDown() override {
    Stop();
    std::filesystem::remove_all(folder_);
  }

  // A fresh daemon: empty registry, empty journal.
  void Restart(size_t journal_capacity, absl::Duration bookmark_interval) {
    Stop();
    journal_ = std::make_unique<events::Journal>(journal_capacity);
    Serve(bookmark_interval);
  }
  // The same, over the journal of a file.
  void RestartOn(const events::JournalOptions& options,
                 absl::Duration bookmark_interval = absl::Seconds(3600)) {
    Stop();
    auto journal = events::Journal::Open(options);
    ASSERT_TRUE(journal.ok()) << journal.status();
    journal_ = *std::move(journal);
    Serve(bookmark_interval);
  }
  void Stop() {
    server_.reset();
    registry_.reset();
    journal_.reset();
  }
  void Serve(absl::Duration bookmark_interval) {
    registry_ = std::make_unique<fakes::FakeVmRegistry>(journal_.get());
    ServerOptions options;
    options.door.path = folder_ + "/hvd.sock";
    options.gatekeeper = &gatekeeper_;
    options.version = "1.2.3";
    options.metrics_address = "127.0.0.1:9";
    options.max_vms = 4096;
    options.metrics_text = [this] { return metrics_; };
    options.on_gap = [this](uint64_t events) {
      ++gaps_told_;
      gap_events_told_ += events;
    };
    options.on_admission = [this](bool draining) { draining_told_ = draining; };
    options.bookmark_interval = bookmark_interval;
    auto server = Server::Start(std::move(options), registry_.get(), journal_.get());
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    channel_ =
        grpc::CreateChannel("unix:" + folder_ + "/hvd.sock", grpc::InsecureChannelCredentials());
    vms_ = v1::VmService::NewStub(channel_);
    memory_ = v1::MemoryService::NewStub(channel_);
    dirty_log_ = v1::DirtyLogService::NewStub(channel_);
    events_ = v1::EventService::NewStub(channel_);
    host_ = v1::HostService::NewStub(channel_);
  }

  static v1::CreateVmRequest CreateRequest(const std::string& name) {
    v1::CreateVmRequest request;
    request.set_vm_id(name);
    request.mutable_vm()->set_memory_bytes(uint64_t{4} << 20);
    request.mutable_vm()->set_vcpus(1);
    return request;
  }

  grpc::Status Create(const v1::CreateVmRequest& request, v1::CreateVmResponse* response) {
    grpc::ClientContext context;
    return vms_->CreateVm(&context, request, response);
  }

  // Creates a VM that must be accepted, and returns its fake.
  fakes::FakeVm& Make(const std::string& name) {
    v1::CreateVmResponse response;
    const grpc::Status status = Create(CreateRequest(name), &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return registry_->vm(name);
  }

  grpc::Status Start(const std::string& name) {
    grpc::ClientContext context;
    v1::StartVmRequest request;
    request.set_name("vms/" + name);
    v1::StartVmResponse response;
    return vms_->StartVm(&context, request, &response);
  }

  // Makes [gpa, gpa + size) of the VM shared or private through the service.
  grpc::Status Set(const std::string& vm, uint64_t gpa, uint64_t size, v1::MemoryKind kind,
                   v1::SetMemoryAttributesResponse* response = nullptr) {
    grpc::ClientContext context;
    v1::SetMemoryAttributesRequest request;
    request.set_vm(vm);
    request.set_kind(kind);
    v1::MemoryRange* range = request.add_ranges();
    range->set_gpa(gpa);
    range->set_size(size);
    v1::SetMemoryAttributesResponse ignored;
    return memory_->SetMemoryAttributes(&context, request, response ? response : &ignored);
  }

  std::string folder_;
  std::string metrics_ = "twinroot_build_info 1\n";  // what GetMetrics answers
  // What metrics would hear.
  std::atomic<uint64_t> gaps_told_{0};
  std::atomic<uint64_t> gap_events_told_{0};
  std::atomic<bool> draining_told_{false};
  access::Gatekeeper gatekeeper_{access::DefaultRules(), nullptr};
  std::unique_ptr<events::Journal> journal_;
  std::unique_ptr<fakes::FakeVmRegistry> registry_;
  std::unique_ptr<Server> server_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::VmService::Stub> vms_;
  std::unique_ptr<v1::MemoryService::Stub> memory_;
  std::unique_ptr<v1::DirtyLogService::Stub> dirty_log_;
  std::unique_ptr<v1::EventService::Stub> events_;
  std::unique_ptr<v1::HostService::Stub> host_;
};

}  // namespace twinroot::rpc

#endif  // TWINROOT_TESTS_DAEMON_RPC_RPC_FIXTURE_H_
