#include "daemon/host/cpu_groups.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <optional>
#include <sstream>
#include <string_view>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace twinroot::host {
namespace {

constexpr char kPrefix[] = "vm-";
constexpr char kHint[] =
    "; give the daemon a group of its own (Delegate=cpu under systemd), or leave weights and "
    "bounds out";
constexpr uint32_t kPeriodMicroseconds = 100'000;  // the kernel's default
constexpr uint32_t kDefaultShares = 1024;          // of v1
constexpr uint32_t kMinShares = 2;
constexpr uint32_t kMaxShares = 262'144;

absl::Status Failed(std::string_view what, const std::string& where) {
  return absl::FailedPreconditionError(
      absl::StrCat(std::string(what), " ", where, ": ", std::strerror(errno)));
}

// Files of the kernel's take a value in one write, and none is made.
absl::Status Put(const std::string& file, const std::string& value) {
  const int fd = open(file.c_str(), O_WRONLY | O_CLOEXEC);
  if (fd < 0) return Failed("cannot open", file);
  absl::Status status;
  if (write(fd, value.data(), value.size()) != static_cast<ssize_t>(value.size())) {
    status = Failed(absl::StrCat("cannot write ", value, " to"), file);
  }
  close(fd);
  return status;
}

bool HasWord(const std::string& list, std::string_view word, char separator) {
  const std::vector<std::string> words = absl::StrSplit(list, separator);
  return std::find(words.begin(), words.end(), word) != words.end();
}

struct Place {
  std::string folder;
  bool v2 = false;
};

// A line of /proc/self/cgroup, "4:cpu,cpuacct:/system.slice", of the cpu controller; v2 is "0::/".
std::optional<std::string> GroupOf(const std::string& proc_self, bool v2) {
  std::ifstream lines(proc_self + "/cgroup");
  for (std::string line; std::getline(lines, line);) {
    const std::vector<std::string> parts = absl::StrSplit(line, absl::MaxSplits(':', 2));
    if (parts.size() != 3) continue;
    if (v2 ? parts[0] == "0" && parts[1].empty() : HasWord(parts[1], "cpu", ',')) return parts[2];
  }
  return std::nullopt;
}

// A line of /proc/self/mountinfo: "36 35 0:30 /root /sys/fs/cgroup rw - cgroup2 cgroup2
// rw,nsdelegate".
std::optional<std::string> MountOf(const std::string& proc_self, bool v2,
                                   const std::string& group) {
  std::ifstream lines(proc_self + "/mountinfo");
  for (std::string line; std::getline(lines, line);) {
    const std::vector<std::string> halves = absl::StrSplit(line, absl::MaxSplits(" - ", 1));
    if (halves.size() != 2) continue;
    const std::vector<std::string> where = absl::StrSplit(halves[0], ' ');
    const std::vector<std::string> what = absl::StrSplit(halves[1], ' ');
    if (where.size() < 5 || what.size() < 3) continue;
    if (v2 ? what[0] != "cgroup2" : what[0] != "cgroup" || !HasWord(what[2], "cpu", ',')) continue;
    // Of a container the mount may begin further down than the whole hierarchy does.
    const std::string& root = where[3];
    std::string_view rest = group;
    if (root != "/") {
      if (rest.substr(0, root.size()) != root) continue;
      rest.remove_prefix(root.size());
    }
    if (rest == "/") rest = "";
    return absl::StrCat(where[4], std::string(rest));
  }
  return std::nullopt;
}

std::optional<Place> PlaceOf(const std::string& proc_self) {
  for (const bool v2 : {false, true}) {  // where v1 has the controller, v2 has not
    const std::optional<std::string> group = GroupOf(proc_self, v2);
    if (!group.has_value()) continue;
    const std::optional<std::string> folder = MountOf(proc_self, v2, *group);
    if (folder.has_value()) return Place{*folder, v2};
  }
  return std::nullopt;
}

}  // namespace

absl::StatusOr<std::unique_ptr<CpuGroups>> CpuGroups::Open(const std::string& proc_self) {
  const std::optional<Place> place = PlaceOf(proc_self);
  if (!place.has_value()) {
    return absl::FailedPreconditionError("the host has no cpu controller of control groups");
  }
  std::unique_ptr<CpuGroups> groups(new CpuGroups(place->folder, place->v2));
  groups->RemoveOrphans();
  const absl::StatusOr<std::unique_ptr<CpuGroup>> probe =
      groups->Make("probe", {.weight = kDefaultCpuWeight, .max_millicpus = 1000});
  if (!probe.ok()) {
    return absl::FailedPreconditionError(absl::StrCat(probe.status().message(), kHint));
  }
  return groups;
}

