#include "daemon/obs/vm_collector.h"

#include <list>
#include <memory>
#include <string>
#include <utility>

#include "daemon/obs/family.h"

namespace twinroot::obs {
namespace {

constexpr size_t kVmsAtOnce = 256;
constexpr const char* kKinds[] = {"private", "shared"};
constexpr const char* kLevels[] = {"4K", "2M", "1G"};
constexpr int k1G = 2;
constexpr const char* kStates[] = {"defined", "running", "paused", "stopped"};

double Bytes(uint64_t frames) { return static_cast<double>(frames << mmu::kPageShift); }

struct VmFamilies {
  // In the order of the page; a family that is not kept here cannot be named below.
  std::list<prometheus::MetricFamily> all;
  prometheus::MetricFamily& Keep(prometheus::MetricFamily family) {
    return all.emplace_back(std::move(family));
  }

  prometheus::MetricFamily& faults =
      Keep(CounterFamily("twinroot_faults_total", "EPT violations by what became of them."));
  prometheus::MetricFamily& leaves =
      Keep(GaugeFamily("twinroot_leaves", "Leaf entries present now, by page size and root."));
  prometheus::MetricFamily& table_pages =
      Keep(GaugeFamily("twinroot_table_pages", "Page-table pages in use."));
  prometheus::MetricFamily& table_pages_budget =
      Keep(GaugeFamily("twinroot_table_pages_budget", "Page-table pages that the VM may use."));
  prometheus::MetricFamily& flushes = Keep(CounterFamily("twinroot_flushes_total", "TLB flushes."));
  prometheus::MetricFamily& attributes =
      Keep(GaugeFamily("twinroot_attribute_bytes", "Guest memory by its attribute."));
  prometheus::MetricFamily& allocated = Keep(GaugeFamily(
      "twinroot_allocated_bytes", "Host memory behind the guest's memory, by backing."));
  prometheus::MetricFamily& fast_faults = Keep(CounterFamily(
      "twinroot_fast_faults_total", "Fixed EPT violations that only gave a withheld right back."));
  prometheus::MetricFamily& splits =
      Keep(CounterFamily("twinroot_splits_total", "Large pages that were split, by reason."));
  prometheus::MetricFamily& splits_kept = Keep(CounterFamily(
      "twinroot_splits_kept_total", "Large pages that were not split for want of a table."));
  prometheus::MetricFamily& collapses = Keep(CounterFamily(
      "twinroot_collapses_total", "Tables that became large pages again, by reason."));
  prometheus::MetricFamily& dirty_pages = Keep(CounterFamily(
      "twinroot_dirty_pages_harvested_total", "Pages that harvests of the dirty log told of."));
  prometheus::MetricFamily& projected = Keep(
      GaugeFamily("twinroot_projected_leaves",
                  "Leaves of 2 MiB of VMs on kvm by how the host maps them: whole, or in pieces."));
  prometheus::MetricFamily& kept = Keep(CounterFamily(
      "twinroot_projected_leaves_kept_total",
      "Times that the host did not make a leaf of 2 MiB, or not in one piece, by reason."));
  prometheus::MetricFamily& pending = Keep(
      GaugeFamily("twinroot_pending_conversions",
                  "Conversions that wait for a decision, or for the rate of their VM's policy."));
  prometheus::MetricFamily& throttled =
      Keep(CounterFamily("twinroot_throttled_conversions_total",
                         "Requests over the rate of their VM's policy, which wait or come again."));
  prometheus::MetricFamily& held_back =
      Keep(CounterFamily("twinroot_held_back_conversions_total",
                         "Requests that waited because a lossless watch was too far behind."));

  prometheus::MetricFamily& kvm_exits = Keep(CounterFamily(
      "twinroot_kvm_exits_total", "Times that vCPUs left the guest, KVM's own reasons included."));

  void Add(const std::string& vm, const host::VmCounters& counters) {
    const mmu::AddressSpaceStats& memory = counters.memory;
    const std::pair<const char*, uint64_t> outcomes[] = {{"fixed", memory.faults_fixed},
                                                         {"spurious", memory.faults_spurious},
                                                         {"retry", memory.faults_retry},
                                                         {"memory", memory.faults_memory}};
    for (const auto& [outcome, count] : outcomes) {
      AddSeries(faults, {{"vm", vm}, {"outcome", outcome}}, static_cast<double>(count));
    }
    for (int kind = 0; kind < 2; ++kind) {
      for (int level = 0; level <= k1G; ++level) {
        const uint64_t count = memory.leaves[kind][level];
        // Few VMs have pages of 1 GiB: two series less for the others.
        if (level == k1G && count == 0) continue;
        AddSeries(leaves, {{"vm", vm}, {"level", kLevels[level]}, {"kind", kKinds[kind]}},
                  static_cast<double>(count));
      }
    }
    AddSeries(table_pages, {{"vm", vm}}, static_cast<double>(memory.table_pages));
    AddSeries(table_pages_budget, {{"vm", vm}}, static_cast<double>(memory.table_pages_budget));
    AddSeries(flushes, {{"vm", vm}, {"scope", "range"}}, static_cast<double>(memory.flushes_range));
    AddSeries(flushes, {{"vm", vm}, {"scope", "full"}}, static_cast<double>(memory.flushes_full));
    AddSeries(attributes, {{"vm", vm}, {"kind", "private"}},
              Bytes(memory.private_frames_attribute));
    AddSeries(attributes, {{"vm", vm}, {"kind", "shared"}}, Bytes(memory.shared_frames_attribute));
    AddSeries(allocated, {{"vm", vm}, {"kind", "private"}},
              static_cast<double>(counters.private_bytes_allocated));
    AddSeries(allocated, {{"vm", vm}, {"kind", "shared"}},
              static_cast<double>(counters.shared_bytes_allocated));
    AddSeries(pending, {{"vm", vm}}, static_cast<double>(counters.pending_conversions));
    AddRare(vm, counters);
  }

