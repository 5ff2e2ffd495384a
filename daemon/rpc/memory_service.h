// MemoryService: attributes, walks, the content of shared pages. Converts, checks, calls, answers.
// Thread-safe.
#ifndef TWINROOT_DAEMON_RPC_MEMORY_SERVICE_H_
#define TWINROOT_DAEMON_RPC_MEMORY_SERVICE_H_

#include "absl/status/status.h"
#include "daemon/rpc/context.h"
#include "grpcpp/grpcpp.h"
#include "twinroot/v1/memory.grpc.pb.h"

namespace twinroot::rpc {

class MemoryService : public v1::MemoryService::CallbackService {
 public:
  // `context` outlives the service.
  explicit MemoryService(Context* context) : context_(context) {}

  grpc::ServerUnaryReactor* SetMemoryAttributes(grpc::CallbackServerContext* call,
                                                const v1::SetMemoryAttributesRequest* request,
                                                v1::SetMemoryAttributesResponse* response) override;
  grpc::ServerWriteReactor<v1::GetMemoryAttributesResponse>* GetMemoryAttributes(
      grpc::CallbackServerContext* call, const v1::GetMemoryAttributesRequest* request) override;
  grpc::ServerUnaryReactor* Translate(grpc::CallbackServerContext* call,
                                      const v1::TranslateRequest* request,
                                      v1::TranslateResponse* response) override;
  grpc::ServerUnaryReactor* ReadGuestMemory(grpc::CallbackServerContext* call,
                                            const v1::ReadGuestMemoryRequest* request,
                                            v1::ReadGuestMemoryResponse* response) override;
  grpc::ServerUnaryReactor* WriteGuestMemory(grpc::CallbackServerContext* call,
                                             const v1::WriteGuestMemoryRequest* request,
                                             v1::WriteGuestMemoryResponse* response) override;
  grpc::ServerWriteReactor<v1::DumpTablesResponse>* DumpTables(
      grpc::CallbackServerContext* call, const v1::DumpTablesRequest* request) override;
  grpc::ServerWriteReactor<v1::AgePagesResponse>* AgePages(
      grpc::CallbackServerContext* call, const v1::AgePagesRequest* request) override;
  grpc::ServerUnaryReactor* RecoverNxPages(grpc::CallbackServerContext* call,
                                           const v1::RecoverNxPagesRequest* request,
                                           v1::RecoverNxPagesResponse* response) override;
  grpc::ServerUnaryReactor* RecoverPages(grpc::CallbackServerContext* call,
                                         const v1::RecoverPagesRequest* request,
                                         v1::RecoverPagesResponse* response) override;
  grpc::ServerUnaryReactor* GetMemoryStats(grpc::CallbackServerContext* call,
                                           const v1::GetMemoryStatsRequest* request,
                                           v1::GetMemoryStatsResponse* response) override;
  grpc::ServerWriteReactor<v1::PrefaultResponse>* Prefault(
      grpc::CallbackServerContext* call, const v1::PrefaultRequest* request) override;
  grpc::ServerUnaryReactor* AddMemslot(grpc::CallbackServerContext* call,
                                       const v1::AddMemslotRequest* request,
                                       v1::AddMemslotResponse* response) override;
  grpc::ServerUnaryReactor* RemoveMemslot(grpc::CallbackServerContext* call,
                                          const v1::RemoveMemslotRequest* request,
                                          v1::RemoveMemslotResponse* response) override;
  grpc::ServerUnaryReactor* MoveMemslot(grpc::CallbackServerContext* call,
                                        const v1::MoveMemslotRequest* request,
                                        v1::MoveMemslotResponse* response) override;

 private:
  absl::Status Set(const v1::SetMemoryAttributesRequest& request,
                   v1::SetMemoryAttributesResponse* response);
  absl::Status Walk(const v1::TranslateRequest& request, v1::TranslateResponse* response);
  absl::Status Read(const v1::ReadGuestMemoryRequest& request,
                    v1::ReadGuestMemoryResponse* response);
  absl::Status Write(const v1::WriteGuestMemoryRequest& request);
  absl::Status RecoverNx(const v1::RecoverNxPagesRequest& request,
                         v1::RecoverNxPagesResponse* response);
  absl::Status Recover(const v1::RecoverPagesRequest& request, v1::RecoverPagesResponse* response);

  absl::Status Add(const v1::AddMemslotRequest& request);
  absl::Status Remove(const v1::RemoveMemslotRequest& request);
  absl::Status Move(const v1::MoveMemslotRequest& request);

  Context* const context_;
};

}  // namespace twinroot::rpc

#endif  // TWINROOT_DAEMON_RPC_MEMORY_SERVICE_H_
