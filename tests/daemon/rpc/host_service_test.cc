#include <algorithm>
#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "grpcpp/generic/generic_stub.h"
#include "tests/daemon/rpc/rpc_fixture.h"

namespace twinroot::rpc {
namespace {

class HostServiceTest : public RpcFixture {
 protected:
  v1::Host Host() {
    grpc::ClientContext context;
    v1::GetHostResponse response;
    EXPECT_TRUE(host_->GetHost(&context, v1::GetHostRequest(), &response).ok());
    return response.host();
  }
  v1::GetMetricsResponse Metrics() {
    grpc::ClientContext context;
    v1::GetMetricsResponse response;
    EXPECT_TRUE(host_->GetMetrics(&context, v1::GetMetricsRequest(), &response).ok());
    return response;
  }
  grpc::Status Drain(v1::Host::Admission admission) {
    grpc::ClientContext context;
    v1::DrainRequest request;
    request.set_admission(admission);
    return host_->Drain(&context, request, &drained_);
  }
  // As health says it. The message is one field, the name of the service; the answer too: 1.
  bool Serving(const std::string& service) {
    std::string request;
    if (!service.empty()) {
      request = std::string("\x0a") + static_cast<char>(service.size()) + service;
    }
    grpc::ClientContext context;
    grpc::GenericStub stub(channel_);
    grpc::CompletionQueue queue;
    const grpc::Slice slice(request);
    auto call = stub.PrepareUnaryCall(&context, "/grpc.health.v1.Health/Check",
                                      grpc::ByteBuffer(&slice, 1), &queue);
    call->StartCall();
    grpc::ByteBuffer answer;
    grpc::Status status;
    call->Finish(&answer, &status, this);
    void* tag = nullptr;
    bool ok = false;
    EXPECT_TRUE(queue.Next(&tag, &ok));
    EXPECT_TRUE(status.ok()) << status.error_message();
    grpc::Slice bytes;
    EXPECT_TRUE(answer.DumpToSingleSlice(&bytes).ok());
    return std::string(bytes.begin(), bytes.end()) == std::string("\x08\x01");
  }
  v1::DrainResponse drained_;

