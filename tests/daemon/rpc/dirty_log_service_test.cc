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

constexpr uint64_t kPage = 4096;
constexpr uint64_t kMemory = uint64_t{4} << 20;

class DirtyLogServiceTest : public RpcFixture {
 protected:
  void SetUp() override {
    RpcFixture::SetUp();
    Make("demo");
  }
  fakes::FakeVm& demo() { return registry_->vm("demo"); }

  static v1::EnableDirtyLogRequest EnableRequest() {
    v1::EnableDirtyLogRequest request;
    request.set_vm("demo");
    return request;
  }
  grpc::Status Enable(const v1::EnableDirtyLogRequest& request,
                      v1::EnableDirtyLogResponse* response = nullptr) {
    grpc::ClientContext context;
    v1::EnableDirtyLogResponse ignored;
    return dirty_log_->EnableDirtyLog(&context, request, response ? response : &ignored);
  }
  grpc::Status Disable(const std::string& vm, v1::DisableDirtyLogResponse* response) {
    grpc::ClientContext context;
    v1::DisableDirtyLogRequest request;
    request.set_vm(vm);
    return dirty_log_->DisableDirtyLog(&context, request, response);
  }

  static v1::HarvestDirtyLogRequest HarvestRequest() {
    v1::HarvestDirtyLogRequest request;
    request.set_vm("demo");
    return request;
  }
  grpc::Status Harvest(const v1::HarvestDirtyLogRequest& request,
                       std::vector<v1::MemoryRange>* runs, int* messages = nullptr) {
    grpc::ClientContext context;
    auto reader = dirty_log_->HarvestDirtyLog(&context, request);
    v1::HarvestDirtyLogResponse response;
    while (reader->Read(&response)) {
      for (const v1::MemoryRange& run : response.runs()) runs->push_back(run);
      if (messages != nullptr) ++*messages;
    }
    return reader->Finish();
  }

  grpc::Status Clear(const v1::ClearDirtyLogRequest& request) {
    grpc::ClientContext context;
    v1::ClearDirtyLogResponse response;
    return dirty_log_->ClearDirtyLog(&context, request, &response);
  }
  grpc::Status Split(const v1::SplitPagesRequest& request, v1::SplitPagesResponse* response) {
    grpc::ClientContext context;
    return dirty_log_->SplitPages(&context, request, response);
  }
  template <typename Request>
  static Request OfRange(uint64_t gpa, uint64_t size) {
    Request request;
    request.set_vm("demo");
    v1::MemoryRange* range = request.add_ranges();
    range->set_gpa(gpa);
    range->set_size(size);
    return request;
  }
};

TEST_F(DirtyLogServiceTest, EnableHasPlainDefaultsAndTellsWhatWasSplit) {
  v1::EnableDirtyLogResponse response;
  ASSERT_TRUE(Enable(EnableRequest(), &response).ok());
  EXPECT_EQ(response.splits().split_1g(), 1u);
  EXPECT_EQ(response.splits().split_2m(), 2u);
  EXPECT_EQ(response.splits().kept(), 3u);
  const mmu::DirtyLogOptions options = demo().log_options();
  EXPECT_EQ(options.mode, mmu::DirtyLogMode::kWriteProtect);
  EXPECT_EQ(options.clear, mmu::DirtyClear::kAtHarvest);
  EXPECT_FALSE(options.initially_all_set);
  EXPECT_TRUE(options.eager_split);
  EXPECT_EQ(options.ring_entries, 0u);
}

