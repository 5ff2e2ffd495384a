#include <cstdint>
#include <string>
#include <vector>

#include "tests/daemon/rpc/rpc_fixture.h"

namespace twinroot::rpc {
namespace {

using grpc::StatusCode;

constexpr uint64_t kPage = 4096;
constexpr uint64_t kMemory = uint64_t{4} << 20;

class MemoryServiceTest : public RpcFixture {
 protected:
  void SetUp() override {
    RpcFixture::SetUp();
    Make("demo");
  }

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

  template <typename Change>
  void ExpectSetRefused(Change change, const std::string& reason, const std::string& field) {
    v1::SetMemoryAttributesRequest request = SetRequest();
    change(request);
    v1::SetMemoryAttributesResponse response;
    ExpectBadField(Call(request, &response), reason, field);
    EXPECT_EQ(registry_->vm("demo").converts(), 0u);
  }

  grpc::Status Attributes(const v1::GetMemoryAttributesRequest& request,
                          std::vector<v1::MemoryRun>* runs, int* messages = nullptr) {
    grpc::ClientContext context;
    auto reader = memory_->GetMemoryAttributes(&context, request);
    v1::GetMemoryAttributesResponse response;
    while (reader->Read(&response)) {
      for (const v1::MemoryRun& run : response.runs()) runs->push_back(run);
      if (messages != nullptr) ++*messages;
    }
    return reader->Finish();
  }

  grpc::Status Read(uint64_t gpa, uint64_t size, std::string* data) {
    grpc::ClientContext context;
    v1::ReadGuestMemoryRequest request;
    request.set_vm("demo");
    request.set_gpa(gpa);
    request.set_size(size);
    v1::ReadGuestMemoryResponse response;
    const grpc::Status status = memory_->ReadGuestMemory(&context, request, &response);
    *data = response.data();
    return status;
  }

