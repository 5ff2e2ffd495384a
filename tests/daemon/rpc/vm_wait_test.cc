#include <future>

#include "tests/daemon/rpc/rpc_fixture.h"

namespace twinroot::rpc {
namespace {

using grpc::StatusCode;

class VmWaitTest : public RpcFixture {
 protected:
  grpc::Status Wait(const std::string& name, v1::WaitVmResponse* response,
                    std::chrono::milliseconds timeout = std::chrono::hours(1)) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + timeout);
    v1::WaitVmRequest request;
    request.set_name("vms/" + name);
    return vms_->WaitVm(&context, request, response);
  }
};

TEST_F(VmWaitTest, AnswersWhenTheVmStops) {
  fakes::FakeVm& vm = Make("demo");
  ASSERT_TRUE(Start("demo").ok());
  v1::WaitVmResponse response;
  auto waiting = std::async(std::launch::async, [&] { return Wait("demo", &response); });
  Eventually([&] { return vm.waiters() == 1; });
  vm.ExitWith(7);
  ASSERT_TRUE(waiting.get().ok());
  EXPECT_EQ(response.vm().exit_code(), 7u);
  EXPECT_EQ(response.vm().state(), v1::Vm::STATE_STOPPED);
  Eventually([&] { return vm.waiters() == 0; });
}

TEST_F(VmWaitTest, AnswersAtOnceForAStoppedVm) {
  Make("demo").ExitWith(0);
  v1::WaitVmResponse response;
  ASSERT_TRUE(Wait("demo", &response).ok());
  EXPECT_TRUE(response.vm().has_exit_code());
}

TEST_F(VmWaitTest, DeletedVmIsNotFound) {
  fakes::FakeVm& vm = Make("demo");
  v1::WaitVmResponse response;
  auto waiting = std::async(std::launch::async, [&] { return Wait("demo", &response); });
  Eventually([&] { return vm.waiters() == 1; });
  ASSERT_TRUE(registry_->Delete("demo").ok());
  ExpectError(waiting.get(), StatusCode::NOT_FOUND, "NO_SUCH_VM");
  ExpectError(Wait("demo", &response), StatusCode::NOT_FOUND, "NO_SUCH_VM");
}

TEST_F(VmWaitTest, DeadlineEndsTheWaitAndLeavesNoWaiter) {
  fakes::FakeVm& vm = Make("demo");
  v1::WaitVmResponse response;
  EXPECT_EQ(Wait("demo", &response, std::chrono::milliseconds(50)).error_code(),
            StatusCode::DEADLINE_EXCEEDED);
  Eventually([&] { return vm.waiters() == 0; });
}

TEST_F(VmWaitTest, CancelledCallLeavesNoWaiter) {
  fakes::FakeVm& vm = Make("demo");
  grpc::ClientContext context;
  v1::WaitVmResponse response;
  auto waiting = std::async(std::launch::async, [&] {
    v1::WaitVmRequest request;
    request.set_name("vms/demo");
    return vms_->WaitVm(&context, request, &response);
  });
  Eventually([&] { return vm.waiters() == 1; });
  context.TryCancel();
  EXPECT_EQ(waiting.get().error_code(), StatusCode::CANCELLED);
  Eventually([&] { return vm.waiters() == 0; });
}

TEST_F(VmWaitTest, HundredWaitersNeedNoThreads) {
  fakes::FakeVm& vm = Make("demo");
  std::vector<std::future<grpc::Status>> waiting;
  std::vector<v1::WaitVmResponse> responses(100);
  for (v1::WaitVmResponse& response : responses) {
    waiting.push_back(std::async(std::launch::async, [&] { return Wait("demo", &response); }));
  }
  Eventually([&] { return vm.waiters() == responses.size(); });
  // With a worker each, none would be left for this.
  Make("other");
  vm.ExitWith(3);
  for (size_t i = 0; i < waiting.size(); ++i) {
    ASSERT_TRUE(waiting[i].get().ok());
    EXPECT_EQ(responses[i].vm().exit_code(), 3u);
  }
}

TEST_F(VmWaitTest, DrainAnswersWhoWaitsForAVmThatNeverRan) {
  fakes::FakeVm& vm = Make("demo");
  v1::WaitVmResponse response;
  auto waiting = std::async(std::launch::async, [&] { return Wait("demo", &response); });
  Eventually([&] { return vm.waiters() == 1; });
  server_->EndStreams();
  ExpectError(waiting.get(), StatusCode::UNAVAILABLE, "DAEMON_STOPPING");
  ExpectError(Wait("demo", &response), StatusCode::UNAVAILABLE, "DAEMON_STOPPING");
}

class ConsoleTest : public RpcFixture {
 protected:
  std::unique_ptr<grpc::ClientReader<v1::StreamConsoleResponse>> Open(
      grpc::ClientContext* context, v1::StreamConsoleRequest::Mode mode, uint64_t offset = 0) {
    v1::StreamConsoleRequest request;
    request.set_name("vms/demo");
    request.set_mode(mode);
    request.set_offset(offset);
    auto reader = vms_->StreamConsole(context, request);
    reader->WaitForInitialMetadata();
    return reader;
  }

