#include <cstdint>
#include <string>
#include <vector>

#include "daemon/reasons.h"
#include "daemon/status_reason.h"
#include "tests/daemon/rpc/rpc_fixture.h"

namespace twinroot::rpc {
namespace {

using grpc::StatusCode;
using mmu::Gfn;
using mmu::GfnRange;

constexpr uint64_t kMiB = uint64_t{1} << 20;

class MemslotsTest : public RpcFixture {
 protected:
  void SetUp() override {
    RpcFixture::SetUp();
    v1::CreateVmRequest create = CreateRequest("demo");
    create.mutable_vm()->set_memory_bytes(80 * kMiB);
    v1::CreateVmResponse created;
    ASSERT_TRUE(Create(create, &created).ok());
    prefault_.set_vm("demo");
    add_.set_vm("demo");
    add_.mutable_range()->set_gpa(128 * kMiB);
    add_.mutable_range()->set_size(4 * kMiB);
    remove_.set_vm("demo");
    remove_.set_gpa(128 * kMiB);
    move_.set_vm("demo");
    move_.set_gpa(128 * kMiB);
    move_.set_new_gpa(256 * kMiB);
  }
  fakes::FakeVm& demo() { return registry_->vm("demo"); }

  grpc::Status Prefault(std::vector<v1::PrefaultResponse>* answers) {
    grpc::ClientContext context;
    auto reader = memory_->Prefault(&context, prefault_);
    v1::PrefaultResponse answer;
    while (reader->Read(&answer)) answers->push_back(answer);
    return reader->Finish();
  }
  grpc::Status Add() {
    grpc::ClientContext context;
    v1::AddMemslotResponse response;
    return memory_->AddMemslot(&context, add_, &response);
  }
  grpc::Status Remove() {
    grpc::ClientContext context;
    v1::RemoveMemslotResponse response;
    return memory_->RemoveMemslot(&context, remove_, &response);
  }
  grpc::Status Move() {
    grpc::ClientContext context;
    v1::MoveMemslotResponse response;
    return memory_->MoveMemslot(&context, move_, &response);
  }

