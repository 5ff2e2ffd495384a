#include "cli/vm_rates.h"

#include <algorithm>
#include <vector>

#include "absl/strings/numbers.h"

namespace twinroot::cli {
namespace {

constexpr double kPageSize = 4096;

struct Family {
  std::string_view name;
  double VmCounts::*sum;
  double unit;
};
// The series of a family are summed: over reasons, outcomes, directions.
constexpr Family kFamilies[] = {
    {"twinroot_conversions_total", &VmCounts::conversions, 1},
    {"twinroot_faults_total", &VmCounts::faults, 1},
    {"twinroot_splits_total", &VmCounts::splits, 1},
    {"twinroot_dirty_pages_harvested_total", &VmCounts::dirty_bytes, kPageSize},
    {"twinroot_allocated_bytes", &VmCounts::allocated_bytes, 1},
    {"twinroot_pending_conversions", &VmCounts::waiting, 1},
};
constexpr std::string_view kAttributeBytes = "twinroot_attribute_bytes";

std::vector<std::string_view> Split(std::string_view text, char between) {
  std::vector<std::string_view> parts;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(between, begin), text.size());
    parts.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

// The value of a label, or nothing. Ours need no escapes.
std::string_view LabelOf(std::string_view labels, std::string_view name) {
  for (const std::string_view label : Split(labels, ',')) {
    if (label.size() > name.size() + 3 && label.substr(0, name.size()) == name &&
        label[name.size()] == '=') {
      return label.substr(name.size() + 2, label.size() - name.size() - 3);
    }
  }
  return {};
}

}  // namespace

std::map<std::string, VmCounts> ReadVmCounts(std::string_view metrics) {
  std::map<std::string, VmCounts> vms;
  for (const std::string_view line : Split(metrics, '\n')) {
    const size_t open = line.find('{');
    const size_t close = line.rfind("} ");
    if (line.empty() || line[0] == '#' || open == line.npos || close == line.npos) continue;
    const std::string_view name = line.substr(0, open);
    const std::string_view labels = line.substr(open + 1, close - open - 1);
    const std::string_view vm = LabelOf(labels, "vm");
    double value = 0;
    const std::string_view number = line.substr(close + 2);
    if (vm.empty() || !absl::SimpleAtod({number.data(), number.size()}, &value)) continue;
    for (const Family& family : kFamilies) {
      if (family.name == name) vms[std::string(vm)].*family.sum += value * family.unit;
    }
    if (name == kAttributeBytes && LabelOf(labels, "kind") == "shared") {
      vms[std::string(vm)].shared_bytes = value;
    }
  }
  return vms;
}

VmCounts RatesOf(const VmCounts& before, const VmCounts& now, double seconds) {
  VmCounts rates = now;
  for (const auto counter :
       {&VmCounts::conversions, &VmCounts::faults, &VmCounts::splits, &VmCounts::dirty_bytes}) {
    const double grown =
        now.*counter < before.*counter ? now.*counter : now.*counter - before.*counter;
    rates.*counter = seconds > 0 ? grown / seconds : 0;
  }
  return rates;
}

}  // namespace twinroot::cli