CpuGroups::~CpuGroups() {
  for (int tries = 0; tries < 100; ++tries) {
    RemoveLeft();
    std::lock_guard lock(mutex_);
    if (left_.empty()) return;
    usleep(1000);
  }
}

absl::StatusOr<std::unique_ptr<CpuGroup>> CpuGroups::Make(const std::string& vm,
                                                          const CpuShare& share) {
  RemoveLeft();
  std::string folder;
  {
    // Another VM of this name may have been here a moment ago, and may not be quite gone.
    std::lock_guard lock(mutex_);
    folder = absl::StrCat(folder_, "/", kPrefix, vm, ".", ++made_, ".", getpid());
  }
  if (mkdir(folder.c_str(), 0755) != 0) return Failed("cannot make the control group", folder);
  std::unique_ptr<CpuGroup> group(new CpuGroup(this, folder));
  if (absl::Status status = Prepare(folder); !status.ok()) return status;
  if (absl::Status status = group->Set(share); !status.ok()) return status;
  return group;
}

absl::Status CpuGroups::Prepare(const std::string& group) const {
  if (!v2_) return absl::OkStatus();
  // In this order: with a threaded child, this group may have a controller and processes besides.
  if (absl::Status status = Put(group + "/cgroup.type", "threaded"); !status.ok()) return status;
  if (access((group + "/cpu.weight").c_str(), F_OK) == 0) return absl::OkStatus();
  return Put(folder_ + "/cgroup.subtree_control", "+cpu");
}

absl::Status CpuGroups::Write(const CpuShare& share, const std::string& group) const {
  const uint32_t weight = share.weight != 0 ? share.weight : kDefaultCpuWeight;
  const uint64_t quota = uint64_t{share.max_millicpus} * kPeriodMicroseconds / 1000;
  if (v2_) {
    if (absl::Status status = Put(group + "/cpu.weight", absl::StrCat(weight)); !status.ok()) {
      return status;
    }
    return Put(group + "/cpu.max", quota == 0 ? "max" : absl::StrCat(quota));
  }
  const uint32_t shares =
      std::clamp(weight * kDefaultShares / kDefaultCpuWeight, kMinShares, kMaxShares);
  if (absl::Status status = Put(group + "/cpu.shares", absl::StrCat(shares)); !status.ok()) {
    return status;
  }
  return Put(group + "/cpu.cfs_quota_us", quota == 0 ? "-1" : absl::StrCat(quota));
}

void CpuGroups::RemoveOrphans() const {
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(folder_, ignored)) {
    const std::string name = entry.path().filename();
    const size_t dot = name.rfind('.');
    int pid = 0;
    if (name.rfind(kPrefix, 0) != 0 || dot == std::string::npos ||
        !absl::SimpleAtoi(name.substr(dot + 1), &pid) || pid <= 0) {
      continue;
    }
    // One with threads in it stays in any case.
    if (kill(pid, 0) != 0 && errno == ESRCH) rmdir(entry.path().c_str());
  }
}

void CpuGroups::Leave(const std::string& group) {
  {
    std::lock_guard lock(mutex_);
    left_.push_back(group);
  }
  RemoveLeft();
}

void CpuGroups::RemoveLeft() {
  std::lock_guard lock(mutex_);
  left_.erase(std::remove_if(left_.begin(), left_.end(),
                             [](const std::string& group) {
                               return rmdir(group.c_str()) == 0 || errno != EBUSY;
                             }),
              left_.end());
}

CpuGroup::~CpuGroup() { groups_->Leave(folder_); }

absl::Status CpuGroup::Enter() const {
  // 0 is the thread that writes.
  return Put(absl::StrCat(folder_, groups_->v2_ ? "/cgroup.threads" : "/tasks"), "0");
}

absl::Status CpuGroup::Set(const CpuShare& share) {
  absl::Status status = groups_->Write(share, folder_);
  if (!status.ok()) {
    (void)groups_->Write(share_, folder_);
    return status;
  }
  share_ = share;
  return status;
}

}  // namespace twinroot::host