TEST_F(DirtyLogServiceTest, EnablePassesEveryChoiceOn) {
  v1::EnableDirtyLogRequest request = EnableRequest();
  request.set_mode(v1::EnableDirtyLogRequest::MODE_PML);
  request.set_manual_clear(true);
  request.set_initially_all_set(true);
  request.set_no_eager_split(true);
  ASSERT_TRUE(Enable(request).ok());
  EXPECT_EQ(demo().log_options().mode, mmu::DirtyLogMode::kPml);
  EXPECT_EQ(demo().log_options().clear, mmu::DirtyClear::kManual);
  EXPECT_TRUE(demo().log_options().initially_all_set);
  EXPECT_FALSE(demo().log_options().eager_split);
  request = EnableRequest();
  request.set_mode(v1::EnableDirtyLogRequest::MODE_DIRTY_BIT);
  ASSERT_TRUE(Enable(request).ok());
  EXPECT_EQ(demo().log_options().mode, mmu::DirtyLogMode::kDirtyBit);
  request = EnableRequest();
  request.set_ring_entries(129);
  ASSERT_TRUE(Enable(request).ok());
  EXPECT_EQ(demo().log_options().ring_entries, 129u);
}

TEST_F(DirtyLogServiceTest, EnableRefusesChoicesThatDoNotGoTogether) {
  const auto refused = [this](auto change, const std::string& field) {
    v1::EnableDirtyLogRequest request = EnableRequest();
    change(request);
    ExpectBadField(Enable(request), "INVALID_FIELD", field);
  };
  refused([](auto& r) { r.set_mode(static_cast<v1::EnableDirtyLogRequest::Mode>(9)); }, "mode");
  refused([](auto& r) { r.set_initially_all_set(true); }, "initially_all_set");
  refused([](auto& r) { r.set_ring_entries(128); }, "ring_entries");
  refused([](auto& r) { r.set_ring_entries(65537); }, "ring_entries");
  refused(
      [](auto& r) {
        r.set_ring_entries(1024);
        r.set_manual_clear(true);
      },
      "ring_entries");
  refused(
      [](auto& r) {
        r.set_ring_entries(1024);
        r.set_mode(v1::EnableDirtyLogRequest::MODE_DIRTY_BIT);
      },
      "ring_entries");
}

TEST_F(DirtyLogServiceTest, EnableAndDisableMayBeSentAgain) {
  v1::EnableDirtyLogRequest enable = EnableRequest();
  enable.set_request_id("on");
  v1::EnableDirtyLogResponse first, again;
  ASSERT_TRUE(Enable(enable, &first).ok());
  demo().FailNextMemoryCall(WithReason(absl::FailedPreconditionError("on"), reason::kDirtyLogOn));
  ASSERT_TRUE(Enable(enable, &again).ok());
  EXPECT_EQ(again.SerializeAsString(), first.SerializeAsString());
  // The VM was not asked again: its refusal is still to come.
  ExpectError(Enable(EnableRequest()), StatusCode::FAILED_PRECONDITION, "DIRTY_LOG_ON");
}

TEST_F(DirtyLogServiceTest, DisableTellsWhatBecameLargeAgain) {
  v1::DisableDirtyLogResponse response;
  ASSERT_TRUE(Disable("demo", &response).ok());
  EXPECT_EQ(response.collapsed(), 4u);
}

TEST_F(DirtyLogServiceTest, HarvestGivesMaximalRunsOnce) {
  demo().Dirty({Gfn(3), 5});
  demo().Dirty({Gfn(100), 1});
  std::vector<v1::MemoryRange> runs;
  ASSERT_TRUE(Harvest(HarvestRequest(), &runs).ok());
  ASSERT_EQ(runs.size(), 2u);
  EXPECT_EQ(runs[0].gpa(), 3 * kPage);
  EXPECT_EQ(runs[0].size(), 5 * kPage);
  EXPECT_EQ(runs[1].gpa(), 100 * kPage);
  EXPECT_EQ(runs[1].size(), kPage);
  runs.clear();
  ASSERT_TRUE(Harvest(HarvestRequest(), &runs).ok());
  EXPECT_TRUE(runs.empty());
}

