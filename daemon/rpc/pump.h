// A stream of answers that a source feeds: it sends when there is something and somebody woke it,
// and costs neither a thread nor a timer while there is nothing.
//
// Thread-safe. Invariants: 1. Produce runs in one thread at a time. 2. Only who holds `busy_`
// starts a write or finishes, and touches nothing of the stream afterwards. 3. Wake does no work of
// the stream: it may be called from a vCPU's thread and under the source's own locks.
#ifndef TWINROOT_DAEMON_RPC_PUMP_H_
#define TWINROOT_DAEMON_RPC_PUMP_H_

#include <mutex>
#include <utility>

#include "absl/status/status.h"
#include "daemon/rpc/status.h"
#include "daemon/rpc/worker_pool.h"
#include "grpcpp/grpcpp.h"

namespace twinroot::rpc {

template <typename Response>
class Pump : public grpc::ServerWriteReactor<Response> {
 public:
  // Something may be there to send. Call it once to begin.
  void Wake() {
    {
      std::lock_guard lock(mutex_);
      if (ended_) return;
      if (busy_) {
        again_ = true;
        return;
      }
      busy_ = true;
    }
    Post();
  }

 protected:
  enum class Next { kWrite, kWait, kAgain, kEnd };

  explicit Pump(WorkerPool* workers) : workers_(workers) {}

  // Lets the caller know at once that the stream stands, before there is anything to send. Before
  // the first Wake.
  void Open() { this->StartSendInitialMetadata(); }

  // kWrite: `message` (which came empty) is to be sent. kWait: nothing now. kAgain: nothing yet;
  // others take their turn first. kEnd: nothing more; the stream ends with `end`.
  virtual Next Produce(Response* message, absl::Status* end) = 0;
  // Would Produce wait for a disk? Then it is run by a worker, not by gRPC's own thread.
  virtual bool Blocks() const { return false; }

 private:
  void Post() {
    // The pool of streams has no limit: it always takes a task.
    if (!workers_->TryPost([this] { Run(); })) Run();
  }

  void Run() {
    for (;;) {
      {
        std::lock_guard lock(mutex_);
        again_ = false;
      }
      absl::Status end;
      message_.Clear();
      const Next next = Cancelled() ? Next::kEnd : Produce(&message_, &end);
      if (next == Next::kWrite) {
        this->StartWrite(&message_);
        return;
      }
      if (next == Next::kAgain) {
        Post();
        return;
      }
      {
        std::lock_guard lock(mutex_);
        if (next == Next::kWait && !cancelled_) {
          if (again_) continue;
          busy_ = false;
          return;
        }
        if (cancelled_) end = absl::CancelledError("the caller left");
        ended_ = true;
      }
      this->Finish(ToGrpc(end));
      return;
    }
  }

  bool Cancelled() {
    std::lock_guard lock(mutex_);
    return cancelled_;
  }

  void OnWriteDone(bool ok) final {
    if (!ok) {
      std::lock_guard lock(mutex_);
      cancelled_ = true;
    }
    if (Blocks()) {
      Post();
    } else {
      Run();
    }
  }

  void OnCancel() final {
    {
      std::lock_guard lock(mutex_);
      cancelled_ = true;
    }
    Wake();
  }

  void OnDone() final { delete this; }

  WorkerPool* const workers_;
  Response message_;
  std::mutex mutex_;
  // All below: `mutex_`.
  bool busy_ = false;       // somebody runs Produce or a write is under way
  bool again_ = false;      // woken meanwhile
  bool cancelled_ = false;  // the caller left
  bool ended_ = false;      // Finish was called, or is about to be
};

// A stream that fails before it begins.
template <typename Response>
class FailedStream final : public grpc::ServerWriteReactor<Response> {
 public:
  explicit FailedStream(const absl::Status& status) { this->Finish(ToGrpc(status)); }

 private:
  void OnDone() final { delete this; }
};

}  // namespace twinroot::rpc

#endif  // TWINROOT_DAEMON_RPC_PUMP_H_
