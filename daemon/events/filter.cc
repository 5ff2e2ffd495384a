#include "daemon/events/filter.h"

namespace twinroot::events {

static_assert(v1::EventKind_MAX < 64, "a kind is a bit of a word");
// EventKind's numbers are those of the fields.
static_assert(int{v1::EVENT_KIND_VM_STATE} == int{v1::Event::kVmState});
static_assert(int{v1::EVENT_KIND_CONVERSION} == int{v1::Event::kConversion});
static_assert(int{v1::EVENT_KIND_CONVERSION_REQUESTED} == int{v1::Event::kConversionRequested});
static_assert(int{v1::EVENT_KIND_ATTRIBUTES_CHANGED} == int{v1::Event::kAttributesChanged});
static_assert(int{v1::EVENT_KIND_MEMORY_FAULT} == int{v1::Event::kMemoryFault});
static_assert(int{v1::EVENT_KIND_SPLIT_SUMMARY} == int{v1::Event::kSplitSummary});
static_assert(int{v1::EVENT_KIND_COLLAPSE_SUMMARY} == int{v1::Event::kCollapseSummary});
static_assert(int{v1::EVENT_KIND_DIRTY_LOG_STATE} == int{v1::Event::kDirtyLogState});
static_assert(int{v1::EVENT_KIND_AUDIT_FAILURE} == int{v1::Event::kAuditFailure});
static_assert(int{v1::EVENT_KIND_DAEMON_STARTED} == int{v1::Event::kDaemonStarted});
static_assert(int{v1::EVENT_KIND_VM_UPDATED} == int{v1::Event::kVmUpdated});

Filter::Filter(const v1::EventFilter& filter) : vms_(filter.vms().begin(), filter.vms().end()) {
  if (!filter.vm().empty()) vms_.insert(filter.vm());
  for (const int kind : filter.kinds()) kinds_ |= uint64_t{1} << kind;
}

}  // namespace twinroot::events
