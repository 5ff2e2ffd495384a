#include <sys/stat.h>

#include <cstdint>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "tests/daemon/rpc/rpc_fixture.h"

namespace twinroot::rpc {
namespace {

using grpc::StatusCode;

class VmServiceTest : public RpcFixture {
 protected:
  template <typename Change>
  void ExpectCreateRefused(Change change, const std::string& reason, const std::string& field) {
    v1::CreateVmRequest request = CreateRequest("demo");
    change(request);
    v1::CreateVmResponse response;
    ExpectBadField(Create(request, &response), reason, field);
    EXPECT_EQ(registry_->size(), 0u);
  }

  grpc::Status Upload(const std::vector<std::string>& chunks, v1::UploadImageResponse* response) {
    grpc::ClientContext context;
    auto writer = vms_->UploadImage(&context, response);
    uint64_t total = 0;
    for (const std::string& chunk : chunks) total += chunk.size();
    for (const std::string& chunk : chunks) {
      v1::UploadImageRequest request;
      request.set_total_size(total);
      request.set_data(chunk);
      if (!writer->Write(request)) break;
    }
    writer->WritesDone();
    return writer->Finish();
  }

  grpc::Status Get(const std::string& name, v1::GetVmResponse* response) {
    grpc::ClientContext context;
    v1::GetVmRequest request;
    request.set_name(name);
    return vms_->GetVm(&context, request, response);
  }

  grpc::Status Delete(const std::string& name) {
    grpc::ClientContext context;
    v1::DeleteVmRequest request;
    request.set_name(name);
    v1::DeleteVmResponse response;
    return vms_->DeleteVm(&context, request, &response);
  }

