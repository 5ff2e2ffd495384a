#include "daemon/host/cpu_groups.h"

#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace twinroot::host {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

std::string Read(const fs::path& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

std::vector<fs::path> Groups(const std::string& folder) {
  std::vector<fs::path> groups;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename();
    if (name.rfind("vm-", 0) == 0 && name.find("." + std::to_string(getpid())) != name.npos) {
      groups.push_back(entry.path());
    }
  }
  return groups;
}

// On the host's own cpu controller, where the test may make groups.
class CpuGroupsOfTheHost : public testing::Test {
 protected:
  void SetUp() override {
    auto groups = CpuGroups::Open();
    if (!groups.ok()) GTEST_SKIP() << groups.status().message();
    groups_ = *std::move(groups);
    v2_ = fs::exists(groups_->folder() + "/cgroup.controllers");
  }

  // What the kernel keeps of the one group there is.
  std::string Kept(const char* v2_file, const char* v1_file) {
    const auto groups = Groups(groups_->folder());
    if (groups.size() != 1) return "groups: " + std::to_string(groups.size());
    return Read(groups[0] / (v2_ ? v2_file : v1_file));
  }

  std::unique_ptr<CpuGroups> groups_;
  bool v2_ = false;
};

TEST_F(CpuGroupsOfTheHost, AGroupHasItsShareFromTheBeginningAndTakesANewOne) {
  EXPECT_EQ(Groups(groups_->folder()).size(), 0u);  // the probe's is gone
  auto group = groups_->Make("demo", {.weight = 200, .max_millicpus = 1500});
  ASSERT_TRUE(group.ok()) << group.status();
  EXPECT_EQ(Kept("cpu.weight", "cpu.shares"), v2_ ? "200\n" : "2048\n");
  EXPECT_EQ(Kept("cpu.max", "cpu.cfs_quota_us"), v2_ ? "150000 100000\n" : "150000\n");
  ASSERT_TRUE((*group)->Set({}).ok());
  EXPECT_EQ(Kept("cpu.weight", "cpu.shares"), v2_ ? "100\n" : "1024\n");
  EXPECT_EQ(Kept("cpu.max", "cpu.cfs_quota_us"), v2_ ? "max 100000\n" : "-1\n");
}

TEST_F(CpuGroupsOfTheHost, AShareThatTheKernelRefusesLeavesTheOneBefore) {
  auto group = groups_->Make("demo", {.weight = 300});
  ASSERT_TRUE(group.ok()) << group.status();
  EXPECT_FALSE((*group)->Set({.weight = 1, .max_millicpus = 1}).ok());  // less than 1 ms a period
  EXPECT_EQ(Kept("cpu.weight", "cpu.shares"), v2_ ? "300\n" : "3072\n");
  EXPECT_EQ(groups_->Make("other", {.max_millicpus = 1}).status().code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(Groups(groups_->folder()).size(), 1u);
}

TEST_F(CpuGroupsOfTheHost, OnlyTheThreadThatEntersIsInIt) {
  auto group = groups_->Make("demo", {});
  ASSERT_TRUE(group.ok()) << group.status();
  const std::string before = Read("/proc/thread-self/cgroup");
  std::thread([&] {
    ASSERT_TRUE((*group)->Enter().ok());
    EXPECT_THAT(Read("/proc/thread-self/cgroup"), HasSubstr("/vm-demo."));
  }).join();
  EXPECT_EQ(Read("/proc/thread-self/cgroup"), before);
}

TEST_F(CpuGroupsOfTheHost, AGroupIsGoneSoonAfterItsVmIs) {
  auto first = groups_->Make("demo", {});
  ASSERT_TRUE(first.ok()) << first.status();
  auto second = groups_->Make("demo", {});  // of the same name, while the other still ends
  ASSERT_TRUE(second.ok()) << second.status();
  std::thread([&] { ASSERT_TRUE((*first)->Enter().ok()); }).join();
  first->reset();
  second->reset();
  const std::string folder = groups_->folder();
  groups_.reset();
  EXPECT_EQ(Groups(folder).size(), 0u);
}

TEST_F(CpuGroupsOfTheHost, WhatADeadDaemonLeftIsRemovedAndWhatALiveOneHasStays) {
  const pid_t dead = fork();
  if (dead == 0) _exit(0);
  ASSERT_EQ(waitpid(dead, nullptr, 0), dead);
  const std::string left = groups_->folder() + "/vm-old.1." + std::to_string(dead);
  const std::string kept = groups_->folder() + "/vm-mine.1." + std::to_string(getppid());
  const std::string other = groups_->folder() + "/vm-other.x";
  for (const std::string& folder : {left, kept, other}) ASSERT_TRUE(fs::create_directory(folder));
  EXPECT_TRUE(CpuGroups::Open().ok());
  EXPECT_FALSE(fs::exists(left));
  EXPECT_TRUE(fs::exists(kept));
  EXPECT_TRUE(fs::exists(other));
  rmdir(kept.c_str());
  rmdir(other.c_str());
}

TEST_F(CpuGroupsOfTheHost, ABoundHolds) {
  auto group = groups_->Make("demo", {.max_millicpus = 200});
  ASSERT_TRUE(group.ok()) << group.status();
  timespec used{};
  std::thread([&] {
    ASSERT_TRUE((*group)->Enter().ok());
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(1);
    while (std::chrono::steady_clock::now() < end) {
    }
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used);
  }).join();
  // A fifth of it, and up to a period's more at each end. Without the bound: nearly all of it.
  EXPECT_EQ(used.tv_sec, 0);
  EXPECT_LT(used.tv_nsec, 450'000'000);
}

