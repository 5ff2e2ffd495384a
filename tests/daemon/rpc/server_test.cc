#include "daemon/rpc/server.h"

#include <future>

#include "grpcpp/generic/generic_stub.h"
#include "tests/daemon/rpc/rpc_fixture.h"

namespace twinroot::rpc {
namespace {

using grpc::StatusCode;

// grpc.health.v1.HealthCheckResponse.ServingStatus
constexpr char kServing = 1;
constexpr char kNotServing = 2;

class ServerTest : public RpcFixture {
 protected:
  // Health and reflection have no C++ stubs here: their small messages are written by hand.
  grpc::Status Call(const std::string& method, const std::string& request, std::string* response) {
    grpc::GenericStub stub(channel_);
    grpc::ClientContext context;
    grpc::CompletionQueue queue;
    auto call = stub.PrepareCall(&context, method, &queue);
    void* tag = nullptr;
    bool ok = false;
    const auto next = [&] {
      EXPECT_TRUE(queue.Next(&tag, &ok));
      return ok;
    };
    call->StartCall(nullptr);
    next();
    const grpc::Slice slice(request);
    call->WriteLast(grpc::ByteBuffer(&slice, 1), grpc::WriteOptions(), nullptr);
    next();
    grpc::ByteBuffer answer;
    call->Read(&answer, nullptr);
    if (next()) {
      grpc::Slice whole;
      EXPECT_TRUE(answer.DumpToSingleSlice(&whole).ok());
      response->assign(reinterpret_cast<const char*>(whole.begin()), whole.size());
    }
    grpc::Status status;
    call->Finish(&status, nullptr);
    next();
    return status;
  }

  // The serving status of a service, or -1.
  int Health(const std::string& service) {
    // Field 1, a string; the answer's field 1 is an enum.
    const std::string request =
        service.empty() ? "" : "\x0a" + std::string(1, static_cast<char>(service.size())) + service;
    std::string response;
    const grpc::Status status = Call("/grpc.health.v1.Health/Check", request, &response);
    return status.ok() && response.size() == 2 && response[0] == 0x08 ? response[1] : -1;
  }
};

TEST_F(ServerTest, HealthIsServingForEveryServiceUntilTheDrain) {
  const std::string services[] = {"", "twinroot.v1.VmService", "twinroot.v1.MemoryService",
                                  "twinroot.v1.EventService", "twinroot.v1.HostService"};
  for (const std::string& service : services) EXPECT_EQ(Health(service), kServing) << service;
  EXPECT_EQ(Health("twinroot.v1.NoService"), -1);
  server_->SetNotServing();
  for (const std::string& service : services) EXPECT_EQ(Health(service), kNotServing) << service;
  // Calls are served still.
  Make("demo");
}

TEST_F(ServerTest, ReflectionListsTheServices) {
  // ServerReflectionRequest{list_services: "*"}
  std::string response;
  ASSERT_TRUE(
      Call("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", "\x3a\x01*", &response)
          .ok());
  for (const char* service : {"twinroot.v1.VmService", "twinroot.v1.MemoryService",
                              "twinroot.v1.EventService", "twinroot.v1.HostService"}) {
    EXPECT_NE(response.find(service), std::string::npos) << service;
  }
}

TEST_F(ServerTest, HostShowsWhatTheRegistryFound) {
  Make("demo");
  grpc::ClientContext context;
  v1::GetHostResponse response;
  ASSERT_TRUE(host_->GetHost(&context, v1::GetHostRequest(), &response).ok());
  const v1::Host& host = response.host();
  EXPECT_EQ(host.version(), "1.2.3");
  EXPECT_EQ(host.default_backend(), v1::BACKEND_SIM);
  EXPECT_EQ(host.default_backend_reason(), "the fake registry runs nothing");
  ASSERT_EQ(host.backends_size(), 1);
  EXPECT_EQ(host.backends(0), v1::BACKEND_SIM);
  ASSERT_EQ(host.checks_size(), 1);
  EXPECT_EQ(host.checks(0).name(), "/dev/kvm");
  EXPECT_EQ(host.checks(0).result(), v1::Host::Check::RESULT_FALLBACK);
  EXPECT_EQ(host.vms(), 1u);
  EXPECT_EQ(host.max_vms(), 4096u);
  EXPECT_EQ(host.max_vcpus(), 64u);
  EXPECT_EQ(host.max_memory_bytes(), uint64_t{64} << 30);
  EXPECT_EQ(host.metrics_address(), "127.0.0.1:9");
  EXPECT_EQ(host.shared_bit(), 47u);
  EXPECT_GT(host.cpus(), 0u);
  EXPECT_GT(host.memory_bytes(), 0u);
}

TEST_F(ServerTest, ShutdownCancelsWhatOutlivesTheGrace) {
  fakes::FakeVm& vm = Make("demo");
  auto waiting = std::async(std::launch::async, [&] {
    grpc::ClientContext context;
    v1::WaitVmRequest request;
    request.set_name("vms/demo");
    v1::WaitVmResponse response;
    return vms_->WaitVm(&context, request, &response);
  });
  Eventually([&] { return vm.waiters() == 1; });
  server_->Shutdown(absl::Milliseconds(50));
  EXPECT_FALSE(waiting.get().ok());
  EXPECT_EQ(vm.waiters(), 0u);
}

TEST_F(ServerTest, DestructionWithStreamsOpenEndsThem) {
  grpc::ClientContext context;
  auto reader = events_->WatchEvents(&context, v1::WatchEventsRequest());
  reader->WaitForInitialMetadata();
  server_.reset();
  v1::WatchEventsResponse response;
  ASSERT_TRUE(reader->Read(&response));
  EXPECT_TRUE(response.events(0).has_bookmark());
  EXPECT_FALSE(reader->Read(&response));
  EXPECT_TRUE(reader->Finish().ok());
}

TEST_F(ServerTest, SocketThatCannotBeBoundIsAnError) {
  ServerOptions options;
  options.door.path = folder_ + "/missing/hvd.sock";
  options.gatekeeper = &gatekeeper_;
  const auto server = Server::Start(std::move(options), registry_.get(), journal_.get());
  EXPECT_EQ(server.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_NE(std::string(server.status().message()).find("--socket"), std::string::npos);
}

}  // namespace
}  // namespace twinroot::rpc
