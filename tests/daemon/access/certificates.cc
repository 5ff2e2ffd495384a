#include "tests/daemon/access/certificates.h"

#include <openssl/ec.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>

namespace twinroot::access {
namespace {

template <typename Write>
std::string Pem(Write write) {
  std::unique_ptr<BIO, decltype(&BIO_free)> memory(BIO_new(BIO_s_mem()), BIO_free);
  write(memory.get());
  char* text = nullptr;
  const long size = BIO_get_mem_data(memory.get(), &text);
  return std::string(text, static_cast<size_t>(size));
}

std::string PemOf(X509* certificate) {
  return Pem([&](BIO* out) { PEM_write_bio_X509(out, certificate); });
}

}  // namespace

Authority::Authority(const std::string& name)
    : name_(name),
      key_(EVP_EC_gen("P-256"), EVP_PKEY_free),
      certificate_(Sign(key_.get(), name, "basicConstraints", "critical,CA:TRUE", 7200)) {}

std::string Authority::certificate() const { return PemOf(certificate_.get()); }

Identity Authority::Issue(const std::vector<std::string>& uris, long end) const {
  std::string names = "IP:127.0.0.1";
  for (const std::string& uri : uris) names += ",URI:" + uri;
  const Key key(EVP_EC_gen("P-256"), EVP_PKEY_free);
  const Certificate certificate = Sign(key.get(), "leaf", "subjectAltName", names, end);
  return {PemOf(certificate.get()), Pem([&](BIO* out) {
            PEM_write_bio_PrivateKey(out, key.get(), nullptr, nullptr, 0, nullptr, nullptr);
          })};
}

std::string Authority::Revoke(const std::vector<Identity>& identities, long renew) const {
  const std::unique_ptr<X509_CRL, decltype(&X509_CRL_free)> list(X509_CRL_new(), X509_CRL_free);
  X509_CRL_set_version(list.get(), 1);
  X509_CRL_set_issuer_name(list.get(), X509_get_subject_name(certificate_.get()));
  const std::unique_ptr<ASN1_TIME, decltype(&ASN1_TIME_free)> time(ASN1_TIME_new(), ASN1_TIME_free);
  X509_gmtime_adj(time.get(), -7200);
  X509_CRL_set1_lastUpdate(list.get(), time.get());
  X509_gmtime_adj(time.get(), renew);
  X509_CRL_set1_nextUpdate(list.get(), time.get());
  for (const Identity& identity : identities) {
    const std::unique_ptr<BIO, decltype(&BIO_free)> text(
        BIO_new_mem_buf(identity.certificate.data(), -1), BIO_free);
    const Certificate certificate(PEM_read_bio_X509(text.get(), nullptr, nullptr, nullptr),
                                  X509_free);
    X509_REVOKED* entry = X509_REVOKED_new();
    X509_REVOKED_set_serialNumber(entry, X509_get_serialNumber(certificate.get()));
    X509_gmtime_adj(time.get(), -60);
    X509_REVOKED_set_revocationDate(entry, time.get());
    X509_CRL_add0_revoked(list.get(), entry);
  }
  X509_CRL_sort(list.get());
  X509_CRL_sign(list.get(), key_.get(), EVP_sha256());
  return Pem([&](BIO* out) { PEM_write_bio_X509_CRL(out, list.get()); });
}

Authority::Certificate Authority::Sign(EVP_PKEY* subject, const std::string& name,
                                       const std::string& extension, const std::string& value,
                                       long end) const {
  Certificate certificate(X509_new(), X509_free);
  X509* x509 = certificate.get();
  X509_set_version(x509, 2);
  uint32_t serial = 0;
  RAND_bytes(reinterpret_cast<unsigned char*>(&serial), sizeof(serial));
  ASN1_INTEGER_set(X509_get_serialNumber(x509), serial);
  X509_gmtime_adj(X509_getm_notBefore(x509), -7200);
  X509_gmtime_adj(X509_getm_notAfter(x509), end);
  X509_set_pubkey(x509, subject);
  const auto set_name = [](X509_NAME* field, const std::string& text) {
    X509_NAME_add_entry_by_txt(field, "CN", MBSTRING_ASC,
                               reinterpret_cast<const unsigned char*>(text.c_str()), -1, -1, 0);
  };
  set_name(X509_get_subject_name(x509), name);
  std::unique_ptr<X509_NAME, decltype(&X509_NAME_free)> issuer(X509_NAME_new(), X509_NAME_free);
  set_name(issuer.get(), name_);
  X509_set_issuer_name(x509, issuer.get());
  X509_EXTENSION* added = X509V3_EXT_conf(nullptr, nullptr, extension.c_str(), value.c_str());
  X509_add_ext(x509, added, -1);
  X509_EXTENSION_free(added);
  X509_sign(x509, key_.get(), EVP_sha256());
  return certificate;
}

}  // namespace twinroot::access
