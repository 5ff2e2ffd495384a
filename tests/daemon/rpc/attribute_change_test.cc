// Batches, denials, dry runs and explanations; the plain cases are in memory_service_test.cc.
#include <cstdint>
#include <string>
#include <vector>

#include "tests/daemon/rpc/rpc_fixture.h"

namespace twinroot::rpc {
namespace {

using grpc::StatusCode;

constexpr uint64_t kPage = 4096;
constexpr uint64_t kMemory = uint64_t{4} << 20;

class AttributeChangeTest : public RpcFixture {
 protected:
  void SetUp() override {
    RpcFixture::SetUp();
    Make("demo");
  }

  // The first page becomes shared.
  static v1::SetMemoryAttributesRequest SetRequest() {
    v1::SetMemoryAttributesRequest request;
    request.set_vm("demo");
    request.set_kind(v1::MEMORY_KIND_SHARED);
    AddRange(request, 0, kPage);
    return request;
  }
  static void AddRange(v1::SetMemoryAttributesRequest& request, uint64_t gpa, uint64_t size) {
    v1::MemoryRange* range = request.add_ranges();
    range->set_gpa(gpa);
    range->set_size(size);
  }
  grpc::Status Call(const v1::SetMemoryAttributesRequest& request,
                    v1::SetMemoryAttributesResponse* response) {
    grpc::ClientContext context;
    return memory_->SetMemoryAttributes(&context, request, response);
  }
  grpc::Status Attributes(const v1::GetMemoryAttributesRequest& request,
                          std::vector<v1::MemoryRun>* runs) {
    grpc::ClientContext context;
    auto reader = memory_->GetMemoryAttributes(&context, request);
    v1::GetMemoryAttributesResponse response;
    while (reader->Read(&response)) {
      for (const v1::MemoryRun& run : response.runs()) runs->push_back(run);
    }
    return reader->Finish();
  }
};

TEST_F(AttributeChangeTest, EachRangeHasItsOwnResult) {
  registry_->vm("demo").RefuseChangesOf(mmu::Gfn(5));
  v1::SetMemoryAttributesRequest request = SetRequest();
  AddRange(request, 4 * kPage, 4 * kPage);
  v1::SetMemoryAttributesResponse response;
  ASSERT_TRUE(Call(request, &response).ok());
  using Result = v1::SetMemoryAttributesResponse::RangeResult;
  ASSERT_EQ(response.per_range_size(), 2);
  EXPECT_EQ(response.per_range(0).outcome(), Result::OUTCOME_DONE);
  ASSERT_EQ(response.per_range(0).converted_size(), 1);
  EXPECT_EQ(response.per_range(0).converted(0).size(), kPage);
  EXPECT_EQ(response.per_range(1).outcome(), Result::OUTCOME_REFUSED);
  EXPECT_EQ(response.per_range(1).detail(), "the host has no memory");
  EXPECT_EQ(response.per_range(1).converted_size(), 0);
  EXPECT_EQ(response.converted_size(), 1);
  // Alone, the refusal is the call's.
  request.mutable_ranges()->DeleteSubrange(0, 1);
  ExpectError(Call(request, &response), StatusCode::RESOURCE_EXHAUSTED, "RESOURCE_EXHAUSTED");
}

TEST_F(AttributeChangeTest, AnAtomicChangeIsAllOrNothing) {
  registry_->vm("demo").RefuseChangesOf(mmu::Gfn(5));
  v1::SetMemoryAttributesRequest request = SetRequest();
  AddRange(request, 4 * kPage, 4 * kPage);
  request.set_atomic(true);
  v1::SetMemoryAttributesResponse response;
  ExpectError(Call(request, &response), StatusCode::RESOURCE_EXHAUSTED, "RESOURCE_EXHAUSTED");
  v1::GetMemoryAttributesRequest get;
  get.set_vm("demo");
  std::vector<v1::MemoryRun> runs;
  ASSERT_TRUE(Attributes(get, &runs).ok());
  EXPECT_EQ(runs.size(), 1u);
}

TEST_F(AttributeChangeTest, DenialsAreSetAloneOrWithAKind) {
  v1::SetMemoryAttributesRequest request = SetRequest();
  request.clear_kind();
  request.set_deny("xw");
  v1::SetMemoryAttributesResponse response;
  ASSERT_TRUE(Call(request, &response).ok());
  EXPECT_EQ(response.converted_size(), 0);
  EXPECT_EQ(response.conversion_id(), 0u);
  ASSERT_EQ(response.redenied_size(), 1);
  EXPECT_EQ(response.redenied(0).size(), kPage);
  v1::GetMemoryAttributesRequest get;
  get.set_vm("demo");
  std::vector<v1::MemoryRun> runs;
  ASSERT_TRUE(Attributes(get, &runs).ok());
  ASSERT_EQ(runs.size(), 2u);
  EXPECT_EQ(runs[0].denied(), "wx");
  EXPECT_EQ(runs[0].kind(), v1::MEMORY_KIND_PRIVATE);
  EXPECT_EQ(runs[1].denied(), "");
  request.set_kind(v1::MEMORY_KIND_SHARED);
  request.set_deny("");
  ASSERT_TRUE(Call(request, &response).ok());
  EXPECT_EQ(response.redenied_size(), 1);
  EXPECT_EQ(response.converted_size(), 1);
}

TEST_F(AttributeChangeTest, DenialsAreLetters) {
  for (const char* deny : {"q", "rr", "RW", "rwxr"}) {
    v1::SetMemoryAttributesRequest bad = SetRequest();
    bad.set_deny(deny);
    v1::SetMemoryAttributesResponse ignored;
    ExpectBadField(Call(bad, &ignored), "INVALID_FIELD", "deny");
  }
  registry_->vm("demo").FailNextConvert(absl::FailedPreconditionError("no execute-only pages"));
  v1::SetMemoryAttributesRequest request = SetRequest();
  request.set_deny("r");
  v1::SetMemoryAttributesResponse response;
  ExpectError(Call(request, &response), StatusCode::FAILED_PRECONDITION, "DENIAL_UNSUPPORTED");
}

TEST_F(AttributeChangeTest, ValidateOnlyTellsThePlanAndChangesNothing) {
  v1::SetMemoryAttributesRequest request = SetRequest();
  request.set_validate_only(true);
  v1::SetMemoryAttributesResponse response;
  ASSERT_TRUE(Call(request, &response).ok());
  EXPECT_EQ(response.converted_size(), 1);
  EXPECT_EQ(response.conversion_id(), 0u);
  const v1::SetMemoryAttributesResponse::Plan& plan = response.plan();
  ASSERT_EQ(plan.split_size(), 1);
  EXPECT_EQ(plan.split(0).root(), v1::MEMORY_KIND_PRIVATE);
  EXPECT_EQ(plan.split(0).page_size(), 2u << 20);
  EXPECT_EQ(plan.split(0).count(), 1u);
  EXPECT_EQ(plan.tables_needed(), 2u);
  ASSERT_EQ(plan.zapped_size(), 1);
  EXPECT_EQ(plan.zapped(0).count(), 3u);
  ASSERT_EQ(plan.restricted_size(), 1);
  EXPECT_EQ(plan.restricted(0).root(), v1::MEMORY_KIND_SHARED);
  EXPECT_EQ(plan.recovered_size(), 0);
  EXPECT_EQ(plan.flushes(), 11u);
  EXPECT_EQ(plan.bytes_discarded(), 7u);
  EXPECT_EQ(plan.bytes_copied(), 8u);
  EXPECT_EQ(registry_->vm("demo").converts(), 0u);
  request.mutable_ranges(0)->set_gpa(kMemory);
  ExpectError(Call(request, &response), StatusCode::INVALID_ARGUMENT, "INVALID_RANGE");
}

TEST_F(AttributeChangeTest, TranslateSaysWhyThePageIsNoLarger) {
  mmu::Explanation why;
  why.in_memslot = true;
  why.may_map = true;
  why.allowed = mmu::Level::k4K;
  why.veto = mmu::LevelVeto::kAttributes;
  why.attributes = {mmu::MemoryKind::kPrivate, mmu::Access::Fetch()};
  why.dirty_log = true;
  registry_->vm("demo").SetExplanation(why);
  v1::TranslateRequest request;
  request.set_vm("demo");
  v1::TranslateResponse response;
  const auto call = [&] {
    grpc::ClientContext context;
    return memory_->Translate(&context, request, &response).ok();
  };
  ASSERT_TRUE(call());
  EXPECT_EQ(response.why().mapping(), v1::Explanation::MAPPING_ALLOWED);
  EXPECT_EQ(response.why().allowed_page_size(), kPage);
  EXPECT_EQ(response.why().veto(), v1::Explanation::VETO_ATTRIBUTES);
  EXPECT_EQ(response.why().veto_text(), "attributes differ inside");
  EXPECT_EQ(response.why().denied(), "x");
  EXPECT_TRUE(response.why().dirty_log());
  EXPECT_FALSE(response.why().recoverable());
  why.may_map = false;
  why.smaller_table = true;
  registry_->vm("demo").SetExplanation(why);
  ASSERT_TRUE(call());
  EXPECT_EQ(response.why().mapping(), v1::Explanation::MAPPING_OTHER_KIND);
  EXPECT_EQ(response.why().veto(), v1::Explanation::VETO_UNSPECIFIED);
  EXPECT_TRUE(response.why().recoverable());
}

}  // namespace
}  // namespace twinroot::rpc
