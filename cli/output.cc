#include "cli/output.h"

#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "cli/failure.h"

namespace twinroot::cli {
namespace {

constexpr size_t kBufferSize = 64 * 1024;

bool WantsColors() {
  // https://no-color.org: set and not empty.
  const char* no_color = std::getenv("NO_COLOR");
  const char* term = std::getenv("TERM");
  return (no_color == nullptr || *no_color == '\0') &&
         (term == nullptr || std::strcmp(term, "dumb") != 0);
}

}  // namespace

Output::Output(int fd) : fd_(fd), terminal_(isatty(fd) == 1), colors_(terminal_ && WantsColors()) {}

void Output::Write(std::string_view bytes) {
  buffer_.append(bytes);
  if (buffer_.size() >= kBufferSize) Flush();
}

std::string Output::Capture(const std::function<void()>& write) {
  Flush();
  capturing_ = true;
  try {
    write();
  } catch (...) {
    capturing_ = false;
    throw;
  }
  capturing_ = false;
  return std::exchange(buffer_, {});
}

void Output::Flush() {
  if (capturing_) return;
  std::string_view rest = buffer_;
  while (!rest.empty()) {
    const ssize_t written = write(fd_, rest.data(), rest.size());
    if (written >= 0) {
      rest.remove_prefix(static_cast<size_t>(written));
    } else if (errno == EPIPE) {
      buffer_.clear();
      throw OutputClosed{};
    } else if (errno != EINTR) {
      buffer_.clear();
      throw Failure{kFailure, absl::StrCat("cannot write the output: ", strerror(errno)), ""};
    }
  }
  buffer_.clear();
}

}  // namespace twinroot::cli
