#include "cli/input_file.h"

#include <gtest/gtest.h>

#include <fstream>

#include "cli/failure.h"

namespace twinroot::cli {
namespace {

class ProgramFile : public testing::Test {
 protected:
  std::string Write(const std::string& name, const std::string& text) {
    const std::string path = testing::TempDir() + "/" + name;
    std::ofstream(path) << text;
    return path;
  }

  // What is wrong with a program, without the folder.
  std::string WhyNot(const std::string& name, const std::string& text) {
    const std::string path = Write(name, text);
    try {
      ReadProgram(path);
    } catch (const Failure& failure) {
      EXPECT_EQ(failure.exit_code, kUsage);
      const size_t at = failure.message.find(name);
      return at == std::string::npos ? failure.message : failure.message.substr(at);
    }
    return "";
  }
};

TEST_F(ProgramFile, TextAndJsonGiveTheSameProgram) {
  const v1::AccessProgram text = ReadProgram(Write("p.textproto", R"(
    vcpus { steps { map_gpa { gpa: 0x400000 pages: 2 kind: MEMORY_KIND_SHARED } } }
  )"));
  const v1::AccessProgram json = ReadProgram(Write("p.json", R"(
    {"vcpus": [{"steps": [{"mapGpa": {"gpa": "4194304", "pages": 2, "kind": "SHARED"}}]}]}
  )"));
  EXPECT_EQ(text.SerializeAsString(), json.SerializeAsString());
  EXPECT_EQ(text.vcpus(0).steps(0).map_gpa().kind(), v1::MEMORY_KIND_SHARED);
}

TEST_F(ProgramFile, TextErrorsSayLineAndColumn) {
  EXPECT_EQ(WhyNot("a.textproto", "vcpus {\n  steps { read { gpax: 1 } }\n}\n").substr(0, 20),
            "a.textproto:2:22: Me");
  EXPECT_EQ(WhyNot("a.textproto", "vcpus {\n  steps {").substr(0, 16), "a.textproto:2:10");
}

TEST_F(ProgramFile, JsonSyntaxErrorsSayLineAndColumn) {
  EXPECT_EQ(WhyNot("a.json", "{\n  \"vcpus\": [}\n").substr(0, 14), "a.json:2:13: U");
}

TEST_F(ProgramFile, JsonFieldErrorsSayLineAndColumn) {
  const std::string unknown =
      WhyNot("a.json", "{\"vcpus\": [\n {\"steps\": [{\"read\": {\"gpax\": 1}}]}]}");
  EXPECT_EQ(unknown.substr(0, 13), "a.json:2:23: ") << unknown;
  EXPECT_NE(unknown.find("gpax"), std::string::npos) << unknown;
  const std::string value =
      WhyNot("a.json", "{\"vcpus\": [\n {\"steps\": [{\"read\": {\"gpa\": \"much\"}}]}]}");
  EXPECT_EQ(value.substr(0, 13), "a.json:2:23: ") << value;
}

TEST_F(ProgramFile, AnEmptyProgramIsRefused) {
  for (const char* text : {"", "# only a comment\n", "vcpus {}"}) {
    EXPECT_NE(WhyNot("e.textproto", text).find("is empty"), std::string::npos) << text;
  }
  EXPECT_NE(WhyNot("e.json", "{}").find("is empty"), std::string::npos);
  EXPECT_NE(WhyNot("e.json", ""), "");
}

TEST_F(ProgramFile, AFileThatIsNoTextIsRefused) {
  EXPECT_NE(WhyNot("b.textproto", std::string("\x7f"
                                              "ELF\x02\x01\x00\x00",
                                              8)),
            "");
  EXPECT_NE(WhyNot("huge.textproto", std::string(5 << 20, ' ')).find("is 5MiB"), std::string::npos);
}

TEST(InputFile, MissingFilesAndFoldersAreRefusedByName) {
  for (const std::string& path : {std::string("no/such/file"), testing::TempDir()}) {
    try {
      InputFile("image", path);
      FAIL() << path;
    } catch (const Failure& failure) {
      EXPECT_EQ(failure.exit_code, kUsage);
      EXPECT_EQ(failure.message.rfind("cannot read image " + path + ": ", 0), 0u)
          << failure.message;
    }
  }
}

}  // namespace
}  // namespace twinroot::cli