  // Reads to the end, checks that no byte is missing or told twice, and returns the text.
  std::string ReadAll(grpc::ClientReader<v1::StreamConsoleResponse>& reader, uint64_t offset = 0) {
    std::string text;
    v1::StreamConsoleResponse response;
    while (reader.Read(&response)) {
      EXPECT_EQ(response.offset(), offset + text.size());
      EXPECT_FALSE(response.data().empty());
      text += response.data();
    }
    return text;
  }
};

TEST_F(ConsoleTest, SnapshotEndsWithWhatWasSaid) {
  Make("demo").Say("hello\n");
  grpc::ClientContext context;
  auto reader = Open(&context, v1::StreamConsoleRequest::MODE_UNSPECIFIED);
  EXPECT_EQ(ReadAll(*reader), "hello\n");
  EXPECT_TRUE(reader->Finish().ok());
}

TEST_F(ConsoleTest, SnapshotFromAnOffsetSkips) {
  Make("demo").Say("hello\n");
  grpc::ClientContext context;
  auto reader = Open(&context, v1::StreamConsoleRequest::MODE_SNAPSHOT, 4);
  EXPECT_EQ(ReadAll(*reader, 4), "o\n");
  EXPECT_TRUE(reader->Finish().ok());
}

TEST_F(ConsoleTest, LargeConsoleComesWholeInSeveralMessages) {
  const std::string text(300'000, 'x');
  Make("demo").Say(text);
  grpc::ClientContext context;
  auto reader = Open(&context, v1::StreamConsoleRequest::MODE_SNAPSHOT);
  EXPECT_EQ(ReadAll(*reader), text);
  EXPECT_TRUE(reader->Finish().ok());
}

TEST_F(ConsoleTest, FollowGoesOnUntilTheVmStops) {
  fakes::FakeVm& vm = Make("demo");
  vm.Say("one ");
  grpc::ClientContext context;
  auto reader = Open(&context, v1::StreamConsoleRequest::MODE_FOLLOW);
  std::thread guest([&] {
    for (int i = 0; i < 200; ++i) vm.Say("x");
    vm.Say(" end");
    vm.ExitWith(0);
  });
  EXPECT_EQ(ReadAll(*reader), "one " + std::string(200, 'x') + " end");
  guest.join();
  EXPECT_TRUE(reader->Finish().ok());
}

TEST_F(ConsoleTest, FollowEndsWhenTheVmIsDeleted) {
  Make("demo").Say("said");
  grpc::ClientContext context;
  auto reader = Open(&context, v1::StreamConsoleRequest::MODE_FOLLOW);
  ASSERT_TRUE(registry_->Delete("demo").ok());
  EXPECT_EQ(ReadAll(*reader), "said");
  EXPECT_TRUE(reader->Finish().ok());
}

TEST_F(ConsoleTest, FollowEndsAtDrain) {
  Make("demo").Say("said");
  grpc::ClientContext context;
  auto reader = Open(&context, v1::StreamConsoleRequest::MODE_FOLLOW);
  server_->EndStreams();
  EXPECT_EQ(ReadAll(*reader), "said");
  EXPECT_TRUE(reader->Finish().ok());
}

TEST_F(ConsoleTest, CancelledFollowerLeavesNoWaiter) {
  fakes::FakeVm& vm = Make("demo");
  grpc::ClientContext context;
  auto reader = Open(&context, v1::StreamConsoleRequest::MODE_FOLLOW);
  Eventually([&] { return vm.waiters() == 1; });
  context.TryCancel();
  EXPECT_EQ(reader->Finish().error_code(), StatusCode::CANCELLED);
  Eventually([&] { return vm.waiters() == 0; });
}

TEST_F(ConsoleTest, BadRequestsAreRefused) {
  Make("demo");
  {
    grpc::ClientContext context;
    auto reader = Open(&context, static_cast<v1::StreamConsoleRequest::Mode>(9));
    ExpectBadField(reader->Finish(), "INVALID_FIELD", "mode");
  }
  grpc::ClientContext context;
  v1::StreamConsoleRequest request;
  request.set_name("vms/nobody");
  ExpectError(vms_->StreamConsole(&context, request)->Finish(), StatusCode::NOT_FOUND,
              "NO_SUCH_VM");
}

TEST_F(ConsoleTest, WhatIsTypedReachesTheGuestOnceOrNotAtAll) {
  fakes::FakeVm& vm = Make("demo");
  ASSERT_TRUE(Start("demo").ok());
  v1::WriteConsoleRequest request;
  request.set_name("vms/demo");
  request.set_data("ls\n");
  request.set_request_id("once");
  v1::WriteConsoleResponse response;
  const auto type = [&] {
    grpc::ClientContext context;
    return vms_->WriteConsole(&context, request, &response);
  };
  EXPECT_TRUE(type().ok());
  EXPECT_TRUE(type().ok());  // its answer was lost
  EXPECT_EQ(vm.typed(), "ls\n");
  request.clear_request_id();
  request.set_data(std::string(4097, 'x'));
  ExpectBadField(type(), "INVALID_FIELD", "data");
  request.set_data(std::string(4096, 'x'));
  EXPECT_TRUE(type().ok());
  const grpc::Status full = type();
  ExpectError(full, StatusCode::RESOURCE_EXHAUSTED, "CONSOLE_INPUT_FULL");
  EXPECT_EQ(DetailOf<google::rpc::RetryInfo>(full).retry_delay().seconds(), 1);
  EXPECT_EQ(vm.typed().size(), 3u + 4096u);
}

}  // namespace
}  // namespace twinroot::rpc
