// What the fake services of hvctl's tests share: the state, and refusals with the codes and reasons
// of the real daemon. Everything in State is guarded by its mutex.
#ifndef TWINROOT_TESTS_CLI_FAKE_STATE_H_
#define TWINROOT_TESTS_CLI_FAKE_STATE_H_

#include <grpcpp/server_context.h>
#include <grpcpp/support/status.h>

#include <chrono>
#include <condition_variable>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "twinroot/v1/dirty_log.pb.h"
#include "twinroot/v1/event.pb.h"
#include "twinroot/v1/memory.pb.h"
#include "twinroot/v1/vm.pb.h"

namespace twinroot::cli {

using grpc::ServerContext;
using grpc::Status;
using grpc::StatusCode;

// Shared memory of every VM; everything else is private.
inline constexpr uint64_t kSharedBegin = 0x200000;
inline constexpr uint64_t kSharedSize = 3 << 20;

inline Status Refuse(StatusCode code, const std::string& message, const std::string& reason,
                     const std::map<std::string, std::string>& facts = {}) {
  google::rpc::ErrorInfo info;
  info.set_reason(reason);
  info.set_domain("twinroot");
  info.mutable_metadata()->insert(facts.begin(), facts.end());
  google::rpc::Status rich;
  rich.set_code(static_cast<int>(code));
  rich.set_message(message);
  rich.add_details()->PackFrom(info);
  return Status(code, message, rich.SerializeAsString());
}

inline Status NoSuchVm(const std::string& name) {
  return Refuse(StatusCode::NOT_FOUND, "there is no vm '" + name + "'", "NO_SUCH_VM",
                {{"vm", name}});
}

inline bool IsName(const std::string& name) {
  return !name.empty() && name.size() <= 63 && name[0] >= 'a' && name[0] <= 'z' &&
         name.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789-") == std::string::npos;
}

inline std::string Bare(const std::string& resource) {
  return resource.rfind("vms/", 0) == 0 ? resource.substr(4) : "";
}

struct State {
  std::mutex mutex;
  std::condition_variable changed;
  std::map<std::string, v1::Vm> vms;
  std::string console;
  std::vector<v1::Event> events;
  std::vector<v1::ConversionRequest> parked;
  std::string shared = std::string(kSharedSize, '\0');
  v1::CreateVmRequest last_create;
  v1::SetMemoryAttributesRequest last_set;
  v1::EnableDirtyLogRequest last_enable;
  std::map<std::string, std::string> last;  // requests of other calls by their type, serialized
  bool dirty_log_on = false;
  std::vector<size_t> chunks;
  std::optional<Status> refusal;
  bool draining = false;
  int calls = 0;
  int conversions = 0;

  // Counts the call; the refusal that a test asked for, if any.
  Status Enter() {
    ++calls;
    const Status status = refusal.value_or(Status::OK);
    refusal.reset();
    return status;
  }

  template <typename Request>
  void Note(const Request& request) {
    last[request.GetTypeName()] = request.SerializeAsString();
  }

  // Waits until `done`, or the client has gone, or the daemon drains.
  template <typename Predicate>
  void WaitFor(std::unique_lock<std::mutex>& lock, ServerContext* context, Predicate done) {
    while (!done() && !context->IsCancelled() && !draining)
      changed.wait_for(lock, std::chrono::milliseconds(5));
  }
};

}  // namespace twinroot::cli

#endif  // TWINROOT_TESTS_CLI_FAKE_STATE_H_
