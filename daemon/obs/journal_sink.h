// Writes the log to journald by its own protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL), so that
// lines have fields: `journalctl -u hvd TWINROOT_VM=demo`, `-p warning`, TWINROOT_REASON=...
//
// Thread-safe. A line is one entry whatever it contains; what it quotes can begin no field. One
// that journald does not take goes to stderr, which systemd reads too. (spdlog's own systemd sink
// has no fields of ours.)
#ifndef TWINROOT_DAEMON_OBS_JOURNAL_SINK_H_
#define TWINROOT_DAEMON_OBS_JOURNAL_SINK_H_

#include <sys/un.h>

#include <mutex>
#include <string>

#include "spdlog/sinks/base_sink.h"

namespace twinroot::obs {

inline constexpr char kJournalSocket[] = "/run/systemd/journal/socket";

// Whether what this process writes to stderr goes to journald: $JOURNAL_STREAM names it.
bool StderrIsJournal();

class JournalSink final : public spdlog::sinks::base_sink<std::mutex> {
 public:
  explicit JournalSink(const std::string& socket = kJournalSocket);
  ~JournalSink() override;

 protected:
  void sink_it_(const spdlog::details::log_msg& message) override;
  void flush_() override {}

 private:
  sockaddr_un journal_{};
  const int fd_;
};

}  // namespace twinroot::obs

#endif  // TWINROOT_DAEMON_OBS_JOURNAL_SINK_H_
