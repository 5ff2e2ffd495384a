#include "cli/completion.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace twinroot::cli {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

// hvctl in small: a noun with verbs, a verb of its own, something hidden.
class Completions : public testing::Test {
 protected:
  Completions() {
    Common(&root_);
    CLI::App* vm = root_.add_subcommand("vm", "VMs");
    CLI::App* get = vm->add_subcommand("get", "One VM");
    Common(get);
    get->add_option("NAME", text_, "The VM")->type_name("");
    CLI::App* create = vm->add_subcommand("create", "Define a VM");
    create->add_option("NAME", text_)->type_name("");
    create->add_option("--image", text_)->type_name("FILE");
    create->add_option("--label", words_)->allow_extra_args(false);
    root_.add_subcommand("events", "What happened")->add_flag("-f,--follow", flag_, "Go on");
    root_.add_subcommand("secret", "Nobody's")->group("");
  }

  void Common(CLI::App* app) {
    app->add_option("-o,--output", text_)->type_name("table|json")->group(kCommonGroup);
    app->add_option("--endpoint", text_)->type_name("PATH|HOST:PORT")->group(kCommonGroup);
  }

  Completion At(const std::vector<std::string>& words) {
    return Complete(
        ReadTree(root_), words, [this](const std::string& value, const GivenOptions& given) {
          asked_ = given;
          return value == "NAME" ? std::vector<Candidate>{{"alpha", "RUNNING"}, {"beta", "STOPPED"}}
                                 : std::vector<Candidate>();
        });
  }
  std::vector<std::string> Words(const std::vector<std::string>& words) {
    std::vector<std::string> found;
    for (const Candidate& candidate : At(words).candidates) found.push_back(candidate.word);
    return found;
  }

  CLI::App root_{"", "hvctl"};
  std::string text_;
  std::vector<std::string> words_;
  bool flag_ = false;
  GivenOptions asked_;
};

TEST_F(Completions, BeginWithNounsAndNeverShowWhatIsHidden) {
  EXPECT_THAT(Words({""}), ElementsAre("vm", "events"));
  EXPECT_THAT(Words({"vm", ""}), ElementsAre("get", "create"));
  EXPECT_THAT(Words({"vm", "g"}), ElementsAre("get"));
  EXPECT_THAT(Words({"nonsense", ""}), ElementsAre("vm", "events"));
}

TEST_F(Completions, OfferNamesOfVmsWhereOneStandsAndNoneForANewOne) {
  EXPECT_THAT(Words({"vm", "get", ""}), ElementsAre("alpha", "beta"));
  EXPECT_THAT(Words({"vm", "get", "b"}), ElementsAre("beta"));
  EXPECT_THAT(Words({"vm", "get", "alpha", ""}), IsEmpty());
  EXPECT_THAT(Words({"vm", "create", ""}), IsEmpty());
  EXPECT_EQ(At({"vm", "get", "a"}).candidates.at(0).description, "RUNNING");
}

TEST_F(Completions, AskTheDaemonThatTheLineNames) {
  At({"--endpoint", "/a.sock", "vm", "get", ""});
  EXPECT_EQ(asked_.at("--endpoint"), "/a.sock");
  At({"vm", "get", "--endpoint=/b.sock", ""});
  EXPECT_EQ(asked_.at("--endpoint"), "/b.sock");
}

TEST_F(Completions, OfferAnOptionOnceUnlessItMayBeRepeated) {
  EXPECT_THAT(Words({"events", "--"}), ElementsAre("--help", "--follow"));
  EXPECT_THAT(Words({"events", "-f", "--"}), ElementsAre("--help"));
  EXPECT_THAT(Words({"vm", "create", "--label", "a=b", "--l"}), ElementsAre("--label"));
  EXPECT_THAT(Words({"events", "--", "--"}), IsEmpty());
}

TEST_F(Completions, OfferTheChoicesOfAnOptionInBothForms) {
  EXPECT_THAT(Words({"vm", "get", "-o", ""}), ElementsAre("table", "json"));
  EXPECT_THAT(Words({"vm", "get", "--output=j"}), ElementsAre("--output=json"));
}

TEST_F(Completions, LeaveFilesToTheShell) {
  EXPECT_TRUE(At({"vm", "create", "--image", ""}).files);
  EXPECT_TRUE(At({"vm", "get", "--endpoint", ""}).files);
  EXPECT_FALSE(At({"vm", "create", ""}).files);
}

}  // namespace
}  // namespace twinroot::cli
