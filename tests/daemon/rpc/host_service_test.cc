#include <string>
#include <vector>

#include "tests/daemon/rpc/rpc_fixture.h"

namespace twinroot::rpc {
namespace {

class HostServiceTest : public RpcFixture {
 protected:
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
  const auto told = journal_->Read(0, 100, {}).events;
  ASSERT_TRUE(told.back()->has_audit_failure());
  EXPECT_EQ(told.back()->vm(), answers[1].vm());
  EXPECT_EQ(told.back()->audit_failure().detail(), answers[1].detail());
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

}  // namespace
}  // namespace twinroot::rpc
