#include "daemon/access/gatekeeper.h"

#include <google/protobuf/util/json_util.h>

#include <future>
#include <sstream>
#include <thread>
#include <vector>

#include "tests/daemon/access/access_fixture.h"
#include "tests/daemon/rpc/rpc_fixture.h"

namespace twinroot::access {
namespace {

using grpc::StatusCode;

class GatekeeperTest : public AccessFixture {
 protected:
  std::vector<AuditEntry> Audit() const {
    std::istringstream lines(FileText(audit_path_));
    std::vector<AuditEntry> entries;
    for (std::string line; std::getline(lines, line);) {
      entries.emplace_back();
      EXPECT_TRUE(google::protobuf::util::JsonStringToMessage(line, &entries.back()).ok()) << line;
    }
    return entries;
  }

  static grpc::Status Create(const std::shared_ptr<grpc::Channel>& channel,
                             const std::string& name) {
    grpc::ClientContext context;
    v1::CreateVmRequest request;
    request.set_vm_id(name);
    request.mutable_vm()->set_memory_bytes(uint64_t{4} << 20);
    request.mutable_vm()->set_vcpus(1);
    v1::CreateVmResponse response;
    return v1::VmService::NewStub(channel)->CreateVm(&context, request, &response);
  }

  // An event stream that stands.
  struct Watch {
    explicit Watch(const std::shared_ptr<grpc::Channel>& channel)
        : stub(v1::EventService::NewStub(channel)),
          reader(stub->WatchEvents(&context, v1::WatchEventsRequest())) {
      reader->WaitForInitialMetadata();
    }
    ~Watch() { context.TryCancel(); }
    // Reads to its end.
    grpc::Status End() {
      v1::WatchEventsResponse response;
      while (reader->Read(&response)) {
      }
      return reader->Finish();
    }