  grpc::Status Stop(const std::string& name, v1::StopVmResponse* response) {
    grpc::ClientContext context;
    v1::StopVmRequest request;
    request.set_name(name);
    return vms_->StopVm(&context, request, response);
  }
};

TEST_F(VmServiceTest, SocketIsTheUsersAlone) {
  struct stat status {};
  ASSERT_EQ(stat((folder_ + "/hvd.sock").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0600u);
}

TEST_F(VmServiceTest, CreateAnswersWhatWasDefined) {
  v1::CreateVmRequest request = CreateRequest("demo");
  v1::Vm* vm = request.mutable_vm();
  vm->set_vcpus(2);
  vm->set_cmdline("quiet");
  vm->mutable_conversion_policy()->set_mode(v1::ConversionPolicy::MODE_ORCHESTRATOR);
  vm->mutable_conversion_policy()->mutable_decision_timeout()->set_nanos(1'500'000);
  vm->mutable_conversion_policy()->set_on_timeout(v1::ConversionPolicy::ON_TIMEOUT_APPLY);
  vm->mutable_conversion_policy()->set_max_shared_bytes(1 << 20);
  vm->mutable_conversion_policy()->set_max_conversions_per_second(100);
  vm->mutable_conversion_policy()->set_conversion_burst(7);
  vm->mutable_conversion_policy()->set_ping_pong_limit(3);
  vm->mutable_boot()->set_cpl(0);
  v1::CreateVmResponse response;
  ASSERT_TRUE(Create(request, &response).ok());
  EXPECT_EQ(response.vm().name(), "vms/demo");
  EXPECT_EQ(response.vm().state(), v1::Vm::STATE_DEFINED);
  EXPECT_EQ(response.vm().backend(), v1::BACKEND_SIM);
  EXPECT_EQ(response.vm().vcpus(), 2u);
  EXPECT_EQ(response.vm().cmdline(), "quiet");
  EXPECT_EQ(response.vm().conversion_policy().mode(), v1::ConversionPolicy::MODE_ORCHESTRATOR);
  EXPECT_EQ(response.vm().conversion_policy().decision_timeout().nanos(), 1'500'000);
  EXPECT_EQ(response.vm().conversion_policy().on_timeout(), v1::ConversionPolicy::ON_TIMEOUT_APPLY);
  EXPECT_EQ(response.vm().conversion_policy().max_shared_bytes(), 1u << 20);
  EXPECT_EQ(response.vm().conversion_policy().max_conversions_per_second(), 100u);
  EXPECT_EQ(response.vm().conversion_policy().conversion_burst(), 7u);
  EXPECT_EQ(response.vm().conversion_policy().ping_pong_limit(), 3u);
  EXPECT_EQ(response.vm().conversion_policy().ping_pong_window().seconds(), 1);
  EXPECT_EQ(response.vm().boot().cpl(), 0u);
  EXPECT_FALSE(response.vm().has_exit_code());
  EXPECT_GT(response.vm().create_time().seconds(), 0);
  EXPECT_EQ(registry_->vm("demo").spec().policy.decision_timeout, absl::Microseconds(1500));
}

TEST_F(VmServiceTest, CreateFillsInTheDefaults) {
  v1::CreateVmResponse response;
  ASSERT_TRUE(Create(CreateRequest("demo"), &response).ok());
  EXPECT_EQ(response.vm().conversion_policy().mode(), v1::ConversionPolicy::MODE_AUTO);
  EXPECT_EQ(response.vm().conversion_policy().decision_timeout().seconds(), 30);
  EXPECT_EQ(response.vm().conversion_policy().on_timeout(), v1::ConversionPolicy::ON_TIMEOUT_DENY);
  EXPECT_EQ(response.vm().boot().cpl(), 3u);
}

TEST_F(VmServiceTest, CreateRefusesBadNames) {
  for (const std::string name : {"Demo", "1demo", "-demo", "de_mo", "vms/demo", "d\xc3\xa9mo"}) {
    ExpectCreateRefused([&](auto& request) { request.set_vm_id(name); }, "INVALID_NAME", "vm_id");
  }
  ExpectCreateRefused([](auto& request) { request.set_vm_id(std::string(64, 'a')); },
                      "INVALID_NAME", "vm_id");
  ExpectCreateRefused([](auto& request) { request.clear_vm_id(); }, "MISSING_FIELD", "vm_id");
  Make(std::string(63, 'a'));
}

TEST_F(VmServiceTest, CreateRefusesBadSizes) {
  for (const uint64_t size : {uint64_t{0}, uint64_t{4096}, (uint64_t{2} << 20) + 4096,
                              (uint64_t{64} << 30) + (uint64_t{2} << 20), ~uint64_t{0}}) {
    ExpectCreateRefused([&](auto& request) { request.mutable_vm()->set_memory_bytes(size); },
                        "INVALID_FIELD", "vm.memory_bytes");
  }
  for (const uint32_t vcpus : {0u, 65u}) {
    ExpectCreateRefused([&](auto& request) { request.mutable_vm()->set_vcpus(vcpus); },
                        "INVALID_FIELD", "vm.vcpus");
  }
}

TEST_F(VmServiceTest, CreateRefusesBadTexts) {
  ExpectCreateRefused(
      [](auto& request) { request.mutable_vm()->set_cmdline(std::string(2048, 'x')); },
      "INVALID_FIELD", "vm.cmdline");
  ExpectCreateRefused(
      [](auto& request) { request.mutable_vm()->set_cmdline(std::string("a\0b", 3)); },
      "INVALID_FIELD", "vm.cmdline");
  for (const std::string image : {"x", "images/", "images/zz", "/etc/passwd"}) {
    ExpectCreateRefused([&](auto& request) { request.mutable_vm()->set_image(image); },
                        "INVALID_FIELD", "vm.image");
  }
}

TEST_F(VmServiceTest, CreateRefusesBadChoices) {
  ExpectCreateRefused([](auto& request) { request.clear_vm(); }, "MISSING_FIELD", "vm");
  ExpectCreateRefused(
      [](auto& request) { request.mutable_vm()->set_backend(static_cast<v1::Backend>(9)); },
      "INVALID_FIELD", "vm.backend");
  ExpectCreateRefused([](auto& request) { request.mutable_vm()->mutable_boot()->set_cpl(1); },
                      "INVALID_FIELD", "vm.boot.cpl");
  ExpectCreateRefused(
      [](auto& request) {
        request.mutable_vm()->mutable_conversion_policy()->set_mode(
            static_cast<v1::ConversionPolicy::Mode>(9));
      },
      "INVALID_FIELD", "vm.conversion_policy.mode");
  ExpectCreateRefused(
      [](auto& request) {
        request.mutable_vm()->mutable_conversion_policy()->set_on_timeout(
            static_cast<v1::ConversionPolicy::OnTimeout>(9));
      },
      "INVALID_FIELD", "vm.conversion_policy.on_timeout");
}

TEST_F(VmServiceTest, CreateRefusesDecisionTimeoutsOutOfBounds) {
  const std::pair<int64_t, int32_t> bad[] = {
      {0, 0}, {0, 999'999}, {-1, 0}, {86'400, 1}, {1, -1}, {1, 1'000'000'000}, {INT64_MAX, 0}};
  for (const auto& [seconds, nanos] : bad) {
    ExpectCreateRefused(
        [seconds = seconds, nanos = nanos](auto& request) {
          auto* timeout =
              request.mutable_vm()->mutable_conversion_policy()->mutable_decision_timeout();
          timeout->set_seconds(seconds);
          timeout->set_nanos(nanos);
        },
        "INVALID_FIELD", "vm.conversion_policy.decision_timeout");
  }
}

TEST_F(VmServiceTest, CreateCompilesTheProgramAndRefusesABadOne) {
  ExpectCreateRefused(
      [](auto& request) {
        auto* read =
            request.mutable_vm()->mutable_program()->add_vcpus()->add_steps()->mutable_read();
        read->set_gpa(0x200001);
      },
      "INVALID_PROGRAM", "vm.program");
  v1::CreateVmRequest request = CreateRequest("demo");
  request.mutable_vm()->mutable_program()->add_vcpus()->add_steps()->mutable_exit()->set_code(3);
  v1::CreateVmResponse response;
  ASSERT_TRUE(Create(request, &response).ok());
  EXPECT_FALSE(registry_->vm("demo").spec().program.empty());
}

TEST_F(VmServiceTest, CreateOfATakenNameAlreadyExists) {
  Make("demo");
  v1::CreateVmResponse response;
  const grpc::Status status = Create(CreateRequest("demo"), &response);
  ExpectError(status, StatusCode::ALREADY_EXISTS, "VM_EXISTS");
  EXPECT_EQ(InfoOf(status).metadata().at("vm"), "demo");
}

TEST_F(VmServiceTest, ReasonsOfLowerRoomsAreKept) {
  v1::CreateVmRequest request = CreateRequest("demo");
  request.mutable_vm()->set_backend(v1::BACKEND_KVM);
  v1::CreateVmResponse response;
  ExpectError(Create(request, &response), StatusCode::FAILED_PRECONDITION, "BACKEND_UNAVAILABLE");
}

TEST_F(VmServiceTest, PlacementAndDebugAreCheckedAndAnswered) {
  v1::CreateVmRequest request = CreateRequest("demo");
  v1::CreateVmResponse response;
  request.mutable_vm()->mutable_placement()->add_cpus(1);
  request.mutable_vm()->mutable_placement()->add_cpus(1);
  ExpectError(Create(request, &response), StatusCode::INVALID_ARGUMENT, "INVALID_FIELD");
  request.mutable_vm()->mutable_placement()->set_cpus(0, 3);
  request.mutable_vm()->set_debug(static_cast<v1::Vm::Debug>(77));
  ExpectError(Create(request, &response), StatusCode::INVALID_ARGUMENT, "INVALID_FIELD");
  request.mutable_vm()->set_debug(v1::Vm::DEBUG_REGISTERS);
  ASSERT_TRUE(Create(request, &response).ok());
  ASSERT_EQ(response.vm().placement().cpus_size(), 2);
  EXPECT_EQ(response.vm().placement().cpus(0), 1u);
  EXPECT_EQ(response.vm().placement().cpus(1), 3u);
  EXPECT_EQ(response.vm().debug(), v1::Vm::DEBUG_REGISTERS);
}

TEST_F(VmServiceTest, UploadedImageIsNamedByItsContentAndReachesTheVm) {
  v1::UploadImageResponse image;
  ASSERT_TRUE(Upload({"ab", "c"}, &image).ok());
  // SHA-256 of "abc", from FIPS 180-2.
  EXPECT_EQ(image.image(),
            "images/ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(image.size(), 3u);
  v1::UploadImageResponse again;
  ASSERT_TRUE(Upload({"abc"}, &again).ok());
  EXPECT_EQ(again.image(), image.image());

  v1::CreateVmRequest request = CreateRequest("demo");
  request.mutable_vm()->set_image(image.image());
  v1::CreateVmResponse response;
  ASSERT_TRUE(Create(request, &response).ok());
  EXPECT_EQ(response.vm().image(), image.image());
  EXPECT_EQ(*registry_->vm("demo").spec().image, "abc");
}

TEST_F(VmServiceTest, UploadRefusesEmptyAndOversized) {
  v1::UploadImageResponse image;
  ExpectBadField(Upload({}, &image), "IMAGE_EMPTY", "data");
  ExpectBadField(Upload({std::string((1 << 20) + 1, 'x')}, &image), "CHUNK_TOO_LARGE", "data");
  ExpectBadField(Upload(std::vector<std::string>(65, std::string(1 << 20, 'x')), &image),
                 "IMAGE_TOO_LARGE", "data");
  // What was refused left nothing behind: the store still has room for four full images.
  for (char c : {'a', 'b', 'c', 'd'}) {
    ASSERT_TRUE(Upload(std::vector<std::string>(64, std::string(1 << 20, c)), &image).ok());
  }
}

TEST_F(VmServiceTest, UploadThatBreaksOffKeepsNothing) {
  for (const bool cancels : {true, false}) {
    grpc::ClientContext context;
    v1::UploadImageResponse response;
    auto writer = vms_->UploadImage(&context, &response);
    v1::UploadImageRequest request;
    request.set_total_size(6);
    request.set_data("abc");
    ASSERT_TRUE(writer->Write(request));
    if (cancels) {
      context.TryCancel();
      EXPECT_EQ(writer->Finish().error_code(), StatusCode::CANCELLED);
    } else {
      writer->WritesDone();
      ExpectBadField(writer->Finish(), "IMAGE_INCOMPLETE", "total_size");
    }
  }
  v1::CreateVmRequest request = CreateRequest("demo");
  request.mutable_vm()->set_image(
      "images/ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  v1::CreateVmResponse response;
  const grpc::Status status = Create(request, &response);
  ExpectError(status, StatusCode::NOT_FOUND, "NO_SUCH_IMAGE");
  EXPECT_EQ(InfoOf(status).metadata().at("image"), request.vm().image());
}

TEST_F(VmServiceTest, GetShowsStateAndExitCode) {
  fakes::FakeVm& vm = Make("demo");
  ASSERT_TRUE(Start("demo").ok());
  v1::GetVmResponse response;
  ASSERT_TRUE(Get("vms/demo", &response).ok());
  EXPECT_EQ(response.vm().state(), v1::Vm::STATE_RUNNING);
  EXPECT_FALSE(response.vm().has_exit_code());
  vm.ExitWith(0);
  ASSERT_TRUE(Get("vms/demo", &response).ok());
  EXPECT_EQ(response.vm().state(), v1::Vm::STATE_STOPPED);
  ASSERT_TRUE(response.vm().has_exit_code());
  EXPECT_EQ(response.vm().exit_code(), 0u);
}

TEST_F(VmServiceTest, CallsByNameRefuseWhatIsNoName) {
  v1::GetVmResponse response;
  ExpectBadField(Get("", &response), "MISSING_FIELD", "name");
  for (const std::string name : {"demo", "vms/", "vms/Demo", "vms/a/b", "images/a"}) {
    ExpectBadField(Get(name, &response), "INVALID_NAME", "name");
  }
  ExpectBadField(Delete("demo"), "INVALID_NAME", "name");
  const grpc::Status status = Get("vms/nobody", &response);
  ExpectError(status, StatusCode::NOT_FOUND, "NO_SUCH_VM");
  EXPECT_EQ(InfoOf(status).metadata().at("vm"), "nobody");
}

TEST_F(VmServiceTest, ListPagesByName) {
  const std::vector<std::string> names = {"a", "b", "c", "d", "e"};
  for (const std::string& name : names) Make(name);
  std::vector<std::string> seen;
  v1::ListVmsRequest request;
  request.set_page_size(2);
  int pages = 0;
  do {
    grpc::ClientContext context;
    v1::ListVmsResponse response;
    ASSERT_TRUE(vms_->ListVms(&context, request, &response).ok());
    EXPECT_LE(response.vms_size(), 2);
    EXPECT_EQ(response.cursor(), journal_->Cursor());
    for (const v1::Vm& vm : response.vms()) seen.push_back(vm.name().substr(4));
    request.set_page_token(response.next_page_token());
    ++pages;
  } while (!request.page_token().empty());
  EXPECT_EQ(seen, names);
  EXPECT_EQ(pages, 3);
}

TEST_F(VmServiceTest, ListOfExactlyOnePageHasNoNext) {
  Make("a");
  Make("b");
  grpc::ClientContext context;
  v1::ListVmsRequest request;
  request.set_page_size(2);
  v1::ListVmsResponse response;
  ASSERT_TRUE(vms_->ListVms(&context, request, &response).ok());
  EXPECT_EQ(response.vms_size(), 2);
  EXPECT_TRUE(response.next_page_token().empty());
}

TEST_F(VmServiceTest, ListRefusesBadPages) {
  v1::ListVmsResponse response;
  {
    grpc::ClientContext context;
    v1::ListVmsRequest request;
    request.set_page_size(1001);
    ExpectBadField(vms_->ListVms(&context, request, &response), "INVALID_FIELD", "page_size");
  }
  for (const std::string token : {"x", "demo", "YWZ0ZXI6QUFB", "!!!"}) {
    grpc::ClientContext context;
    v1::ListVmsRequest request;
    request.set_page_token(token);
    ExpectBadField(vms_->ListVms(&context, request, &response), "INVALID_PAGE_TOKEN", "page_token");
  }
}

TEST_F(VmServiceTest, StartTwiceIsAWrongState) {
  Make("demo");
  ASSERT_TRUE(Start("demo").ok());
  ExpectError(Start("demo"), StatusCode::FAILED_PRECONDITION, "WRONG_STATE");
}

TEST_F(VmServiceTest, StopGivesAReasonAndMayBeRepeated) {
  Make("demo");
  ASSERT_TRUE(Start("demo").ok());
  v1::StopVmResponse response;
  for (int i = 0; i < 2; ++i) {
    ASSERT_TRUE(Stop("vms/demo", &response).ok());
    EXPECT_EQ(response.vm().state(), v1::Vm::STATE_STOPPED);
    EXPECT_EQ(response.vm().stop_reason(), "STOP_REQUESTED");
    EXPECT_FALSE(response.vm().has_exit_code());
  }
}

TEST_F(VmServiceTest, DeletedVmIsGoneAndItsNameFree) {
  Make("demo");
  ASSERT_TRUE(Delete("vms/demo").ok());
  ExpectError(Delete("vms/demo"), StatusCode::NOT_FOUND, "NO_SUCH_VM");
  Make("demo");
}

TEST_F(VmServiceTest, CreateWhileTheDaemonStopsIsUnavailable) {
  registry_->Shutdown();
  v1::CreateVmResponse response;
  ExpectError(Create(CreateRequest("demo"), &response), StatusCode::UNAVAILABLE, "DAEMON_STOPPING");
}

TEST_F(VmServiceTest, WorkOfACallerWhoLeftIsNotDone) {
  fakes::FakeVm& vm = Make("demo");
  vm.HoldConversions();
  // Eight large calls hold every worker; the ninth waits, and its caller leaves.
  constexpr uint64_t kLarge = 4 << 20;
  std::vector<std::thread> callers;
  for (int i = 0; i < 8; ++i) {
    callers.emplace_back([&] { EXPECT_TRUE(Set("demo", 0, kLarge, v1::MEMORY_KIND_SHARED).ok()); });
  }
  Eventually([&] { return vm.converts() == 8; });
  {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(50));
    v1::CreateVmRequest request = CreateRequest("late");
    v1::CreateVmResponse response;
    EXPECT_EQ(vms_->CreateVm(&context, request, &response).error_code(),
              StatusCode::DEADLINE_EXCEEDED);
  }
  // The server keeps the deadline by a clock of its own.
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  vm.ReleaseConversions();
  for (std::thread& caller : callers) caller.join();
  Make("other");  // queued behind the one that was left
  EXPECT_EQ(registry_->size(), 2u);
}

}  // namespace
}  // namespace twinroot::rpc
