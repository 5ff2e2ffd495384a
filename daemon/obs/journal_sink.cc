#include "daemon/obs/journal_sink.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string_view>

#include "daemon/log_vm.h"

namespace twinroot::obs {
namespace {

// Of one message: far below what a datagram may carry.
constexpr size_t kMostBytes = 16384;
constexpr char kCut[] = " [cut]";

// syslog's: what journalctl -p knows.
const char* PriorityOf(spdlog::level::level_enum level) {
  switch (level) {
    case spdlog::level::critical:
      return "2";
    case spdlog::level::err:
      return "3";
    case spdlog::level::warn:
      return "4";
    case spdlog::level::info:
      return "6";
    default:
      return "7";
  }
}

// The form with a length, which holds any bytes.
void Add(std::string_view name, std::string_view value, std::string* entry) {
  entry->append(name);
  entry->push_back('\n');
  for (int byte = 0; byte < 8; ++byte) {
    entry->push_back(static_cast<char>(uint64_t{value.size()} >> (8 * byte)));
  }
  entry->append(value);
  entry->push_back('\n');
}

}  // namespace

bool StderrIsJournal() {
  const char* stream = std::getenv("JOURNAL_STREAM");
  struct stat status {};
  if (stream == nullptr || fstat(STDERR_FILENO, &status) != 0) return false;
  return stream == std::to_string(status.st_dev) + ":" + std::to_string(status.st_ino);
}

JournalSink::JournalSink(const std::string& socket_path)
    : fd_(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0)) {
  journal_.sun_family = AF_UNIX;
  socket_path.copy(journal_.sun_path, sizeof(journal_.sun_path) - 1);
}

JournalSink::~JournalSink() {
  if (fd_ >= 0) close(fd_);
}

void JournalSink::sink_it_(const spdlog::details::log_msg& message) {
  std::string text(message.payload.data(), message.payload.size());
  if (text.size() > kMostBytes) text.replace(kMostBytes, std::string::npos, kCut);
  std::string entry;
  Add("MESSAGE", text, &entry);
  Add("PRIORITY", PriorityOf(message.level), &entry);
  Add("SYSLOG_IDENTIFIER", "hvd", &entry);
  Add("TID", std::to_string(message.thread_id), &entry);
  if (const LogSubject* about = LogSubject::current; about != nullptr) {
    Add("TWINROOT_VM", about->vm, &entry);
    if (!about->reason.empty()) Add("TWINROOT_REASON", about->reason, &entry);
  }
  if (sendto(fd_, entry.data(), entry.size(), MSG_NOSIGNAL,
             reinterpret_cast<const sockaddr*>(&journal_), sizeof(journal_)) >= 0) {
    return;
  }
  // systemd reads a priority from the beginning of a line (sd-daemon(3)).
  std::fprintf(stderr, "<%s>%s\n", PriorityOf(message.level), text.c_str());
}

}  // namespace twinroot::obs
