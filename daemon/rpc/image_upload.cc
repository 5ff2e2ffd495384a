#include "daemon/rpc/image_upload.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "daemon/reasons.h"
#include "daemon/rpc/status.h"

namespace twinroot::rpc {

ImageUpload::ImageUpload(ImageStore* store, v1::UploadImageResponse* response)
    : upload_(store), response_(response) {
  StartRead(&chunk_);
}

void ImageUpload::OnReadDone(bool ok) {
  if (ok) {
    if (!total_size_.has_value()) total_size_ = chunk_.total_size();
    if (absl::Status status = upload_.Append(chunk_.data()); !status.ok()) {
      Finish(ToGrpc(status));
      return;
    }
    StartRead(&chunk_);
    return;
  }
  // No more chunks: the caller has sent them all, or has left in the middle. gRPC may tell of the
  // latter only later; the size tells now.
  const uint64_t size = upload_.size();
  if (size != total_size_.value_or(0)) {
    Finish(ToGrpc(FieldError("total_size",
                             absl::StrCat("the upload ended after ", size, " bytes of ",
                                          *total_size_, "; send the whole image"),
                             reason::kImageIncomplete)));
    return;
  }
  auto name = upload_.Finish();
  if (name.ok()) {
    response_->set_image(*std::move(name));
    response_->set_size(size);
  }
  Finish(ToGrpc(name.status()));
}

}  // namespace twinroot::rpc