  v1::PrefaultRequest prefault_;
  v1::AddMemslotRequest add_;
  v1::RemoveMemslotRequest remove_;
  v1::MoveMemslotRequest move_;
};

TEST_F(MemslotsTest, PrefaultTellsHowFarItIsAndThatItIsDone) {
  std::vector<v1::PrefaultResponse> answers;
  ASSERT_TRUE(Prefault(&answers).ok());
  ASSERT_EQ(answers.size(), 3u);
  EXPECT_EQ(answers[0].bytes_done(), 32 * kMiB);
  EXPECT_EQ(answers[0].bytes_total(), 80 * kMiB);
  EXPECT_EQ(answers[0].outcome(), v1::PrefaultResponse::OUTCOME_GOES_ON);
  EXPECT_EQ(answers[1].bytes_done(), 64 * kMiB);
  EXPECT_EQ(answers[2].bytes_done(), 80 * kMiB);
  EXPECT_EQ(answers[2].outcome(), v1::PrefaultResponse::OUTCOME_COMPLETE);
  EXPECT_EQ(demo().last_kind(), std::nullopt);
}

TEST_F(MemslotsTest, PrefaultOfARangeAndAKind) {
  prefault_.mutable_range()->set_gpa(4096);
  prefault_.mutable_range()->set_size(8192);
  prefault_.set_kind(v1::MEMORY_KIND_SHARED);
  std::vector<v1::PrefaultResponse> answers;
  ASSERT_TRUE(Prefault(&answers).ok());
  ASSERT_EQ(answers.size(), 1u);
  EXPECT_EQ(answers[0].bytes_total(), 8192u);
  EXPECT_EQ(demo().last_kind(), mmu::MemoryKind::kShared);
}

TEST_F(MemslotsTest, PrefaultThatStopsSaysWhereAndWhy) {
  demo().StopPrefaultAt(Gfn((40 * kMiB) / 4096), absl::ResourceExhaustedError("no page is left"));
  std::vector<v1::PrefaultResponse> answers;
  const grpc::Status status = Prefault(&answers);
  ExpectError(status, StatusCode::RESOURCE_EXHAUSTED, "RESOURCE_EXHAUSTED");
  ASSERT_EQ(answers.size(), 2u);
  EXPECT_EQ(answers[1].bytes_done(), 40 * kMiB);
  EXPECT_EQ(answers[1].outcome(), v1::PrefaultResponse::OUTCOME_STOPPED);
  EXPECT_EQ(answers[1].detail(), "no page is left");
}

TEST_F(MemslotsTest, PrefaultRefusesBadRequests) {
  std::vector<v1::PrefaultResponse> answers;
  prefault_.set_kind(static_cast<v1::MemoryKind>(7));
  ExpectBadField(Prefault(&answers), "INVALID_FIELD", "kind");
  prefault_.clear_kind();
  prefault_.mutable_range()->set_gpa(100);
  prefault_.mutable_range()->set_size(4096);
  ExpectBadField(Prefault(&answers), "INVALID_RANGE", "range.gpa");
  prefault_.mutable_range()->set_gpa(80 * kMiB);
  ExpectError(Prefault(&answers), StatusCode::INVALID_ARGUMENT, "INVALID_RANGE");
  prefault_.set_vm("nobody");
  ExpectError(Prefault(&answers), StatusCode::NOT_FOUND, "NO_SUCH_VM");
  EXPECT_TRUE(answers.empty());
}

TEST_F(MemslotsTest, MemslotsAreNamedByTheirFrames) {
  ASSERT_TRUE(Add().ok());
  EXPECT_EQ(demo().last_ranges(), (std::vector<GfnRange>{{Gfn(0x8000), 0x400}}));
  ASSERT_TRUE(Move().ok());
  EXPECT_EQ(demo().last_ranges(), (std::vector<GfnRange>{{Gfn(0x8000), 0}, {Gfn(0x10000), 0}}));
  ASSERT_TRUE(Remove().ok());
  EXPECT_EQ(demo().last_ranges(), (std::vector<GfnRange>{{Gfn(0x8000), 0}}));
}

TEST_F(MemslotsTest, MemslotsAreOf2MiB) {
  add_.mutable_range()->set_gpa(kMiB);
  ExpectBadField(Add(), "INVALID_RANGE", "range.gpa");
  add_.mutable_range()->set_gpa(2 * kMiB);
  add_.mutable_range()->set_size(kMiB);
  ExpectBadField(Add(), "INVALID_RANGE", "range.size");
  add_.mutable_range()->set_size(0);
  ExpectBadField(Add(), "INVALID_RANGE", "range.size");
  remove_.set_gpa(kMiB);
  ExpectBadField(Remove(), "INVALID_RANGE", "gpa");
  move_.set_new_gpa(kMiB);
  ExpectBadField(Move(), "INVALID_RANGE", "new_gpa");
  move_.set_gpa(kMiB);
  ExpectBadField(Move(), "INVALID_RANGE", "gpa");
}

TEST_F(MemslotsTest, ReasonsOfTheVmReachTheCaller) {
  demo().FailNextMemoryCall(
      WithReason(absl::AlreadyExistsError("memory is there"), reason::kMemslotExists));
  ExpectError(Add(), StatusCode::ALREADY_EXISTS, "MEMSLOT_EXISTS");
  demo().FailNextMemoryCall(
      WithReason(absl::FailedPreconditionError("kvm"), reason::kNotOnThisBackend));
  ExpectError(Remove(), StatusCode::FAILED_PRECONDITION, "NOT_ON_THIS_BACKEND");
  demo().FailNextMemoryCall(
      WithReason(absl::UnavailableError("in an access"), reason::kVcpuWaits, {{"vm", "demo"}}));
  const grpc::Status waits = Move();
  ExpectError(waits, StatusCode::UNAVAILABLE, "VCPU_WAITS");
  EXPECT_EQ(DetailOf<google::rpc::RetryInfo>(waits).retry_delay().seconds(), 1);
  demo().FailNextMemoryCall(WithReason(absl::NotFoundError("none"), reason::kNoSuchMemslot));
  ExpectError(Move(), StatusCode::NOT_FOUND, "NO_SUCH_MEMSLOT");
  for (auto* vm : {add_.mutable_vm(), remove_.mutable_vm(), move_.mutable_vm()}) *vm = "nobody";
  ExpectError(Add(), StatusCode::NOT_FOUND, "NO_SUCH_VM");
  ExpectError(Remove(), StatusCode::NOT_FOUND, "NO_SUCH_VM");
  ExpectError(Move(), StatusCode::NOT_FOUND, "NO_SUCH_VM");
}

}  // namespace
}  // namespace twinroot::rpc
