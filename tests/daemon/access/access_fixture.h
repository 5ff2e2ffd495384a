// A real server over the fake registry with the doors that a test asks for, and calls of any method
// as any caller.
#ifndef TWINROOT_TESTS_DAEMON_ACCESS_ACCESS_FIXTURE_H_
#define TWINROOT_TESTS_DAEMON_ACCESS_ACCESS_FIXTURE_H_

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "daemon/access/audit_log.h"
#include "daemon/access/gatekeeper.h"
#include "daemon/events/journal.h"
#include "daemon/rpc/server.h"
#include "grpcpp/generic/generic_stub.h"
#include "grpcpp/grpcpp.h"
#include "gtest/gtest.h"
#include "tests/daemon/access/certificates.h"
#include "tests/daemon/fakes/fake_vm_registry.h"

namespace twinroot::access {

inline std::string FileText(const std::string& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

// As whoever rotates certificates does it: all of the file at once.
inline void Replace(const std::string& path, const std::string& text) {
  std::ofstream(path + ".new") << text;
  std::filesystem::rename(path + ".new", path);
}

class AccessFixture : public ::testing::Test {
 protected:
  AccessFixture() {
    char folder[] = "/tmp/hvdXXXXXX";
    folder_ = mkdtemp(folder);
    socket_ = folder_ + "/hvd.sock";
    audit_path_ = folder_ + "/audit.jsonl";
  }
  ~AccessFixture() override {
    server_.reset();
    std::filesystem::remove_all(folder_);
  }

  void Serve(const Rules& rules, bool tcp = false) {
    audit_ = *AuditLog::Open(audit_path_, [] {});
    gatekeeper_ = std::make_unique<Gatekeeper>(rules, audit_.get());
    rpc::ServerOptions options;
    options.door.path = socket_;
    options.door.given = given_;
    options.limits = rules.limits;
    options.gatekeeper = gatekeeper_.get();
    options.bookmark_interval = absl::Hours(1);
    if (tcp) {
      const Identity own = ca_.Issue({});
      TlsFiles files{folder_ + "/cert.pem", folder_ + "/key.pem", folder_ + "/ca.pem", 1};
      Replace(files.certificate, own.certificate);
      Replace(files.key, own.key);
      Replace(files.client_ca, ca_.certificate());
      ASSERT_TRUE(CheckTlsFiles(files).ok()) << CheckTlsFiles(files);
      options.tcp = {"127.0.0.1:0", files};
    }
    auto server = rpc::Server::Start(std::move(options), &registry_, &journal_);
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
  }

  // Grants this process's user `role`; kNone: nobody anything.
  static Rules Unix(Role role) {
    Rules rules;
    if (role != Role::kNone) rules.grants.push_back({role, {geteuid()}, {}, {}});
    return rules;
  }

  // A socket that gives `role`, as systemd makes one; before Serve. Returns its path.
  std::string Give(Role role) {
    const std::string path = folder_ + "/" + NameOf(role) + ".sock";
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, sizeof(address.sun_path) - 1);
    EXPECT_EQ(bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
    EXPECT_EQ(listen(fd, 16), 0);
    given_.push_back({fd, path, role});
    return path;
  }

  // A connection of its own.
  std::shared_ptr<grpc::Channel> Connect() { return Connect(socket_); }
  static std::shared_ptr<grpc::Channel> Connect(const std::string& path) {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    return grpc::CreateCustomChannel("unix:" + path, grpc::InsecureChannelCredentials(), arguments);
  }
  std::shared_ptr<grpc::Channel> ConnectTcp(const Identity& identity) {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    return grpc::CreateCustomChannel(
        server_->tcp_address(),
        grpc::SslCredentials({ca_.certificate(), identity.key, identity.certificate}), arguments);
  }

  // Calls "service/method" with an empty request; a stream is read to its end or its deadline.
  static grpc::Status Call(const std::shared_ptr<grpc::Channel>& channel, const std::string& method,
                           std::chrono::milliseconds patience = std::chrono::seconds(20)) {
    grpc::GenericStub stub(channel);
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + patience);
    grpc::CompletionQueue queue;
    auto call = stub.PrepareCall(&context, "/" + method, &queue);
    const auto next = [&] {
      void* tag = nullptr;
      bool ok = false;
      EXPECT_TRUE(queue.Next(&tag, &ok));
      return ok;
    };
    call->StartCall(nullptr);
    if (next()) {
      const grpc::Slice nothing;
      call->WriteLast(grpc::ByteBuffer(&nothing, 1), grpc::WriteOptions(), nullptr);
      next();
      grpc::ByteBuffer answer;
      do {
        answer.Clear();
        call->Read(&answer, nullptr);
      } while (next());
    }
    grpc::Status status;
    call->Finish(&status, nullptr);
    next();
    return status;
  }

  std::string folder_;
  std::string socket_;
  std::string audit_path_;
  std::vector<GivenSocket> given_;
  Authority ca_{"the authority"};
  std::unique_ptr<AuditLog> audit_;
  std::unique_ptr<Gatekeeper> gatekeeper_;
  events::Journal journal_{65536};
  fakes::FakeVmRegistry registry_{&journal_};
  std::unique_ptr<rpc::Server> server_;
};

}  // namespace twinroot::access

#endif  // TWINROOT_TESTS_DAEMON_ACCESS_ACCESS_FIXTURE_H_
