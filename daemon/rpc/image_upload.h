// The stream of UploadImage: reads chunks into the store until the caller ends it.
// One thread at a time (gRPC's), as reactors are.
#ifndef TWINROOT_DAEMON_RPC_IMAGE_UPLOAD_H_
#define TWINROOT_DAEMON_RPC_IMAGE_UPLOAD_H_

#include <cstdint>
#include <optional>

#include "daemon/rpc/image_store.h"
#include "grpcpp/grpcpp.h"
#include "twinroot/v1/vm.pb.h"

namespace twinroot::rpc {

class ImageUpload final : public grpc::ServerReadReactor<v1::UploadImageRequest> {
 public:
  ImageUpload(ImageStore* store, v1::UploadImageResponse* response);

 private:
  void OnReadDone(bool ok) override;
  void OnDone() override { delete this; }

  ImageStore::Upload upload_;
  v1::UploadImageRequest chunk_;
  v1::UploadImageResponse* const response_;
  std::optional<uint64_t> total_size_;  // as the first chunk says
};

}  // namespace twinroot::rpc

#endif  // TWINROOT_DAEMON_RPC_IMAGE_UPLOAD_H_
