#include "daemon/access/revocations.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <vector>

#include "absl/strings/str_cat.h"
#include "spdlog/spdlog.h"

namespace twinroot::access {
namespace {

using File = std::unique_ptr<BIO, decltype(&BIO_free)>;
using Certificate = std::unique_ptr<X509, decltype(&X509_free)>;
using List = std::unique_ptr<X509_CRL, decltype(&X509_CRL_free)>;

absl::Status Refuse(const std::string& key, const std::string& path, const std::string& what) {
  ERR_clear_error();
  return absl::FailedPreconditionError(absl::StrCat("tcp.", key, ": ", path, " ", what));
}

template <typename Value>
std::string Der(const Value* value, int (*encode)(const Value*, unsigned char**)) {
  unsigned char* bytes = nullptr;
  const int size = encode(value, &bytes);
  std::string text(reinterpret_cast<const char*>(bytes), size > 0 ? static_cast<size_t>(size) : 0);
  OPENSSL_free(bytes);
  return text;
}

std::string NameOf(const X509_NAME* issuer, const ASN1_INTEGER* serial) {
  return Der(issuer, i2d_X509_NAME) + Der(serial, i2d_ASN1_INTEGER);
}

// Everything of one type in a PEM file.
template <typename Object, typename Free>
absl::StatusOr<std::vector<std::unique_ptr<Object, Free>>> ReadAll(
    const std::string& key, const std::string& path,
    Object* (*read)(BIO*, Object**, pem_password_cb*, void*), Free free) {
  errno = 0;
  const File file(BIO_new_file(path.c_str(), "r"), BIO_free);
  if (file == nullptr) {
    return Refuse(key, path, absl::StrCat("cannot be read: ", std::strerror(errno)));
  }
  std::vector<std::unique_ptr<Object, Free>> all;
  while (Object* object = read(file.get(), nullptr, nullptr, nullptr)) {
    all.emplace_back(object, free);
  }
  const bool at_end = ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
  if (!at_end) return Refuse(key, path, "holds something that is no PEM");
  ERR_clear_error();
  return all;
}

bool IsSigned(X509_CRL* list, const std::vector<Certificate>& authorities) {
  for (const Certificate& authority : authorities) {
    if (X509_NAME_cmp(X509_CRL_get_issuer(list), X509_get_subject_name(authority.get())) == 0 &&
        X509_CRL_verify(list, X509_get0_pubkey(authority.get())) == 1) {
      return true;
    }
  }
  ERR_clear_error();
  return false;
}

}  // namespace

absl::StatusOr<Revocations> Revocations::Read(const std::string& path,
                                              const std::string& client_ca) {
  const auto authorities = ReadAll("client_ca", client_ca, PEM_read_bio_X509, X509_free);
  if (!authorities.ok()) return authorities.status();
  const auto lists = ReadAll("client_crl", path, PEM_read_bio_X509_CRL, X509_CRL_free);
  if (!lists.ok()) return lists.status();
  if (lists->empty()) return Refuse("client_crl", path, "holds no PEM revocation list");
  Revocations revocations;
  for (const List& list : *lists) {
    if (!IsSigned(list.get(), *authorities)) {
      return Refuse("client_crl", path, "holds a list that no authority of tcp.client_ca signed");
    }
    const ASN1_TIME* next = X509_CRL_get0_nextUpdate(list.get());
    if (next != nullptr && X509_cmp_current_time(next) < 0) {
      spdlog::warn(
          "tcp.client_crl: {} should have been renewed: what was revoked since is not known", path);
    }
    STACK_OF(X509_REVOKED)* entries = X509_CRL_get_REVOKED(list.get());
    for (int i = 0; i < sk_X509_REVOKED_num(entries); ++i) {
      revocations.revoked_.insert(
          NameOf(X509_CRL_get_issuer(list.get()),
                 X509_REVOKED_get0_serialNumber(sk_X509_REVOKED_value(entries, i))));
    }
  }
  return revocations;
}

bool Revocations::Contains(const std::string& certificate) const {
  const File text(BIO_new_mem_buf(certificate.data(), static_cast<int>(certificate.size())),
                  BIO_free);
  const Certificate parsed(PEM_read_bio_X509(text.get(), nullptr, nullptr, nullptr), X509_free);
  if (parsed == nullptr) {
    ERR_clear_error();
    return true;
  }
  return revoked_.contains(
      NameOf(X509_get_issuer_name(parsed.get()), X509_get0_serialNumber(parsed.get())));
}

}  // namespace twinroot::access
