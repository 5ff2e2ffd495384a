// Every call of the API and its errors: code, reason, and the details that the code calls for.
#include <google/protobuf/descriptor.h>
#include <google/protobuf/text_format.h>

#include <memory>
#include <set>
#include <string>

#include "grpcpp/generic/generic_stub.h"
#include "tests/daemon/rpc/rpc_fixture.h"

namespace twinroot::rpc {
namespace {

namespace pb = google::protobuf;
using grpc::StatusCode;

struct Row {
  const char* method;
  const char* request;  // in text format
  StatusCode code;
  const char* reason;
  const char* field;  // of INVALID_ARGUMENT
};

constexpr auto kInvalid = StatusCode::INVALID_ARGUMENT;
constexpr auto kPrecondition = StatusCode::FAILED_PRECONDITION;

// The VMs: "demo" is DEFINED, "runs" RUNNING, "ended" STOPPED; each has 4 MiB.
constexpr Row kRows[] = {
    {"VmService/UploadImage", "data: 'x' total_size: 2", kInvalid, "IMAGE_INCOMPLETE",
     "total_size"},
    {"VmService/UploadImage", "", kInvalid, "IMAGE_EMPTY", "data"},
    {"VmService/CreateVm", "", kInvalid, "MISSING_FIELD", "vm_id"},
    {"VmService/CreateVm", "vm_id: 'A'", kInvalid, "INVALID_NAME", "vm_id"},
    {"VmService/CreateVm", "vm_id: 'a'", kInvalid, "MISSING_FIELD", "vm"},
    {"VmService/CreateVm", "vm_id: 'a' vm { memory_bytes: 1 }", kInvalid, "INVALID_FIELD",
     "vm.memory_bytes"},
    {"VmService/CreateVm", "vm_id: 'a' vm { memory_bytes: 2097152 vcpus: 65 }", kInvalid,
     "INVALID_FIELD", "vm.vcpus"},
    {"VmService/CreateVm", "vm_id: 'a' vm { memory_bytes: 2097152 vcpus: 1 backend: 9 }", kInvalid,
     "INVALID_FIELD", "vm.backend"},
    {"VmService/CreateVm",
     "vm_id: 'a' vm { memory_bytes: 2097152 vcpus: 1 program { vcpus {} vcpus {} } }", kInvalid,
     "INVALID_PROGRAM", "vm.program"},
    {"VmService/CreateVm", "vm_id: 'demo' vm { memory_bytes: 2097152 vcpus: 1 }",
     StatusCode::ALREADY_EXISTS, "VM_EXISTS", ""},
    {"VmService/CreateVm", "vm_id: 'a' vm { memory_bytes: 2097152 vcpus: 1 backend: BACKEND_KVM }",
     kPrecondition, "BACKEND_UNAVAILABLE", ""},
    {"VmService/CreateVm",
     "vm_id: 'a' vm { memory_bytes: 2097152 vcpus: 1 image: 'images/"
     "0000000000000000000000000000000000000000000000000000000000000000' }",
     StatusCode::NOT_FOUND, "NO_SUCH_IMAGE", ""},
    {"VmService/CreateVm", "vm_id: 'a' request_id: 'a b' vm { memory_bytes: 2097152 vcpus: 1 }",
     kInvalid, "INVALID_FIELD", "request_id"},
    {"VmService/CreateVm",
     "vm_id: 'a' vm { memory_bytes: 2097152 vcpus: 1 placement { cpu_weight: 10001 } }", kInvalid,
     "INVALID_FIELD", "vm.placement.cpu_weight"},
    {"VmService/CreateVm",
     "vm_id: 'a' vm { memory_bytes: 2097152 vcpus: 1 placement { max_millicpus: 9 } }", kInvalid,
     "INVALID_FIELD", "vm.placement.max_millicpus"},
    {"VmService/GetVm", "", kInvalid, "MISSING_FIELD", "name"},
    {"VmService/GetVm", "name: 'demo'", kInvalid, "INVALID_NAME", "name"},
    {"VmService/GetVm", "name: 'vms/nobody'", StatusCode::NOT_FOUND, "NO_SUCH_VM", ""},
    {"VmService/ListVms", "page_size: 1001", kInvalid, "INVALID_FIELD", "page_size"},
    {"VmService/ListVms", "page_token: 'x'", kInvalid, "INVALID_PAGE_TOKEN", "page_token"},
    {"VmService/UpdateVm", "", kInvalid, "MISSING_FIELD", "vm.name"},
    {"VmService/UpdateVm", "vm { name: 'vms/demo' }", kInvalid, "MISSING_FIELD", "update_mask"},
    {"VmService/UpdateVm", "vm { name: 'vms/demo' } update_mask { paths: 'vcpus' }", kInvalid,
     "FIELD_NOT_UPDATABLE", "update_mask.paths[0]"},
    {"VmService/UpdateVm",
     "vm { name: 'vms/demo' etag: '0000000000000001' } "
     "update_mask { paths: 'labels' }",
     StatusCode::ABORTED, "ETAG_MISMATCH", ""},
    {"VmService/StartVm", "name: 'vms/nobody'", StatusCode::NOT_FOUND, "NO_SUCH_VM", ""},
    {"VmService/StartVm", "name: 'vms/runs'", kPrecondition, "WRONG_STATE", ""},
    {"VmService/StartVm", "name: 'vms/demo' etag: 'x'", kInvalid, "INVALID_FIELD", "etag"},
    {"VmService/PauseVm", "name: 'vms/demo'", kPrecondition, "WRONG_STATE", ""},
    {"VmService/PauseVm", "name: 'vms/ended'", kPrecondition, "WRONG_STATE", ""},
    {"VmService/ResumeVm", "name: 'vms/demo'", kPrecondition, "WRONG_STATE", ""},
    {"VmService/ResumeVm", "name: 'vms/ended'", kPrecondition, "WRONG_STATE", ""},
    {"VmService/StopVm", "name: 'vms/nobody'", StatusCode::NOT_FOUND, "NO_SUCH_VM", ""},
    {"VmService/DeleteVm", "name: 'vms/nobody'", StatusCode::NOT_FOUND, "NO_SUCH_VM", ""},
    {"VmService/DeleteVm", "name: 'vms/demo' etag: '0000000000000001'", StatusCode::ABORTED,
     "ETAG_MISMATCH", ""},
    {"VmService/WaitVm", "name: 'vms/nobody'", StatusCode::NOT_FOUND, "NO_SUCH_VM", ""},
    {"VmService/StreamConsole", "name: 'vms/demo' mode: 9", kInvalid, "INVALID_FIELD", "mode"},
    {"VmService/CreateVm",
     "vm_id: 'a' vm { memory_bytes: 2097152 vcpus: 1 boot { initrd: 'images/1' } }", kInvalid,
     "INVALID_FIELD", "vm.boot.initrd"},
    {"VmService/WriteConsole", "name: 'vms/runs'", kInvalid, "MISSING_FIELD", "data"},
    {"VmService/WriteConsole", "name: 'vms/demo' data: 'x'", kPrecondition, "WRONG_STATE", ""},

    {"MemoryService/SetMemoryAttributes", "vm: 'vms/demo'", kInvalid, "INVALID_NAME", "vm"},
    {"MemoryService/SetMemoryAttributes", "vm: 'demo'", kInvalid, "MISSING_FIELD", "kind"},
    {"MemoryService/SetMemoryAttributes", "vm: 'demo' kind: MEMORY_KIND_SHARED", kInvalid,
     "MISSING_FIELD", "ranges"},
    {"MemoryService/SetMemoryAttributes",
     "vm: 'demo' kind: MEMORY_KIND_SHARED ranges { gpa: 1 size: 4096 }", kInvalid, "INVALID_RANGE",
     "ranges[0].gpa"},
    {"MemoryService/SetMemoryAttributes",
     "vm: 'demo' kind: MEMORY_KIND_SHARED ranges { size: 8192 } ranges { gpa: 4096 size: 4096 }",
     kInvalid, "RANGES_OVERLAP", "ranges[1]"},
    {"MemoryService/SetMemoryAttributes",
     "vm: 'demo' kind: MEMORY_KIND_SHARED ranges { gpa: 4194304 size: 4096 }", kInvalid,
     "INVALID_RANGE", "ranges"},
    {"MemoryService/SetMemoryAttributes",
     "vm: 'demo' kind: MEMORY_KIND_SHARED content: CONTENT_PRESERVE ranges { size: 4096 }",
     StatusCode::PERMISSION_DENIED, "PRESERVE_WOULD_DISCLOSE", ""},
    {"MemoryService/GetMemoryAttributes", "vm: 'demo' range { size: 0 }", kInvalid, "INVALID_RANGE",
     "range.size"},
    {"MemoryService/GetMemoryAttributes", "vm: 'demo' range { gpa: 4194304 size: 4096 }", kInvalid,
     "INVALID_RANGE", "range"},
    {"MemoryService/Translate", "vm: 'demo' alias: 9", kInvalid, "INVALID_FIELD", "alias"},
    {"MemoryService/Translate", "vm: 'demo' gpa: 4194304", kInvalid, "INVALID_FIELD", "gpa"},
    {"MemoryService/ReadGuestMemory", "vm: 'demo' size: 1048577", kInvalid, "INVALID_RANGE",
     "size"},
    {"MemoryService/ReadGuestMemory", "vm: 'demo' size: 1", StatusCode::PERMISSION_DENIED,
     "PRIVATE_MEMORY", ""},
    {"MemoryService/WriteGuestMemory", "vm: 'demo'", kInvalid, "INVALID_RANGE", "data"},
    {"MemoryService/WriteGuestMemory", "vm: 'demo' data: 'x'", StatusCode::PERMISSION_DENIED,
     "PRIVATE_MEMORY", ""},
    {"MemoryService/RecoverPages", "vm: 'demo'", kInvalid, "MISSING_FIELD", "ranges"},
    {"MemoryService/Prefault", "vm: 'demo' range { gpa: 4194304 size: 4096 }", kInvalid,
     "INVALID_RANGE", "range"},
    {"MemoryService/AddMemslot", "vm: 'demo' range { gpa: 4096 size: 2097152 }", kInvalid,
     "INVALID_RANGE", "range.gpa"},
    {"MemoryService/RemoveMemslot", "vm: 'demo' gpa: 4096", kInvalid, "INVALID_RANGE", "gpa"},
    {"MemoryService/MoveMemslot", "vm: 'demo' new_gpa: 4096", kInvalid, "INVALID_RANGE", "new_gpa"},
    {"MemoryService/DumpTables", "vm: 'demo' root: 9", kInvalid, "INVALID_FIELD", "root"},
    {"MemoryService/DumpTables", "vm: 'nobody'", StatusCode::NOT_FOUND, "NO_SUCH_VM", ""},
    {"MemoryService/AgePages", "vm: 'demo' range { gpa: 4194304 size: 4096 }", kInvalid,
     "INVALID_RANGE", "range"},
    {"MemoryService/RecoverNxPages", "vm: 'nobody'", StatusCode::NOT_FOUND, "NO_SUCH_VM", ""},
    {"MemoryService/GetMemoryStats", "", kInvalid, "MISSING_FIELD", "vm"},

    {"DirtyLogService/EnableDirtyLog", "vm: 'demo' mode: 9", kInvalid, "INVALID_FIELD", "mode"},
    {"DirtyLogService/EnableDirtyLog", "vm: 'demo' ring_entries: 5", kInvalid, "INVALID_FIELD",
     "ring_entries"},
    {"DirtyLogService/DisableDirtyLog", "vm: 'nobody'", StatusCode::NOT_FOUND, "NO_SUCH_VM", ""},
    {"DirtyLogService/HarvestDirtyLog", "vm: 'demo' range { gpa: 4096 size: 4096 }", kInvalid,
     "INVALID_RANGE", "range.gpa"},
    {"DirtyLogService/ClearDirtyLog", "vm: 'demo'", kInvalid, "MISSING_FIELD", "ranges"},
    {"DirtyLogService/SplitPages", "vm: 'demo' ranges { size: 4096 } page_size: 5", kInvalid,
     "INVALID_FIELD", "page_size"},

    {"EventService/WatchEvents", "filter { vm: 'A' }", kInvalid, "INVALID_NAME", "filter.vm"},
    {"EventService/WatchEvents", "lossless_hold { seconds: 61 }", kInvalid, "INVALID_FIELD",
     "lossless_hold"},
    {"EventService/WatchEvents", "lossless_hold { }", kInvalid, "INVALID_FIELD", "lossless_hold"},
    {"EventService/ListEvents", "filter { kinds: 99 }", kInvalid, "INVALID_FIELD",
     "filter.kinds[0]"},
    {"EventService/ListConversions", "vm: 'nobody'", StatusCode::NOT_FOUND, "NO_SUCH_VM", ""},
    {"EventService/ResolveConversion", "vm: 'A' ids: 1 decision: DECISION_APPLY", kInvalid,
     "INVALID_NAME", "vm"},

    {"HostService/Audit", "vm: 'nobody'", StatusCode::NOT_FOUND, "NO_SUCH_VM", ""},
    {"HostService/Drain", "", kInvalid, "MISSING_FIELD", "admission"},
    {"HostService/Drain", "admission: 9", kInvalid, "INVALID_FIELD", "admission"},
};

// Calls that take nothing and need nothing.
const std::set<std::string> kCannotFail = {"HostService/GetHost", "HostService/GetMetrics"};

constexpr char kPackage[] = "twinroot.v1.";

class ErrorsTest : public RpcFixture {
 protected:
  void SetUp() override {
    RpcFixture::SetUp();
    for (const char* name : {"demo", "runs", "ended"}) Make(name);
    for (const char* name : {"runs", "ended"}) ASSERT_TRUE(Start(name).ok());
    registry_->vm("ended").ExitWith(0);
  }