  // What few VMs meet: a counter that never counted has no series.
  void AddRare(const std::string& vm, const host::VmCounters& counters) {
    const mmu::AddressSpaceStats& memory = counters.memory;
    const auto add_if_any = [](prometheus::MetricFamily& family, Labels labels, uint64_t count) {
      if (count != 0) AddSeries(family, labels, static_cast<double>(count));
    };
    add_if_any(faults, {{"vm", vm}, {"outcome", "mmio"}}, memory.faults_mmio);
    add_if_any(faults, {{"vm", vm}, {"outcome", "failed"}}, memory.faults_failed);
    add_if_any(fast_faults, {{"vm", vm}}, memory.faults_fast);
    const std::pair<const char*, uint64_t> split_by[] = {{"dirty_log", memory.splits_dirty_log},
                                                         {"request", memory.splits_request},
                                                         {"conversion", memory.splits_conversion},
                                                         {"fault", memory.splits_fault}};
    for (const auto& [reason, count] : split_by) {
      add_if_any(splits, {{"vm", vm}, {"reason", reason}}, count);
    }
    add_if_any(splits_kept, {{"vm", vm}}, memory.splits_kept);
    const std::pair<const char*, uint64_t> collapsed_by[] = {
        {"dirty_log", memory.collapses_dirty_log},
        {"attributes", memory.collapses_attributes},
        {"nx_recovery", memory.collapses_nx}};
    for (const auto& [reason, count] : collapsed_by) {
      add_if_any(collapses, {{"vm", vm}, {"reason", reason}}, count);
    }
    add_if_any(kvm_exits, {{"vm", vm}}, counters.kvm_exits);
    add_if_any(dirty_pages, {{"vm", vm}}, counters.dirty_pages_harvested);
    const vcpu::ProjectionCounts& projection = counters.projection;
    add_if_any(projected, {{"vm", vm}, {"form", "whole"}}, projection.whole);
    add_if_any(projected, {{"vm", vm}, {"form", "pieces"}}, projection.pieces);
    add_if_any(kept, {{"vm", vm}, {"reason", "no_memory"}}, projection.kept_no_memory);
    add_if_any(kept, {{"vm", vm}, {"reason", "dirty_log"}}, projection.kept_writes_watched);
    add_if_any(kept, {{"vm", vm}, {"reason", "busy"}}, projection.kept_busy);
    add_if_any(throttled, {{"vm", vm}}, counters.throttled_conversions);
    add_if_any(held_back, {{"vm", vm}}, counters.held_back_conversions);
  }
};

void AddJournal(const events::JournalStats& stats, std::vector<prometheus::MetricFamily>& all) {
  const auto add = [&all](prometheus::MetricFamily family, uint64_t value) {
    AddSeries(family, {}, static_cast<double>(value));
    all.push_back(std::move(family));
  };
  add(GaugeFamily("twinroot_journal_events", "Events kept in the journal."), stats.kept);
  add(GaugeFamily("twinroot_journal_bytes", "The journal's file, as far as it is in use."),
      stats.bytes);
  add(GaugeFamily("twinroot_journal_waiting_events", "Events that wait for the journal's disk."),
      stats.waiting);
  add(CounterFamily("twinroot_journal_lost_events_total",
                    "Events that became a gap, because the journal's disk refused them."),
      stats.lost);
  add(CounterFamily("twinroot_journal_failed_commits_total",
                    "Times that the journal's disk refused events; they are tried again."),
      stats.failed_commits);
}

}  // namespace

std::vector<prometheus::MetricFamily> VmCollector::Collect() const {
  VmFamilies families;
  uint64_t states[std::size(kStates)] = {};
  std::string after;
  for (;;) {
    const auto vms = registry_->List(after, kVmsAtOnce);
    for (const auto& vm : vms) {
      after = vm->spec().name;
      ++states[static_cast<size_t>(vm->status().state)];
      families.Add(after, vm->counters());
    }
    if (vms.size() < kVmsAtOnce) break;
  }
  auto vms = GaugeFamily("twinroot_vms", "VMs by state.");
  for (size_t i = 0; i < std::size(kStates); ++i) {
    AddSeries(vms, {{"state", kStates[i]}}, static_cast<double>(states[i]));
  }

  std::vector<prometheus::MetricFamily> all;
  all.push_back(std::move(vms));
  AddJournal(journal_->stats(), all);
  for (prometheus::MetricFamily& family : families.all) all.push_back(std::move(family));
  return all;
}

}  // namespace twinroot::obs
