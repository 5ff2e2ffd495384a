// VmService: pausing, changing, etags, calls that are made once, calls that only check.
#include <string>
#include <thread>
#include <vector>

#include "tests/daemon/rpc/rpc_fixture.h"

namespace twinroot::rpc {
namespace {

using grpc::StatusCode;

class VmLifeTest : public RpcFixture {
 protected:
  template <typename Response, typename Request>
  grpc::Status Call(grpc::Status (v1::VmService::Stub::*method)(grpc::ClientContext*,
                                                                const Request&, Response*),
                    const Request& request, Response* response) {
    grpc::ClientContext context;
    return (vms_.get()->*method)(&context, request, response);
  }
  grpc::Status Pause(const std::string& name, const std::string& etag = "") {
    v1::PauseVmRequest request;
    request.set_name("vms/" + name);
    request.set_etag(etag);
    return Call(&v1::VmService::Stub::PauseVm, request, &paused_);
  }
  grpc::Status Resume(const std::string& name, const std::string& etag = "") {
    v1::ResumeVmRequest request;
    request.set_name("vms/" + name);
    request.set_etag(etag);
    return Call(&v1::VmService::Stub::ResumeVm, request, &resumed_);
  }
  grpc::Status Update(const v1::UpdateVmRequest& request) {
    return Call(&v1::VmService::Stub::UpdateVm, request, &updated_);
  }
  v1::Vm Get(const std::string& name) {
    v1::GetVmRequest request;
    request.set_name("vms/" + name);
    v1::GetVmResponse response;
    EXPECT_TRUE(Call(&v1::VmService::Stub::GetVm, request, &response).ok());
    return response.vm();
  }
  grpc::Status Delete(const std::string& name, const std::string& etag,
                      const std::string& request_id = "") {
    v1::DeleteVmRequest request;
    request.set_name("vms/" + name);
    request.set_etag(etag);
    request.set_request_id(request_id);
    v1::DeleteVmResponse response;
    return Call(&v1::VmService::Stub::DeleteVm, request, &response);
  }
  static v1::UpdateVmRequest UpdateOf(const std::string& name,
                                      const std::vector<std::string>& paths) {
    v1::UpdateVmRequest request;
    request.mutable_vm()->set_name("vms/" + name);
    for (const std::string& path : paths) request.mutable_update_mask()->add_paths(path);
    return request;
  }

