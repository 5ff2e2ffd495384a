#include "cli/render/yaml.h"

#include <gtest/gtest.h>
#include <yaml-cpp/yaml.h>

namespace twinroot::cli {
namespace {

TEST(Yaml, SaysWhatTheJsonSaysInItsOrder) {
  EXPECT_EQ(JsonToYaml(R"({"vms":[{"name":"vms/a","vcpus":2,"memoryBytes":"67108864",)"
                       R"("labels":{},"steps":[]},{"name":"vms/b"}],"cursor":"e-1","on":true})"),
            "vms:\n"
            "- name: vms/a\n"
            "  vcpus: 2\n"
            "  memoryBytes: \"67108864\"\n"
            "  labels: {}\n"
            "  steps: []\n"
            "- name: vms/b\n"
            "cursor: e-1\n"
            "\"on\": true\n");
}

TEST(Yaml, ATextStaysATextAndANumberANumber) {
  for (const std::string text :
       {"true", "null", "12",          "0x10",           "1e3",         "- a", "a: b", "a #b",
        "",     " x",   "x ",          "\\\"quoted\\\"", "two\\nlines", "yes", "~",    "*a",
        "%x",   "a,b",  "plain words", "2026-11-22"}) {
    const YAML::Node json = YAML::Load("{\"k\":\"" + text + "\"}");
    const YAML::Node yaml = YAML::Load(JsonToYaml("{\"k\":\"" + text + "\"}"));
    EXPECT_EQ(yaml["k"].Scalar(), json["k"].Scalar()) << text;
    // What yaml-cpp could read as a number or a boolean is in quotes.
    bool boolean = false;
    if (YAML::convert<bool>::decode(YAML::Node(json["k"].Scalar()), boolean)) {
      EXPECT_EQ(yaml["k"].Tag(), "!") << text;
    }
  }
  EXPECT_EQ(JsonToYaml("{\"a\":12}"), "a: 12\n");
}

TEST(Yaml, AnEscapeCharacterDoesNotReachATerminal) {
  EXPECT_EQ(JsonToYaml("{\"a\":\"\\u001b[31m\"}"), "a: \"\\x1b[31m\"\n");
}

TEST(Yaml, NothingIsAnEmptyMap) { EXPECT_EQ(JsonToYaml("{}"), "{}\n"); }

}  // namespace
}  // namespace twinroot::cli
