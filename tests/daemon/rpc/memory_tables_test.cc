// MemoryService: table dumps, ages, the NX mitigation's end; what is only checked or made once.
#include <limits>
#include <string>
#include <vector>

#include "daemon/reasons.h"
#include "daemon/status_reason.h"
#include "tests/daemon/rpc/rpc_fixture.h"

namespace twinroot::rpc {
namespace {

using grpc::StatusCode;
using mmu::Gfn;

class MemoryTablesTest : public RpcFixture {
 protected:
  void SetUp() override {
    RpcFixture::SetUp();
    Make("demo");
  }
  fakes::FakeVm& demo() { return registry_->vm("demo"); }

  grpc::Status Dump(const v1::DumpTablesRequest& request,
                    std::vector<v1::DumpTablesResponse>* answers) {
    grpc::ClientContext context;
    auto reader = memory_->DumpTables(&context, request);
    v1::DumpTablesResponse answer;
    while (reader->Read(&answer)) answers->push_back(answer);
    return reader->Finish();
  }
  grpc::Status Age(const v1::AgePagesRequest& request, std::vector<v1::MemoryRange>* runs) {
    grpc::ClientContext context;
    auto reader = memory_->AgePages(&context, request);
    v1::AgePagesResponse answer;
    while (reader->Read(&answer)) {
      runs->insert(runs->end(), answer.runs().begin(), answer.runs().end());
    }
    return reader->Finish();
  }
  static v1::AgePagesRequest AgeOf(uint64_t gpa, uint64_t size) {
    v1::AgePagesRequest request;
    request.set_vm("demo");
    request.mutable_range()->set_gpa(gpa);
    request.mutable_range()->set_size(size);
    return request;
  }
};

TEST_F(MemoryTablesTest, ADumpTellsOfEveryTableOfBothRootsOnce) {
  demo().SetTables(300);
  v1::DumpTablesRequest request;
  request.set_vm("demo");
  std::vector<v1::DumpTablesResponse> answers;
  ASSERT_TRUE(Dump(request, &answers).ok());
  ASSERT_EQ(answers.size(), 6u);  // 128 + 128 + 44, twice
  uint64_t next = 0;
  for (size_t i = 0; i < answers.size(); ++i) {
    const bool is_private = i < 3;
    EXPECT_EQ(answers[i].root(), is_private ? v1::MEMORY_KIND_PRIVATE : v1::MEMORY_KIND_SHARED);
    EXPECT_EQ(answers[i].ept_pointer(), is_private ? 0x101eu : 0x201eu);
    if (i == 3) next = 0;
    for (const auto& table : answers[i].tables()) {
      EXPECT_EQ(table.hpa(), next * 4096);
      EXPECT_EQ(table.gpa(), next * 4096);
      EXPECT_EQ(table.level(), next == 0 ? 4u : 1u);
      ASSERT_EQ(table.entries().size(), 4096u);
      EXPECT_EQ(table.entries()[0], is_private ? '\x08' : static_cast<char>(next));
      ++next;
    }
  }
  EXPECT_EQ(next, 300u);
}

TEST_F(MemoryTablesTest, ADumpOfOneRoot) {
  v1::DumpTablesRequest request;
  request.set_vm("demo");
  request.set_root(v1::MEMORY_KIND_SHARED);
  std::vector<v1::DumpTablesResponse> answers;
  ASSERT_TRUE(Dump(request, &answers).ok());
  ASSERT_EQ(answers.size(), 1u);
  EXPECT_EQ(answers[0].root(), v1::MEMORY_KIND_SHARED);
  request.set_root(static_cast<v1::MemoryKind>(9));
  ExpectBadField(Dump(request, &answers), "INVALID_FIELD", "root");
  request.set_vm("nobody");
  ExpectError(Dump(request, &answers), StatusCode::NOT_FOUND, "NO_SUCH_VM");
}

TEST_F(MemoryTablesTest, AgesAreToldOnceAsRuns) {
  demo().Dirty({Gfn(3), 2});
  demo().Dirty({Gfn(512), 1});
  v1::AgePagesRequest all;
  all.set_vm("demo");
  std::vector<v1::MemoryRange> runs;
  ASSERT_TRUE(Age(all, &runs).ok());
  ASSERT_EQ(runs.size(), 2u);
  EXPECT_EQ(runs[0].gpa(), 0x3000u);
  EXPECT_EQ(runs[0].size(), 0x2000u);
  EXPECT_EQ(runs[1].gpa(), 0x200000u);
  runs.clear();
  ASSERT_TRUE(Age(all, &runs).ok());
  EXPECT_TRUE(runs.empty());
}

TEST_F(MemoryTablesTest, AgesOfWrongRangesAreRefused) {
  std::vector<v1::MemoryRange> runs;
  ExpectBadField(Age(AgeOf(0x1234, 0x1000), &runs), "INVALID_RANGE", "range.gpa");
  ExpectBadField(Age(AgeOf(0x1000, 0), &runs), "INVALID_RANGE", "range.size");
  ExpectBadField(Age(AgeOf(uint64_t{1} << 40, 0x1000), &runs), "INVALID_RANGE", "range");
  demo().FailNextMemoryCall(WithReason(absl::FailedPreconditionError("not here"),
                                       reason::kNotOnThisBackend, {{"vm", "demo"}}));
  ExpectError(Age(AgeOf(0, 0x1000), &runs), StatusCode::FAILED_PRECONDITION, "NOT_ON_THIS_BACKEND");
  EXPECT_TRUE(runs.empty());
}

TEST_F(MemoryTablesTest, RecoversAsManyNxPagesAsAsked) {
  v1::RecoverNxPagesRequest request;
  request.set_vm("demo");
  v1::RecoverNxPagesResponse response;
  for (const uint64_t max : {uint64_t{5}, uint64_t{0}}) {
    grpc::ClientContext context;
    request.set_max_pages(max);
    ASSERT_TRUE(memory_->RecoverNxPages(&context, request, &response).ok());
    EXPECT_EQ(response.collapsed(), 9u);
    EXPECT_EQ(demo().last_max(), max == 0 ? std::numeric_limits<uint64_t>::max() : max);
  }
}

TEST_F(MemoryTablesTest, ARepeatedChangeGivesTheFirstAnswer) {
  v1::SetMemoryAttributesRequest request;
  request.set_vm("demo");
  request.set_kind(v1::MEMORY_KIND_SHARED);
  request.set_request_id("id");
  request.add_ranges()->set_size(4096);
  v1::SetMemoryAttributesResponse first, second;
  {
    grpc::ClientContext context;
    ASSERT_TRUE(memory_->SetMemoryAttributes(&context, request, &first).ok());
  }
  // The guest takes its page back; the repetition, late, does not take it again.
  ASSERT_TRUE(Set("demo", 0, 4096, v1::MEMORY_KIND_PRIVATE).ok());
  const uint64_t converts = demo().converts();
  grpc::ClientContext context;
  ASSERT_TRUE(memory_->SetMemoryAttributes(&context, request, &second).ok());
  EXPECT_EQ(second.SerializeAsString(), first.SerializeAsString());
  EXPECT_EQ(demo().converts(), converts);
}

TEST_F(MemoryTablesTest, MemslotCallsAreMadeOnceAndMayBeTried) {
  v1::AddMemslotRequest add;
  add.set_vm("demo");
  add.mutable_range()->set_gpa(uint64_t{128} << 20);
  add.mutable_range()->set_size(uint64_t{2} << 20);
  add.set_validate_only(true);
  v1::AddMemslotResponse added;
  const auto call = [&] {
    grpc::ClientContext context;
    return memory_->AddMemslot(&context, add, &added);
  };
  ASSERT_TRUE(call().ok());
  EXPECT_TRUE(demo().last_ranges().empty());  // nothing was added
  add.set_validate_only(false);
  add.set_request_id("id");
  ASSERT_TRUE(call().ok());
  EXPECT_EQ(demo().last_ranges().size(), 1u);
  // It would fail now, if it were made.
  demo().FailNextMemoryCall(absl::AlreadyExistsError("memory is there"));
  EXPECT_TRUE(call().ok());
  add.mutable_range()->set_size(uint64_t{4} << 20);
  ExpectBadField(call(), "REQUEST_ID_REUSED", "request_id");
}

}  // namespace
}  // namespace twinroot::rpc
