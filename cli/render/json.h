// Messages as JSON: protobuf's own printer, lowerCamelCase, 64-bit numbers as strings, defaults
// printed, enum values short. Pure functions; the text ends with a newline.
#ifndef TWINROOT_CLI_RENDER_JSON_H_
#define TWINROOT_CLI_RENDER_JSON_H_

#include <google/protobuf/message.h>

#include <string>

namespace twinroot::cli {

// Over several lines, for one answer.
std::string ToJson(const google::protobuf::Message& message);
// On one line, for streams.
std::string ToJsonLine(const google::protobuf::Message& message);

}  // namespace twinroot::cli

#endif  // TWINROOT_CLI_RENDER_JSON_H_
