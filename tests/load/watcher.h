// Follows the event stream from a cursor until a certain VM stops, and sums up what it was told. It
// may be made slow, or be cut now and then, to resume from its last cursor. Not thread-safe.
#ifndef TWINROOT_TESTS_LOAD_WATCHER_H_
#define TWINROOT_TESTS_LOAD_WATCHER_H_

#include <chrono>
#include <cstdint>
#include <string>

#include "tests/load/client.h"

namespace twinroot::load {

// Events in order; two that are equal told the same, each event once.
struct Told {
  uint64_t events = 0;
  uint64_t missed = 0;  // what gaps have counted
  uint64_t digest = 14695981039346656037u;

  void Add(const v1::Event& event);
  // Equal, or short of `all` by exactly what gaps have said.
  bool Covers(const Told& all) const;
};

struct Manner {
  // After so many events the stream is cut and resumed; 0: never.
  uint64_t cut_after = 0;
  // Until then it is slow: a pause after each message.
  std::chrono::steady_clock::time_point slow_until{};
};

class Watcher {
 public:
  Watcher(Client* client, std::string cursor, std::string last_vm, Manner manner = {})
      : client_(client),
        cursor_(std::move(cursor)),
        last_vm_(std::move(last_vm)),
        manner_(manner) {}

  // Until it was told that `last_vm` has stopped.
  void Run();

  const Told& told() const { return told_; }
  uint64_t messages() const { return messages_; }
  uint64_t resumed() const { return resumed_; }

 private:
  enum class Leg { kEnd, kCut };
  Leg Follow();

  Client* const client_;
  std::string cursor_;
  const std::string last_vm_;
  const Manner manner_;
  Told told_;
  uint64_t messages_ = 0;
  uint64_t resumed_ = 0;
};

// The same from ListEvents, page by page.
Told ListAll(Client* client, const std::string& cursor, const std::string& last_vm);

}  // namespace twinroot::load

#endif  // TWINROOT_TESTS_LOAD_WATCHER_H_
