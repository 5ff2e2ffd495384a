// How far a long call has come: one line on stderr that is rewritten in place, and only on a
// terminal. Not thread-safe.
#ifndef TWINROOT_CLI_COMMANDS_PROGRESS_H_
#define TWINROOT_CLI_COMMANDS_PROGRESS_H_

#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <string>
#include <utility>

#include "cli/quantity.h"

namespace twinroot::cli {

class Progress {
 public:
  // What is smaller is over before anybody could read it.
  static constexpr uint64_t kLeast = uint64_t{8} << 20;

  // `doing`: "sending the image". `total` in bytes.
  Progress(std::string doing, uint64_t total)
      : doing_(std::move(doing)),
        total_(total),
        shown_(total >= kLeast && isatty(STDERR_FILENO) == 1) {}
  ~Progress() {
    if (shown_) std::fputs("\r\033[K", stderr);
  }
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void Show(uint64_t done) {
    if (!shown_) return;
    constexpr size_t kWidth = 24;
    const auto full = static_cast<size_t>(static_cast<double>(done) / static_cast<double>(total_) *
                                          static_cast<double>(kWidth));
    const std::string bar =
        std::string(full < kWidth ? full : kWidth, '#') + std::string(kWidth, ' ');
    std::fprintf(stderr, "\r%s: [%.*s] %s of %s\033[K", doing_.c_str(), static_cast<int>(kWidth),
                 bar.c_str(), FormatRoughSize(done).c_str(), FormatRoughSize(total_).c_str());
  }

 private:
  const std::string doing_;
  const uint64_t total_;
  const bool shown_;
};

}  // namespace twinroot::cli

#endif  // TWINROOT_CLI_COMMANDS_PROGRESS_H_
