#include "daemon/rpc/once.h"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>
#include <openssl/evp.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "daemon/reasons.h"
#include "daemon/rpc/status.h"

namespace twinroot::rpc {
namespace {

constexpr size_t kMaxId = 128;

absl::Status CheckId(const std::string& id) {
  const bool printable =
      std::all_of(id.begin(), id.end(), [](char c) { return c > ' ' && c <= '~'; });
  if (!id.empty() && id.size() <= kMaxId && printable) return absl::OkStatus();
  return FieldError("request_id",
                    absl::StrCat("give 1 to ", kMaxId, " printable ASCII characters, best a UUID"),
                    reason::kInvalidField);
}

// The same for the same content: maps are written in order.
absl::StatusOr<std::string> DigestOf(const google::protobuf::MessageLite& request) {
  std::string bytes;
  {
    google::protobuf::io::StringOutputStream stream(&bytes);
    google::protobuf::io::CodedOutputStream coded(&stream);
    coded.SetSerializationDeterministic(true);
    request.SerializeToCodedStream(&coded);
  }
  unsigned char sum[EVP_MAX_MD_SIZE];
  unsigned int length = 0;
  if (EVP_Digest(bytes.data(), bytes.size(), sum, &length, EVP_sha256(), nullptr) != 1) {
    return absl::InternalError("the crypto library cannot compute SHA-256");
  }
  return std::string(reinterpret_cast<const char*>(sum), length);
}

}  // namespace

absl::StatusOr<Once::Turn> Once::Begin(const Id& id, const google::protobuf::MessageLite& request,
                                       Answer answer) {
  if (absl::Status status = CheckId(id.request_id); !status.ok()) return status;
  auto digest = DigestOf(request);
  if (!digest.ok()) return digest.status();
  std::string response;
  {
    std::lock_guard lock(mutex_);
    Book& book = books_[id.method];
    Trim(book);
    const auto [it, is_new] = book.entries.try_emplace({id.caller, id.request_id});
    Entry& entry = it->second;
    if (is_new) {
      entry.digest = *std::move(digest);
      return Turn::kFirst;
    }
    if (entry.digest != *digest) {
      return FieldError("request_id",
                        "was given to another request: repeat that one, or take a new id",
                        reason::kRequestIdReused);
    }
    if (!entry.ended) {
      entry.waiting.push_back(std::move(answer));
      return Turn::kRepeated;
    }
    response = entry.response;
  }
  answer(absl::OkStatus(), response);
  return Turn::kRepeated;
}

void Once::End(const Id& id, const absl::Status& status, const std::string& response) {
  std::vector<Answer> waiting;
  {
    std::lock_guard lock(mutex_);
    Book& book = books_[id.method];
    const auto it = book.entries.find({id.caller, id.request_id});
    waiting.swap(it->second.waiting);
    if (status.ok()) {
      it->second.ended = true;
      it->second.response = response;
      it->second.until = now_() + limits_.age;
      book.ended.push_back(it->first);
      book.bytes += response.size();
      Trim(book);
    } else {
      book.entries.erase(it);
    }
  }
  for (const Answer& answer : waiting) answer(status, response);
}

void Once::Trim(Book& book) {
  const absl::Time now = now_();
  while (!book.ended.empty()) {
    const auto oldest = book.entries.find(book.ended.front());
    if (book.ended.size() <= limits_.count && book.bytes <= limits_.bytes &&
        oldest->second.until > now) {
      return;
    }
    book.bytes -= oldest->second.response.size();
    book.entries.erase(oldest);
    book.ended.pop_front();
  }
}

}  // namespace twinroot::rpc
