#include "daemon/config.h"

#include <filesystem>
#include <fstream>
#include <map>

#include "gtest/gtest.h"

namespace twinroot {
namespace {

using Variables = std::map<std::string, std::string>;

Environment EnvironmentOf(bool root, Variables variables) {
  return {root,
          [variables = std::move(variables)](const char* name) {
            const auto it = variables.find(name);
            return it == variables.end() ? std::string() : it->second;
          },
          "/no/such/etc"};
}

std::variant<Config, Exit> Parse(const std::vector<std::string>& arguments,
                                 const Environment& environment = EnvironmentOf(true, {})) {
  return ParseConfig(arguments, environment);
}

Config Parsed(const std::vector<std::string>& arguments,
              const Environment& environment = EnvironmentOf(true, {})) {
  return std::get<Config>(Parse(arguments, environment));
}

void ExpectRefused(const std::vector<std::string>& arguments, const std::string& word,
                   const Environment& environment = EnvironmentOf(true, {})) {
  const auto parsed = Parse(arguments, environment);
  ASSERT_TRUE(std::holds_alternative<Exit>(parsed)) << arguments[0];
  EXPECT_EQ(std::get<Exit>(parsed).code, 2);
  EXPECT_NE(std::get<Exit>(parsed).error.find(word), std::string::npos)
      << std::get<Exit>(parsed).error;
  EXPECT_TRUE(std::get<Exit>(parsed).output.empty());
}

TEST(Config, RootServesTheHost) {
  const Config config = Parsed({});
  EXPECT_EQ(config.socket, "/run/twinroot/hvd.sock");
  EXPECT_EQ(config.state_dir, "/var/lib/twinroot");
  EXPECT_EQ(config.metrics_address, "127.0.0.1:9464");
  EXPECT_EQ(config.backend, host::BackendKind::kAuto);
  EXPECT_FALSE(config.allow_core_dumps);
}

TEST(Config, OthersServeThemselves) {
  const Config config = Parsed(
      {}, EnvironmentOf(false, {{"XDG_RUNTIME_DIR", "/run/user/7"}, {"HOME", "/home/seven"}}));
  EXPECT_EQ(config.socket, "/run/user/7/twinroot/hvd.sock");
  EXPECT_EQ(config.state_dir, "/home/seven/.local/state/twinroot");
  EXPECT_EQ(
      Parsed({}, EnvironmentOf(
                     false, {{"XDG_RUNTIME_DIR", "/r"}, {"HOME", "/h"}, {"XDG_STATE_HOME", "/s"}}))
          .state_dir,
      "/s/twinroot");
}

TEST(Config, AServiceUsesTheFoldersThatSystemdMadeForIt) {
  const Variables variables = {{"STATE_DIRECTORY", "/var/lib/twinroot:/var/lib/other"},
                               {"CONFIGURATION_DIRECTORY", "/no/such/folder"},
                               {"LISTEN_FDS", "1"}};
  for (const bool root : {true, false}) {
    const Config config = Parsed({}, EnvironmentOf(root, variables));
    EXPECT_EQ(config.state_dir, "/var/lib/twinroot");
    EXPECT_EQ(config.audit_path, "/var/lib/twinroot/audit.jsonl");
    EXPECT_TRUE(config.file.empty());
  }
  // Who is given sockets needs no place for one.
  EXPECT_EQ(Parsed({}, EnvironmentOf(false, variables)).socket, "");
  EXPECT_EQ(Parsed({"--state-dir", "/d"}, EnvironmentOf(false, variables)).state_dir, "/d");
}

TEST(Config, AServicesFileIsInItsConfigurationFolder) {
  char folder[] = "/tmp/hvdXXXXXX";
  ASSERT_NE(mkdtemp(folder), nullptr);
  const std::string etc = folder;
  std::ofstream(etc + "/hvd.yaml") << "backend: sim\n";
  const Config config = Parsed({}, EnvironmentOf(false, {{"CONFIGURATION_DIRECTORY", etc},
                                                         {"STATE_DIRECTORY", "/d"},
                                                         {"LISTEN_FDS", "1"}}));
  EXPECT_EQ(config.file, etc + "/hvd.yaml");
  EXPECT_EQ(config.backend, host::BackendKind::kSim);
  std::filesystem::remove_all(etc);
}

TEST(Config, WithoutAPlaceTheUserMustNameOne) {
  ExpectRefused({}, "--socket", EnvironmentOf(false, {{"HOME", "/h"}}));
  ExpectRefused({}, "--state-dir", EnvironmentOf(false, {{"XDG_RUNTIME_DIR", "/r"}}));
  EXPECT_EQ(Parsed({"--socket", "/x", "--state-dir", "/y"}, EnvironmentOf(false, {})).socket, "/x");
}

TEST(Config, OptionsAreTaken) {
  const Config config = Parsed({"--socket", "/s", "--state-dir=/d", "--metrics-address", "[::1]:0",
                                "--backend", "sim", "--allow-core-dumps"});
  EXPECT_EQ(config.socket, "/s");
  EXPECT_EQ(config.state_dir, "/d");
  EXPECT_EQ(config.metrics_address, "[::1]:0");
  EXPECT_EQ(config.backend, host::BackendKind::kSim);
  EXPECT_TRUE(config.allow_core_dumps);
  EXPECT_EQ(Parsed({"--backend=kvm"}).backend, host::BackendKind::kKvm);
}

TEST(Config, MetricsMayBeOff) {
  EXPECT_TRUE(Parsed({"--metrics-address", "off"}).metrics_address.empty());
}

TEST(Config, BadOptionsAreRefused) {
  ExpectRefused({"--backend", "tdx"}, "kvm-native or sim");
  for (const std::string address : {"9464", ":9464", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:-1",
                                    "127.0.0.1:65536", "127.0.0.1:99999999999"}) {
    ExpectRefused({"--metrics-address", address}, "HOST:PORT");
  }
  ExpectRefused({"--sokcet", "/x"}, "--sokcet");
  ExpectRefused({"\x1b[2J"}, "\\x1b[2J");  // what a terminal would obey
  ExpectRefused({"serve"}, "serve");
  ExpectRefused({"--socket"}, "--socket");
}

class ConfigWithFile : public ::testing::Test {
 protected:
  std::string Write(const std::string& text, const std::string& name = "hvd.yaml") {
    std::ofstream(::testing::TempDir() + "/" + name) << text;
    return ::testing::TempDir() + "/" + name;
  }
};

TEST_F(ConfigWithFile, TheFileWinsOverDefaultsAndTheCommandLineOverBoth) {
  const std::string file = Write("socket: /file\nstate_dir: /file-state\nbackend: sim\n");
  const Config config = Parsed({"--config", file, "--socket", "/flag"});
  EXPECT_EQ(config.file, file);
  EXPECT_EQ(config.socket, "/flag");
  EXPECT_EQ(config.state_dir, "/file-state");
  EXPECT_EQ(config.backend, host::BackendKind::kSim);
  EXPECT_EQ(config.metrics_address, "127.0.0.1:9464");
  EXPECT_EQ(config.audit_path, "/file-state/audit.jsonl");
  EXPECT_EQ(Parsed({"--config", file, "--backend", "auto"}).backend, host::BackendKind::kAuto);
  EXPECT_TRUE(
      Parsed({"--config", Write("audit: {path: off}\nmetrics_address: off\n")}).audit_path.empty());
}

TEST_F(ConfigWithFile, TheDefaultFileIsReadIfItIsThere) {
  Environment root = EnvironmentOf(true, {});
  root.etc = ::testing::TempDir();
  Write("state_dir: /found\n");
  EXPECT_EQ(Parsed({}, root).state_dir, "/found");
  std::filesystem::remove(::testing::TempDir() + "/hvd.yaml");
  EXPECT_EQ(Parsed({}, root).state_dir, "/var/lib/twinroot");

  std::filesystem::create_directories(::testing::TempDir() + "/twinroot");
  Write("state_dir: /mine\n", "twinroot/hvd.yaml");
  EXPECT_EQ(Parsed({}, EnvironmentOf(false, {{"XDG_CONFIG_HOME", ::testing::TempDir()},
                                             {"XDG_RUNTIME_DIR", "/r"}}))
                .state_dir,
            "/mine");
}

TEST_F(ConfigWithFile, AFileThatIsNamedMustBeReadable) {
  ExpectRefused({"--config", "/no/such.yaml"}, "cannot read the configuration file /no/such.yaml");
  ExpectRefused({"--config", "/tmp"}, "cannot read the configuration file /tmp");
  Environment root = EnvironmentOf(true, {});
  root.etc = ::testing::TempDir() + "/folder";
  std::filesystem::create_directories(root.etc + "/hvd.yaml");
  ExpectRefused({}, "cannot read", root);
}

TEST_F(ConfigWithFile, MistakesInTheFileAreRefusedWithTheirPlace) {
  const std::string file = Write("backend: xen\nsokcet: /x\n");
  ExpectRefused({"--config", file},
                file + ":1:10: backend: \"xen\" is none of auto, kvm, kvm-native, sim\n");
  ExpectRefused({"--config", file}, file + ":2:1: unknown key \"sokcet\"");
  const std::string tcp =
      Write("tcp: {address: 127.0.0.1:0, certificate: /no/c, key: /no/k, client_ca: /no/a}\n");
  ExpectRefused({"--config", tcp}, "tcp.certificate: /no/c cannot be read");
}

TEST_F(ConfigWithFile, CheckConfigSaysOkOrWhatIsWrong) {
  const auto good = Parse({"--check-config", "--config", Write("backend: sim\n")});
  ASSERT_TRUE(std::holds_alternative<Exit>(good));
  EXPECT_EQ(std::get<Exit>(good).code, 0);
  EXPECT_EQ(std::get<Exit>(good).output, "ok\n");
  EXPECT_EQ(std::get<Exit>(good).error, "");
  ExpectRefused({"--check-config", "--config", Write("x: 1\n")}, "unknown key");
}

TEST(Config, WhatNeedsARestartIsNamed) {
  const Config before = Parsed({});
  EXPECT_EQ(NeedsRestart(before, before), "");
  Config now = before;
  now.rules.grants.clear();
  now.rules.limits.calls_per_principal = 1;
  now.rules.limits.connections_per_principal = 1;
  now.log_level = LogLevel::kDebug;
  now.audit_path = "/elsewhere";
  EXPECT_EQ(NeedsRestart(before, now), "");
  now.socket = "/s";
  now.socket_mode = 0666;
  now.socket_gid = 7;
  now.state_dir = "/d";
  now.metrics_address = "";
  now.max_vm_series = 1;
  now.backend = host::BackendKind::kSim;
  now.cpu_groups = false;
  now.allow_core_dumps = true;
  now.tcp = Tcp{"127.0.0.1:1", {}};
  now.audit_path = "";
  now.rules.limits.streams_per_connection = 1;
  now.rules.limits.message_bytes = 1;
  now.journal.max_events = 1000;
  EXPECT_EQ(
      NeedsRestart(before, now),
      "socket, socket_mode, socket_group, state_dir, metrics_address, max_vm_series, "
      "backend, cpu_groups, allow_core_dumps, tcp, audit.path, limits.streams_per_connection, "
      "limits.message_bytes, journal");
}

TEST(Config, HelpAndVersionEndWell) {
  const auto help = Parse({"--help"});
  EXPECT_EQ(std::get<Exit>(help).code, 0);
  for (const char* flag : {"--socket", "--state-dir", "--metrics-address", "--backend", "--config",
                           "--check-config", "--allow-core-dumps", "private memory"}) {
    EXPECT_NE(std::get<Exit>(help).output.find(flag), std::string::npos) << flag;
  }
  const auto version = Parse({"--version"});
  EXPECT_EQ(std::get<Exit>(version).code, 0);
  EXPECT_EQ(std::get<Exit>(version).output.rfind("hvd ", 0), 0u);
}

}  // namespace
}  // namespace twinroot
