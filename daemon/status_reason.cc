#include "daemon/status_reason.h"

#include <utility>

#include "absl/strings/cord.h"

namespace twinroot {
namespace {

// The payload is a list of NUL-terminated strings: the reason, then key, value, key, value ... NUL
// because no reason, key or value of ours has one.
constexpr char kPayload[] = "twinroot/reason";

std::string Field(std::string text) {
  text.resize(text.find('\0') == std::string::npos ? text.size() : text.find('\0'));
  text.push_back('\0');
  return text;
}

// Takes the next string off `payload`; "" at its end.
std::string Take(std::string& payload) {
  const size_t end = payload.find('\0');
  if (end == std::string::npos) return {};
  std::string field = payload.substr(0, end);
  payload.erase(0, end + 1);
  return field;
}

std::string PayloadOf(const absl::Status& status) {
  const auto payload = status.GetPayload(kPayload);
  return payload.has_value() ? std::string(*payload) : std::string();
}

}  // namespace

absl::Status WithReason(absl::Status status, std::string reason,
                        std::map<std::string, std::string> metadata) {
  if (status.ok()) return status;
  std::string payload = Field(std::move(reason));
  for (auto& [key, value] : metadata) payload += Field(key) + Field(std::move(value));
  status.SetPayload(kPayload, absl::Cord(payload));
  return status;
}

std::string ReasonOf(const absl::Status& status) {
  std::string payload = PayloadOf(status);
  return Take(payload);
}

std::map<std::string, std::string> MetadataOf(const absl::Status& status) {
  std::map<std::string, std::string> metadata;
  std::string payload = PayloadOf(status);
  Take(payload);
  while (!payload.empty()) {
    std::string key = Take(payload);
    metadata[std::move(key)] = Take(payload);
  }
  return metadata;
}

}  // namespace twinroot
