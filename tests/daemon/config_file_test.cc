#include "daemon/config_file.h"

#include "gtest/gtest.h"

namespace twinroot {
namespace {

using access::Role;

Config Read(const std::string& text) {
  Config config;
  const auto mistakes = ReadConfigText(text, "f", &config);
  EXPECT_TRUE(mistakes.empty()) << mistakes.front();
  return config;
}

std::vector<std::string> Mistakes(const std::string& text) {
  Config config;
  return ReadConfigText(text, "f", &config);
}

void ExpectMistake(const std::string& text, const std::string& mistake) {
  EXPECT_EQ(Mistakes(text), std::vector<std::string>{mistake}) << text;
}

TEST(ConfigFile, EveryKeyIsTaken) {
  const Config config = Read(R"(
socket: /s
socket_mode: "0660"
socket_group: root
state_dir: /d
metrics_address: off
max_vm_series: 9
backend: sim
cpu_groups: off
log_level: warning
allow_core_dumps: true
roles:
  - role: viewer
    users: [root, 4711]
    groups: [root, "4712"]
  - role: admin
    uris: ["spiffe://a/b", "spiffe://a/c/*"]
tcp:
  address: "[::]:7443"
  certificate: /c
  key: /k
  client_ca: /a
  client_crl: /r
  refresh_seconds: 5
audit:
  path: /var/log/audit
limits:
  calls_per_principal: 1
  connections_per_principal: 2
  streams_per_connection: 3
  message_bytes: 8388608
journal:
  max_events: 5000
  max_age_hours: 6
  max_mebibytes: 7
)");
  EXPECT_EQ(config.socket, "/s");
  EXPECT_EQ(config.socket_mode, 0660u);
  EXPECT_EQ(config.socket_gid, 0u);
  EXPECT_EQ(config.state_dir, "/d");
  EXPECT_EQ(config.metrics_address, "off");
  EXPECT_EQ(config.max_vm_series, 9u);
  EXPECT_EQ(config.backend, host::BackendKind::kSim);
  EXPECT_FALSE(config.cpu_groups);
  EXPECT_EQ(config.log_level, LogLevel::kWarning);
  EXPECT_TRUE(config.allow_core_dumps);
  ASSERT_EQ(config.rules.grants.size(), 2u);
  EXPECT_EQ(config.rules.grants[0].role, Role::kViewer);
  EXPECT_EQ(config.rules.grants[0].uids, (std::vector<uint32_t>{0, 4711}));
  EXPECT_EQ(config.rules.grants[0].gids, (std::vector<uint32_t>{0, 4712}));
  EXPECT_EQ(config.rules.grants[1].role, Role::kAdmin);
  EXPECT_EQ(config.rules.grants[1].uris,
            (std::vector<std::string>{"spiffe://a/b", "spiffe://a/c/*"}));
  ASSERT_TRUE(config.tcp.has_value());
  EXPECT_EQ(config.tcp->address, "[::]:7443");
  EXPECT_EQ(config.tcp->files.certificate, "/c");
  EXPECT_EQ(config.tcp->files.key, "/k");
  EXPECT_EQ(config.tcp->files.client_ca, "/a");
  EXPECT_EQ(config.tcp->files.refresh_seconds, 5u);
  EXPECT_EQ(config.tcp->files.client_crl, "/r");
  EXPECT_EQ(config.audit_path, "/var/log/audit");
  EXPECT_EQ(config.rules.limits.calls_per_principal, 1u);
  EXPECT_EQ(config.rules.limits.connections_per_principal, 2u);
  EXPECT_EQ(config.rules.limits.streams_per_connection, 3u);
  EXPECT_EQ(config.rules.limits.message_bytes, 8388608u);
  EXPECT_EQ(config.journal, (JournalLimits{5000, 6, 7}));
}

TEST(ConfigFile, WhatItDoesNotSayStays) {
  Config config;
  config.socket = "/before";
  config.rules = access::DefaultRules();
  for (const char* nothing : {"", "# a comment\n", "---\n", "backend: kvm\n"}) {
    EXPECT_TRUE(ReadConfigText(nothing, "f", &config).empty()) << nothing;
    EXPECT_EQ(config.socket, "/before");
    EXPECT_EQ(config.rules.grants.size(), 1u);
    EXPECT_FALSE(config.tcp.has_value());
  }
}

TEST(ConfigFile, RolesReplaceTheDefaultOnes) {
  Config config;
  config.rules = access::DefaultRules();
  EXPECT_TRUE(ReadConfigText("roles: []\n", "f", &config).empty());
  EXPECT_TRUE(config.rules.grants.empty());
}

TEST(ConfigFile, UnknownKeysAreRefusedWithTheirPlaceAndTheAllowedOnes) {
  ExpectMistake("backend: sim\nsokcet: /x\n",
                "f:2:1: unknown key \"sokcet\": allowed are socket, socket_mode, socket_group, "
                "state_dir, metrics_address, max_vm_series, backend, cpu_groups, log_level, "
                "allow_core_dumps, roles, tcp, audit, limits, journal");
  ExpectMistake("audit:\n  file: /x\n", "f:2:3: unknown key \"file\": allowed in audit are path");
  ExpectMistake("limits: {calls: 7}\n",
                "f:1:10: unknown key \"calls\": allowed in limits are calls_per_principal, "
                "connections_per_principal, streams_per_connection, message_bytes");
  ExpectMistake("roles:\n  - role: admin\n    user: [root]\n",
                "f:3:5: unknown key \"user\": allowed in roles are role, users, groups, uris");
}

TEST(ConfigFile, BadValuesAreRefusedWithWhatIsAllowed) {
  ExpectMistake("backend: xen\n", "f:1:10: backend: \"xen\" is none of auto, kvm, kvm-native, sim");
  ExpectMistake("log_level: loud\n",
                "f:1:12: log_level: \"loud\" is none of debug, info, warning, error");
  ExpectMistake("allow_core_dumps: maybe\n",
                "f:1:19: allow_core_dumps: \"maybe\" is none of true, false");
  ExpectMistake("socket: hvd.sock\n", "f:1:9: socket: \"hvd.sock\" is no path that begins with /");
  ExpectMistake("socket: [a]\n", "f:1:9: socket must be one value");
  ExpectMistake("socket: \"\"\n", "f:1:9: socket must be one value");
  EXPECT_EQ(Mistakes("socket:\n").size(), 1u);
  ExpectMistake("socket_group: no-such-group\n",
                "f:1:15: socket_group: this host has no group \"no-such-group\"");
  ExpectMistake(
      "metrics_address: 9464\n",
      "f:1:18: metrics_address: \"9464\" is not HOST:PORT (127.0.0.1:9464; port 0 takes a "
      "free one) or off");
  ExpectMistake("max_vm_series: all\n",
                "f:1:16: max_vm_series: \"all\" is no number from 0 to 1000000");
  ExpectMistake("audit: {path: audit.jsonl}\n",
                "f:1:15: audit.path: \"audit.jsonl\" is neither off nor a path that begins with /");
  ExpectMistake("limits: {calls_per_principal: 0}\n",
                "f:1:31: limits.calls_per_principal: \"0\" is no number from 1 to 1000000");
  ExpectMistake("limits: {message_bytes: -1}\n",
                "f:1:25: limits.message_bytes: \"-1\" is no number from 2097152 to 1073741824");
  ExpectMistake("journal: {max_events: 10}\n",
                "f:1:23: journal.max_events: \"10\" is no number from 1000 to 1000000000");
  ExpectMistake("limits: 7\n",
                "f:1:9: limits must be a map with the keys calls_per_principal, "
                "connections_per_principal, streams_per_connection, message_bytes");
  ExpectMistake("- a\n",
                "f:1:1: the file must be a map with the keys socket, socket_mode, socket_group, "
                "state_dir, metrics_address, max_vm_series, backend, cpu_groups, log_level, "
                "allow_core_dumps, roles, tcp, audit, limits, journal");
}

// `key` of a tcp section that is right otherwise.
std::string WithTls(const std::string& key) {
  return "tcp:\n  address: a:1\n  certificate: /c\n  client_ca: /a\n  key: " + key + "\n";
}

TEST(ConfigFile, FilesOfTlsMayBeCredentialsOfTheService) {
  Config config;
  EXPECT_TRUE(ReadConfigText("tcp:\n  address: a:1\n  certificate: credential:server.pem\n"
                             "  key: credential:server.key\n  client_ca: /etc/ca.pem\n"
                             "  client_crl: credential:crl\n",
                             "f", &config, "/run/credentials/hvd.service")
                  .empty());
  EXPECT_EQ(config.tcp->files.certificate, "/run/credentials/hvd.service/server.pem");
  EXPECT_EQ(config.tcp->files.key, "/run/credentials/hvd.service/server.key");
  EXPECT_EQ(config.tcp->files.client_ca, "/etc/ca.pem");
  EXPECT_EQ(config.tcp->files.client_crl, "/run/credentials/hvd.service/crl");
}

TEST(ConfigFile, CredentialsAreRefusedWhereThereAreNone) {
  ExpectMistake(WithTls("credential:server.key"),
                "f:5:8: tcp.key: \"credential:server.key\" is known to a service with "
                "LoadCredential= alone: by hand, while it runs, set "
                "CREDENTIALS_DIRECTORY=/run/credentials/hvd.service");
}

TEST(ConfigFile, ACredentialIsAFileOfItsFolder) {
  for (const std::string wrong :
       {"credential:", "credential:.", "credential:..", "credential:../../etc/shadow",
        "credential:/etc/shadow", "server.key", "Credential:x"}) {
    Config config;
    EXPECT_EQ(ReadConfigText(WithTls("\"" + wrong + "\""), "f", &config, "/c"),
              std::vector<std::string>{"f:5:8: tcp.key: \"" + wrong +
                                       "\" is neither a path that begins with / nor "
                                       "credential:NAME"});
  }
}

TEST(ConfigFile, ModesAreOctalAndTheOwnersToo) {
  EXPECT_EQ(Read("socket_mode: 0666\n").socket_mode, 0666u);
  EXPECT_EQ(Read("socket_mode: \"660\"\n").socket_mode, 0660u);
  for (const char* wrong : {"0060", "0800", "77777777777777", "rw-rw----", "1777"}) {
    const auto mistakes = Mistakes(std::string("socket_mode: ") + wrong + "\n");
    ASSERT_EQ(mistakes.size(), 1u) << wrong;
    EXPECT_EQ(mistakes[0].rfind("f:1:14: socket_mode: ", 0), 0u) << mistakes[0];
  }
}

TEST(ConfigFile, BadRolesAreRefused) {
  ExpectMistake("roles: {role: admin}\n", "f:1:8: roles must be a list");
  ExpectMistake("roles:\n  - users: [root]\n",
                "f:2:5: role is missing: one of viewer, operator, admin");
  ExpectMistake("roles:\n  - role: king\n",
                "f:2:11: role: \"king\" is none of viewer, operator, admin");
  ExpectMistake("roles:\n  - {role: admin, users: [nobody-here-is-called-so]}\n",
                "f:2:27: users: this host has no user \"nobody-here-is-called-so\"");
  ExpectMistake("roles:\n  - {role: admin, groups: [no-group-is-called-so]}\n",
                "f:2:28: groups: this host has no group \"no-group-is-called-so\"");
  ExpectMistake("roles:\n  - {role: admin, users: root}\n", "f:2:26: users must be a list");
  for (const char* uri : {"example", "spiffe://*", "spiffe://a/b*", "spiffe://*/b"}) {
    ExpectMistake(std::string("roles:\n  - {role: admin, uris: [\"") + uri + "\"]}\n",
                  std::string("f:2:26: uris: \"") + uri +
                      "\" is neither a URI nor a prefix that ends with /*");
  }
}

TEST(ConfigFile, TcpWithoutMutualTlsIsRefused) {
  EXPECT_EQ(Mistakes("tcp:\n  address: 0.0.0.0:7443\n  certificate: /c\n  key: /k\n"),
            std::vector<std::string>{
                "f:2:3: tcp.client_ca is missing: TCP is served with mutual TLS only"});
  EXPECT_EQ(Mistakes("tcp: {address: 0.0.0.0:7443}\n").size(), 3u);
  EXPECT_EQ(Mistakes("tcp: {}\n").size(), 4u);
  ExpectMistake(
      "tcp: {address: off, certificate: /c, key: /k, client_ca: /a}\n",
      "f:1:16: tcp.address: \"off\" is not HOST:PORT (127.0.0.1:9464; port 0 takes a free "
      "one)");
}

TEST(ConfigFile, AllMistakesAreToldAtOnce) {
  EXPECT_EQ(Mistakes("backend: x\nsocket: y\nz: 1\nsocket: /a\n").size(), 4u);
}

TEST(ConfigFile, AMistakeIsOneLineWhateverIsWritten) {
  ExpectMistake("log_level: \"de\\nbug\\e[2J\"\n",
                "f:1:12: log_level: \"de\\x0abug\\x1b[2J\" is none of debug, info, warning, error");
}

TEST(ConfigFile, AKeyThatStandsTwiceIsAMistake) {
  ExpectMistake("backend: sim\nbackend: kvm\n", "f:2:1: \"backend\" stands here a second time");
}

TEST(ConfigFile, WhatIsNoYamlIsRefusedWithItsPlace) {
  const auto mistakes = Mistakes("backend: sim\nsocket: [\n");
  ASSERT_EQ(mistakes.size(), 1u);
  EXPECT_EQ(mistakes[0].rfind("f:", 0), 0u) << mistakes[0];
  EXPECT_EQ(Mistakes("\"").size(), 1u);
  EXPECT_EQ(Mistakes(std::string("\0\xff", 2)).size(), 1u);
}

}  // namespace
}  // namespace twinroot
