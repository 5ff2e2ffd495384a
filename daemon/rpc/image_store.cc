#include "daemon/rpc/image_store.h"

#include <openssl/evp.h>

#include <algorithm>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "daemon/reasons.h"
#include "daemon/rpc/status.h"
#include "daemon/status_reason.h"

namespace twinroot::rpc {

void ImageStore::Upload::FreeDigest::operator()(evp_md_ctx_st* digest) const {
  EVP_MD_CTX_free(digest);
}

ImageStore::Upload::Upload(ImageStore* store) : store_(store), digest_(EVP_MD_CTX_new()) {
  if (digest_ && EVP_DigestInit_ex(digest_.get(), EVP_sha256(), nullptr) != 1) digest_.reset();
}

ImageStore::Upload::~Upload() { store_->Release(reserved_); }

absl::Status ImageStore::Upload::Append(const std::string& chunk) {
  if (chunk.size() > kMaxChunk) {
    return FieldError("data",
                      absl::StrCat("a chunk of ", chunk.size(), " bytes; send at most ", kMaxChunk),
                      reason::kChunkTooLarge);
  }
  if (data_.size() + chunk.size() > kMaxImage) {
    return FieldError("data", absl::StrCat("the image is over ", kMaxImage, " bytes (64 MiB)"),
                      reason::kImageTooLarge);
  }
  if (absl::Status status = store_->Reserve(chunk.size()); !status.ok()) return status;
  reserved_ += chunk.size();
  if (!digest_ || EVP_DigestUpdate(digest_.get(), chunk.data(), chunk.size()) != 1) {
    return absl::InternalError("the crypto library cannot compute SHA-256");
  }
  data_ += chunk;
  return absl::OkStatus();
}

absl::StatusOr<std::string> ImageStore::Upload::Finish() {
  if (data_.empty()) {
    return FieldError("data", "the image has no byte: send its content", reason::kImageEmpty);
  }
  unsigned char sum[EVP_MAX_MD_SIZE];
  unsigned int length = 0;
  if (!digest_ || EVP_DigestFinal_ex(digest_.get(), sum, &length) != 1) {
    return absl::InternalError("the crypto library cannot compute SHA-256");
  }
  std::string name = absl::StrCat("images/", absl::BytesToHexString(absl::string_view(
                                                 reinterpret_cast<const char*>(sum), length)));
  data_.shrink_to_fit();
  reserved_ = 0;
  store_->Keep(name, std::move(data_));
  return name;
}

absl::StatusOr<std::shared_ptr<const std::string>> ImageStore::Get(const std::string& name) const {
  std::lock_guard lock(mutex_);
  for (const Image& image : images_) {
    if (image.name == name) return image.data;
  }
  return WithReason(
      absl::NotFoundError(absl::StrCat("no image ", name,
                                       ": upload it again (images that no VM uses are dropped "
                                       "when the store is full)")),
      reason::kNoSuchImage, {{"image", name}});
}

uint64_t ImageStore::total() const {
  std::lock_guard lock(mutex_);
  return total_;
}

absl::Status ImageStore::Reserve(uint64_t bytes) {
  std::list<Image> dropped;  // freed without the lock
  std::lock_guard lock(mutex_);
  for (auto it = images_.begin(); it != images_.end() && total_ + bytes > max_total_;) {
    const auto image = it++;
    // Only the store hands out references, under this lock: 1 means that nobody else has one.
    if (image->data.use_count() > 1) continue;
    total_ -= image->data->size();
    dropped.splice(dropped.end(), images_, image);
  }
  if (total_ + bytes > max_total_) {
    return WithReason(
        absl::ResourceExhaustedError(absl::StrCat(
            "the image store is full (", max_total_,
            " bytes) of images that VMs use or that are being uploaded: delete VMs or try later")),
        reason::kImageStoreFull);
  }
  total_ += bytes;
  return absl::OkStatus();
}

void ImageStore::Release(uint64_t bytes) {
  std::lock_guard lock(mutex_);
  total_ -= bytes;
}

void ImageStore::Keep(const std::string& name, std::string data) {
  std::lock_guard lock(mutex_);
  const auto known = std::find_if(images_.begin(), images_.end(),
                                  [&](const Image& image) { return image.name == name; });
  if (known != images_.end()) {
    // Sent again: young again, and its second copy is not kept.
    total_ -= data.size();
    images_.splice(images_.end(), images_, known);
    return;
  }
  images_.push_back({name, std::make_shared<const std::string>(std::move(data))});
}

}  // namespace twinroot::rpc
