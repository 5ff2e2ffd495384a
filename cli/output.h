// Standard output: buffered, aware of terminals, and quiet when its reader has gone.
// Not thread-safe. Write and Flush throw OutputClosed on EPIPE and Failure on other errors (a full
// disk is not silence).
#ifndef TWINROOT_CLI_OUTPUT_H_
#define TWINROOT_CLI_OUTPUT_H_

#include <functional>
#include <string>
#include <string_view>

namespace twinroot::cli {

class Output {
 public:
  explicit Output(int fd);
  Output(const Output&) = delete;
  Output& operator=(const Output&) = delete;

  void Write(std::string_view bytes);
  // What `write` writes, which then is not printed.
  std::string Capture(const std::function<void()>& write);
  // What follows is seen at once: before waiting for the daemon, and at the end.
  void Flush();

  bool terminal() const { return terminal_; }
  // A terminal, and neither NO_COLOR nor TERM=dumb.
  bool colors() const { return colors_; }

 private:
  const int fd_;
  const bool terminal_;
  const bool colors_;
  bool capturing_ = false;
  std::string buffer_;
};

}  // namespace twinroot::cli

#endif  // TWINROOT_CLI_OUTPUT_H_
