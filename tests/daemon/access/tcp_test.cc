// TCP with mutual TLS: who may connect, and what happens when certificates are replaced.
#include <sys/stat.h>

#include "tests/daemon/access/access_fixture.h"
#include "tests/daemon/rpc/rpc_fixture.h"

namespace twinroot::access {
namespace {

using grpc::StatusCode;

constexpr char kGetHost[] = "twinroot.v1.HostService/GetHost";
constexpr char kViewer[] = "spiffe://test/viewer";

class TcpTest : public AccessFixture {
 protected:
  void SetUp() override {
    rules_.grants.push_back({Role::kViewer, {}, {}, {kViewer, "spiffe://test/fleet/*"}});
    Serve(rules_, /*tcp=*/true);
  }
  Rules rules_;

  // The status of GetHost over a connection of its own.
  grpc::Status Ask(const Identity& identity) { return Call(ConnectTcp(identity), kGetHost); }
};

TEST_F(TcpTest, TheUriOfTheCertificateGivesTheRole) {
  EXPECT_TRUE(Ask(ca_.Issue({kViewer})).ok());
  EXPECT_TRUE(Ask(ca_.Issue({"spiffe://test/fleet/7"})).ok());
  EXPECT_TRUE(Ask(ca_.Issue({"urn:other", "spiffe://test/fleet/7"})).ok());
  rpc::ExpectError(Ask(ca_.Issue({"spiffe://test/stranger"})), StatusCode::PERMISSION_DENIED,
                   "ROLE_REQUIRED");
}

TEST_F(TcpTest, ACertificateWithoutAUriHasNoRole) {
  const grpc::Status status = Ask(ca_.Issue({}));
  rpc::ExpectError(status, StatusCode::PERMISSION_DENIED, "ROLE_REQUIRED");
  EXPECT_EQ(rpc::InfoOf(status).metadata().at("principal"), "certificate without a URI");
}

TEST_F(TcpTest, TheAuditLogNamesTheCertificateAndTheAddress) {
  EXPECT_FALSE(Call(ConnectTcp(ca_.Issue({kViewer})), "twinroot.v1.VmService/StartVm").ok());
  const std::string audit = FileText(audit_path_);
  EXPECT_NE(audit.find("\"principal\":\"spiffe://test/viewer\""), std::string::npos) << audit;
  EXPECT_NE(audit.find("\"address\":\"ipv4:127.0.0.1:"), std::string::npos) << audit;
  EXPECT_EQ(audit.find("\"pid\""), std::string::npos) << audit;
}

TEST_F(TcpTest, WhoShowsNoGoodCertificateCannotConnect) {
  EXPECT_EQ(Ask(ca_.Issue({kViewer}, -60)).error_code(), StatusCode::UNAVAILABLE) << "expired";
  const Authority other("the authority");  // the same name, another key
  EXPECT_EQ(Ask(other.Issue({kViewer})).error_code(), StatusCode::UNAVAILABLE) << "wrong CA";
  EXPECT_EQ(Ask({}).error_code(), StatusCode::UNAVAILABLE) << "no certificate";
  const auto plain =
      grpc::CreateChannel(server_->tcp_address(), grpc::InsecureChannelCredentials());
  EXPECT_EQ(Call(plain, kGetHost).error_code(), StatusCode::UNAVAILABLE) << "no TLS";
  // It goes on for who does.
  EXPECT_TRUE(Ask(ca_.Issue({kViewer})).ok());
}

TEST_F(TcpTest, AnAuthorityThatIsReplacedIsBelievedNoMore) {
  const Identity old = ca_.Issue({kViewer});
  const auto connected = ConnectTcp(old);
  EXPECT_TRUE(Call(connected, kGetHost).ok());
  const Authority other("another");
  Replace(folder_ + "/ca.pem", other.certificate());
  rpc::Eventually([&] { return Ask(other.Issue({kViewer})).ok(); });
  EXPECT_EQ(Ask(old).error_code(), StatusCode::UNAVAILABLE);
  // A connection that stood before goes on: its role is what can be taken away.
  EXPECT_TRUE(Call(connected, kGetHost).ok());
  gatekeeper_->Replace(Rules());
  rpc::ExpectError(Call(connected, kGetHost), StatusCode::PERMISSION_DENIED, "ROLE_REQUIRED");
}

TEST_F(TcpTest, OnlyAnOperatorsWatchMayHoldGuests) {
  rules_.grants.push_back({Role::kOperator, {}, {}, {"spiffe://test/operator"}});
  gatekeeper_->Replace(rules_);
  v1::WatchEventsRequest request;
  request.mutable_lossless_hold()->set_seconds(1);
  {
    grpc::ClientContext context;
    const auto watch =
        v1::EventService::NewStub(ConnectTcp(ca_.Issue({kViewer})))->WatchEvents(&context, request);
    const grpc::Status status = watch->Finish();
    rpc::ExpectError(status, StatusCode::PERMISSION_DENIED, "ROLE_REQUIRED");
    EXPECT_EQ(rpc::InfoOf(status).metadata().at("role_required"), "operator");
  }
  grpc::ClientContext context;
  const auto watch = v1::EventService::NewStub(ConnectTcp(ca_.Issue({"spiffe://test/operator"})))
                         ->WatchEvents(&context, request);
  watch->WaitForInitialMetadata();
  EXPECT_TRUE(journal_.lossless().any());
  // Its role shrinks to what a plain watch needs: it holds nobody any more.
  rules_.grants.back().role = Role::kViewer;
  gatekeeper_->Replace(rules_);
  EXPECT_EQ(watch->Finish().error_code(), StatusCode::PERMISSION_DENIED);
  rpc::Eventually([&] { return !journal_.lossless().any(); });
}

TEST_F(TcpTest, ACertificateThatIsRevokedEndsItsCallsAndGetsNoMore) {
  const Identity lost = ca_.Issue({kViewer});
  const auto connected = ConnectTcp(lost);
  EXPECT_TRUE(Call(connected, kGetHost).ok());
  grpc::ClientContext context;
  const auto watch = v1::EventService::NewStub(connected)->WatchEvents(&context, {});
  watch->WaitForInitialMetadata();

  Replace(folder_ + "/crl.pem", ca_.Revoke({lost}));
  auto revocations = Revocations::Read(folder_ + "/crl.pem", folder_ + "/ca.pem");
  ASSERT_TRUE(revocations.ok()) << revocations.status();
  Rules rules = rules_;
  rules.revocations = *revocations;
  gatekeeper_->Replace(rules);
  v1::WatchEventsResponse response;
  while (watch->Read(&response)) {
  }
  EXPECT_EQ(watch->Finish().error_code(), StatusCode::UNAUTHENTICATED);
  rpc::ExpectError(Call(connected, kGetHost), StatusCode::UNAUTHENTICATED, "CERTIFICATE_REVOKED");
  rpc::ExpectError(Ask(lost), StatusCode::UNAUTHENTICATED, "CERTIFICATE_REVOKED");
  EXPECT_TRUE(Ask(ca_.Issue({kViewer})).ok()) << "another one of the same principal";
  // The list was renewed and names it no more.
  gatekeeper_->Replace(rules_);
  EXPECT_TRUE(Ask(lost).ok());
}

TEST_F(TcpTest, RevocationListsThatCannotWorkAreRefused) {
  const std::string crl = folder_ + "/crl.pem";
  const auto refused = [&](const std::string& word) {
    const auto read = Revocations::Read(crl, folder_ + "/ca.pem");
    EXPECT_EQ(read.status().code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_NE(std::string(read.status().message()).find(word), std::string::npos) << read.status();
  };
  refused("tcp.client_crl: " + crl + " cannot be read");
  Replace(crl, "nonsense");
  refused("holds no PEM revocation list");
  Replace(crl, ca_.Revoke({}).substr(0, 80));
  refused("holds something that is no PEM");
  Replace(crl, Authority("the authority").Revoke({}));
  refused("no authority of tcp.client_ca signed");
  // Several lists, one of them late, count together.
  const Identity one = ca_.Issue({kViewer});
  const Identity two = ca_.Issue({kViewer});
  Replace(crl, ca_.Revoke({one}) + ca_.Revoke({two}, -60));
  const auto read = Revocations::Read(crl, folder_ + "/ca.pem");
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->size(), 2u);
  EXPECT_TRUE(read->Contains(one.certificate));
  EXPECT_TRUE(read->Contains(two.certificate));
  EXPECT_FALSE(read->Contains(ca_.Issue({kViewer}).certificate));
  EXPECT_TRUE(read->Contains("nonsense"));
}

TEST_F(TcpTest, ACertificateThatIsRenewedIsShownWithoutARestart) {
  const Authority other("another");
  const Identity own = other.Issue({});
  const Identity client = ca_.Issue({kViewer});
  Replace(folder_ + "/key.pem", own.key);
  Replace(folder_ + "/cert.pem", own.certificate);
  rpc::Eventually([&] {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    return Call(grpc::CreateCustomChannel(
                    server_->tcp_address(),
                    grpc::SslCredentials({other.certificate(), client.key, client.certificate}),
                    arguments),
                kGetHost)
        .ok();
  });
}

TEST_F(TcpTest, AnAddressThatIsTakenIsRefused) {
  rpc::ServerOptions options;
  options.door.path = folder_ + "/other.sock";
  options.gatekeeper = gatekeeper_.get();
  options.tcp = {server_->tcp_address(),
                 {folder_ + "/cert.pem", folder_ + "/key.pem", folder_ + "/ca.pem", 1}};
  const auto second = rpc::Server::Start(std::move(options), &registry_, &journal_);
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_NE(std::string(second.status().message()).find("tcp.address"), std::string::npos);
  EXPECT_FALSE(std::filesystem::exists(folder_ + "/other.sock"));
}

TEST_F(TcpTest, FilesThatCannotWorkAreRefusedByName) {
  const Identity good = ca_.Issue({});
  const TlsFiles files{folder_ + "/c", folder_ + "/k", folder_ + "/a", 1};
  const auto refused = [&](const std::string& word) {
    const absl::Status status = CheckTlsFiles(files);
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_NE(std::string(status.message()).find(word), std::string::npos) << status;
  };
  refused("tcp.certificate: " + files.certificate + " cannot be read");
  Replace(files.certificate, "nonsense");
  refused("holds no PEM certificate");
  Replace(files.certificate, ca_.Issue({}, -60).certificate);
  refused("has expired");
  Replace(files.certificate, good.certificate);
  refused("tcp.client_ca");
  Replace(files.client_ca, ca_.certificate());
  refused("tcp.key: " + files.key + " cannot be read");
  Replace(files.key, "nonsense");
  refused("holds no PEM key");
  Replace(files.key, ca_.Issue({}).key);
  refused("is not the key of");
  Replace(files.key, good.key);
  EXPECT_TRUE(CheckTlsFiles(files).ok());
}

}  // namespace
}  // namespace twinroot::access