// What /proc/self says, in a folder of the test's own.
class CpuGroupsOfAFakeHost : public testing::Test {
 protected:
  void SetUp() override {
    root_ = fs::path(testing::TempDir()) / "host";
    fs::remove_all(root_);
    fs::create_directories(root_ / "proc");
  }
  absl::Status Open(const std::string& cgroup, const std::string& mountinfo) {
    std::ofstream(root_ / "proc/cgroup") << cgroup;
    std::ofstream(root_ / "proc/mountinfo") << mountinfo;
    return CpuGroups::Open(root_ / "proc").status();
  }
  fs::path root_;
};

TEST_F(CpuGroupsOfAFakeHost, AHostWithoutTheControllerSaysSo) {
  const absl::Status none = Open("", "");
  EXPECT_EQ(none.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(none.message()), HasSubstr("no cpu controller"));
  // A controller of another name, and a group whose hierarchy is not mounted here.
  EXPECT_THAT(
      std::string(Open("3:cpuset:/\n", "1 2 0:1 / /m rw - cgroup cgroup rw,cpuset\n").message()),
      HasSubstr("no cpu controller"));
  EXPECT_THAT(std::string(Open("0::/\n", "").message()), HasSubstr("no cpu controller"));
}

TEST_F(CpuGroupsOfAFakeHost, TheFolderIsFoundThroughTheMountAndTheErrorNamesItAndAWayOut) {
  const std::string at = root_ / "missing";
  // The mount shows the hierarchy from /pod on, as a container's does.
  const absl::Status v1 = Open("4:cpu,cpuacct:/pod/own\n",
                               "36 35 0:30 /pod " + at + " rw - cgroup cgroup rw,cpu,cpuacct\n");
  EXPECT_THAT(std::string(v1.message()),
              HasSubstr("cannot make the control group " + at + "/own/vm-probe"));
  EXPECT_THAT(std::string(v1.message()), HasSubstr("Delegate=cpu"));
  const absl::Status v2 = Open("0::/system.slice/hvd.service\n",
                               "36 35 0:30 / " + at + " rw - cgroup2 cgroup2 rw,nsdelegate\n");
  EXPECT_THAT(std::string(v2.message()), HasSubstr(at + "/system.slice/hvd.service/vm-probe"));
}

TEST_F(CpuGroupsOfAFakeHost, AFolderThatIsNoControlGroupIsLeftAsItWas) {
  fs::create_directories(root_ / "group");
  const absl::Status status =
      Open("0::/\n", "36 35 0:30 / " + (root_ / "group").string() + " rw - cgroup2 cgroup2 rw\n");
  EXPECT_THAT(std::string(status.message()), HasSubstr("cgroup.type"));
  EXPECT_TRUE(fs::is_empty(root_ / "group"));
}

}  // namespace
}  // namespace twinroot::host
