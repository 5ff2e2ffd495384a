// The files of mutual TLS: what hvd shows to clients, and who signs theirs.
// Thread-safe functions.
#ifndef TWINROOT_DAEMON_ACCESS_TLS_FILES_H_
#define TWINROOT_DAEMON_ACCESS_TLS_FILES_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "grpcpp/security/server_credentials.h"

namespace twinroot::access {

// Paths of PEM files. They are looked at every `refresh_seconds`; new connections use what is there
// then. Who replaces them renames new files over the old ones.
struct TlsFiles {
  std::string certificate;  // the server's, then those between it and its CA
  std::string key;
  std::string client_ca;  // one or more; who has no certificate of theirs cannot connect
  uint32_t refresh_seconds = 10;
  std::string client_crl = {};  // revocation lists of those, or empty: read with the configuration
};

// kFailedPrecondition, one sentence with the key of the configuration: a file cannot be read or
// parsed, the key is not the certificate's, or the certificate's time is over.
absl::Status CheckTlsFiles(const TlsFiles& files);

// Asks every client for a certificate and verifies it. The files were checked.
std::shared_ptr<grpc::ServerCredentials> MakeTlsCredentials(const TlsFiles& files);

}  // namespace twinroot::access

#endif  // TWINROOT_DAEMON_ACCESS_TLS_FILES_H_
