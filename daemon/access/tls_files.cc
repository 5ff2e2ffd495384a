#include "daemon/access/tls_files.h"

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <cerrno>
#include <cstring>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "grpcpp/security/tls_certificate_provider.h"
#include "grpcpp/security/tls_credentials_options.h"

namespace twinroot::access {
namespace {

using File = std::unique_ptr<BIO, decltype(&BIO_free)>;
using Certificate = std::unique_ptr<X509, decltype(&X509_free)>;
using Key = std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)>;

absl::Status Refuse(const std::string& key, const std::string& path, const std::string& what) {
  ERR_clear_error();
  return absl::FailedPreconditionError(absl::StrCat("tcp.", key, ": ", path, " ", what));
}

absl::StatusOr<File> OpenFile(const std::string& key, const std::string& path) {
  errno = 0;
  File file(BIO_new_file(path.c_str(), "r"), BIO_free);
  if (file == nullptr) {
    return Refuse(key, path, absl::StrCat("cannot be read: ", std::strerror(errno)));
  }
  return file;
}

absl::StatusOr<Certificate> ReadCertificate(const std::string& key, const std::string& path) {
  auto file = OpenFile(key, path);
  if (!file.ok()) return file.status();
  Certificate certificate(PEM_read_bio_X509(file->get(), nullptr, nullptr, nullptr), X509_free);
  if (certificate == nullptr) return Refuse(key, path, "holds no PEM certificate");
  if (X509_cmp_current_time(X509_get0_notAfter(certificate.get())) < 0) {
    return Refuse(key, path, "has expired: put a new certificate there");
  }
  return certificate;
}

// No passphrase is asked for on a terminal.
int NoPassphrase(char*, int, int, void*) { return 0; }

}  // namespace

absl::Status CheckTlsFiles(const TlsFiles& files) {
  const auto certificate = ReadCertificate("certificate", files.certificate);
  if (!certificate.ok()) return certificate.status();
  if (auto ca = ReadCertificate("client_ca", files.client_ca); !ca.ok()) return ca.status();
  auto file = OpenFile("key", files.key);
  if (!file.ok()) return file.status();
  const Key key(PEM_read_bio_PrivateKey(file->get(), nullptr, NoPassphrase, nullptr),
                EVP_PKEY_free);
  if (key == nullptr) return Refuse("key", files.key, "holds no PEM key without a passphrase");
  if (X509_check_private_key(certificate->get(), key.get()) != 1) {
    return Refuse("key", files.key, absl::StrCat("is not the key of ", files.certificate));
  }
  return absl::OkStatus();
}

std::shared_ptr<grpc::ServerCredentials> MakeTlsCredentials(const TlsFiles& files) {
  grpc::experimental::TlsServerCredentialsOptions options(
      std::make_shared<grpc::experimental::FileWatcherCertificateProvider>(
          files.key, files.certificate, files.client_ca, files.refresh_seconds));
  options.watch_root_certs();
  options.watch_identity_key_cert_pairs();
  options.set_cert_request_type(GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
  return grpc::experimental::TlsServerCredentials(options);
}

}  // namespace twinroot::access
