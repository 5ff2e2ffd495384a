#include "cli/render/event_line.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/time.h"
#include "cli/quantity.h"
#include "cli/render/visible.h"
#include "cli/short_names.h"

namespace twinroot::cli {
namespace {

constexpr char kRed[] = "\033[31m";
constexpr char kPlain[] = "\033[0m";

// "vcpu0 TO_SHARED  0x200000 +4KiB IMPLICIT": what a conversion and a request for one share.
template <typename AnyConversion>
std::string Subject(const AnyConversion& conversion, const std::string& who) {
  return absl::StrFormat("%-5s %-10s %s +%s %s", who, ShortName(conversion.direction()),
                         FormatAddress(conversion.gpa()), FormatSize(conversion.size()),
                         ShortName(conversion.cause()));
}

std::string Describe(const v1::Conversion& conversion) {
  const std::string who =
      conversion.has_vcpu() ? absl::StrCat("vcpu", conversion.vcpu()) : std::string("-");
  std::string text = absl::StrCat(Subject(conversion, who), " ", ShortName(conversion.decision()));
  if (conversion.decision() == v1::Conversion::DECISION_QUOTA) {
    absl::StrAppend(&text, " ", ShortName(conversion.quota()));
  }
  if (conversion.has_latency()) {
    absl::StrAppend(&text, " ",
                    ShortDuration(absl::Seconds(conversion.latency().seconds()) +
                                  absl::Nanoseconds(conversion.latency().nanos())));
  }
  // That the policy decides is the rule; somebody else is worth saying.
  if (conversion.decider() != v1::Conversion::DECIDER_UNSPECIFIED &&
      conversion.decider() != v1::Conversion::DECIDER_POLICY) {
    absl::StrAppend(&text, " by ", ShortName(conversion.decider()));
  }
  return text;
}

std::string Describe(const v1::ConversionRequest& request) {
  std::string text = absl::StrCat(Subject(request, absl::StrCat("vcpu", request.vcpu())),
                                  " WAITING id ", request.id());
  if (request.has_deadline()) absl::StrAppend(&text, " until ", FormatClock(request.deadline()));
  return text;
}

std::string Describe(const v1::VmStateChange& change) {
  if (change.deleted()) return "DELETED";
  std::string text = ShortName(change.state());
  if (change.has_exit_code()) absl::StrAppend(&text, " exit code ", change.exit_code());
  if (!change.stop_reason().empty()) absl::StrAppend(&text, " ", change.stop_reason());
  if (!change.stop_message().empty()) absl::StrAppend(&text, ": ", change.stop_message());
  return text;
}

std::string Describe(const v1::Gap& gap) {
  return absl::StrCat("GAP ", gap.count(), " events missed (", gap.from_cursor(), " to ",
                      gap.to_cursor(), ")");
}

std::string Denied(const std::string& denied) {
  return denied.empty() ? "nothing is denied" : denied + " denied";
}

std::string Describe(const v1::AttributesChanged& changed) {
  return absl::StrCat("ATTRIBUTES ", FormatAddress(changed.gpa()), " +", FormatSize(changed.size()),
                      " ", Denied(changed.denied()));
}

std::string Describe(const v1::MemoryFault& fault) {
  return absl::StrFormat("vcpu%d FAULT at %s through %s: %s", fault.vcpu(),
                         FormatAddress(fault.gpa()), ShortName(fault.alias()),
                         ShortName(fault.reason()));
}

std::string Describe(const v1::SplitSummary& summary) {
  const v1::SplitCounts& splits = summary.splits();
  return absl::StrCat("SPLIT ", splits.split_2m(), " pages of 2MiB and ", splits.split_1g(),
                      " of 1GiB, ", splits.kept(), " stay large, by ", ShortName(summary.cause()));
}

std::string Describe(const v1::CollapseSummary& summary) {
  return absl::StrCat("COLLAPSED ", summary.collapsed(), " tables to large pages, by ",
                      ShortName(summary.cause()));
}

std::string Describe(const v1::DirtyLogState& log) {
  if (log.state() != v1::DirtyLogState::STATE_ON) return "DIRTY LOG OFF";
  std::string text = absl::StrCat("DIRTY LOG ON ", ShortName(log.mode()));
  if (log.manual_clear()) absl::StrAppend(&text, ", cleared by hand");
  if (log.ring_entries() != 0) absl::StrAppend(&text, ", rings of ", log.ring_entries());
  return text;
}

std::string Describe(const v1::DaemonStarted& started) {
  return absl::StrCat("HVD ", started.version(),
                      " STARTED, the end before: ", ShortName(started.previous_end()),
                      started.previous_end() == v1::DaemonStarted::PREVIOUS_END_HOST_DOWN
                          ? ", cursors of before are void"
                          : "");
}

bool IsBad(const v1::Event& event) {
  return event.has_gap() || event.has_memory_fault() || event.has_audit_failure() ||
         (event.has_conversion() &&
          event.conversion().decision() != v1::Conversion::DECISION_APPLIED) ||
         (event.has_vm_state() && !event.vm_state().stop_reason().empty());
}

}  // namespace

std::string FormatClock(const google::protobuf::Timestamp& time) {
  return absl::FormatTime("%H:%M:%E3S",
                          absl::FromUnixSeconds(time.seconds()) + absl::Nanoseconds(time.nanos()),
                          absl::LocalTimeZone());
}

std::string EventLines::Render(const v1::Event& event) {
  std::string what;
  switch (event.kind_case()) {
    case v1::Event::kVmState:
      what = Describe(event.vm_state());
      break;
    case v1::Event::kConversion:
      what = Describe(event.conversion());
      break;
    case v1::Event::kConversionRequested:
      what = Describe(event.conversion_requested());
      break;
    case v1::Event::kAttributesChanged:
      what = Describe(event.attributes_changed());
      break;
    case v1::Event::kMemoryFault:
      what = Describe(event.memory_fault());
      break;
    case v1::Event::kSplitSummary:
      what = Describe(event.split_summary());
      break;
    case v1::Event::kCollapseSummary:
      what = Describe(event.collapse_summary());
      break;
    case v1::Event::kDirtyLogState:
      what = Describe(event.dirty_log_state());
      break;
    case v1::Event::kAuditFailure:
      what = absl::StrCat("AUDIT FAILED: ", event.audit_failure().detail());
      break;
    case v1::Event::kDaemonStarted:
      what = Describe(event.daemon_started());
      break;
    case v1::Event::kGap:
      what = Describe(event.gap());
      break;
    case v1::Event::kBookmark:
      return "";
    case v1::Event::KIND_NOT_SET:
      what = "an event that this hvctl does not know";
      break;
  }
  const std::string vm = event.vm().empty() ? "-" : event.vm();
  vm_width_ = std::max(vm_width_, vm.size());
  const std::string line = VisibleLine(absl::StrFormat("%s %-*s %s", FormatClock(event.time()),
                                                       static_cast<int>(vm_width_), vm, what));
  if (colors_ == Colors::kOff || !IsBad(event)) return line + "\n";
  return absl::StrCat(kRed, line, kPlain, "\n");
}

}  // namespace twinroot::cli
