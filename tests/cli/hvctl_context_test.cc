// Daemons by name: which of them a command reaches, and the file that keeps them.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <fstream>
#include <sstream>

#include "tests/cli/fake_daemon.h"
#include "tests/cli/hvctl_process.h"

namespace twinroot::cli {
namespace {

class HvctlContext : public testing::Test {
 protected:
  HvctlContext() {
    here_.AddVm("here");
    there_.AddVm("there");
  }

  Finished Run(std::vector<std::string> arguments, std::vector<std::string> environment = {}) {
    HvctlOptions options;
    options.arguments = std::move(arguments);
    options.environment = std::move(environment);
    options.environment.push_back("XDG_CONFIG_HOME=" + here_.folder() + "/config");
    return HvctlProcess(options).Wait();
  }
  // The one VM of the daemon that the command reaches.
  std::string Reached(std::vector<std::string> options, std::vector<std::string> environment = {}) {
    options.insert(options.begin(), {"vm", "list", "-o", "name"});
    const Finished run = Run(options, environment);
    EXPECT_EQ(run.exit_code, 0) << run.err;
    return run.out;
  }
  void Set() {
    EXPECT_EQ(Run({"context", "set", "h", "--endpoint", here_.socket()}).exit_code, 0);
    EXPECT_EQ(Run({"context", "set", "t", "--socket", "unix:" + there_.socket()}).exit_code, 0);
  }
  std::string File() { return here_.folder() + "/config/twinroot/hvctl.yaml"; }

  FakeDaemon here_;
  FakeDaemon there_;
};

TEST_F(HvctlContext, IsSetUsedListedAndDeleted) {
  EXPECT_EQ(Run({"context", "list"}).out, "CURRENT  NAME  ENDPOINT  CERTIFICATE\n");
  const Finished set = Run({"context", "set", "h", "--endpoint", here_.socket()});
  EXPECT_EQ(set.out, "context h is set: unix:" + here_.socket() + "\n");
  EXPECT_EQ(Run({"context", "use", "h"}).out, "context h is in use: unix:" + here_.socket() + "\n");
  EXPECT_EQ(Run({"context", "list", "--no-headers"}).out, "*  h  unix:" + here_.socket() + "  -\n");
  EXPECT_EQ(Reached({}), "here\n");
  EXPECT_EQ(Run({"context", "set", "h", "--socket", there_.socket()}).out,
            "context h is changed: unix:" + there_.socket() + "\n");
  EXPECT_EQ(Reached({}), "there\n");
  EXPECT_EQ(Run({"context", "delete", "h"}).out, "context h is deleted\n");
  EXPECT_EQ(Run({"context", "list", "--no-headers"}).out, "");
}

TEST_F(HvctlContext, WhatIsSaidNearerWins) {
  Set();
  ASSERT_EQ(Run({"context", "use", "h"}).exit_code, 0);
  const std::string endpoint = "HVCTL_ENDPOINT=" + there_.socket();
  EXPECT_EQ(Reached({}), "here\n");
  EXPECT_EQ(Reached({}, {"HVCTL_CONTEXT=t"}), "there\n");
  EXPECT_EQ(Reached({}, {endpoint, "HVCTL_CONTEXT=h"}), "there\n");
  EXPECT_EQ(Reached({"--context", "h"}, {endpoint}), "here\n");
  EXPECT_EQ(Reached({"--endpoint", here_.socket()}, {endpoint}), "here\n");
  EXPECT_EQ(Reached({"--socket", here_.socket()}, {"HVCTL_CONTEXT=t"}), "here\n");
}

TEST_F(HvctlContext, OneThatIsNotThereNamesThoseThatAre) {
  Set();
  for (const auto& arguments : {std::vector<std::string>{"vm", "list", "--context", "x"},
                                {"context", "use", "x"},
                                {"context", "delete", "x"}}) {
    const Finished run = Run(arguments);
    EXPECT_EQ(run.exit_code, 2);
    EXPECT_EQ(run.err, "hvctl: there is no context 'x'\nhint: there are: h, t\n");
  }
}

TEST_F(HvctlContext, KeepsTheFilesOfTcpFromEveryFolder) {
  const Finished lacking =
      Run({"context", "set", "lab", "--endpoint", "lab:7443", "--ca", "ca.pem"});
  EXPECT_EQ(lacking.exit_code, 2);
  EXPECT_EQ(lacking.err,
            "hvctl: endpoint 'lab:7443' is TCP\nhint: give --ca, --cert and --key too\n");
  ASSERT_EQ(Run({"context", "set", "lab", "--endpoint", "lab:7443", "--ca", "ca.pem", "--cert",
                 "/etc/me.pem", "--key", "/etc/me.key"})
                .exit_code,
            0);
  std::stringstream text;
  text << std::ifstream(File()).rdbuf();
  EXPECT_NE(text.str().find("cert: \"/etc/me.pem\""), std::string::npos) << text.str();
  EXPECT_EQ(text.str().find("ca: \"ca.pem\""), std::string::npos) << "not absolute: " << text.str();
  const Finished run = Run({"vm", "list", "--context", "lab"});
  EXPECT_EQ(run.exit_code, 2);
  EXPECT_NE(run.err.find("/ca.pem: No such file"), std::string::npos) << run.err;
}

TEST_F(HvctlContext, AFileThatPeopleBrokeIsRefusedWithThePlace) {
  Set();
  std::ofstream(File()) << "current: h\ncontexts:\n  h: {endpoind: x}\n";
  const Finished run = Run({"vm", "list"});
  EXPECT_EQ(run.exit_code, 2);
  EXPECT_NE(run.err.find("hvctl.yaml:3:7: unknown key \"endpoind\" of a context"),
            std::string::npos)
      << run.err;
  std::ofstream(File()) << "contexts: [\n";
  EXPECT_EQ(Run({"vm", "list"}).exit_code, 2);
  // It is not asked where it does not matter.
  EXPECT_EQ(Run({"vm", "list", "--endpoint", here_.socket()}).exit_code, 0);
}

TEST_F(HvctlContext, SettingNeedsAnEndpoint) {
  const Finished run = Run({"context", "set", "h"});
  EXPECT_EQ(run.exit_code, 2);
  EXPECT_EQ(run.err.rfind("hvctl: context h needs --endpoint\nhint: ", 0), 0u) << run.err;
}

}  // namespace
}  // namespace twinroot::cli