  grpc::Status Audit(const std::string& vm, std::vector<v1::AuditResponse>* answers) {
    grpc::ClientContext context;
    v1::AuditRequest request;
    request.set_vm(vm);
    auto reader = host_->Audit(&context, request);
    v1::AuditResponse answer;
    while (reader->Read(&answer)) answers->push_back(answer);
    return reader->Finish();
  }
};

TEST_F(HostServiceTest, AuditTellsOfEachVmByName) {
  for (const char* name : {"b", "a", "c"}) Make(name);
  registry_->vm("b").FailNextMemoryCall(absl::InternalError("found 3 tables, counted 2"));
  std::vector<v1::AuditResponse> answers;
  ASSERT_TRUE(Audit("", &answers).ok());
  ASSERT_EQ(answers.size(), 3u);
  EXPECT_EQ(answers[0].vm(), "a");
  EXPECT_EQ(answers[0].verdict(), v1::AuditResponse::VERDICT_SOUND);
  EXPECT_EQ(answers[0].detail(), "");
  EXPECT_EQ(answers[1].vm(), "b");
  EXPECT_EQ(answers[1].verdict(), v1::AuditResponse::VERDICT_BROKEN);
  const v1::Event told = journal_->Read(0, 100, {}).events.back()->Parse();
  ASSERT_TRUE(told.has_audit_failure());
  EXPECT_EQ(told.vm(), answers[1].vm());
  EXPECT_EQ(told.audit_failure().detail(), answers[1].detail());
  EXPECT_EQ(answers[1].detail(), "found 3 tables, counted 2");
  EXPECT_EQ(answers[2].vm(), "c");
}

TEST_F(HostServiceTest, AuditOfOneVm) {
  Make("a");
  Make("b");
  std::vector<v1::AuditResponse> answers;
  ASSERT_TRUE(Audit("b", &answers).ok());
  ASSERT_EQ(answers.size(), 1u);
  EXPECT_EQ(answers[0].vm(), "b");
}

TEST_F(HostServiceTest, AuditOfNothing) {
  std::vector<v1::AuditResponse> answers;
  EXPECT_TRUE(Audit("", &answers).ok());
  ExpectError(Audit("nobody", &answers), grpc::StatusCode::NOT_FOUND, "NO_SUCH_VM");
  ExpectBadField(Audit("No Name", &answers), "INVALID_NAME", "vm");
  EXPECT_TRUE(answers.empty());
}

TEST_F(HostServiceTest, ADrainRefusesNewVmsOnlyAndMayBeUndone) {
  Make("runs");
  Make("waits");
  ASSERT_TRUE(Start("runs").ok());
  EXPECT_EQ(Host().admission(), v1::Host::ADMISSION_OPEN);
  EXPECT_TRUE(Serving(""));
  for (int i = 0; i < 2; ++i) {
    ASSERT_TRUE(Drain(v1::Host::ADMISSION_DRAINING).ok());
    EXPECT_EQ(drained_.active_vms(), 1u);
    EXPECT_TRUE(draining_told_);
  }
  EXPECT_EQ(Host().admission(), v1::Host::ADMISSION_DRAINING);
  for (const char* service : {"", "twinroot.v1.VmService"}) EXPECT_FALSE(Serving(service));
  v1::CreateVmResponse created;
  const grpc::Status refused = Create(CreateRequest("new"), &created);
  ExpectError(refused, grpc::StatusCode::UNAVAILABLE, "DRAINING");
  EXPECT_EQ(DetailOf<google::rpc::RetryInfo>(refused).retry_delay().seconds(), 30);
  ExpectError(Start("waits"), grpc::StatusCode::UNAVAILABLE, "DRAINING");
  EXPECT_TRUE(Set("runs", 0, 4096, v1::MEMORY_KIND_SHARED).ok());
  EXPECT_EQ(registry_->vm("runs").status().state, host::VmState::kRunning);
  ASSERT_TRUE(Drain(v1::Host::ADMISSION_OPEN).ok());
  EXPECT_TRUE(Serving("twinroot.v1.VmService"));
  EXPECT_FALSE(draining_told_);
  EXPECT_TRUE(Start("waits").ok());
  EXPECT_TRUE(Create(CreateRequest("new"), &created).ok());
}

TEST_F(HostServiceTest, ADrainWaitsForStartsThatAreUnderWay) {
  fakes::FakeVm& vm = Make("slow");
  vm.HoldStart();
  std::thread starter([&] { EXPECT_TRUE(Start("slow").ok()); });
  Eventually([&] { return vm.starts() == 1; });
  std::atomic<bool> answered{false};
  std::thread drainer([&] {
    EXPECT_TRUE(Drain(v1::Host::ADMISSION_DRAINING).ok());
    answered = true;
  });
  Eventually([&] { return Host().admission() == v1::Host::ADMISSION_DRAINING; });
  EXPECT_FALSE(answered);
  vm.ReleaseStart();
  starter.join();
  drainer.join();
  EXPECT_EQ(drained_.active_vms(), 1u);
}

TEST_F(HostServiceTest, ADrainNeedsToSayWhatIsWanted) {
  ExpectBadField(Drain(v1::Host::ADMISSION_UNSPECIFIED), "MISSING_FIELD", "admission");
  ExpectBadField(Drain(static_cast<v1::Host::Admission>(9)), "INVALID_FIELD", "admission");
  EXPECT_EQ(Host().admission(), v1::Host::ADMISSION_OPEN);
}

TEST_F(HostServiceTest, TheHostSaysItsLimitsAndWhatItsBackendsCan) {
  const v1::Host host = Host();
  EXPECT_EQ(host.max_ranges(), 16384u);
  EXPECT_EQ(host.max_transfer_bytes(), 1u << 20);
  EXPECT_EQ(host.max_image_bytes(), 64u << 20);
  EXPECT_EQ(host.max_image_chunk_bytes(), 1u << 20);
  EXPECT_EQ(host.max_added_memslots(), 32u);
  ASSERT_EQ(host.capabilities_size(), host.backends_size());
  EXPECT_EQ(host.capabilities(0).backend(), v1::BACKEND_SIM);
  const auto& can = host.capabilities(0).capabilities();
  EXPECT_NE(std::find(can.begin(), can.end(), v1::Host::Capabilities::CAPABILITY_DIRTY_LOG),
            can.end());
  EXPECT_EQ(std::find(can.begin(), can.end(), v1::Host::Capabilities::CAPABILITY_IMAGES),
            can.end());
}

TEST_F(HostServiceTest, MetricsAreCutAtTheEndOfALine) {
  EXPECT_EQ(Metrics().text(), "twinroot_build_info 1\n");
  EXPECT_EQ(Metrics().omitted_bytes(), 0u);
  metrics_.clear();
  while (metrics_.size() <= (3u << 20)) metrics_ += "twinroot_something{vm=\"a\"} 12345\n";
  const v1::GetMetricsResponse cut = Metrics();
  EXPECT_EQ(cut.text().back(), '\n');
  EXPECT_LE(cut.text().size(), 3u << 20);
  EXPECT_EQ(cut.text().size() + cut.omitted_bytes(), metrics_.size());
  EXPECT_EQ(metrics_.compare(0, cut.text().size(), cut.text()), 0);
}

}  // namespace
}  // namespace twinroot::rpc
