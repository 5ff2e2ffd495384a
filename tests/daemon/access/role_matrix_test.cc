// Every method of every service, as every role, through both doors.
#include <google/protobuf/descriptor.h>

#include <set>
#include <vector>

#include "daemon/access/method_table.h"
#include "tests/daemon/access/access_fixture.h"
#include "tests/daemon/rpc/rpc_fixture.h"

namespace twinroot::access {
namespace {

constexpr Role kRoles[] = {Role::kNone, Role::kViewer, Role::kOperator, Role::kAdmin};

// These go on until their caller ends them.
bool IsEndless(std::string_view method) {
  return method.ends_with("EventService/WatchEvents") || method.ends_with("Health/Watch");
}

std::vector<const google::protobuf::ServiceDescriptor*> OurServices() {
  std::vector<const google::protobuf::ServiceDescriptor*> services;
  for (const auto* file : {v1::Vm::descriptor()->file(), v1::MemoryStats::descriptor()->file(),
                           v1::SplitCounts::descriptor()->file(), v1::Event::descriptor()->file(),
                           v1::Host::descriptor()->file()}) {
    for (int i = 0; i < file->service_count(); ++i) services.push_back(file->service(i));
  }
  return services;
}

class RoleMatrix : public AccessFixture {
 protected:
  // Calls every method of the table and expects what `role` may do.
  static void ExpectMatrix(const std::shared_ptr<grpc::Channel>& channel, Role role,
                           const std::string& next_step = "under roles") {
    for (const MethodRule& rule : MethodRules()) {
      const std::string method(rule.method);
      SCOPED_TRACE(method + " as " + NameOf(role));
      const grpc::Status status =
          Call(channel, method, std::chrono::milliseconds(IsEndless(method) ? 300 : 20000));
      const std::string reason = rpc::InfoOf(status).reason();
      if (role >= rule.role) {
        EXPECT_NE(status.error_code(), grpc::StatusCode::PERMISSION_DENIED);
        EXPECT_NE(status.error_code(), grpc::StatusCode::UNIMPLEMENTED);
        EXPECT_NE(status.error_code(), grpc::StatusCode::UNAVAILABLE) << status.error_message();
        EXPECT_EQ(status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED, IsEndless(method));
      } else {
        rpc::ExpectError(status, grpc::StatusCode::PERMISSION_DENIED, "ROLE_REQUIRED");
        const auto info = rpc::InfoOf(status);
        EXPECT_EQ(info.metadata().at("role_required"), NameOf(rule.role));
        EXPECT_EQ(info.metadata().at("role_held"), NameOf(role));
        EXPECT_FALSE(info.metadata().at("principal").empty());
        EXPECT_NE(status.error_message().find(next_step), std::string::npos)
            << status.error_message();
      }
    }
  }
};

TEST_F(RoleMatrix, EveryMethodThatIsServedHasARow) {
  std::set<std::string> served;
  for (const auto* service : OurServices()) {
    for (int i = 0; i < service->method_count(); ++i) {
      served.insert(service->full_name() + "/" + service->method(i)->name());
    }
  }
  EXPECT_EQ(OurServices().size(), 5u);
  std::set<std::string> rows;
  for (const MethodRule& rule : MethodRules()) {
    EXPECT_TRUE(rows.insert(std::string(rule.method)).second) << rule.method;
  }
  for (const std::string& method : served) EXPECT_EQ(rows.erase(method), 1u) << method;
  // What is left is gRPC's own.
  EXPECT_EQ(rows, (std::set<std::string>{
                      "grpc.health.v1.Health/Check", "grpc.health.v1.Health/Watch",
                      "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"}));
}

TEST_F(RoleMatrix, WhatGivesAwayOrChangesIsAuditedAndNeedsMoreThanAViewer) {
  for (const MethodRule& rule : MethodRules()) {
    EXPECT_EQ(rule.audited == Audited::kAlways, rule.role >= Role::kOperator) << rule.method;
  }
}

TEST_F(RoleMatrix, AMethodWithoutARowIsNobodys) {
  EXPECT_EQ(FindMethodRule("twinroot.v1.VmService/Explode"), nullptr);
  EXPECT_EQ(FindMethodRule(""), nullptr);
  EXPECT_NE(FindMethodRule("/twinroot.v1.VmService/GetVm"), nullptr);
}

TEST_F(RoleMatrix, OfTheUnixSocket) {
  Serve(Unix(Role::kNone));
  const auto channel = Connect();
  for (const Role role : kRoles) {
    // The same connection: a role is looked up for every call.
    gatekeeper_->Replace(Unix(role));
    ExpectMatrix(channel, role);
  }
}

TEST_F(RoleMatrix, OfSocketsThatGiveARole) {
  const std::string viewers = Give(Role::kViewer);
  const std::string operators = Give(Role::kOperator);
  // Who is an admin elsewhere is none here, and who is nothing is something.
  for (const Role elsewhere : {Role::kAdmin, Role::kNone}) {
    if (gatekeeper_ == nullptr) {
      Serve(Unix(elsewhere));
    } else {
      gatekeeper_->Replace(Unix(elsewhere));
    }
    ExpectMatrix(Connect(), elsewhere);
    ExpectMatrix(Connect(viewers), Role::kViewer, "use another socket");
    ExpectMatrix(Connect(operators), Role::kOperator, "use another socket");
  }
}

TEST_F(RoleMatrix, OfTcp) {
  Rules rules;
  for (const Role role : {Role::kViewer, Role::kOperator, Role::kAdmin}) {
    rules.grants.push_back({role, {}, {}, {std::string("spiffe://test/") + NameOf(role)}});
  }
  Serve(rules, /*tcp=*/true);
  for (const Role role : kRoles) {
    ExpectMatrix(ConnectTcp(ca_.Issue({std::string("spiffe://test/") + NameOf(role)})), role);
  }
}

}  // namespace
}  // namespace twinroot::access
