// The shells' scripts: bash really completes with its own, by call and by the TAB key.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <sstream>

#include "tests/cli/fake_daemon.h"
#include "tests/cli/hvctl_process.h"

namespace twinroot::cli {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::IsSupersetOf;

class HvctlCompletion : public testing::Test {
 protected:
  HvctlCompletion() {
    daemon_.AddVm("demo");
    daemon_.AddVm("web-1");
  }

  HvctlOptions Script(const std::string& shell, const std::string& script) {
    HvctlOptions options;
    options.binary = shell;
    options.arguments = {"-c", script};
    options.environment = {"HVCTL_ENDPOINT=" + daemon_.socket()};
    return options;
  }

  // What bash offers for this line, whose words are as readline would break them.
  std::vector<std::string> Bash(const std::string& line, const std::vector<std::string>& words) {
    std::string script = "source <(cli/hvctl completion bash) && COMP_LINE='" + line +
                         "' && COMP_POINT=${#COMP_LINE} && COMP_WORDS=(";
    for (const std::string& word : words) script += "'" + word + "' ";
    script +=
        ") && COMP_CWORD=$((${#COMP_WORDS[@]} - 1)) && _hvctl cli/hvctl && "
        "printf '%s\\n' \"${COMPREPLY[@]}\"";
    const Finished run = HvctlProcess(Script("bash", script)).Wait();
    EXPECT_EQ(run.exit_code, 0) << run.err;
    EXPECT_EQ(run.err, "");
    std::vector<std::string> offers;
    std::istringstream lines(run.out);
    for (std::string offer; std::getline(lines, offer);) {
      if (!offer.empty()) offers.push_back(offer);
    }
    return offers;
  }

  // False (and the test is skipped) where this shell is not installed.
  static bool Has(const std::string& shell) {
    return access(("/usr/bin/" + shell).c_str(), X_OK) == 0 ||
           access(("/bin/" + shell).c_str(), X_OK) == 0;
  }

  FakeDaemon daemon_;
};

TEST_F(HvctlCompletion, BashOffersNounsVerbsAndOptions) {
  EXPECT_THAT(Bash("hvctl me", {"hvctl", "me"}), ElementsAre("memory"));
  EXPECT_THAT(Bash("hvctl vm ", {"hvctl", "vm", ""}), IsSupersetOf({"create", "list", "wait"}));
  EXPECT_THAT(Bash("hvctl vm create x --mem", {"hvctl", "vm", "create", "x", "--mem"}),
              ElementsAre("--memory"));
  EXPECT_THAT(Bash("hvctl completion ", {"hvctl", "completion", ""}),
              ElementsAre("bash", "zsh", "fish"));
}

TEST_F(HvctlCompletion, BashOffersTheVmsOfTheDaemon) {
  EXPECT_THAT(Bash("hvctl vm get ", {"hvctl", "vm", "get", ""}), ElementsAre("demo", "web-1"));
  EXPECT_THAT(Bash("hvctl memory map w", {"hvctl", "memory", "map", "w"}), ElementsAre("web-1"));
  EXPECT_THAT(Bash("hvctl events --vm ", {"hvctl", "events", "--vm", ""}),
              ElementsAre("demo", "web-1"));
}

TEST_F(HvctlCompletion, WithoutADaemonThereAreSilentlyNoVms) {
  const std::string line = "hvctl --endpoint /no/such.sock vm get ";
  EXPECT_THAT(Bash(line, {"hvctl", "--endpoint", "/no/such.sock", "vm", "get", ""}), IsEmpty());
}

TEST_F(HvctlCompletion, BashReplacesOnlyWhatFollowsAnEqualsSign) {
  EXPECT_THAT(Bash("hvctl vm list --output=", {"hvctl", "vm", "list", "--output", "="}),
              ElementsAre("table", "wide", "json", "yaml", "name"));
  EXPECT_THAT(Bash("hvctl vm list --output=j", {"hvctl", "vm", "list", "--output", "=", "j"}),
              ElementsAre("json"));
}

TEST_F(HvctlCompletion, BashOffersFilesWhereAFileIsMeant) {
  const std::string path = "cli/hv";
  EXPECT_THAT(
      Bash("hvctl vm create x --image " + path, {"hvctl", "vm", "create", "x", "--image", path}),
      Contains("cli/hvctl"));
}

TEST_F(HvctlCompletion, TheTabKeyCompletesInAnInteractiveBash) {
  HvctlOptions options = Script("bash", "");
  options.arguments = {"--norc", "--noprofile", "-i"};
  options.environment.push_back("PS1=ready> ");
  options.terminal = Terminal::kAll;
  HvctlProcess bash(options);
  ASSERT_TRUE(bash.SeesOutput("ready> "));
  bash.Type("PATH=$PWD/cli:$PATH; source <(hvctl completion bash); echo sour''ced\n");
  ASSERT_TRUE(bash.SeesOutput("sourced\r\n"));
  bash.Type("echo hvctl vm get we\t\n");  // of echo: nothing
  bash.Type("hvctl vm get we\t| sed 's/^/got /'\n");
  EXPECT_TRUE(bash.SeesOutput("vm get web-1 | sed"));
  EXPECT_TRUE(bash.SeesOutput("got Name:")) << "the completed command runs";
  bash.Type("exit\n");
  bash.Wait();
}

TEST_F(HvctlCompletion, FishCompletes) {
  if (!Has("fish")) GTEST_SKIP() << "fish is not installed";
  HvctlOptions options =
      Script("fish", "set -x PATH $PWD/cli $PATH; set -x HOME " + daemon_.folder() +
                         "; hvctl completion fish | source; complete -C 'hvctl vm get '; "
                         "complete -C 'hvctl memory m'; complete -C 'hvctl vm list --output=y'");
  const Finished run = HvctlProcess(options).Wait();
  EXPECT_EQ(run.exit_code, 0) << run.err;
  EXPECT_NE(run.out.find("demo\tDEFINED\nweb-1\tDEFINED\nmap\t"), std::string::npos) << run.out;
  EXPECT_NE(run.out.find("--output=yaml"), std::string::npos) << run.out;
}

TEST_F(HvctlCompletion, ZshTakesItsScript) {
  if (!Has("zsh")) GTEST_SKIP() << "zsh is not installed";
  const Finished syntax =
      HvctlProcess(Script("sh", "cli/hvctl completion zsh | zsh -n /dev/stdin")).Wait();
  EXPECT_EQ(syntax.exit_code, 0) << syntax.err;
  EXPECT_EQ(syntax.err, "");
  // As compinit would call it, with _describe saying what it was given.
  const Finished run =
      HvctlProcess(Script("zsh",
                          "compdef() { echo $2 }; _describe() { print -l -- ${(P)4} }; "
                          "source <(cli/hvctl completion zsh); words=(cli/hvctl vm get d); "
                          "CURRENT=4; PREFIX=d; _hvctl"))
          .Wait();
  EXPECT_EQ(run.exit_code, 0) << run.err;
  EXPECT_EQ(run.out, "hvctl\ndemo:DEFINED\n");
}

TEST_F(HvctlCompletion, EachScriptNamesItsShellAndAsksHvctl) {
  for (const char* shell : {"bash", "zsh", "fish"}) {
    const Finished run = Hvctl("/no/such.sock", {"completion", shell});
    EXPECT_EQ(run.exit_code, 0);
    EXPECT_NE(run.out.find(std::string(shell) + " completion of hvctl"), std::string::npos);
    EXPECT_NE(run.out.find(" complete -- "), std::string::npos);
  }
}

}  // namespace
}  // namespace twinroot::cli
