#include "tests/load/raw_server.h"

#include <signal.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <memory>
#include <thread>

#include "grpcpp/security/server_credentials.h"
#include "grpcpp/server.h"
#include "grpcpp/server_builder.h"
#include "tests/load/client.h"
#include "twinroot/v1/event.grpc.pb.h"

namespace twinroot::load {
namespace {

constexpr auto kPatience = std::chrono::seconds(20);
constexpr uint64_t kEventsInMessage = 256;  // as many as the daemon's

v1::Event Conversion(uint64_t id) {
  v1::Event event;
  event.set_cursor("0123456789abcdef-" + std::to_string(100'000 + id));
  event.set_vm("storm");
  event.set_vm_sequence(id);
  event.mutable_time()->set_seconds(1'700'000'000);
  event.mutable_time()->set_nanos(123'456'789);
  v1::Conversion* conversion = event.mutable_conversion();
  conversion->set_id(id);
  conversion->set_vcpu(0);
  conversion->set_gpa(4 << 20);
  conversion->set_size(kPage);
  conversion->set_direction(v1::Conversion::DIRECTION_TO_SHARED);
  conversion->set_cause(v1::Conversion::CAUSE_EXPLICIT);
  conversion->set_decision(v1::Conversion::DECISION_APPLIED);
  conversion->set_decider(v1::Conversion::DECIDER_POLICY);
  conversion->mutable_latency()->set_nanos(63'000);
  return event;
}

class Stream final : public grpc::ServerWriteReactor<v1::WatchEventsResponse> {
 public:
  Stream(const v1::WatchEventsResponse* message, uint64_t count,
         const v1::WatchEventsResponse* last)
      : message_(message), last_(last), left_(count) {
    OnWriteDone(true);
  }

 private:
  void OnWriteDone(bool ok) override {
    if (!ok) {
      if (!finished_) Finish(grpc::Status::CANCELLED);
    } else if (left_ != 0) {
      --left_;
      StartWrite(message_);
    } else if (!finished_) {
      finished_ = true;
      StartWriteAndFinish(last_, {}, grpc::Status::OK);
    }
  }
  void OnDone() override { delete this; }

  const v1::WatchEventsResponse* const message_;
  const v1::WatchEventsResponse* const last_;
  uint64_t left_;
  bool finished_ = false;
};

class RawService final : public v1::EventService::CallbackService {
 public:
  RawService(uint64_t events, const std::string& last_vm) : count_(events / kEventsInMessage) {
    for (uint64_t id = 0; id < kEventsInMessage; ++id) *message_.add_events() = Conversion(id);
    v1::Event* event = last_.add_events();
    event->set_vm(last_vm);
    event->mutable_vm_state()->set_state(v1::Vm::STATE_STOPPED);
  }

  grpc::ServerWriteReactor<v1::WatchEventsResponse>* WatchEvents(
      grpc::CallbackServerContext*, const v1::WatchEventsRequest*) override {
    return new Stream(&message_, count_, &last_);
  }
  grpc::ServerUnaryReactor* ListConversions(grpc::CallbackServerContext* context,
                                            const v1::ListConversionsRequest*,
                                            v1::ListConversionsResponse*) override {
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    reactor->Finish(grpc::Status::OK);
    return reactor;
  }

 private:
  const uint64_t count_;
  v1::WatchEventsResponse message_;
  v1::WatchEventsResponse last_;
};

}  // namespace

int ServeRaw(const std::string& endpoint, uint64_t events, const std::string& last_vm) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() == 1) return 1;  // the parent was gone before that
  RawService service(events, last_vm);
  grpc::ServerBuilder builder;
  builder.AddListeningPort(endpoint, grpc::InsecureServerCredentials());
  builder.RegisterService(&service);
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (!server) return 1;
  server->Wait();
  return 0;
}

RawServer::RawServer(const std::string& endpoint, uint64_t events, const std::string& last_vm)
    : path_(endpoint.substr(endpoint.find(':') + 1)) {
  const std::string arguments[] = {"load", "--raw=" + endpoint, "--storm=" + std::to_string(events),
                                   "--last_vm=" + last_vm};
  char* argv[5] = {};
  for (int i = 0; i < 4; ++i) argv[i] = const_cast<char*>(arguments[i].c_str());
  Must(posix_spawn(&pid_, "/proc/self/exe", nullptr, nullptr, argv, environ) == 0,
       "cannot start the bare server");
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  while (access(path_.c_str(), F_OK) != 0) {
    Must(std::chrono::steady_clock::now() < deadline, "the bare server does not come");
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
}

RawServer::~RawServer() {
  kill(pid_, SIGKILL);
  waitpid(pid_, nullptr, 0);
  unlink(path_.c_str());
}

}  // namespace twinroot::load
