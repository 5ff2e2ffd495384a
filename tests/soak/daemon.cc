#include "tests/soak/daemon.h"

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace twinroot::soak {
Daemon::Daemon(const std::string& endpoint)
    : channel(client::Connect(endpoint)),
      vms(v1::VmService::NewStub(channel)),
      memory(v1::MemoryService::NewStub(channel)),
      dirty_log(v1::DirtyLogService::NewStub(channel)),
      events(v1::EventService::NewStub(channel)),
      host(v1::HostService::NewStub(channel)) {}

Holdings Holdings::Of(int pid) {
  const std::string folder = absl::StrCat("/proc/", pid);
  Holdings now;
  std::ifstream status(folder + "/status");
  for (std::string word; status >> word;) {
    if (word == "RssAnon:" && status >> now.memory) now.memory *= 1024;
    if (word == "RssShmem:" && status >> now.guest_memory) now.guest_memory *= 1024;
    if (word == "Threads:") status >> now.threads;
  }
  Must(now.threads > 0, absl::StrCat("process ", pid, " has ended, or is not ours to look at"));
  std::error_code error;
  for (const auto& file : std::filesystem::directory_iterator(folder + "/fd", error)) {
    now.files += !file.path().empty();
  }
  Must(!error, "its files cannot be counted: " + error.message());
  std::ifstream maps(folder + "/maps");
  for (std::string line; std::getline(maps, line);) {
    ++now.mappings;
    now.guest_mappings += absl::StrContains(line, "memfd:twinroot");
  }
  return now;
}

void Holdings::Raise(const Holdings& other) {
  memory = std::max(memory, other.memory);
  guest_memory = std::max(guest_memory, other.guest_memory);
  threads = std::max(threads, other.threads);
  files = std::max(files, other.files);
  mappings = std::max(mappings, other.mappings);
  guest_mappings = std::max(guest_mappings, other.guest_mappings);
}

}  // namespace twinroot::soak
