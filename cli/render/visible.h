// Bytes that a guest or the daemon said, made harmless for a terminal: a guest must not move the
// cursor, set titles or answer queries of the terminal that an operator looks through.
//
// Kept: printable ASCII, newline, tab, well-formed UTF-8 other than the C1 controls. Shown: other
// controls as ^X, other bytes as \xNN.
#ifndef TWINROOT_CLI_RENDER_VISIBLE_H_
#define TWINROOT_CLI_RENDER_VISIBLE_H_

#include <string>
#include <string_view>

namespace twinroot::cli {

// A stream of bytes whose characters may be cut anywhere. Not thread-safe.
class VisibleText {
 public:
  std::string Add(std::string_view bytes);
  // What is left of a character that was never completed.
  std::string Finish();

 private:
  std::string partial_;
};

// One line of a server's text: as above, and newlines become spaces.
std::string VisibleLine(std::string_view text);

}  // namespace twinroot::cli

#endif  // TWINROOT_CLI_RENDER_VISIBLE_H_
