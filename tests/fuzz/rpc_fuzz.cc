// Every call of twinroot.v1 with any request, over a socket, against real VMs on sim. Errors have a
// reason that is documented and change nothing, private memory leaves by no door, and the tables
// stay sound.
#include <google/protobuf/descriptor.h>
#include <google/protobuf/util/json_util.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "daemon/reasons.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "tests/fuzz/calls.pb.h"
#include "tests/fuzz/message_mutator.h"
#include "tests/fuzz/require.h"
#include "tests/fuzz/rpc_world.h"

namespace twinroot::fuzz {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::MethodDescriptor;
using std::chrono::milliseconds;

constexpr int kMostCalls = 12;
constexpr uint64_t kMostMemory = uint64_t{64} << 20;
constexpr milliseconds kPatience(20'000);
constexpr milliseconds kGlance(20);  // at what goes on until somebody ends it

// From daemon/reasons.h itself, and the names of the codes that have no reason of their own.
const std::set<std::string>& Reasons() {
  static const std::set<std::string> reasons = {
#include "tests/fuzz/documented_reasons.inc"
      "CANCELLED",   "UNKNOWN",         "INVALID_ARGUMENT",    "DEADLINE_EXCEEDED",
      "NOT_FOUND",   "ALREADY_EXISTS",  "PERMISSION_DENIED",   "RESOURCE_EXHAUSTED",
      "ABORTED",     "OUT_OF_RANGE",    "FAILED_PRECONDITION", "UNIMPLEMENTED",
      "UNAVAILABLE", "UNAUTHENTICATED",
  };
  return reasons;
}

// The method that takes each request.
std::map<std::string, const MethodDescriptor*> MakeMethods() {
  std::map<std::string, const MethodDescriptor*> methods;
  const auto* pool = google::protobuf::DescriptorPool::generated_pool();
  for (const char* service :
       {"VmService", "MemoryService", "DirtyLogService", "EventService", "HostService"}) {
    const auto* found = pool->FindServiceByName(std::string("twinroot.v1.") + service);
    Require(found != nullptr, std::string(service) + " is there");
    for (int i = 0; i < found->method_count(); ++i) {
      methods[found->method(i)->input_type()->full_name()] = found->method(i);
    }
  }
  // None is forgotten.
  const auto* requests = Call::descriptor()->oneof_decl(0);
  Require(static_cast<size_t>(requests->field_count()) == methods.size(),
          "calls.proto has each method's request");
  for (int i = 0; i < requests->field_count(); ++i) {
    Require(methods.count(requests->field(i)->message_type()->full_name()) == 1,
            requests->field(i)->name() + " is a request");
  }
  return methods;
}

// What would only tell how much memory this machine has is checked by the daemon and not done.
void KeepSmall(Call* call) {
  if (call->has_create_vm()) {
    const v1::Vm& vm = call->create_vm().vm();
    if (vm.memory_bytes() > kMostMemory || vm.vcpus() > 4) {
      call->mutable_create_vm()->set_validate_only(true);
    }
  }
  if (call->has_add_memslot() && call->add_memslot().range().size() > kMostMemory) {
    call->mutable_add_memslot()->set_validate_only(true);
  }
}

bool EndsByItself(const Call& call) {
  return !call.has_wait_vm() && !call.has_watch_events() && !call.has_stream_console();
}

void CheckError(const Call& call, const grpc::Status& status, bool parses) {
  if (status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED) {
    Require(!EndsByItself(call), "a call is answered");
    return;
  }
  // gRPC's own word about bytes that are no message.
  if (!parses) return;
  Require(!status.error_message().empty(), "an error says something");
  google::rpc::Status details;
  google::rpc::ErrorInfo info;
  Require(details.ParseFromString(status.error_details()), "an error has details");
  for (const auto& any : details.details()) {
    if (any.Is<google::rpc::ErrorInfo>()) any.UnpackTo(&info);
  }
  Require(info.domain() == "twinroot" && Reasons().count(info.reason()) == 1,
          "a documented reason, not '" + info.reason() + "': " + status.error_message());
  Require(status.error_code() != grpc::StatusCode::INTERNAL &&
              status.error_code() != grpc::StatusCode::UNKNOWN,
          "no request is a fault of the daemon: " + status.error_message());
}

void Make(RpcWorld& world, Call call) {
  static const auto methods = MakeMethods();
  KeepSmall(&call);
  const FieldDescriptor* field =
      call.GetReflection()->GetOneofFieldDescriptor(call, Call::descriptor()->oneof_decl(0));
  if (field == nullptr) return;
  const google::protobuf::Message& request = call.GetReflection()->GetMessage(call, field);
  const MethodDescriptor* method = methods.at(request.GetDescriptor()->full_name());
  std::vector<std::string> requests = {request.SerializeAsString()};
  bool parses = true;
  if (!call.raw().empty()) {
    const std::unique_ptr<google::protobuf::Message> parsed(request.New());
    parses = parsed->ParseFromString(call.raw());
    // A raw request may be as large as any.
    if (call.has_create_vm() || call.has_add_memslot()) return;
    requests[0] = call.raw();
  }
  if (call.has_upload_image()) {
    for (const auto& chunk : call.chunks()) requests.push_back(chunk.SerializeAsString());
  }

  const RpcWorld::Standing before = world.Digest();
  const Answer answer = world.Call(*method, requests, EndsByItself(call) ? kPatience : kGlance);
  world.CheckSilence(answer);
  if (answer.status.ok()) return;
  CheckError(call, answer.status, parses);
  // What was mapped before a prefault was refused stays, and shows in no digest.
  const std::string changed = world.ChangedSince(before);
  Require(changed.empty(), method->name() + " has failed (" + answer.status.error_message() +
                               ") and changed something:" + changed);
}

}  // namespace
}  // namespace twinroot::fuzz

// A thread of gRPC's that ends after OpenSSL's own end leaves its state of errors behind.
extern "C" const char* __lsan_default_suppressions() { return "leak:CRYPTO_zalloc\n"; }

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace twinroot::fuzz;
  Calls calls;
  if (!ParseText(data, size, &calls) || calls.calls_size() > kMostCalls) return 0;
  static RpcWorld world;
  world.Reset();
  for (const Call& call : calls.calls()) Make(world, call);
  world.CheckAudits();
  // A host that was drained takes VMs again.
  Call open;
  open.mutable_drain()->set_admission(twinroot::v1::Host::ADMISSION_OPEN);
  Make(world, open);
  return 0;
}

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size,
                                          unsigned seed) {
  using namespace twinroot::fuzz;
  Calls calls;
  return MutateText(data, size, max_size, seed,
                    {"keeper", "vms/keeper", "demo", "vms/demo", "rw", "x", "id-1",
                     "conversion_policy", "labels", "conversion_policy.mode"},
                    &calls);
}
