// The options that make a conversion policy, for the verbs that set one. Not thread-safe.
#ifndef TWINROOT_CLI_COMMANDS_POLICY_FLAGS_H_
#define TWINROOT_CLI_COMMANDS_POLICY_FLAGS_H_

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "twinroot/v1/vm.pb.h"

namespace twinroot::cli {

class PolicyFlags {
 public:
  // Adds them to `verb`, which fills this object when it is parsed; both must outlive the parse.
  void AddTo(CLI::App* verb);

  bool Has(const std::string& option) const { return verb_->count(option) > 0; }
  v1::ConversionPolicy policy() const;
  // The fields of the policy that were given, as field masks name them.
  std::vector<std::string> fields() const;

 private:
  const CLI::App* verb_ = nullptr;
  v1::ConversionPolicy::Mode mode_ = v1::ConversionPolicy::MODE_UNSPECIFIED;
  absl::Duration decision_timeout_;
  v1::ConversionPolicy::OnTimeout on_timeout_ = v1::ConversionPolicy::ON_TIMEOUT_UNSPECIFIED;
  uint64_t max_shared_ = 0;
  uint32_t rate_ = 0;
  uint32_t burst_ = 0;
  uint32_t ping_pong_limit_ = 0;
  absl::Duration ping_pong_window_;
};

}  // namespace twinroot::cli

#endif  // TWINROOT_CLI_COMMANDS_POLICY_FLAGS_H_
