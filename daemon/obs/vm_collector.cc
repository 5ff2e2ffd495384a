#include "daemon/obs/vm_collector.h"

#include <iterator>
#include <memory>
#include <utility>

#include "daemon/host/event_words.h"
#include "daemon/obs/family.h"

namespace twinroot::obs {
namespace {

constexpr size_t kVmsAtOnce = 256;
constexpr const char* kStates[] = {"defined", "running", "paused", "stopped"};

using Shown = std::vector<std::pair<std::string, VmNumbers>>;

void AddVms(const Shown& shown, std::vector<prometheus::MetricFamily>& all) {
  const Metric* before = nullptr;
  const auto series = AllVmSeries();
  for (size_t i = 0; i < kVmSeries; ++i) {
    const VmSeries& one = series[i];
    if (one.metric != before) all.push_back(FamilyOf(*one.metric));
    before = one.metric;
    prometheus::MetricFamily& family = all.back();
    if (!one.rare) family.metric.reserve(family.metric.size() + shown.size());
    for (const auto& [vm, numbers] : shown) {
      if (one.rare && numbers[i] == 0) continue;
      AddSeries(family, vm, one.labels, static_cast<double>(numbers[i]));
    }
  }
}

}  // namespace

VmNumbers VmCollector::Fold(Folded folded) const {
  const auto series = AllVmSeries();
  auto there = folded.cbegin();
  for (const auto& [life, numbers] : folded_) {
    while (there != folded.cend() && there->first < life) ++there;
    if (there != folded.cend() && there->first == life) continue;
    for (size_t i = 0; i < kVmSeries; ++i) {
      if (series[i].metric->type == Type::Counter) gone_[i] += numbers[i];
    }
  }
  folded_ = std::move(folded);
  VmNumbers sum = gone_;
  for (const auto& [life, numbers] : folded_) {
    for (size_t i = 0; i < kVmSeries; ++i) sum[i] += numbers[i];
  }
  return sum;
}

std::vector<prometheus::MetricFamily> VmCollector::Collect() const {
  std::lock_guard lock(mutex_);
  Shown shown;
  Folded folded;
  folded.reserve(folded_.size());
  uint64_t states[std::size(kStates)] = {};
  const std::string engine_bug = host::WordOf(vcpu::StopReason::kEngineBug);
  uint64_t bugged = 0;
  std::string after;
  for (;;) {
    const auto vms = registry_->List(after, kVmsAtOnce);
    for (const auto& vm : vms) {
      after = vm->spec().name;
      const host::VmStatus status = vm->status();
      ++states[static_cast<size_t>(status.state)];
      bugged += status.stop_reason == engine_bug;
      const auto label = labels_->Find(after);
      if (!label.has_value()) continue;  // it comes or goes right now
      const VmNumbers numbers = NumbersOf(vm->counters());
      if (*label == VmLabels::Label::kOwn) {
        shown.emplace_back(after, numbers);
      } else {
        folded.emplace_back(Life(after, vm->create_time()), numbers);
      }
    }
    if (vms.size() < kVmsAtOnce) break;
  }
  const size_t folded_vms = folded.size();
  const VmNumbers other = Fold(std::move(folded));
  if (folded_vms > 0 || other != VmNumbers{}) shown.emplace_back(kOther, other);

  std::vector<prometheus::MetricFamily> all;
  auto& vms = all.emplace_back(FamilyOf(kVms));
  for (size_t i = 0; i < std::size(kStates); ++i) {
    AddSeries(vms, {{"state", kStates[i]}}, static_cast<double>(states[i]));
  }
  AddSeries(all.emplace_back(FamilyOf(kFoldedVms)), {}, static_cast<double>(folded_vms));
  AddSeries(all.emplace_back(FamilyOf(kBuggedVms)), {}, static_cast<double>(bugged));
  AddVms(shown, all);
  return all;
}

}  // namespace twinroot::obs
