// What the words mean that hvctl and the daemon end with: reasons of errors, reasons why a VM
// stopped, exit codes, kinds of events. The one table behind `hvctl explain` and the hints below
// errors. Pure functions.
#ifndef TWINROOT_CLI_EXPLANATIONS_H_
#define TWINROOT_CLI_EXPLANATIONS_H_

#include <grpcpp/support/status.h>

#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace twinroot::cli {

enum class Subject { kReason, kStopReason, kExitCode, kEventKind };
enum class AsHint { kYes, kNo };

struct Explanation {
  Subject subject;
  const char* word;
  const char* meaning;  // one or more sentences
  // The next step, for a hint too. "{vm|NAME}" is the error's metadata `vm`, or NAME without it.
  const char* next;
  grpc::StatusCode code = grpc::StatusCode::OK;  // of a reason
  // kNo: the error's own words say more.
  AsHint as_hint = AsHint::kYes;
};

const std::vector<Explanation>& Explanations();

// By its word, in any case and with - for _; a word may have several subjects.
std::vector<const Explanation*> Explain(std::string_view word);

// The next step; `metadata` gives an empty text for what it has not.
std::string NextStep(const Explanation& explanation,
                     const std::function<std::string(const std::string& key)>& metadata);

}  // namespace twinroot::cli

#endif  // TWINROOT_CLI_EXPLANATIONS_H_