  // Sends one message, reads whatever comes.
  grpc::Status Call(const std::string& method, const std::string& text) {
    const size_t slash = method.find('/');
    const pb::MethodDescriptor* descriptor = pb::DescriptorPool::generated_pool()->FindMethodByName(
        kPackage + method.substr(0, slash) + "." + method.substr(slash + 1));
    if (descriptor == nullptr) return grpc::Status(StatusCode::UNKNOWN, "no method " + method);
    std::unique_ptr<pb::Message> request(
        pb::MessageFactory::generated_factory()->GetPrototype(descriptor->input_type())->New());
    EXPECT_TRUE(pb::TextFormat::ParseFromString(text, request.get())) << text;

    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(20));
    grpc::CompletionQueue queue;
    const auto next = [&queue] {
      void* tag = nullptr;
      bool ok = false;
      return queue.Next(&tag, &ok) && ok;
    };
    auto call =
        grpc::GenericStub(channel_).PrepareCall(&context, "/" + (kPackage + method), &queue);
    call->StartCall(this);
    next();
    const grpc::Slice slice(request->SerializeAsString());
    call->Write(grpc::ByteBuffer(&slice, 1), this);
    next();
    call->WritesDone(this);
    next();
    grpc::ByteBuffer answer;
    do {
      call->Read(&answer, this);
    } while (next());
    grpc::Status status;
    call->Finish(&status, this);
    next();
    return status;
  }

