#include "cli/commands/policy_flags.h"

#include <google/protobuf/util/time_util.h>

#include <utility>

#include "cli/commands/command.h"

namespace twinroot::cli {
namespace {

using Policy = v1::ConversionPolicy;

constexpr std::pair<const char*, const char*> kFieldOfOption[] = {
    {"--policy", "mode"},
    {"--decision-timeout", "decision_timeout"},
    {"--on-timeout", "on_timeout"},
    {"--max-shared", "max_shared_bytes"},
    {"--max-conversion-rate", "max_conversions_per_second"},
    {"--conversion-burst", "conversion_burst"},
    {"--ping-pong-limit", "ping_pong_limit"},
    {"--ping-pong-window", "ping_pong_window"},
};

google::protobuf::Duration ToProto(absl::Duration duration) {
  return google::protobuf::util::TimeUtil::NanosecondsToDuration(
      absl::ToInt64Nanoseconds(duration));
}

}  // namespace

void PolicyFlags::AddTo(CLI::App* verb) {
  verb_ = verb;
  AddChoice<Policy::Mode>(verb, "--policy", &mode_,
                          {{"auto", Policy::MODE_AUTO},
                           {"orchestrator", Policy::MODE_ORCHESTRATOR},
                           {"deny", Policy::MODE_DENY}},
                          "Who decides conversions between private and shared");
  AddDuration(verb, "--decision-timeout", &decision_timeout_,
              "How long a vCPU waits for a decision, and at most for --max-conversion-rate (30s)");
  AddChoice<Policy::OnTimeout>(
      verb, "--on-timeout", &on_timeout_,
      {{"deny", Policy::ON_TIMEOUT_DENY}, {"apply", Policy::ON_TIMEOUT_APPLY}},
      "With --policy orchestrator: what is decided when nobody did (deny)");
  AddSize(verb, "--max-shared", &max_shared_,
          "Most memory that the guest may have shared at once; 0: no bound");
  verb->add_option("--max-conversion-rate", rate_,
                   "Conversions a second; over it the guest waits; 0: no bound")
      ->type_name("N");
  verb->add_option("--conversion-burst", burst_,
                   "With --max-conversion-rate: how many at once after a pause (one second's)")
      ->type_name("N");
  verb->add_option("--ping-pong-limit", ping_pong_limit_,
                   "How often the guest may turn the same 2MiB to and fro within a window; 0: no "
                   "bound")
      ->type_name("N");
  AddDuration(verb, "--ping-pong-window", &ping_pong_window_,
              "With --ping-pong-limit: the window (1s)");
}

Policy PolicyFlags::policy() const {
  Policy policy;
  policy.set_mode(mode_);
  if (Has("--decision-timeout")) *policy.mutable_decision_timeout() = ToProto(decision_timeout_);
  policy.set_on_timeout(on_timeout_);
  policy.set_max_shared_bytes(max_shared_);
  policy.set_max_conversions_per_second(rate_);
  policy.set_conversion_burst(burst_);
  policy.set_ping_pong_limit(ping_pong_limit_);
  if (Has("--ping-pong-window")) *policy.mutable_ping_pong_window() = ToProto(ping_pong_window_);
  return policy;
}

std::vector<std::string> PolicyFlags::fields() const {
  std::vector<std::string> fields;
  for (const auto& [option, field] : kFieldOfOption) {
    if (Has(option)) fields.push_back(field);
  }
  return fields;
}

}  // namespace twinroot::cli
