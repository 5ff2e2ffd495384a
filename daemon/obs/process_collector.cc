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
constexpr int kUserTime = 14;
constexpr int kSystemTime = 15;
constexpr int kStartTime = 22;
constexpr int kResidentPages = 24;

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
    if (i == kUserTime || i == kSystemTime) stat.cpu_seconds += std::stod(field) * tick;
    if (i == kStartTime) stat.start_after_boot = std::stod(field) * tick;
    if (i == kResidentPages) {
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
  if (const auto stat = ReadStat(); stat.has_value()) {
    AddSeries(all.emplace_back(CounterFamily("process_cpu_seconds_total",
                                             "User and system CPU time in seconds.")),
              {}, stat->cpu_seconds);
    AddSeries(
        all.emplace_back(GaugeFamily("process_resident_memory_bytes", "Resident memory in bytes.")),
        {}, stat->resident_bytes);
    if (const auto boot = BootTime(); boot.has_value()) {
      AddSeries(all.emplace_back(GaugeFamily("process_start_time_seconds",
                                             "When the process started, since the epoch.")),
                {}, *boot + stat->start_after_boot);
    }
  }
  std::error_code error;
  std::filesystem::directory_iterator fds("/proc/self/fd", error);
  if (!error) {
    // The iterator itself has one of them open.
    AddSeries(all.emplace_back(GaugeFamily("process_open_fds", "Open file descriptors.")), {},
              static_cast<double>(std::distance(begin(fds), end(fds)) - 1));
  }
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
    AddSeries(
        all.emplace_back(GaugeFamily("process_max_fds", "File descriptors that may be open.")), {},
        static_cast<double>(limit.rlim_cur));
  }
  return all;
}

}  // namespace twinroot::obs
