// A cursor, "{epoch}-{position}": the place before event number `position` (from 0) of the journal
// that the epoch names. A cursor has one spelling. Pure; thread-safe.
#ifndef TWINROOT_DAEMON_EVENTS_CURSOR_H_
#define TWINROOT_DAEMON_EVENTS_CURSOR_H_

#include <cstdint>
#include <optional>
#include <string>

namespace twinroot::events {

struct ParsedCursor {
  std::string epoch;
  uint64_t position = 0;
};

// 16 lower-case hexadecimal digits, random.
std::string NewEpoch();
bool IsEpoch(const std::string& text);

std::string CursorText(const std::string& epoch, uint64_t position);
// nullopt: malformed.
std::optional<ParsedCursor> ParseCursor(const std::string& text);

}  // namespace twinroot::events

#endif  // TWINROOT_DAEMON_EVENTS_CURSOR_H_
