#include "tests/load/client.h"

#include "grpcpp/client_context.h"

namespace twinroot::load {

Client::Client(const std::string& endpoint)
    : channel_(client::Connect(endpoint)),
      vms_(v1::VmService::NewStub(channel_)),
      memory_(v1::MemoryService::NewStub(channel_)),
      events_(v1::EventService::NewStub(channel_)),
      host_(v1::HostService::NewStub(channel_)) {}

void Client::CreateVm(const std::string& vm, const v1::AccessProgram& program) {
  grpc::ClientContext context;
  v1::CreateVmRequest request;
  request.set_vm_id(vm);
  request.mutable_vm()->set_memory_bytes(kVmBytes);
  request.mutable_vm()->set_vcpus(1);
  request.mutable_vm()->set_backend(v1::BACKEND_SIM);
  *request.mutable_vm()->mutable_program() = program;
  if (program.vcpus().empty()) {
    request.mutable_vm()->mutable_program()->add_vcpus()->add_steps()->mutable_barrier();
  }
  v1::CreateVmResponse response;
  Must(vms_->CreateVm(&context, request, &response), "CreateVm " + vm);
}

void Client::StartVm(const std::string& vm) {
  grpc::ClientContext context;
  v1::StartVmRequest request;
  request.set_name("vms/" + vm);
  v1::StartVmResponse response;
  Must(vms_->StartVm(&context, request, &response), "StartVm " + vm);
}

std::string Client::Cursor() {
  grpc::ClientContext context;
  v1::ListVmsRequest request;
  request.set_page_size(1);
  v1::ListVmsResponse response;
  Must(vms_->ListVms(&context, request, &response), "ListVms");
  return response.cursor();
}

void Client::Empty(const std::string& vm) {
  grpc::ClientContext context;
  v1::ListConversionsRequest request;
  request.set_vm(vm);
  v1::ListConversionsResponse response;
  Must(events_->ListConversions(&context, request, &response), "ListConversions");
}

void Client::GetHost() {
  grpc::ClientContext context;
  v1::GetHostResponse response;
  Must(host_->GetHost(&context, v1::GetHostRequest(), &response), "GetHost");
}

void Client::SetMemoryAttributes(const std::string& vm, uint64_t gpa, v1::MemoryKind kind) {
  grpc::ClientContext context;
  v1::SetMemoryAttributesRequest request;
  request.set_vm(vm);
  v1::MemoryRange* range = request.add_ranges();
  range->set_gpa(gpa);
  range->set_size(kPage);
  request.set_kind(kind);
  v1::SetMemoryAttributesResponse response;
  Must(memory_->SetMemoryAttributes(&context, request, &response), "SetMemoryAttributes");
  Must(response.converted_size() == 1, "SetMemoryAttributes changed nothing");
}

void Client::GetMemoryAttributes(const std::string& vm) {
  grpc::ClientContext context;
  v1::GetMemoryAttributesRequest request;
  request.set_vm(vm);
  auto stream = memory_->GetMemoryAttributes(&context, request);
  v1::GetMemoryAttributesResponse response;
  uint64_t bytes = 0;
  while (stream->Read(&response)) {
    for (const auto& run : response.runs()) bytes += run.size();
  }
  Must(stream->Finish(), "GetMemoryAttributes");
  Must(bytes == kVmBytes, "GetMemoryAttributes has not told of all memory");
}

void Client::Translate(const std::string& vm, uint64_t gpa) {
  grpc::ClientContext context;
  v1::TranslateRequest request;
  request.set_vm(vm);
  request.set_gpa(gpa);
  v1::TranslateResponse response;
  Must(memory_->Translate(&context, request, &response), "Translate");
}

void Client::ListEvents(const std::string& cursor) {
  grpc::ClientContext context;
  v1::ListEventsRequest request;
  request.set_start_cursor(cursor);
  request.set_page_size(100);
  v1::ListEventsResponse response;
  Must(events_->ListEvents(&context, request, &response), "ListEvents");
}

}  // namespace twinroot::load
