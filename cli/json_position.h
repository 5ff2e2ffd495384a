// Where something stands in a JSON text, as line and column. protobuf's JSON parser says what is
// wrong but not where; this small scanner of RFC 8259 finds the place afterwards.
#ifndef TWINROOT_CLI_JSON_POSITION_H_
#define TWINROOT_CLI_JSON_POSITION_H_

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace twinroot::cli {

// Both count from 1; columns count bytes.
struct TextPosition {
  size_t line = 1;
  size_t column = 1;
};

TextPosition PositionOfOffset(std::string_view text, size_t offset);

// The first byte that is not JSON; nullopt if all of it is.
std::optional<size_t> FindJsonSyntaxError(std::string_view json);

// The key of `path`'s last member, or its last element's value: "vcpus[0].steps[1].read" with
// object keys as they are written in `json`. nullopt if there is no such place.
std::optional<size_t> FindJsonPath(std::string_view json, const std::string& path);

}  // namespace twinroot::cli

#endif  // TWINROOT_CLI_JSON_POSITION_H_