    grpc::ClientContext context;
    std::unique_ptr<v1::EventService::Stub> stub;
    std::unique_ptr<grpc::ClientReader<v1::WatchEventsResponse>> reader;
  };
};

TEST_F(GatekeeperTest, WhatChangesSomethingIsAuditedAndWhatLooksIsNot) {
  Serve(Unix(Role::kOperator));
  const auto channel = Connect();
  EXPECT_TRUE(Create(channel, "demo").ok());
  EXPECT_EQ(Create(channel, "demo").error_code(), StatusCode::ALREADY_EXISTS);
  EXPECT_TRUE(Call(channel, "twinroot.v1.VmService/ListVms").ok());
  EXPECT_TRUE(Call(channel, "grpc.health.v1.Health/Check").ok());
  const auto audit = Audit();
  ASSERT_EQ(audit.size(), 2u);
  const AuditEntry& first = audit[0];
  EXPECT_EQ(first.principal(), "uid:" + std::to_string(geteuid()));
  EXPECT_EQ(first.user(), UserName(geteuid()));
  EXPECT_EQ(first.pid(), getpid());
  EXPECT_EQ(first.role(), "operator");
  EXPECT_EQ(first.method(), "twinroot.v1.VmService/CreateVm");
  EXPECT_EQ(first.resource(), "vms/demo");
  EXPECT_EQ(first.code(), "OK");
  EXPECT_EQ(first.reason(), "");
  EXPECT_GT(first.latency_us(), 0u);
  EXPECT_NEAR(static_cast<double>(first.time().seconds()), static_cast<double>(time(nullptr)), 60);
  EXPECT_EQ(audit[1].code(), "ALREADY_EXISTS");
  EXPECT_EQ(audit[1].reason(), "VM_EXISTS");
}

TEST_F(GatekeeperTest, AnUpdateIsAuditedUnderItsVmsName) {
  Serve(Unix(Role::kOperator));
  grpc::ClientContext context;
  v1::UpdateVmRequest request;
  request.mutable_vm()->set_name("vms/demo");
  request.set_request_id("id-7");
  v1::UpdateVmResponse response;
  EXPECT_FALSE(v1::VmService::NewStub(Connect())->UpdateVm(&context, request, &response).ok());
  const auto audit = Audit();
  ASSERT_EQ(audit.size(), 1u);
  EXPECT_EQ(audit[0].method(), "twinroot.v1.VmService/UpdateVm");
  EXPECT_EQ(audit[0].resource(), "vms/demo");
  EXPECT_EQ(audit[0].request_id(), "id-7");
}

TEST_F(GatekeeperTest, DenialsAreAuditedWhateverWasCalled) {
  Serve(Unix(Role::kNone));
  EXPECT_FALSE(Call(Connect(), "twinroot.v1.VmService/ListVms").ok());
  EXPECT_FALSE(Create(Connect(), "demo").ok());
  const auto audit = Audit();
  ASSERT_EQ(audit.size(), 2u);
  EXPECT_EQ(audit[0].method(), "twinroot.v1.VmService/ListVms");
  EXPECT_EQ(audit[0].code(), "PERMISSION_DENIED");
  EXPECT_EQ(audit[0].reason(), "ROLE_REQUIRED");
  EXPECT_EQ(audit[0].role(), "none");
  EXPECT_EQ(audit[1].resource(), "vms/demo");
  EXPECT_EQ(registry_.size(), 0u);
}

TEST_F(GatekeeperTest, WhoMayDoNothingCannotFillTheAuditLog) {
  Serve(Unix(Role::kNone));
  const auto channel = Connect();
  for (uint32_t i = 0; i < DenialLimit::kLines + 5; ++i) {
    EXPECT_FALSE(Call(channel, "twinroot.v1.VmService/ListVms").ok());
  }
  EXPECT_EQ(Audit().size(), DenialLimit::kLines);
}

TEST_F(GatekeeperTest, TheAuditLogHoldsNoPayloadAndNoEndlessName) {
  Serve(Unix(Role::kOperator));
  const auto channel = Connect();
  grpc::ClientContext context;
  v1::WriteGuestMemoryRequest request;
  request.set_vm(std::string(100'000, 'n'));
  request.set_data("the guest's secret");
  v1::WriteGuestMemoryResponse response;
  v1::MemoryService::NewStub(channel)->WriteGuestMemory(&context, request, &response);
  const std::string text = FileText(audit_path_);
  EXPECT_NE(text.find("WriteGuestMemory"), std::string::npos);
  EXPECT_EQ(text.find("secret"), std::string::npos);
  EXPECT_LT(text.size(), 1000u);
}

TEST_F(GatekeeperTest, AStreamIsAuditedAtItsEndWithItsWholeLife) {
  Serve(Unix(Role::kOperator));
  ASSERT_TRUE(Create(Connect(), "demo").ok());
  grpc::ClientContext context;
  v1::StreamConsoleRequest request;
  request.set_name("vms/demo");
  request.set_mode(v1::StreamConsoleRequest::MODE_FOLLOW);
  auto stub = v1::VmService::NewStub(Connect());
  auto reader = stub->StreamConsole(&context, request);
  reader->WaitForInitialMetadata();
  EXPECT_EQ(Audit().size(), 1u);
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  context.TryCancel();
  reader->Finish();
  rpc::Eventually([&] { return Audit().size() == 2; });
  EXPECT_EQ(Audit()[1].method(), "twinroot.v1.VmService/StreamConsole");
  EXPECT_EQ(Audit()[1].code(), "CANCELLED");
  EXPECT_GE(Audit()[1].latency_us(), 20'000u);
}

TEST_F(GatekeeperTest, ARoleThatIsTakenAwayEndsTheStreamsThatNeedIt) {
  Serve(Unix(Role::kViewer));
  Watch watch(Connect());
  gatekeeper_->Replace(Unix(Role::kAdmin));
  auto end = std::async(std::launch::async, [&] { return watch.End(); });
  EXPECT_EQ(end.wait_for(std::chrono::milliseconds(50)), std::future_status::timeout);
  gatekeeper_->Replace(Unix(Role::kNone));
  const grpc::Status status = end.get();
  EXPECT_EQ(status.error_code(), StatusCode::PERMISSION_DENIED);
  EXPECT_EQ(status.error_message(), "the role that this call needs was taken away");
}

TEST_F(GatekeeperTest, CallsUnderWayOverTheLimitAreRefusedUntilSomeEnd) {
  Rules rules = Unix(Role::kViewer);
  rules.limits.calls_per_principal = 2;
  Serve(rules);
  auto first = std::make_unique<Watch>(Connect());
  Watch second(Connect());
  const grpc::Status status = Call(Connect(), "twinroot.v1.VmService/ListVms");
  rpc::ExpectError(status, StatusCode::RESOURCE_EXHAUSTED, "TOO_MANY_CALLS");
  const auto quota = rpc::DetailOf<google::rpc::QuotaFailure>(status);
  ASSERT_EQ(quota.violations_size(), 1);
  EXPECT_EQ(quota.violations(0).subject(), "uid:" + std::to_string(geteuid()));
  EXPECT_NE(quota.violations(0).description().find("2 calls"), std::string::npos);
  // Health counts apart: who watches over the daemon must hear it.
  EXPECT_TRUE(Call(Connect(), "grpc.health.v1.Health/Check").ok());
  first.reset();
  rpc::Eventually([&] { return Call(Connect(), "twinroot.v1.VmService/ListVms").ok(); });
}

TEST_F(GatekeeperTest, WhatIsFreeForAllHasALimitToo) {
  Rules rules = Unix(Role::kNone);
  rules.limits.calls_per_principal = 1;
  Serve(rules);
  // Until it has the one call that there is: a check below may have it first.
  auto watching = std::async(std::launch::async, [channel = Connect()] {
    grpc::Status status;
    do {
      status = Call(channel, "grpc.health.v1.Health/Watch", std::chrono::milliseconds(500));
    } while (status.error_code() == StatusCode::RESOURCE_EXHAUSTED);
    return status;
  });
  rpc::Eventually([&] {
    const grpc::Status status = Call(Connect(), "grpc.health.v1.Health/Check");
    return status.error_code() == StatusCode::RESOURCE_EXHAUSTED &&
           status.error_message().find("wait until") != std::string::npos;
  });
  EXPECT_EQ(watching.get().error_code(), StatusCode::DEADLINE_EXCEEDED);
  rpc::Eventually([&] { return Call(Connect(), "grpc.health.v1.Health/Check").ok(); });
}

TEST_F(GatekeeperTest, ConnectionsOverTheLimitAreRefusedAndTheOthersServedOn) {
  Rules rules = Unix(Role::kViewer);
  rules.limits.connections_per_principal = 2;
  Serve(rules);
  const auto first = Connect();
  const auto second = Connect();
  const auto third = Connect();
  EXPECT_TRUE(Call(first, "twinroot.v1.VmService/ListVms").ok());
  EXPECT_TRUE(Call(second, "twinroot.v1.VmService/ListVms").ok());
  const grpc::Status status = Call(third, "twinroot.v1.VmService/ListVms");
  rpc::ExpectError(status, StatusCode::RESOURCE_EXHAUSTED, "TOO_MANY_CONNECTIONS");
  EXPECT_EQ(rpc::DetailOf<google::rpc::QuotaFailure>(status).violations_size(), 1);
  EXPECT_TRUE(Call(first, "twinroot.v1.VmService/ListVms").ok());
}

TEST_F(GatekeeperTest, AMessageOverTheLimitIsRefused) {
  Rules rules = Unix(Role::kOperator);
  rules.limits.message_bytes = uint32_t{2} << 20;
  Serve(rules);
  grpc::ClientContext context;
  v1::WriteGuestMemoryRequest request;
  request.set_data(std::string(size_t{3} << 20, 'x'));
  v1::WriteGuestMemoryResponse response;
  EXPECT_EQ(v1::MemoryService::NewStub(Connect())
                ->WriteGuestMemory(&context, request, &response)
                .error_code(),
            StatusCode::RESOURCE_EXHAUSTED);
}

TEST_F(GatekeeperTest, NoClientCanSpeakForItself) {
  Serve(Unix(Role::kNone));
  grpc::ClientContext context;
  context.AddMetadata("twinroot-call", std::string(8, 'x'));
  v1::ListVmsResponse response;
  const grpc::Status status =
      v1::VmService::NewStub(Connect())->ListVms(&context, v1::ListVmsRequest(), &response);
  rpc::ExpectError(status, StatusCode::PERMISSION_DENIED, "ROLE_REQUIRED");
}

TEST_F(GatekeeperTest, ThousandsOfConnectionsWithACallEachAreServed) {
  Serve(Unix(Role::kViewer));
  for (int i = 0; i < 1000; ++i) {
    const grpc::Status status = Call(Connect(), "twinroot.v1.HostService/GetHost");
    ASSERT_TRUE(status.ok()) << i << ": " << status.error_message();
  }
}

}  // namespace
}  // namespace twinroot::access
