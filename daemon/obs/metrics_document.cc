// Prints docs/METRICS.md: every metric of the catalogue.
#include <cstdio>
#include <string>

#include "daemon/obs/catalogue.h"

namespace twinroot::obs {
namespace {

const char* NameOf(Type type) {
  switch (type) {
    case Type::Counter:
      return "counter";
    case Type::Summary:
      return "summary";
    case Type::Histogram:
      return "histogram";
    default:
      return "gauge";
  }
}

std::string WordsOf(const LabelNames& labels) {
  std::string words;
  for (const auto& [name, values] : labels) {
    if (!words.empty()) words += "; ";
    words += "`" + std::string(name) + "`";
    if (!values.empty()) words += ": " + std::string(values);
  }
  return words;
}

void Print() {
  std::printf(
      "# Metrics\n\n"
      "<!-- Written by //daemon/obs:metrics_document from daemon/obs/catalogue.cc; a test "
      "compares\n"
      "     it with a daemon that runs. `tools/metrics_document.sh` writes it again. -->\n\n"
      "What `hvd` serves at `metrics_address` (`hvctl host show`), and `hvctl host metrics` "
      "prints\n"
      "(without `exposer_*`). Names, types and labels are kept; new ones are added.\n\n"
      "A series with the label `vm` is there as long as its VM. An idle VM has 17; what few VMs "
      "meet\n"
      "has a series from its first time on, so write `or vector(0)` where 0 is to be seen. When "
      "more\n"
      "VMs than `max_vm_series` are there, the youngest of them are added up as `vm=\"_other\"` "
      "and\n"
      "counted by `twinroot_folded_vms`. What such a VM did after the last scrape before its end "
      "is\n"
      "not in the counters of `_other`.\n");
  for (const Room& room : Catalogue()) {
    std::printf("\n## %s\n\n| name | type | unit | labels | |\n|---|---|---|---|---|\n",
                std::string(room.title).c_str());
    for (const Metric* metric : room.metrics) {
      std::printf("| `%s` | %s | %s | %s | %s |\n", std::string(metric->name).c_str(),
                  NameOf(metric->type), std::string(metric->unit).c_str(),
                  WordsOf(metric->labels).c_str(), std::string(metric->help).c_str());
    }
  }
}

}  // namespace
}  // namespace twinroot::obs

int main() {
  twinroot::obs::Print();
  return 0;
}