  grpc::Status Write(uint64_t gpa, const std::string& data) {
    grpc::ClientContext context;
    v1::WriteGuestMemoryRequest request;
    request.set_vm("demo");
    request.set_gpa(gpa);
    request.set_data(data);
    v1::WriteGuestMemoryResponse response;
    return memory_->WriteGuestMemory(&context, request, &response);
  }
};

TEST_F(MemoryServiceTest, SetAnswersWhatReallyChanged) {
  v1::SetMemoryAttributesResponse response;
  ASSERT_TRUE(Set("demo", 2 * kPage, kPage, v1::MEMORY_KIND_SHARED, &response).ok());
  v1::SetMemoryAttributesRequest request = SetRequest();
  request.clear_ranges();
  AddRange(request, 3 * kPage, kPage);
  AddRange(request, 0, 3 * kPage);
  ASSERT_TRUE(Call(request, &response).ok());
  ASSERT_EQ(response.converted_size(), 2);
  EXPECT_EQ(response.converted(0).gpa(), 0u);
  EXPECT_EQ(response.converted(0).size(), 2 * kPage);
  EXPECT_EQ(response.converted(1).gpa(), 3 * kPage);
  EXPECT_NE(response.conversion_id(), 0u);
  ASSERT_TRUE(Call(request, &response).ok());
  EXPECT_EQ(response.converted_size(), 0);
  EXPECT_EQ(response.conversion_id(), 0u);
}

TEST_F(MemoryServiceTest, SetRefusesBadRanges) {
  const auto replace = [](uint64_t gpa, uint64_t size) {
    return [gpa, size](v1::SetMemoryAttributesRequest& request) {
      request.mutable_ranges(0)->set_gpa(gpa);
      request.mutable_ranges(0)->set_size(size);
    };
  };
  ExpectSetRefused(replace(0, 0), "INVALID_RANGE", "ranges[0].size");
  ExpectSetRefused(replace(0, 100), "INVALID_RANGE", "ranges[0].size");
  ExpectSetRefused(replace(0x800, kPage), "INVALID_RANGE", "ranges[0].gpa");
  ExpectSetRefused(replace(~uint64_t{0} - kPage + 1, 2 * kPage), "INVALID_RANGE", "ranges[0]");
  ExpectSetRefused(replace(2 * kPage, ~uint64_t{0} - kPage + 1), "INVALID_RANGE", "ranges[0]");
  ExpectSetRefused([](auto& request) { request.clear_ranges(); }, "MISSING_FIELD", "ranges");
}

TEST_F(MemoryServiceTest, SetNamesTheBadRangeAmongGoodOnes) {
  ExpectSetRefused(
      [](auto& request) {
        AddRange(request, kPage, kPage);
        AddRange(request, 2 * kPage, 0);
      },
      "INVALID_RANGE", "ranges[2].size");
}

TEST_F(MemoryServiceTest, SetRefusesRangesThatOverlap) {
  ExpectSetRefused([](auto& request) { AddRange(request, 0, kPage); }, "RANGES_OVERLAP",
                   "ranges[1]");
  ExpectSetRefused(
      [](auto& request) {
        AddRange(request, 8 * kPage, 8 * kPage);
        AddRange(request, 2 * kPage, kPage);
        AddRange(request, 4 * kPage, 5 * kPage);
      },
      "RANGES_OVERLAP", "ranges[3]");
}

TEST_F(MemoryServiceTest, SetTakesRangesThatOnlyTouch) {
  v1::SetMemoryAttributesRequest request = SetRequest();
  AddRange(request, kPage, kPage);
  v1::SetMemoryAttributesResponse response;
  ASSERT_TRUE(Call(request, &response).ok());
  ASSERT_EQ(response.converted_size(), 1);
  EXPECT_EQ(response.converted(0).size(), 2 * kPage);
}

TEST_F(MemoryServiceTest, SetTakesSixteenThousandRangesAndNoMore) {
  v1::CreateVmRequest create = CreateRequest("large");
  create.mutable_vm()->set_memory_bytes(uint64_t{256} << 20);
  v1::CreateVmResponse created;
  ASSERT_TRUE(Create(create, &created).ok());
  v1::SetMemoryAttributesRequest request = SetRequest();
  request.set_vm("large");
  for (uint64_t i = 1; i < 16384; ++i) AddRange(request, 2 * i * kPage, kPage);
  v1::SetMemoryAttributesResponse response;
  ASSERT_TRUE(Call(request, &response).ok());
  EXPECT_EQ(response.converted_size(), 16384);
  AddRange(request, 2 * 16384 * kPage, kPage);
  ExpectBadField(Call(request, &response), "TOO_MANY_RANGES", "ranges");
}

TEST_F(MemoryServiceTest, SetRefusesBadChoices) {
  ExpectSetRefused([](auto& request) { request.clear_kind(); }, "MISSING_FIELD", "kind");
  ExpectSetRefused([](auto& request) { request.set_kind(static_cast<v1::MemoryKind>(7)); },
                   "INVALID_FIELD", "kind");
  ExpectSetRefused(
      [](auto& request) {
        request.set_content(static_cast<v1::SetMemoryAttributesRequest::Content>(7));
      },
      "INVALID_FIELD", "content");
  ExpectSetRefused([](auto& request) { request.clear_vm(); }, "MISSING_FIELD", "vm");
  ExpectSetRefused([](auto& request) { request.set_vm("vms/demo"); }, "INVALID_NAME", "vm");
}

TEST_F(MemoryServiceTest, SetOutsideMemoryIsInvalid) {
  ExpectError(Set("demo", kMemory, kPage, v1::MEMORY_KIND_SHARED), StatusCode::INVALID_ARGUMENT,
              "INVALID_RANGE");
}

TEST_F(MemoryServiceTest, PreserveToSharedWouldDisclose) {
  v1::SetMemoryAttributesRequest request = SetRequest();
  request.set_content(v1::SetMemoryAttributesRequest::CONTENT_PRESERVE);
  v1::SetMemoryAttributesResponse response;
  ExpectError(Call(request, &response), StatusCode::PERMISSION_DENIED, "PRESERVE_WOULD_DISCLOSE");
}

TEST_F(MemoryServiceTest, ErrorsOfTheVmReachTheCaller) {
  registry_->vm("demo").FailNextConvert(absl::ResourceExhaustedError("no table page"));
  const grpc::Status status = Set("demo", 0, kPage, v1::MEMORY_KIND_SHARED);
  ExpectError(status, StatusCode::RESOURCE_EXHAUSTED, "RESOURCE_EXHAUSTED");
  EXPECT_EQ(status.error_message(), "no table page");
}

TEST_F(MemoryServiceTest, AttributesComeAsMaximalRuns) {
  ASSERT_TRUE(Set("demo", kPage, kPage, v1::MEMORY_KIND_SHARED).ok());
  v1::GetMemoryAttributesRequest request;
  request.set_vm("demo");
  std::vector<v1::MemoryRun> runs;
  ASSERT_TRUE(Attributes(request, &runs).ok());
  ASSERT_EQ(runs.size(), 3u);
  EXPECT_EQ(runs[0].kind(), v1::MEMORY_KIND_PRIVATE);
  EXPECT_EQ(runs[1].gpa(), kPage);
  EXPECT_EQ(runs[1].size(), kPage);
  EXPECT_EQ(runs[1].kind(), v1::MEMORY_KIND_SHARED);
  EXPECT_EQ(runs[2].gpa() + runs[2].size(), kMemory);
}

TEST_F(MemoryServiceTest, AttributesOfARange) {
  ASSERT_TRUE(Set("demo", kPage, kPage, v1::MEMORY_KIND_SHARED).ok());
  v1::GetMemoryAttributesRequest request;
  request.set_vm("demo");
  request.mutable_range()->set_gpa(kPage);
  request.mutable_range()->set_size(2 * kPage);
  std::vector<v1::MemoryRun> runs;
  ASSERT_TRUE(Attributes(request, &runs).ok());
  ASSERT_EQ(runs.size(), 2u);
  request.mutable_range()->set_size(0);
  ExpectBadField(Attributes(request, &runs), "INVALID_RANGE", "range.size");
  request.mutable_range()->set_size(2 * kMemory);
  ExpectError(Attributes(request, &runs), StatusCode::INVALID_ARGUMENT, "INVALID_RANGE");
  request.set_vm("nobody");
  request.clear_range();
  ExpectError(Attributes(request, &runs), StatusCode::NOT_FOUND, "NO_SUCH_VM");
}

TEST_F(MemoryServiceTest, ManyRunsComeInSeveralMessages) {
  v1::CreateVmRequest create = CreateRequest("large");
  create.mutable_vm()->set_memory_bytes(uint64_t{64} << 20);
  v1::CreateVmResponse created;
  ASSERT_TRUE(Create(create, &created).ok());
  v1::SetMemoryAttributesRequest set = SetRequest();
  set.set_vm("large");
  for (uint64_t i = 1; i < 8000; ++i) AddRange(set, 2 * i * kPage, kPage);
  v1::SetMemoryAttributesResponse response;
  ASSERT_TRUE(Call(set, &response).ok());
  v1::GetMemoryAttributesRequest request;
  request.set_vm("large");
  std::vector<v1::MemoryRun> runs;
  int messages = 0;
  ASSERT_TRUE(Attributes(request, &runs, &messages).ok());
  EXPECT_EQ(runs.size(), 16000u);
  EXPECT_EQ(messages, 4);
  for (size_t i = 1; i < runs.size(); ++i) {
    ASSERT_EQ(runs[i].gpa(), runs[i - 1].gpa() + runs[i - 1].size());
  }
}

TEST_F(MemoryServiceTest, TranslateShowsTheWalkInWords) {
  grpc::ClientContext context;
  v1::TranslateRequest request;
  request.set_vm("demo");
  request.set_gpa(0x1234);
  v1::TranslateResponse response;
  ASSERT_TRUE(memory_->Translate(&context, request, &response).ok());
  EXPECT_EQ(response.outcome(), v1::TranslateResponse::OUTCOME_MAPPED);
  ASSERT_EQ(response.steps_size(), 2);
  EXPECT_EQ(response.steps(0).level(), 4u);
  EXPECT_EQ(response.steps(0).meaning(), "rwx table");
  EXPECT_EQ(response.steps(1).meaning(), "rwx 4K page WB");
  EXPECT_EQ(response.hpa(), 0x200234u);
  EXPECT_EQ(response.page_size(), kPage);
  EXPECT_EQ(response.access(), "rwx");
  EXPECT_EQ(response.kind(), v1::MEMORY_KIND_PRIVATE);
  EXPECT_EQ(response.ept_pointer(), 0x10005Eu);
}

TEST_F(MemoryServiceTest, TranslateOfTheOtherAliasIsNotMapped) {
  grpc::ClientContext context;
  v1::TranslateRequest request;
  request.set_vm("demo");
  request.set_alias(v1::MEMORY_KIND_SHARED);
  v1::TranslateResponse response;
  ASSERT_TRUE(memory_->Translate(&context, request, &response).ok());
  EXPECT_EQ(response.outcome(), v1::TranslateResponse::OUTCOME_NOT_MAPPED);
  EXPECT_EQ(response.steps(1).meaning(), "not present");
  EXPECT_EQ(response.hpa(), 0u);
  EXPECT_TRUE(response.access().empty());
}

TEST_F(MemoryServiceTest, TranslateRefusesBadRequests) {
  v1::TranslateResponse response;
  v1::TranslateRequest request;
  request.set_vm("demo");
  request.set_alias(static_cast<v1::MemoryKind>(7));
  {
    grpc::ClientContext context;
    ExpectBadField(memory_->Translate(&context, request, &response), "INVALID_FIELD", "alias");
  }
  request.clear_alias();
  request.set_gpa(uint64_t{1} << 47);
  grpc::ClientContext context;
  ExpectError(memory_->Translate(&context, request, &response), StatusCode::INVALID_ARGUMENT,
              "INVALID_FIELD");
}

TEST_F(MemoryServiceTest, SharedMemoryIsReadAsItWasWritten) {
  ASSERT_TRUE(Set("demo", 0, 2 * kPage, v1::MEMORY_KIND_SHARED).ok());
  ASSERT_TRUE(Write(4090, "across pages").ok());
  std::string data;
  ASSERT_TRUE(Read(4089, 14, &data).ok());
  EXPECT_EQ(data, std::string("\0across pages\0", 14));
}

TEST_F(MemoryServiceTest, PrivateMemoryIsNeitherReadNorWritten) {
  ASSERT_TRUE(Set("demo", 0, kPage, v1::MEMORY_KIND_SHARED).ok());
  std::string data;
  ExpectError(Read(kPage - 1, 2, &data), StatusCode::PERMISSION_DENIED, "PRIVATE_MEMORY");
  EXPECT_TRUE(data.empty());
  ExpectError(Write(kPage, "x"), StatusCode::PERMISSION_DENIED, "PRIVATE_MEMORY");
}

TEST_F(MemoryServiceTest, TransfersOutOfBoundsAreInvalid) {
  std::string data;
  ExpectBadField(Read(0, 0, &data), "INVALID_RANGE", "size");
  ExpectBadField(Read(0, (1 << 20) + 1, &data), "INVALID_RANGE", "size");
  ExpectBadField(Read(~uint64_t{0}, 2, &data), "INVALID_RANGE", "gpa");
  ExpectError(Read(kMemory, 1, &data), StatusCode::INVALID_ARGUMENT, "INVALID_RANGE");
  ExpectBadField(Write(0, ""), "INVALID_RANGE", "data");
  ExpectBadField(Write(0, std::string((1 << 20) + 1, 'x')), "INVALID_RANGE", "data");
}

TEST_F(MemoryServiceTest, RecoverNamesItsRanges) {
  v1::RecoverPagesRequest request;
  request.set_vm("demo");
  v1::RecoverPagesResponse response;
  const auto call = [&] {
    grpc::ClientContext context;
    return memory_->RecoverPages(&context, request, &response);
  };
  ExpectBadField(call(), "MISSING_FIELD", "ranges");
  request.add_ranges()->set_size(kMemory);
  ASSERT_TRUE(call().ok());
  EXPECT_EQ(response.collapsed(), 8u);
  ASSERT_EQ(registry_->vm("demo").last_ranges().size(), 1u);
  EXPECT_EQ(registry_->vm("demo").last_ranges()[0].count, kMemory / kPage);
  request.mutable_ranges(0)->set_size(kMemory + kPage);
  ExpectError(call(), StatusCode::INVALID_ARGUMENT, "INVALID_RANGE");
  request.set_vm("nobody");
  ExpectError(call(), StatusCode::NOT_FOUND, "NO_SUCH_VM");
}

TEST_F(MemoryServiceTest, StatsAreTheEnginesCounters) {
  host::VmCounters counters;
  counters.memory.faults_fixed = 1;
  counters.memory.faults_fast = 2;
  counters.memory.splits_dirty_log = 3;
  counters.memory.splits_conversion = 4;
  counters.memory.collapses_dirty_log = 5;
  counters.memory.leaves[1][0] = 6;
  counters.memory.leaves[0][2] = 7;
  counters.memory.table_pages = 8;
  counters.memory.table_pages_budget = 9;
  counters.memory.private_frames_attribute = 10;
  counters.shared_bytes_allocated = 11;
  counters.dirty_log_enabled = true;
  counters.dirty_pages_harvested = 12;
  counters.vcpus_waiting_for_harvest = 13;
  registry_->vm("demo").SetCounters(counters);
  grpc::ClientContext context;
  v1::GetMemoryStatsRequest request;
  request.set_vm("demo");
  v1::GetMemoryStatsResponse response;
  ASSERT_TRUE(memory_->GetMemoryStats(&context, request, &response).ok());
  const v1::MemoryStats& stats = response.stats();
  EXPECT_EQ(stats.faults().fixed(), 1u);
  EXPECT_EQ(stats.faults().fast(), 2u);
  EXPECT_EQ(stats.splits().dirty_log(), 3u);
  EXPECT_EQ(stats.splits().conversion(), 4u);
  EXPECT_EQ(stats.collapses().dirty_log(), 5u);
  ASSERT_EQ(stats.leaves_size(), 2);
  EXPECT_EQ(stats.leaves(0).root(), v1::MEMORY_KIND_PRIVATE);
  EXPECT_EQ(stats.leaves(0).page_size(), 1u << 30);
  EXPECT_EQ(stats.leaves(0).count(), 7u);
  EXPECT_EQ(stats.leaves(1).root(), v1::MEMORY_KIND_SHARED);
  EXPECT_EQ(stats.leaves(1).page_size(), kPage);
  EXPECT_EQ(stats.leaves(1).count(), 6u);
  EXPECT_EQ(stats.table_pages(), 8u);
  EXPECT_EQ(stats.table_pages_budget(), 9u);
  EXPECT_EQ(stats.private_bytes(), 10 * kPage);
  EXPECT_EQ(stats.shared_bytes_allocated(), 11u);
  EXPECT_EQ(stats.dirty_log().state(), v1::MemoryStats::DirtyLog::STATE_ON);
  EXPECT_EQ(stats.dirty_log().pages_harvested(), 12u);
  EXPECT_EQ(stats.dirty_log().vcpus_waiting(), 13u);
}

}  // namespace
}  // namespace twinroot::rpc
