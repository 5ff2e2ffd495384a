// What the journal's readers, appenders and writer share. Private to daemon/events.
#ifndef TWINROOT_DAEMON_EVENTS_JOURNAL_STATE_H_
#define TWINROOT_DAEMON_EVENTS_JOURNAL_STATE_H_

#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>

#include "daemon/callbacks.h"
#include "daemon/events/journal.h"
#include "daemon/events/store.h"
#include "daemon/events/tail.h"

namespace twinroot::events {

struct Journal::State {
  State(std::string epoch, Tail tail, std::unique_ptr<Store> store)
      : epoch(std::move(epoch)), store(std::move(store)), tail(std::move(tail)) {}

  const std::string epoch;
  const std::unique_ptr<Store> store;  // null: in memory
  v1::DaemonStarted opening;

  mutable std::mutex mutex;
  // All below: `mutex`.
  Tail tail;
  uint64_t first = 0;    // position before the oldest event kept
  uint64_t horizon = 0;  // first <= horizon while events are about to be removed
  std::map<std::string, uint64_t> vm_sequences;
  std::function<void(const v1::Event&)> observer;
  uint64_t bytes = 0;
  uint64_t lost = 0;
  uint64_t failed_commits = 0;
  bool refused = false;  // the last commit failed
  bool writer_sleeps = false;
  bool stopping = false;

  std::condition_variable work;               // for the writer: append, stopping
  mutable std::condition_variable committed;  // for who waits
  Callbacks<> watchers;

  LosslessWatches lossless;  // has a lock of its own
};

// Commits what is appended, as much at once as there is, and removes what is too old. Destroying it
// commits the rest.
class Journal::Writer {
 public:
  Writer(State* state, const JournalOptions& options);
  ~Writer();

 private:
  void Run();
  // Sleeps until there is something to do; what there is to commit. Empty: nothing, or the end.
  std::vector<Entry> Next();
  bool Commit(const std::vector<Entry>& batch);
  // Tells the log of lost events, now and then.
  void TellLost(const std::vector<Entry>& batch);
  void CompactOnce();
  // After a failure: waits, longer each time, but not beyond the journal's end.
  void BackOff();
  void Finish();

  State& state_;
  Compaction compaction_;
  std::thread thread_;
  // The thread's own.
  uint32_t failures_ = 0;     // in a row
  uint64_t lost_before_ = 0;  // when the failures began
  uint64_t lost_untold_ = 0;  // events that the log has not told of
  absl::Time next_loss_ = absl::UnixEpoch();
};

}  // namespace twinroot::events

#endif  // TWINROOT_DAEMON_EVENTS_JOURNAL_STATE_H_
