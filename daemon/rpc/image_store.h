// Guest images kept in memory, named by their content ("images/{sha256}"): what UploadImage fills
// and CreateVm takes from.
//
// Thread-safe. Invariants: 1. images kept and uploads under way hold at most kMaxTotal bytes
// together. 2. An image that a VM holds is never dropped; others are, oldest upload first, when
// room is needed.
#ifndef TWINROOT_DAEMON_RPC_IMAGE_STORE_H_
#define TWINROOT_DAEMON_RPC_IMAGE_STORE_H_

#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

struct evp_md_ctx_st;  // EVP_MD_CTX

namespace twinroot::rpc {

class ImageStore {
 public:
  static constexpr uint64_t kMaxChunk = uint64_t{1} << 20;
  static constexpr uint64_t kMaxImage = uint64_t{64} << 20;
  static constexpr uint64_t kMaxTotal = uint64_t{256} << 20;

  // An image on its way in; one thread at a time. Dropped unfinished, it leaves nothing.
  class Upload {
   public:
    explicit Upload(ImageStore* store);
    ~Upload();
    Upload(const Upload&) = delete;
    Upload& operator=(const Upload&) = delete;

    // kInvalidArgument: the chunk or the image is too large; kResourceExhausted: no room, and
    // every image kept is used.
    absl::Status Append(const std::string& chunk);
    uint64_t size() const { return data_.size(); }
    // Keeps the image and names it. kInvalidArgument: it is empty. Once only.
    absl::StatusOr<std::string> Finish();

   private:
    struct FreeDigest {
      void operator()(evp_md_ctx_st* digest) const;
    };
    ImageStore* const store_;
    std::unique_ptr<evp_md_ctx_st, FreeDigest> digest_;
    std::string data_;
    uint64_t reserved_ = 0;  // of the store's total
  };

  explicit ImageStore(uint64_t max_total = kMaxTotal) : max_total_(max_total) {}

  // kNotFound, with the next step.
  absl::StatusOr<std::shared_ptr<const std::string>> Get(const std::string& name) const;
  // Bytes kept and on their way in.
  uint64_t total() const;

 private:
  struct Image {
    std::string name;
    std::shared_ptr<const std::string> data;
  };

  absl::Status Reserve(uint64_t bytes);
  void Release(uint64_t bytes);
  // Takes the reservation of `data` over.
  void Keep(const std::string& name, std::string data);

  const uint64_t max_total_;
  mutable std::mutex mutex_;
  std::list<Image> images_;  // oldest upload first
  uint64_t total_ = 0;
};

}  // namespace twinroot::rpc

#endif  // TWINROOT_DAEMON_RPC_IMAGE_STORE_H_
