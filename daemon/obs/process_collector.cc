#include "daemon/obs/process_collector.h"

#include <sys/resource.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <sstream>
#include <string>

#include "daemon/obs/family.h"

namespace twinroot::obs {
namespace {

// Fields of /proc/self/stat after the command's name, as proc(5) numbers them.
constexpr int kFirstField = 3;
constexpr int kUserTimeField = 14;
constexpr int kSystemTimeField = 15;
constexpr int kStartedField = 22;
constexpr int kResidentField = 24;

struct ProcessStat {
  double cpu_seconds = 0;
  double start_after_boot = 0;
  double resident_bytes = 0;
};

std::optional<ProcessStat> ReadStat() {
  std::ifstream file("/proc/self/stat");
  std::string line;
  if (!std::getline(file, line)) return std::nullopt;
  // The command's name stands in parentheses and may hold any byte.
  const size_t end = line.rfind(')');
  if (end == std::string::npos) return std::nullopt;
  std::istringstream rest(line.substr(end + 1));
  const double tick = 1.0 / static_cast<double>(sysconf(_SC_CLK_TCK));
  ProcessStat stat;
  std::string field;
  for (int i = kFirstField; rest >> field; ++i) {
    if (i == kUserTimeField || i == kSystemTimeField) stat.cpu_seconds += std::stod(field) * tick;
    if (i == kStartedField) stat.start_after_boot = std::stod(field) * tick;
    if (i == kResidentField) {
      stat.resident_bytes = std::stod(field) * static_cast<double>(sysconf(_SC_PAGESIZE));
      return stat;
    }
  }
  return std::nullopt;
}

// Seconds since the epoch; nullopt if /proc/stat does not tell.
std::optional<double> BootTime() {
  std::ifstream file("/proc/stat");
  std::string line;
  while (std::getline(file, line)) {
    if (line.rfind("btime ", 0) == 0) return std::stod(line.substr(6));
  }
  return std::nullopt;
}

}  // namespace

std::vector<prometheus::MetricFamily> ProcessCollector::Collect() const {
  std::vector<prometheus::MetricFamily> all;
  const auto add = [&all](const Metric& metric, double value) {
    AddSeries(all.emplace_back(FamilyOf(metric)), {}, value);
  };
  if (const auto stat = ReadStat(); stat.has_value()) {
    add(kCpuSeconds, stat->cpu_seconds);
    add(kResidentBytes, stat->resident_bytes);
    if (const auto boot = BootTime(); boot.has_value()) {
      add(kStartTime, *boot + stat->start_after_boot);
    }
  }
  std::error_code error;
  std::filesystem::directory_iterator fds("/proc/self/fd", error);
  // The iterator itself has one of them open.
  if (!error) add(kOpenFds, static_cast<double>(std::distance(begin(fds), end(fds)) - 1));
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0) add(kMaxFds, static_cast<double>(limit.rlim_cur));
  return all;
}

}  // namespace twinroot::obs