  v1::PauseVmResponse paused_;
  v1::ResumeVmResponse resumed_;
  v1::UpdateVmResponse updated_;
};

TEST_F(VmLifeTest, PauseAndResumeMayBeRepeated) {
  Make("demo");
  ExpectError(Pause("demo"), StatusCode::FAILED_PRECONDITION, "WRONG_STATE");
  ExpectError(Resume("demo"), StatusCode::FAILED_PRECONDITION, "WRONG_STATE");
  ASSERT_TRUE(Start("demo").ok());
  for (int i = 0; i < 2; ++i) {
    ASSERT_TRUE(Pause("demo").ok());
    EXPECT_EQ(paused_.vm().state(), v1::Vm::STATE_PAUSED);
  }
  for (int i = 0; i < 2; ++i) {
    ASSERT_TRUE(Resume("demo").ok());
    EXPECT_EQ(resumed_.vm().state(), v1::Vm::STATE_RUNNING);
  }
  registry_->vm("demo").ExitWith(0);
  ExpectError(Pause("demo"), StatusCode::FAILED_PRECONDITION, "WRONG_STATE");
  ExpectError(Pause("nobody"), StatusCode::NOT_FOUND, "NO_SUCH_VM");
  ExpectBadField(Resume("No Name"), "INVALID_NAME", "name");
}

TEST_F(VmLifeTest, UpdateChangesWhatTheMaskNames) {
  v1::CreateVmRequest create = CreateRequest("demo");
  (*create.mutable_vm()->mutable_labels())["owner"] = "me";
  create.mutable_vm()->mutable_conversion_policy()->set_mode(
      v1::ConversionPolicy::MODE_ORCHESTRATOR);
  create.mutable_vm()->mutable_conversion_policy()->set_on_timeout(
      v1::ConversionPolicy::ON_TIMEOUT_APPLY);
  v1::CreateVmResponse created;
  ASSERT_TRUE(Create(create, &created).ok());
  EXPECT_EQ(created.vm().labels().at("owner"), "me");

  v1::UpdateVmRequest request = UpdateOf("demo", {"conversion_policy.decision_timeout"});
  request.mutable_vm()->mutable_conversion_policy()->mutable_decision_timeout()->set_seconds(7);
  request.mutable_vm()->mutable_conversion_policy()->set_mode(v1::ConversionPolicy::MODE_DENY);
  ASSERT_TRUE(Update(request).ok());
  const v1::ConversionPolicy& policy = updated_.vm().conversion_policy();
  EXPECT_EQ(policy.decision_timeout().seconds(), 7);
  EXPECT_EQ(policy.mode(), v1::ConversionPolicy::MODE_ORCHESTRATOR);
  EXPECT_EQ(policy.on_timeout(), v1::ConversionPolicy::ON_TIMEOUT_APPLY);
  EXPECT_EQ(updated_.vm().labels().at("owner"), "me");

  request = UpdateOf("demo", {"labels", "conversion_policy"});
  (*request.mutable_vm()->mutable_labels())["tier"] = "gold";
  ASSERT_TRUE(Update(request).ok());
  EXPECT_EQ(updated_.vm().labels_size(), 1);
  EXPECT_EQ(updated_.vm().labels().at("tier"), "gold");
  EXPECT_EQ(updated_.vm().conversion_policy().mode(), v1::ConversionPolicy::MODE_AUTO);
  EXPECT_EQ(updated_.vm().conversion_policy().decision_timeout().seconds(), 30);
  EXPECT_EQ(Get("demo").SerializeAsString(), updated_.vm().SerializeAsString());
}

TEST_F(VmLifeTest, UpdateRefusesWhatCannotChange) {
  Make("demo");
  const v1::Vm before = Get("demo");
  ExpectBadField(Update(UpdateOf("demo", {})), "MISSING_FIELD", "update_mask");
  for (const char* path : {"vcpus", "*", "", "state", "labels.owner", "conversion_policy.nothing",
                           "conversion_policy.mode.x"}) {
    ExpectBadField(Update(UpdateOf("demo", {"labels", path})), "FIELD_NOT_UPDATABLE",
                   "update_mask.paths[1]");
  }
  v1::UpdateVmRequest request = UpdateOf("demo", {"conversion_policy"});
  request.mutable_vm()->mutable_conversion_policy()->set_mode(
      static_cast<v1::ConversionPolicy::Mode>(9));
  ExpectBadField(Update(request), "INVALID_FIELD", "vm.conversion_policy.mode");
  request = UpdateOf("demo", {"labels"});
  (*request.mutable_vm()->mutable_labels())["Bad Key"] = "";
  ExpectBadField(Update(request), "INVALID_FIELD", "vm.labels");
  request = UpdateOf("demo", {"labels"});
  (*request.mutable_vm()->mutable_labels())["k"] = std::string(257, 'x');
  ExpectBadField(Update(request), "INVALID_FIELD", "vm.labels[k]");
  for (int i = 0; i < 65; ++i) {
    (*request.mutable_vm()->mutable_labels())[absl::StrCat("k", i)] = "";
  }
  ExpectBadField(Update(request), "INVALID_FIELD", "vm.labels");
  ExpectBadField(Update(v1::UpdateVmRequest()), "MISSING_FIELD", "vm.name");
  ExpectError(Update(UpdateOf("nobody", {"labels"})), StatusCode::NOT_FOUND, "NO_SUCH_VM");
  EXPECT_EQ(Get("demo").SerializeAsString(), before.SerializeAsString());
}

TEST_F(VmLifeTest, AQuotaIsTakenAwayWithWhatBelongsToIt) {
  Make("demo");
  v1::UpdateVmRequest request = UpdateOf("demo", {"conversion_policy"});
  v1::ConversionPolicy& policy = *request.mutable_vm()->mutable_conversion_policy();
  policy.set_max_conversions_per_second(10);
  policy.set_conversion_burst(20);
  policy.set_ping_pong_limit(3);
  policy.mutable_ping_pong_window()->set_seconds(5);
  ASSERT_TRUE(Update(request).ok());
  request = UpdateOf("demo", {"conversion_policy.max_conversions_per_second",
                              "conversion_policy.ping_pong_limit"});
  ASSERT_TRUE(Update(request).ok());
  EXPECT_EQ(updated_.vm().conversion_policy().conversion_burst(), 0u);
  EXPECT_FALSE(updated_.vm().conversion_policy().has_ping_pong_window());
  // Who asks for a part alone is told.
  request = UpdateOf("demo", {"conversion_policy.conversion_burst"});
  request.mutable_vm()->mutable_conversion_policy()->set_conversion_burst(2);
  ExpectBadField(Update(request), "INVALID_FIELD", "vm.conversion_policy.conversion_burst");
}

TEST_F(VmLifeTest, UpdateMayBeTried) {
  Make("demo");
  const v1::Vm before = Get("demo");
  v1::UpdateVmRequest request = UpdateOf("demo", {"labels"});
  request.set_validate_only(true);
  (*request.mutable_vm()->mutable_labels())["tier"] = "gold";
  ASSERT_TRUE(Update(request).ok());
  EXPECT_EQ(updated_.vm().labels().at("tier"), "gold");
  EXPECT_EQ(updated_.vm().etag(), before.etag());
  EXPECT_EQ(Get("demo").SerializeAsString(), before.SerializeAsString());
  request.mutable_vm()->set_etag("0000000000000001");
  ExpectError(Update(request), StatusCode::ABORTED, "ETAG_MISMATCH");
}

TEST_F(VmLifeTest, EachChangeGivesANewEtag) {
  Make("demo");
  std::vector<std::string> etags = {Get("demo").etag()};
  EXPECT_FALSE(etags[0].empty());
  EXPECT_EQ(Get("demo").etag(), etags[0]);
  const auto changed = [&] {
    const std::string etag = Get("demo").etag();
    EXPECT_EQ(std::count(etags.begin(), etags.end(), etag), 0) << etag;
    etags.push_back(etag);
  };
  ASSERT_TRUE(Update(UpdateOf("demo", {"labels"})).ok());
  changed();
  ASSERT_TRUE(Start("demo").ok());
  changed();
  ASSERT_TRUE(Pause("demo").ok());
  changed();
  ASSERT_TRUE(Resume("demo").ok());
  changed();
  registry_->vm("demo").ExitWith(3);
  changed();
  ASSERT_TRUE(Delete("demo", "").ok());
  Make("demo");
  changed();
}

TEST_F(VmLifeTest, AStaleEtagStopsACall) {
  Make("demo");
  const std::string stale = Get("demo").etag();
  ASSERT_TRUE(Update(UpdateOf("demo", {"labels"})).ok());
  v1::UpdateVmRequest update = UpdateOf("demo", {"labels"});
  update.mutable_vm()->set_etag(stale);
  const grpc::Status refused = Update(update);
  ExpectError(refused, StatusCode::ABORTED, "ETAG_MISMATCH");
  const auto failure = DetailOf<google::rpc::PreconditionFailure>(refused);
  ASSERT_EQ(failure.violations_size(), 1);
  EXPECT_EQ(failure.violations(0).type(), "ETAG_MISMATCH");
  EXPECT_EQ(failure.violations(0).subject(), "vms/demo");
  ExpectError(Delete("demo", stale), StatusCode::ABORTED, "ETAG_MISMATCH");
  ExpectError(Pause("demo", stale), StatusCode::ABORTED, "ETAG_MISMATCH");
  ExpectError(Resume("demo", stale), StatusCode::ABORTED, "ETAG_MISMATCH");
  v1::StartVmRequest start;
  start.set_name("vms/demo");
  start.set_etag(stale);
  v1::StartVmResponse started;
  ExpectError(Call(&v1::VmService::Stub::StartVm, start, &started), StatusCode::ABORTED,
              "ETAG_MISMATCH");
  v1::StopVmRequest stop;
  stop.set_name("vms/demo");
  stop.set_etag(stale);
  v1::StopVmResponse stopped;
  ExpectError(Call(&v1::VmService::Stub::StopVm, stop, &stopped), StatusCode::ABORTED,
              "ETAG_MISMATCH");
  EXPECT_EQ(Get("demo").state(), v1::Vm::STATE_DEFINED);

  start.set_etag(Get("demo").etag());
  ASSERT_TRUE(Call(&v1::VmService::Stub::StartVm, start, &started).ok());
  ASSERT_TRUE(Delete("demo", started.vm().etag()).ok());
  Make("other");
  for (const char* none : {"x", "12", "0X00000000000001", "00000000000000001"}) {
    ExpectBadField(Pause("other", none), "INVALID_FIELD", "etag");
  }
}

TEST_F(VmLifeTest, ARepeatedCreateGivesTheFirstAnswer) {
  v1::CreateVmRequest request = CreateRequest("demo");
  request.set_request_id("6e5f");
  v1::CreateVmResponse first, second;
  ASSERT_TRUE(Create(request, &first).ok());
  ASSERT_TRUE(Start("demo").ok());
  ASSERT_TRUE(Create(request, &second).ok());
  EXPECT_EQ(second.SerializeAsString(), first.SerializeAsString());
  request.mutable_vm()->set_vcpus(2);
  ExpectBadField(Create(request, &second), "REQUEST_ID_REUSED", "request_id");
  // Under another id it is another call.
  request.set_request_id("6e60");
  ExpectError(Create(request, &second), StatusCode::ALREADY_EXISTS, "VM_EXISTS");
}

TEST_F(VmLifeTest, AFailedCallMayBeRepeatedUnderItsId) {
  Make("demo");
  v1::CreateVmRequest request = CreateRequest("demo");
  request.set_request_id("id");
  v1::CreateVmResponse response;
  ExpectError(Create(request, &response), StatusCode::ALREADY_EXISTS, "VM_EXISTS");
  ASSERT_TRUE(Delete("demo", "").ok());
  EXPECT_TRUE(Create(request, &response).ok());
}

TEST_F(VmLifeTest, ARepeatedDeleteSucceedsAgain) {
  Make("demo");
  ASSERT_TRUE(Delete("demo", "", "id").ok());
  Make("demo");
  ASSERT_TRUE(Delete("demo", "", "id").ok());
  EXPECT_EQ(registry_->size(), 1u);  // the answer of the first; nothing was deleted
}

TEST_F(VmLifeTest, RepetitionsWaitForTheCallThatIsUnderWay) {
  fakes::FakeVm& vm = Make("demo");
  vm.HoldStart();
  v1::StartVmRequest request;
  request.set_name("vms/demo");
  request.set_request_id("id");
  std::vector<grpc::Status> got(20, grpc::Status::CANCELLED);
  std::vector<v1::StartVmResponse> answers(got.size());
  std::vector<std::thread> callers;
  for (size_t i = 0; i < got.size(); ++i) {
    callers.emplace_back(
        [&, i] { got[i] = Call(&v1::VmService::Stub::StartVm, request, &answers[i]); });
  }
  Eventually([&] { return vm.starts() == 1; });
  // More of them wait than there are workers, and others are served meanwhile.
  Make("other");
  EXPECT_TRUE(Start("other").ok());
  vm.ReleaseStart();
  for (std::thread& caller : callers) caller.join();
  for (size_t i = 0; i < got.size(); ++i) {
    EXPECT_TRUE(got[i].ok()) << got[i].error_message();
    EXPECT_EQ(answers[i].SerializeAsString(), answers[0].SerializeAsString());
  }
  EXPECT_EQ(vm.starts(), 1u);
}

TEST_F(VmLifeTest, CreateMayBeTried) {
  v1::CreateVmRequest request = CreateRequest("demo");
  request.set_validate_only(true);
  request.set_request_id("id");
  v1::CreateVmResponse response;
  ASSERT_TRUE(Create(request, &response).ok());
  EXPECT_EQ(response.vm().name(), "vms/demo");
  EXPECT_EQ(response.vm().backend(), v1::BACKEND_SIM);
  EXPECT_EQ(response.vm().etag(), "");
  EXPECT_EQ(registry_->size(), 0u);
  request.set_validate_only(false);  // the id is unused
  ASSERT_TRUE(Create(request, &response).ok());
  request.set_validate_only(true);
  ExpectError(Create(request, &response), StatusCode::ALREADY_EXISTS, "VM_EXISTS");
  request.mutable_vm()->set_nx_huge_pages(static_cast<v1::Vm::NxHugePages>(7));
  ExpectBadField(Create(request, &response), "INVALID_FIELD", "vm.nx_huge_pages");
  request.mutable_vm()->clear_nx_huge_pages();
  request.mutable_vm()->set_mmu(static_cast<v1::Vm::Mmu>(7));
  ExpectBadField(Create(request, &response), "INVALID_FIELD", "vm.mmu");
  request.mutable_vm()->clear_mmu();
}

TEST_F(VmLifeTest, CreateTakesTheMitigation) {
  v1::CreateVmRequest request = CreateRequest("demo");
  v1::CreateVmResponse response;
  ASSERT_TRUE(Create(request, &response).ok());
  EXPECT_EQ(response.vm().nx_huge_pages(), v1::Vm::NX_HUGE_PAGES_OFF);
  request = CreateRequest("safe");
  EXPECT_EQ(response.vm().mmu(), v1::Vm::MMU_TDP);
  request.mutable_vm()->set_mmu(v1::Vm::MMU_SHADOW);
  request.mutable_vm()->set_nx_huge_pages(v1::Vm::NX_HUGE_PAGES_ON);
  ASSERT_TRUE(Create(request, &response).ok());
  EXPECT_EQ(response.vm().nx_huge_pages(), v1::Vm::NX_HUGE_PAGES_ON);
  EXPECT_TRUE(registry_->vm("safe").spec().nx_huge_pages);
  EXPECT_EQ(response.vm().mmu(), v1::Vm::MMU_SHADOW);
  EXPECT_EQ(registry_->vm("safe").spec().mmu, mmu::MmuMode::kShadow);
}

}  // namespace
}  // namespace twinroot::rpc
