#include "cli/commands/cpu_share_flags.h"

#include <cmath>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace twinroot::cli {
namespace {

constexpr char kWeight[] = "--cpu-weight";
constexpr char kMaxCpus[] = "--max-cpus";
constexpr double kMillicpus = 1000;
constexpr double kLeastCpus = 0.01;
constexpr double kMostCpus = 1000;

}  // namespace

void CpuShareFlags::AddTo(CLI::App* verb) {
  verb_ = verb;
  verb->add_option(kWeight, weight_,
                   "Processor time beside other VMs that want it, 1 to 10000; 0: the default, 100")
      ->check(CLI::Range(0, 10'000))
      ->type_name("N");
  verb->add_option(kMaxCpus, max_cpus_,
                   "Processors that all vCPUs together may keep busy: 0.01 to 1000; 0: no bound")
      ->check([](const std::string& given) -> std::string {
        double cpus = 0;
        // A bound that rounds to none would be the opposite of what was meant.
        if (absl::SimpleAtod(given, &cpus) &&
            (cpus == 0 || (cpus >= kLeastCpus && cpus <= kMostCpus))) {
          return "";
        }
        return given + " is neither 0 (no bound) nor within 0.01 and 1000";
      })
      ->type_name("CPUS");
}

void CpuShareFlags::WriteTo(v1::Placement* placement) const {
  placement->set_cpu_weight(weight_);
  placement->set_max_millicpus(static_cast<uint32_t>(std::lround(max_cpus_ * kMillicpus)));
}

std::vector<std::string> CpuShareFlags::fields() const {
  std::vector<std::string> fields;
  if (verb_->count(kWeight) > 0) fields.emplace_back("cpu_weight");
  if (verb_->count(kMaxCpus) > 0) fields.emplace_back("max_millicpus");
  return fields;
}

std::string DescribeCpuShare(const v1::Placement& placement) {
  std::vector<std::string> parts;
  if (placement.max_millicpus() != 0) {
    parts.push_back(absl::StrCat(placement.max_millicpus() / kMillicpus, " CPUs at most"));
  }
  if (placement.cpu_weight() != 0) {
    parts.push_back(absl::StrCat("weight ", placement.cpu_weight()));
  }
  return absl::StrJoin(parts, ", ");
}

}  // namespace twinroot::cli
