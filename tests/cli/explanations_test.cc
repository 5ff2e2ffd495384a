#include "cli/explanations.h"

#include <gtest/gtest.h>

#include <set>

#include "cli/failure.h"
#include "twinroot/v1/event.pb.h"

namespace twinroot::cli {
namespace {

std::string Nothing(const std::string&) { return ""; }

TEST(Explanations, AreFoundInAnyCaseAndSpelling) {
  ASSERT_EQ(Explain("no_such_vm").size(), 1u);
  EXPECT_STREQ(Explain("NO-SUCH-VM")[0]->word, "NO_SUCH_VM");
  EXPECT_STREQ(Explain("VM_STATE")[0]->word, "vm-state");
  EXPECT_EQ(Explain("DAEMON_STOPPING").size(), 2u);  // of a call, and of a VM
  EXPECT_TRUE(Explain("").empty());
  EXPECT_TRUE(Explain("nonsense").empty());
}

TEST(Explanations, EachSubjectHasAWordOnceWithAMeaningAndANextStep) {
  std::set<std::pair<Subject, std::string>> seen;
  for (const Explanation& explanation : Explanations()) {
    EXPECT_TRUE(seen.insert({explanation.subject, explanation.word}).second) << explanation.word;
    EXPECT_EQ(std::string(explanation.meaning).back(), '.') << explanation.word;
    EXPECT_NE(NextStep(explanation, Nothing), "") << explanation.word;
    EXPECT_EQ(explanation.subject == Subject::kReason, explanation.code != grpc::StatusCode::OK)
        << explanation.word;
  }
}

TEST(Explanations, AHintFitsALineOf80Columns) {
  for (const Explanation& explanation : Explanations()) {
    if (explanation.as_hint == AsHint::kNo) continue;
    const std::string line = "hint: " + NextStep(explanation, Nothing);
    EXPECT_LE(line.size(), 80u) << explanation.word << ": " << line;
  }
}

TEST(Explanations, EveryExitCodeIsThere) {
  for (const int code : {kOk, kFailure, kUsage, kNotFound, kUnavailable, kConflict, kDenied,
                         kTimeout, kVmStopped, kInterrupted}) {
    ASSERT_EQ(Explain(std::to_string(code)).size(), 1u) << code;
    EXPECT_EQ(Explain(std::to_string(code))[0]->subject, Subject::kExitCode);
  }
}

TEST(Explanations, EveryKindOfEventIsThere) {
  const google::protobuf::EnumDescriptor& kinds = *v1::EventKind_descriptor();
  for (int i = 1; i < kinds.value_count(); ++i) {
    const std::string word = kinds.value(i)->name().substr(sizeof("EVENT_KIND_") - 1);
    const auto found = Explain(word);
    ASSERT_FALSE(found.empty()) << word;
    EXPECT_EQ(found.back()->subject, Subject::kEventKind) << word;
  }
}

TEST(Explanations, TheNextStepNamesWhatTheErrorNames) {
  const Explanation& exists = *Explain("VM_EXISTS")[0];
  EXPECT_EQ(NextStep(exists, Nothing), "take another name, or `hvctl vm delete NAME`");
  EXPECT_EQ(NextStep(exists, [](const std::string& key) { return key == "vm" ? "demo" : ""; }),
            "take another name, or `hvctl vm delete demo`");
}

}  // namespace
}  // namespace twinroot::cli
