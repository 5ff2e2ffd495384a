// What every client of hvd needs: a connection, errors in words, another try, and the stream of
// events. docs/orchestrator.md shows it piece by piece: a mark such as [watch] begins a piece,
// [end] ends it.
#ifndef TWINROOT_DOCS_EXAMPLES_CLIENT_H_
#define TWINROOT_DOCS_EXAMPLES_CLIENT_H_

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <memory>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_format.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "twinroot/v1/dirty_log.grpc.pb.h"
#include "twinroot/v1/event.grpc.pb.h"
#include "twinroot/v1/host.grpc.pb.h"
#include "twinroot/v1/memory.grpc.pb.h"
#include "twinroot/v1/vm.grpc.pb.h"

namespace orchestrator {

namespace v1 = twinroot::v1;
using grpc::StatusCode;

inline std::string FileText(const std::string& folder, const std::string& name) {
  std::ostringstream text;
  text << std::ifstream(folder + "/" + name).rdbuf();
  return text.str();
}

// [connect]
inline std::shared_ptr<grpc::Channel> Connect(const std::string& endpoint) {
  grpc::ChannelArguments arguments;
  // A host that is gone is found out in half a minute; hvd allows a ping every second.
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 20'000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 10'000);
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 5'000);
  std::shared_ptr<grpc::ChannelCredentials> credentials = grpc::InsecureChannelCredentials();
  if (endpoint.rfind("unix:", 0) != 0) {
    // hvd knows a client by the URI in its certificate: spiffe://example.org/ops/alice.
    const char* folder = std::getenv("TLS");
    if (folder == nullptr) throw std::runtime_error("TLS names no folder with certificates");
    credentials = grpc::SslCredentials({FileText(folder, "ca.pem"), FileText(folder, "client.key"),
                                        FileText(folder, "client.pem")});
  }
  return grpc::CreateCustomChannel(endpoint, credentials, arguments);
}

struct Hvd {
  explicit Hvd(const std::shared_ptr<grpc::Channel>& channel)
      : host(channel), vm(channel), memory(channel), dirty_log(channel), event(channel) {}
  v1::HostService::Stub host;
  v1::VmService::Stub vm;
  v1::MemoryService::Stub memory;
  v1::DirtyLogService::Stub dirty_log;
  v1::EventService::Stub event;
};
// [end]

// [explain]
// The detail of this type that an error carries: google.rpc.ErrorInfo, BadRequest, QuotaFailure,
// ...
template <typename Detail>
std::optional<Detail> DetailOf(const grpc::Status& status) {
  google::rpc::Status rich;
  if (!rich.ParseFromString(status.error_details())) return std::nullopt;
  for (const google::protobuf::Any& any : rich.details()) {
    if (Detail detail; any.UnpackTo(&detail)) return detail;
  }
  return std::nullopt;
}

// What to switch on. Empty: it was not hvd that answered.
inline std::string ReasonOf(const grpc::Status& status) {
  const auto info = DetailOf<google::rpc::ErrorInfo>(status);
  return info && info->domain() == "twinroot" ? info->reason() : "";
}

inline std::string Explain(const grpc::Status& status) {
  std::string text = absl::StrFormat("code %d %s", status.error_code(), ReasonOf(status));
  if (const auto bad = DetailOf<google::rpc::BadRequest>(status)) {
    for (const auto& violation : bad->field_violations()) text += ", field " + violation.field();
  }
  if (const auto failure = DetailOf<google::rpc::PreconditionFailure>(status)) {
    for (const auto& violation : failure->violations()) text += ", about " + violation.subject();
  }
  if (const auto failure = DetailOf<google::rpc::QuotaFailure>(status)) {
    for (const auto& violation : failure->violations()) text += ", quota of " + violation.subject();
  }
  if (const auto retry = DetailOf<google::rpc::RetryInfo>(status)) {
    text += absl::StrFormat(", again in %d s", retry->retry_delay().seconds());
  }
  return text;
}
// [end]

struct Failed : std::runtime_error {
  explicit Failed(const grpc::Status& failure)
      : std::runtime_error(Explain(failure) + ": " + failure.error_message()), status(failure) {}
  grpc::Status status;
};

// [retry]
// Waits before another try, as long as hvd says, else longer each time. False: time heals nothing.
class Backoff {
 public:
  bool Wait(const grpc::Status& status) {
    const auto info = DetailOf<google::rpc::RetryInfo>(status);
    if (!info && status.error_code() != StatusCode::UNAVAILABLE) return false;
    std::fprintf(stderr, "trying again: %s: %s\n", Explain(status).c_str(),
                 status.error_message().c_str());
    std::this_thread::sleep_for(info ? std::chrono::seconds(info->retry_delay().seconds())
                                     : delay_);
    delay_ = std::min(2 * delay_, kLongest);
    return true;
  }
  void Reset() { delay_ = kFirst; }

 private:
  static constexpr std::chrono::milliseconds kFirst{100}, kLongest{5'000};
  std::chrono::milliseconds delay_ = kFirst;
};

// A unary call. Repeating one is safe if it changes nothing, or carries a request_id.
template <typename Stub, typename Request, typename Response>
Response Call(Stub& stub,
              grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Response*),
              const Request& request) {
  for (Backoff backoff;;) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(30));
    Response response;
    const grpc::Status status = (stub.*method)(&context, request, &response);
    if (status.ok()) return response;
    if (!backoff.Wait(status)) throw Failed(status);
  }
}
// [end]

// [snapshot]
// All VMs, and the place in the stream of events from which on this picture is kept up to date.
inline std::vector<v1::Vm> ListVms(Hvd& hvd, std::string* cursor) {
  std::vector<v1::Vm> vms;
  cursor->clear();
  v1::ListVmsRequest request;
  do {
    const auto page = Call(hvd.vm, &v1::VmService::Stub::ListVms, request);
    if (cursor->empty()) *cursor = page.cursor();  // the oldest: the first page's
    vms.insert(vms.end(), page.vms().begin(), page.vms().end());
    request.set_page_token(page.next_page_token());
  } while (!request.page_token().empty());
  return vms;
}
// [end]

// [watch]
// Hands on every event after `cursor`, once and in order, until `handle` says that it is enough. A
// gap is handed on, too. Where the events after the cursor are kept no more, `start_over` looks at
// all that matters and answers the cursor of that picture.
inline void Watch(Hvd& hvd, std::string cursor, const std::function<bool(const v1::Event&)>& handle,
                  const std::function<std::string()>& start_over) {
  for (Backoff backoff;;) {
    grpc::ClientContext context;
    v1::WatchEventsRequest request;
    request.set_start_cursor(cursor);
    const auto stream = hvd.event.WatchEvents(&context, request);
    v1::WatchEventsResponse response;
    while (stream->Read(&response)) {
      backoff.Reset();
      for (const v1::Event& event : response.events()) {
        if (!handle(event)) {
          context.TryCancel();
          stream->Finish();
          return;
        }
        cursor = event.cursor();
      }
    }
    const grpc::Status status = stream->Finish();
    if (status.ok()) continue;  // hvd drained; its last word was a bookmark
    if (status.error_code() == StatusCode::OUT_OF_RANGE) {
      cursor = start_over();
    } else if (ReasonOf(status) != "WATCH_TOO_SLOW" && !backoff.Wait(status)) {
      throw Failed(status);
    }
  }
}
// [end]

}  // namespace orchestrator

#endif  // TWINROOT_DOCS_EXAMPLES_CLIENT_H_
