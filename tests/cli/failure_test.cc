#include "cli/failure.h"

#include <gtest/gtest.h>

#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace twinroot::cli {
namespace {

using grpc::StatusCode;

template <typename Detail>
grpc::Status WithDetail(StatusCode code, const std::string& message, const Detail& detail) {
  google::rpc::Status rich;
  rich.add_details()->PackFrom(detail);
  return grpc::Status(code, message, rich.SerializeAsString());
}

google::rpc::ErrorInfo Reason(const std::string& reason) {
  google::rpc::ErrorInfo info;
  info.set_reason(reason);
  info.set_domain("twinroot");
  return info;
}

TEST(Failure, EachGrpcCodeHasItsDocumentedExitCode) {
  EXPECT_EQ(ExitCodeOf(StatusCode::OK), 0);
  EXPECT_EQ(ExitCodeOf(StatusCode::INTERNAL), 1);
  EXPECT_EQ(ExitCodeOf(StatusCode::UNKNOWN), 1);
  EXPECT_EQ(ExitCodeOf(StatusCode::RESOURCE_EXHAUSTED), 1);
  EXPECT_EQ(ExitCodeOf(StatusCode::OUT_OF_RANGE), 1);
  EXPECT_EQ(ExitCodeOf(StatusCode::UNIMPLEMENTED), 1);
  EXPECT_EQ(ExitCodeOf(StatusCode::INVALID_ARGUMENT), 2);
  EXPECT_EQ(ExitCodeOf(StatusCode::NOT_FOUND), 3);
  EXPECT_EQ(ExitCodeOf(StatusCode::UNAVAILABLE), 4);
  EXPECT_EQ(ExitCodeOf(StatusCode::ALREADY_EXISTS), 5);
  EXPECT_EQ(ExitCodeOf(StatusCode::FAILED_PRECONDITION), 5);
  EXPECT_EQ(ExitCodeOf(StatusCode::ABORTED), 5);
  EXPECT_EQ(ExitCodeOf(StatusCode::PERMISSION_DENIED), 6);
  EXPECT_EQ(ExitCodeOf(StatusCode::UNAUTHENTICATED), 6);
  EXPECT_EQ(ExitCodeOf(StatusCode::DEADLINE_EXCEEDED), 124);
}

TEST(Failure, SaysWhatFailedAndThenTheServersSentence) {
  const Failure failure =
      RpcFailure("cannot start vm demo", grpc::Status(StatusCode::INTERNAL, "the pool is gone"));
  EXPECT_EQ(failure.message, "cannot start vm demo: the pool is gone");
  EXPECT_EQ(failure.exit_code, kFailure);
  EXPECT_NE(failure.hint.find("log"), std::string::npos);
}

TEST(Failure, AnErrorWithoutASentenceStillSaysItsCode) {
  EXPECT_EQ(RpcFailure("cannot x", grpc::Status(StatusCode::ABORTED, "")).message,
            "cannot x: code 10");
}

TEST(Failure, ARoleThatIsMissingIsNamed) {
  google::rpc::ErrorInfo info = Reason("ROLE_REQUIRED");
  (*info.mutable_metadata())["role_required"] = "operator";
  const Failure failure = RpcFailure(
      "cannot start vm demo", WithDetail(StatusCode::PERMISSION_DENIED, "uid 7 has viewer", info));
  EXPECT_EQ(failure.exit_code, kDenied);
  EXPECT_EQ(failure.hint, "ask for the role operator, or run hvctl as a user that has it");
}

TEST(Failure, TheReasonGivesTheHint) {
  google::rpc::ErrorInfo info = Reason("VM_EXISTS");
  (*info.mutable_metadata())["vm"] = "demo";
  EXPECT_EQ(RpcFailure("w", WithDetail(StatusCode::ALREADY_EXISTS, "m", info)).hint,
            "take another name, or `hvctl vm delete demo`");
  EXPECT_EQ(RpcFailure("w", WithDetail(StatusCode::NOT_FOUND, "m", Reason("NO_SUCH_VM"))).hint,
            "`hvctl vm list` shows the VMs");

  info = Reason("CURSOR_EXPIRED");
  (*info.mutable_metadata())["oldest_cursor"] = "e-17";
  EXPECT_EQ(RpcFailure("w", WithDetail(StatusCode::OUT_OF_RANGE, "m", info)).hint,
            "the oldest event kept is at --since e-17");
}

TEST(Failure, AnUnknownReasonFallsBackToTheCode) {
  EXPECT_EQ(RpcFailure("w", WithDetail(StatusCode::NOT_FOUND, "m", Reason("NEWER"))).hint,
            RpcFailure("w", grpc::Status(StatusCode::NOT_FOUND, "m")).hint);
}

TEST(Failure, BadFieldsAreNamedUnlessTheSentenceHasThem) {
  google::rpc::BadRequest bad;
  bad.add_field_violations()->set_field("vm.vcpus");
  bad.mutable_field_violations(0)->set_description("1 to 64");
  EXPECT_EQ(RpcFailure("w", WithDetail(StatusCode::INVALID_ARGUMENT, "bad", bad)).hint,
            "vm.vcpus: 1 to 64");
  EXPECT_EQ(RpcFailure("w", WithDetail(StatusCode::INVALID_ARGUMENT, "vcpus: 1 to 64", bad)).hint,
            "");
}

TEST(Failure, ASentenceThatNamesACommandNeedsNoHint) {
  const grpc::Status status =
      WithDetail(StatusCode::NOT_FOUND, "no VM dmeo; see `hvctl vm list`", Reason("NO_SUCH_VM"));
  EXPECT_EQ(RpcFailure("w", status).hint, "");
}

TEST(Failure, BrokenDetailsDoNotHideTheError) {
  const Failure failure =
      RpcFailure("w", grpc::Status(StatusCode::NOT_FOUND, "m", "\xff\xff not a message"));
  EXPECT_EQ(failure.message, "w: m");
  EXPECT_EQ(failure.exit_code, kNotFound);
}

}  // namespace
}  // namespace twinroot::cli