TEST_F(DirtyLogServiceTest, HarvestOfARange) {
  demo().Dirty({Gfn(10), 1});
  demo().Dirty({Gfn(70), 1});
  v1::HarvestDirtyLogRequest request = HarvestRequest();
  request.mutable_range()->set_gpa(64 * kPage);
  request.mutable_range()->set_size(64 * kPage);
  std::vector<v1::MemoryRange> runs;
  ASSERT_TRUE(Harvest(request, &runs).ok());
  ASSERT_EQ(runs.size(), 1u);
  EXPECT_EQ(runs[0].gpa(), 70 * kPage);
  request.mutable_range()->set_gpa(kPage);
  ExpectBadField(Harvest(request, &runs), "INVALID_RANGE", "range.gpa");
  request.mutable_range()->set_gpa(0);
  request.mutable_range()->set_size(0);
  ExpectBadField(Harvest(request, &runs), "INVALID_RANGE", "range.size");
  request.mutable_range()->set_size(kMemory + kPage);
  ExpectError(Harvest(request, &runs), StatusCode::INVALID_ARGUMENT, "INVALID_RANGE");
}

TEST_F(DirtyLogServiceTest, ManyRunsComeInSeveralMessages) {
  v1::CreateVmRequest create = CreateRequest("large");
  create.mutable_vm()->set_memory_bytes(uint64_t{64} << 20);
  v1::CreateVmResponse created;
  ASSERT_TRUE(Create(create, &created).ok());
  for (uint64_t i = 0; i < 5000; ++i) registry_->vm("large").Dirty({Gfn(2 * i), 1});
  v1::HarvestDirtyLogRequest request;
  request.set_vm("large");
  std::vector<v1::MemoryRange> runs;
  int messages = 0;
  ASSERT_TRUE(Harvest(request, &runs, &messages).ok());
  EXPECT_EQ(runs.size(), 5000u);
  EXPECT_EQ(messages, 2);
}

TEST_F(DirtyLogServiceTest, AHarvestWhoseCallerLeavesIsLoggedAgain) {
  v1::CreateVmRequest create = CreateRequest("large");
  create.mutable_vm()->set_memory_bytes(uint64_t{8} << 30);
  v1::CreateVmResponse created;
  ASSERT_TRUE(Create(create, &created).ok());
  // Too much for the windows between the two: the stream cannot end unread.
  constexpr uint64_t kRuns = 1000000;
  for (uint64_t i = 0; i < kRuns; ++i) registry_->vm("large").Dirty({Gfn(2 * i), 1});
  v1::HarvestDirtyLogRequest request;
  request.set_vm("large");
  {
    grpc::ClientContext context;
    auto reader = dirty_log_->HarvestDirtyLog(&context, request);
    v1::HarvestDirtyLogResponse response;
    ASSERT_TRUE(reader->Read(&response));
    context.TryCancel();
    while (reader->Read(&response)) {
    }
    EXPECT_EQ(reader->Finish().error_code(), StatusCode::CANCELLED);
  }
  std::vector<v1::MemoryRange> runs;
  Eventually([&] { return Harvest(request, &runs).ok() && runs.size() >= kRuns; });
  EXPECT_EQ(runs.size(), kRuns);
}

TEST_F(DirtyLogServiceTest, ClearNamesItsRanges) {
  demo().Dirty({Gfn(0), 16});
  v1::ClearDirtyLogRequest request = OfRange<v1::ClearDirtyLogRequest>(2 * kPage, 13 * kPage);
  ASSERT_TRUE(Clear(request).ok());
  ASSERT_EQ(demo().last_ranges().size(), 1u);
  EXPECT_EQ(demo().last_ranges()[0], (GfnRange{Gfn(2), 13}));
  *request.add_ranges() = request.ranges(0);
  ExpectBadField(Clear(request), "RANGES_OVERLAP", "ranges[1]");
  request.clear_ranges();
  ExpectBadField(Clear(request), "MISSING_FIELD", "ranges");
  ExpectError(Clear(OfRange<v1::ClearDirtyLogRequest>(kMemory, kPage)),
              StatusCode::INVALID_ARGUMENT, "INVALID_RANGE");
}

