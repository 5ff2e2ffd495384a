// A certificate authority for tests: real keys and certificates, made in memory.
#ifndef TWINROOT_TESTS_DAEMON_ACCESS_CERTIFICATES_H_
#define TWINROOT_TESTS_DAEMON_ACCESS_CERTIFICATES_H_

#include <openssl/evp.h>
#include <openssl/x509.h>

#include <memory>
#include <string>
#include <vector>

namespace twinroot::access {

// PEM texts.
struct Identity {
  std::string certificate;
  std::string key;
};

class Authority {
 public:
  explicit Authority(const std::string& name);

  std::string certificate() const;

  // For a server on 127.0.0.1 and for a client with these URIs alike. `end`: seconds from now.
  Identity Issue(const std::vector<std::string>& uris, long end = 3600) const;
  // A revocation list with these, to be renewed so many seconds from now.
  std::string Revoke(const std::vector<Identity>& identities, long renew = 3600) const;

 private:
  using Key = std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)>;
  using Certificate = std::unique_ptr<X509, decltype(&X509_free)>;

  Certificate Sign(EVP_PKEY* subject, const std::string& name, const std::string& extension,
                   const std::string& value, long end) const;

  const std::string name_;
  const Key key_;
  const Certificate certificate_;
};

}  // namespace twinroot::access

#endif  // TWINROOT_TESTS_DAEMON_ACCESS_CERTIFICATES_H_