  static void ExpectDetails(const grpc::Status& status, const Row& row) {
    if (row.code == kInvalid) {
      const auto bad = DetailOf<google::rpc::BadRequest>(status);
      ASSERT_EQ(bad.field_violations_size(), 1);
      EXPECT_EQ(bad.field_violations(0).field(), row.field);
      EXPECT_FALSE(bad.field_violations(0).description().empty());
    }
    if (row.code == kPrecondition || row.code == StatusCode::ABORTED) {
      const auto failure = DetailOf<google::rpc::PreconditionFailure>(status);
      ASSERT_EQ(failure.violations_size(), 1);
      EXPECT_EQ(failure.violations(0).type(), row.reason);
      EXPECT_FALSE(failure.violations(0).subject().empty());
    }
  }
};

TEST_F(ErrorsTest, EachErrorHasItsCodeItsReasonAndItsDetails) {
  for (const Row& row : kRows) {
    SCOPED_TRACE(std::string(row.method) + " {" + row.request + "}");
    const std::string cursor = journal_->Cursor();
    const grpc::Status status = Call(row.method, row.request);
    ExpectError(status, row.code, row.reason);
    ExpectDetails(status, row);
    EXPECT_EQ(journal_->Cursor(), cursor);  // nothing happened
  }
  EXPECT_EQ(registry_->size(), 3u);
}

TEST_F(ErrorsTest, EveryCallHasARow) {
  std::set<std::string> rows = kCannotFail;
  for (const Row& row : kRows) rows.insert(row.method);
  for (const pb::Descriptor* of :
       {v1::Vm::descriptor(), v1::MemoryStats::descriptor(), v1::SplitCounts::descriptor(),
        v1::Event::descriptor(), v1::Host::descriptor()}) {
    ASSERT_EQ(of->file()->service_count(), 1);
    const pb::ServiceDescriptor* service = of->file()->service(0);
    for (int i = 0; i < service->method_count(); ++i) {
      const std::string method = service->name() + "/" + service->method(i)->name();
      EXPECT_EQ(rows.count(method), 1u) << method;
    }
  }
}

TEST_F(ErrorsTest, WhatIsUsedUpSaysOfWhat) {
  registry_->vm("demo").FailNextConvert(absl::ResourceExhaustedError("no page is left"));
  const grpc::Status status = Set("demo", 0, 4096, v1::MEMORY_KIND_SHARED);
  EXPECT_EQ(status.error_code(), StatusCode::RESOURCE_EXHAUSTED);
  const auto quota = DetailOf<google::rpc::QuotaFailure>(status);
  ASSERT_EQ(quota.violations_size(), 1);
  EXPECT_FALSE(quota.violations(0).subject().empty());
  EXPECT_EQ(quota.violations(0).description(), "no page is left");
}

}  // namespace
}  // namespace twinroot::rpc
