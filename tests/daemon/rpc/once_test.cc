#include "daemon/rpc/once.h"

#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "daemon/status_reason.h"
#include "gtest/gtest.h"
#include "twinroot/v1/vm.pb.h"

namespace twinroot::rpc {
namespace {

using Turn = Once::Turn;

class OnceTest : public ::testing::Test {
 protected:
  static v1::CreateVmRequest Request(const std::string& name) {
    v1::CreateVmRequest request;
    request.set_vm_id(name);
    return request;
  }
  static Once::Id Id(const std::string& id, const std::string& method = "CreateVm",
                     const std::string& caller = "uid:1") {
    return {caller, method, id};
  }

  // What came back: the answer, "FIRST", "WAITS" or the reason of a refusal.
  std::string Begin(const Once::Id& id, const v1::CreateVmRequest& request) {
    std::string got = "WAITS";
    const auto turn = once_.Begin(
        id, request, [this, &got](const absl::Status& status, const std::string& response) {
          (got == "WAITS" ? got : late_.emplace_back()) =
              status.ok() ? response : std::string(status.message());
        });
    if (!turn.ok()) return ReasonOf(turn.status());
    return *turn == Turn::kFirst ? "FIRST" : got;
  }
  void Make(const Once::Id& id, const std::string& response) {
    ASSERT_EQ(Begin(id, Request("a")), "FIRST");
    once_.End(id, absl::OkStatus(), response);
  }

  absl::Time now_ = absl::UnixEpoch();
  Once once_{{.count = 3, .bytes = 100, .age = absl::Minutes(10)}, [this] { return now_; }};
  std::vector<std::string> late_;
};

TEST_F(OnceTest, ARepetitionGetsTheFirstAnswer) {
  Make(Id("x"), "one");
  EXPECT_EQ(Begin(Id("x"), Request("a")), "one");
  EXPECT_EQ(Begin(Id("x"), Request("a")), "one");
}

TEST_F(OnceTest, AnotherRequestUnderTheSameIdIsRefused) {
  Make(Id("x"), "one");
  EXPECT_EQ(Begin(Id("x"), Request("b")), "REQUEST_ID_REUSED");
  EXPECT_EQ(Begin(Id("x"), Request("a")), "one");
}

TEST_F(OnceTest, IdsAreToldApartByCallerAndMethod) {
  Make(Id("x"), "one");
  Make(Id("x", "StartVm"), "two");
  Make(Id("x", "CreateVm", "uid:2"), "three");
  EXPECT_EQ(Begin(Id("x"), Request("a")), "one");
  EXPECT_EQ(Begin(Id("x", "StartVm"), Request("a")), "two");
}

TEST_F(OnceTest, AFailureIsNotRemembered) {
  ASSERT_EQ(Begin(Id("x"), Request("a")), "FIRST");
  once_.End(Id("x"), absl::NotFoundError("no image"), "");
  Make(Id("x"), "one");
  EXPECT_EQ(Begin(Id("x"), Request("a")), "one");
}

TEST_F(OnceTest, RepetitionsWaitForTheFirstAndGetItsFailureToo) {
  for (const bool good : {true, false}) {
    std::vector<std::string> got;
    const auto note = [&got](const absl::Status& status, const std::string& response) {
      got.push_back(status.ok() ? response : std::string(status.message()));
    };
    ASSERT_EQ(*once_.Begin(Id("x"), Request("a"), note), Turn::kFirst);
    ASSERT_EQ(*once_.Begin(Id("x"), Request("a"), note), Turn::kRepeated);
    ASSERT_EQ(*once_.Begin(Id("x"), Request("a"), note), Turn::kRepeated);
    EXPECT_TRUE(got.empty());
    if (good) {
      once_.End(Id("x"), absl::OkStatus(), "one");
      EXPECT_EQ(got, (std::vector<std::string>{"one", "one"}));
      now_ += absl::Minutes(11);
    } else {
      once_.End(Id("x"), absl::AbortedError("bad luck"), "");
      EXPECT_EQ(got, (std::vector<std::string>{"bad luck", "bad luck"}));
    }
  }
}

TEST_F(OnceTest, TheOldestAnswersGoFirst) {
  for (const char* id : {"a", "b", "c", "d"}) Make(Id(id), id);
  EXPECT_EQ(Begin(Id("b"), Request("a")), "b");
  EXPECT_EQ(Begin(Id("a"), Request("a")), "FIRST");
}

TEST_F(OnceTest, AnswersAreBoundedByTheirBytes) {
  Make(Id("a"), std::string(60, 'a'));
  Make(Id("b"), std::string(60, 'b'));
  EXPECT_EQ(Begin(Id("a"), Request("a")), "FIRST");
  EXPECT_EQ(Begin(Id("b"), Request("a")), std::string(60, 'b'));
  // One that is too large by itself is not kept at all.
  Make(Id("c"), std::string(101, 'c'));
  EXPECT_EQ(Begin(Id("c"), Request("a")), "FIRST");
}

TEST_F(OnceTest, AnswersGoWithTime) {
  Make(Id("a"), "one");
  now_ += absl::Minutes(9);
  EXPECT_EQ(Begin(Id("a"), Request("a")), "one");
  now_ += absl::Minutes(2);
  EXPECT_EQ(Begin(Id("a"), Request("a")), "FIRST");
}

TEST_F(OnceTest, WhatIsNoIdIsRefused) {
  for (const std::string& id : {std::string(129, 'x'), std::string("a b"), std::string("a\n"),
                                std::string("\xc3\xa9"), std::string("")}) {
    EXPECT_EQ(Begin(Id(id), Request("a")), "INVALID_FIELD") << id;
  }
  EXPECT_EQ(Begin(Id(std::string(128, 'x')), Request("a")), "FIRST");
}

TEST_F(OnceTest, LabelsInAnotherOrderAreTheSameRequest) {
  v1::CreateVmRequest forth = Request("a"), back = Request("a");
  for (int i = 0; i < 50; ++i) {
    (*forth.mutable_vm()->mutable_labels())["k" + std::to_string(i)] = "v";
    (*back.mutable_vm()->mutable_labels())["k" + std::to_string(49 - i)] = "v";
  }
  ASSERT_EQ(Begin(Id("x"), forth), "FIRST");
  once_.End(Id("x"), absl::OkStatus(), "one");
  EXPECT_EQ(Begin(Id("x"), back), "one");
}

// Many threads send the same calls: each is made once, and everybody gets its answer.
TEST_F(OnceTest, RacingRepetitionsMakeACallOnce) {
  constexpr int kThreads = 8;
  constexpr int kCalls = 400;
  Once once({.count = kCalls, .bytes = 1 << 20, .age = absl::Hours(1)}, absl::Now);
  std::vector<std::atomic<int>> made(kCalls);
  std::atomic<int> answered{0}, wrong{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < kCalls; ++i) {
        const int call = t % 2 == 0 ? i : kCalls - 1 - i;
        const Once::Id id = Id(std::to_string(call));
        const auto turn = once.Begin(
            id, Request("a"), [&, call](const absl::Status& status, const std::string& response) {
              ++answered;
              if (!status.ok() || response != std::to_string(call)) ++wrong;
            });
        if (!turn.ok()) {
          ++wrong;
        } else if (*turn == Turn::kFirst) {
          ++made[call];
          once.End(id, absl::OkStatus(), std::to_string(call));
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const std::atomic<int>& count : made) EXPECT_EQ(count, 1);
  EXPECT_EQ(answered, (kThreads - 1) * kCalls);
  EXPECT_EQ(wrong, 0);
}

}  // namespace
}  // namespace twinroot::rpc
