// Calls that are made once, however often they are sent: remembers the answers of those that
// succeeded by the id that their callers gave them, and lets repetitions wait for the first.
// vm.proto says what callers may rely on.
//
// Thread-safe; answers are given without the lock. Memory is bounded for each method: by the
// number, bytes and age of the answers kept, and by how many calls may be under way.
#ifndef TWINROOT_DAEMON_RPC_ONCE_H_
#define TWINROOT_DAEMON_RPC_ONCE_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "google/protobuf/message_lite.h"

namespace twinroot::rpc {

class Once {
 public:
  // Of the answers of one method.
  struct Limits {
    size_t count = 1024;
    size_t bytes = size_t{4} << 20;
    absl::Duration age = absl::Minutes(10);
  };
  struct Id {
    std::string caller;
    std::string method;
    std::string request_id;
  };
  enum class Turn : uint8_t { kFirst, kRepeated };
  using Answer = std::function<void(const absl::Status& status, const std::string& response)>;

  Once() : Once(Limits(), absl::Now) {}
  Once(const Limits& limits, std::function<absl::Time()> now)
      : limits_(limits), now_(std::move(now)) {}

  // kFirst: the caller makes the call, and then calls End. kRepeated: `answer` is called once, now
  // or when the first has ended. kInvalidArgument: the id is none, or was given to another request.
  absl::StatusOr<Turn> Begin(const Id& id, const google::protobuf::MessageLite& request,
                             Answer answer);
  // The first call has ended. Only success is remembered.
  void End(const Id& id, const absl::Status& status, const std::string& response);

 private:
  using Key = std::pair<std::string, std::string>;  // caller, request id
  struct Entry {
    std::string digest;  // of the request
    bool ended = false;
    std::string response;         // once it has ended
    absl::Time until;             // likewise
    std::vector<Answer> waiting;  // until then
  };
  struct Book {
    std::map<Key, Entry> entries;
    std::deque<Key> ended;  // oldest first
    size_t bytes = 0;       // of their responses
  };

  void Trim(Book& book);  // holds mutex_

  const Limits limits_;
  const std::function<absl::Time()> now_;
  std::mutex mutex_;
  std::map<std::string, Book> books_;  // by method; guarded by mutex_
};

}  // namespace twinroot::rpc

#endif  // TWINROOT_DAEMON_RPC_ONCE_H_
