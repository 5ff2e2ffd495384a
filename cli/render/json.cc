#include "cli/render/json.h"

#include <google/protobuf/util/json_util.h>

#include <memory>

#include "absl/strings/str_cat.h"
#include "cli/failure.h"
#include "cli/short_names.h"

namespace twinroot::cli {
namespace {

std::string Print(const google::protobuf::Message& message, bool whitespace) {
  google::protobuf::util::JsonPrintOptions options;
  options.always_print_primitive_fields = true;
  options.add_whitespace = whitespace;
  // Structs of hvctl's own have no enums.
  const bool api = message.GetDescriptor()->file()->package() == "twinroot.v1";
  const std::unique_ptr<google::protobuf::Message> named = api ? ToShortNamed(message) : nullptr;
  std::string json;
  const auto status =
      google::protobuf::util::MessageToJsonString(api ? *named : message, &json, options);
  if (!status.ok()) {
    // A timestamp or duration outside what JSON can say.
    throw Failure{kFailure,
                  absl::StrCat("cannot print the answer: ", std::string(status.message())),
                  "try -o table"};
  }
  if (json.empty() || json.back() != '\n') json += '\n';
  return json;
}

}  // namespace

std::string ToJson(const google::protobuf::Message& message) { return Print(message, true); }

std::string ToJsonLine(const google::protobuf::Message& message) { return Print(message, false); }

}  // namespace twinroot::cli
