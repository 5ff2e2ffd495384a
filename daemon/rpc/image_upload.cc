#include "daemon/rpc/image_upload.h"

#include <utility>

#include "daemon/rpc/status.h"

namespace twinroot::rpc {

ImageUpload::ImageUpload(ImageStore* store, v1::UploadImageResponse* response)
    : upload_(store), response_(response) {
  StartRead(&chunk_);
}

void ImageUpload::OnCancel() { cancelled_ = true; }

void ImageUpload::OnReadDone(bool ok) {
  if (ok) {
    if (absl::Status status = upload_.Append(chunk_.data()); !status.ok()) {
      Finish(ToGrpc(status));
      return;
    }
    StartRead(&chunk_);
    return;
  }
  // No more chunks: the caller has sent them all, or has left in the middle.
  if (cancelled_) {
    Finish(ToGrpc(absl::CancelledError("the caller left; nothing was kept")));
    return;
  }
  const uint64_t size = upload_.size();
  auto name = upload_.Finish();
  if (name.ok()) {
    response_->set_image(*std::move(name));
    response_->set_size(size);
  }
  Finish(ToGrpc(name.status()));
}

}  // namespace twinroot::rpc
