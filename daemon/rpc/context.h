// What the services share: whom they ask, who works for them, and when they must end.
// Thread-safe. Owned by Server, which outlives every call.
#ifndef TWINROOT_DAEMON_RPC_CONTEXT_H_
#define TWINROOT_DAEMON_RPC_CONTEXT_H_

#include <atomic>
#include <functional>
#include <string>

#include "daemon/callbacks.h"
#include "daemon/events/journal.h"
#include "daemon/host/vm_registry.h"
#include "daemon/rpc/admission.h"
#include "daemon/rpc/call_runner.h"
#include "daemon/rpc/image_store.h"
#include "daemon/rpc/once.h"
#include "daemon/rpc/worker_pool.h"

namespace twinroot::rpc {

struct Context {
  host::VmRegistry* registry = nullptr;
  events::Journal* journal = nullptr;
  std::string version;
  std::string metrics_address;  // host:port, or empty
  uint32_t max_vms = 0;

  std::function<std::string()> metrics_text;
  std::function<void(bool)> set_serving;  // what health says
  // As ServerOptions has them.
  std::function<void(uint64_t)> on_gap = [](uint64_t) {};
  std::function<void(bool)> on_admission = [](bool) {};

  ImageStore images;
  Once once;
  Admission admission;
  // Bounded, so that callers hear of overload.
  CallRunner calls{8, 1024};
  // Streams that have something to send: short tasks, at most one a stream, off the threads of
  // vCPUs that append events.
  WorkerPool streams{2, 0};

  // Set once, then `on_drain` is woken: waiting calls and streams end.
  std::atomic<bool> draining{false};
  Callbacks<> on_drain;
  // Woken now and then, for bookmarks.
  Callbacks<> on_tick;
};

}  // namespace twinroot::rpc

#endif  // TWINROOT_DAEMON_RPC_CONTEXT_H_
