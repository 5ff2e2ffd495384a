#include "daemon/config.h"

#include <map>

#include "gtest/gtest.h"

namespace twinroot {
namespace {

using Variables = std::map<std::string, std::string>;

Environment EnvironmentOf(bool root, Variables variables) {
  return {root, [variables = std::move(variables)](const char* name) {
            const auto it = variables.find(name);
            return it == variables.end() ? std::string() : it->second;
          }};
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
  ExpectRefused({"--backend", "tdx"}, "kvm or sim");
  for (const std::string address : {"9464", ":9464", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:-1",
                                    "127.0.0.1:65536", "127.0.0.1:99999999999"}) {
    ExpectRefused({"--metrics-address", address}, "HOST:PORT");
  }
  ExpectRefused({"--sokcet", "/x"}, "--sokcet");
  ExpectRefused({"serve"}, "serve");
  ExpectRefused({"--socket"}, "--socket");
}

TEST(Config, HelpAndVersionEndWell) {
  const auto help = Parse({"--help"});
  EXPECT_EQ(std::get<Exit>(help).code, 0);
  for (const char* flag : {"--socket", "--state-dir", "--metrics-address", "--backend",
                           "--allow-core-dumps", "private memory"}) {
    EXPECT_NE(std::get<Exit>(help).output.find(flag), std::string::npos) << flag;
  }
  const auto version = Parse({"--version"});
  EXPECT_EQ(std::get<Exit>(version).code, 0);
  EXPECT_EQ(std::get<Exit>(version).output.rfind("hvd ", 0), 0u);
}

}  // namespace
}  // namespace twinroot