TEST_F(DirtyLogServiceTest, SplitTakesTwoPageSizes) {
  v1::SplitPagesRequest request = OfRange<v1::SplitPagesRequest>(0, kPage);
  v1::SplitPagesResponse response;
  ASSERT_TRUE(Split(request, &response).ok());
  EXPECT_EQ(demo().last_target(), mmu::Level::k4K);
  EXPECT_EQ(response.splits().split_1g(), 5u);
  EXPECT_EQ(response.splits().split_2m(), 6u);
  EXPECT_EQ(response.splits().kept(), 7u);
  request.set_page_size(2 << 20);
  ASSERT_TRUE(Split(request, &response).ok());
  EXPECT_EQ(demo().last_target(), mmu::Level::k2M);
  request.set_page_size(8192);
  ExpectBadField(Split(request, &response), "INVALID_FIELD", "page_size");
  ExpectError(Split(OfRange<v1::SplitPagesRequest>(kMemory, kPage), &response),
              StatusCode::INVALID_ARGUMENT, "INVALID_RANGE");
}

TEST_F(DirtyLogServiceTest, NobodysLogIsNotFound) {
  v1::EnableDirtyLogRequest enable = EnableRequest();
  enable.set_vm("nobody");
  ExpectError(Enable(enable), StatusCode::NOT_FOUND, "NO_SUCH_VM");
  v1::DisableDirtyLogResponse disabled;
  ExpectError(Disable("nobody", &disabled), StatusCode::NOT_FOUND, "NO_SUCH_VM");
  v1::HarvestDirtyLogRequest harvest = HarvestRequest();
  harvest.set_vm("nobody");
  std::vector<v1::MemoryRange> runs;
  ExpectError(Harvest(harvest, &runs), StatusCode::NOT_FOUND, "NO_SUCH_VM");
  auto clear = OfRange<v1::ClearDirtyLogRequest>(0, kPage);
  clear.set_vm("nobody");
  ExpectError(Clear(clear), StatusCode::NOT_FOUND, "NO_SUCH_VM");
  auto split = OfRange<v1::SplitPagesRequest>(0, kPage);
  split.set_vm("nobody");
  v1::SplitPagesResponse response;
  ExpectError(Split(split, &response), StatusCode::NOT_FOUND, "NO_SUCH_VM");
}

TEST_F(DirtyLogServiceTest, ReasonsOfTheVmReachTheCaller) {
  const auto fail_next = [this](const char* reason) {
    demo().FailNextMemoryCall(
        WithReason(absl::FailedPreconditionError("not now"), reason, {{"vm", "demo"}}));
  };
  fail_next(reason::kDirtyLogOn);
  ExpectError(Enable(EnableRequest()), StatusCode::FAILED_PRECONDITION, "DIRTY_LOG_ON");
  fail_next(reason::kDirtyLogOff);
  std::vector<v1::MemoryRange> runs;
  const grpc::Status status = Harvest(HarvestRequest(), &runs);
  ExpectError(status, StatusCode::FAILED_PRECONDITION, "DIRTY_LOG_OFF");
  EXPECT_EQ(InfoOf(status).metadata().at("vm"), "demo");
  fail_next(reason::kDirtyLogNotManual);
  ExpectError(Clear(OfRange<v1::ClearDirtyLogRequest>(0, kPage)), StatusCode::FAILED_PRECONDITION,
              "DIRTY_LOG_NOT_MANUAL");
  demo().FailNextMemoryCall(absl::InternalError("a table is lost"));
  v1::DisableDirtyLogResponse disabled;
  ExpectError(Disable("demo", &disabled), StatusCode::INTERNAL, "INTERNAL");
}

}  // namespace
}  // namespace twinroot::rpc
