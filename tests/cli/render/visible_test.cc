#include "cli/render/visible.h"

#include <gtest/gtest.h>

namespace twinroot::cli {
namespace {

std::string Whole(const std::string& bytes) {
  VisibleText visible;
  std::string out = visible.Add(bytes);
  return out + visible.Finish();
}

TEST(Visible, TextNewlinesTabsAndUtf8Pass) {
  const std::string text = "plain\ttext \xc3\xa4 \xe2\x82\xac \xf0\x9f\x98\x80\n";
  EXPECT_EQ(Whole(text), text);
}

TEST(Visible, ControlCharactersAreShown) {
  EXPECT_EQ(Whole("a\033[31mb\r\x07\x7f"), "a^[[31mb^M^G^?");
  EXPECT_EQ(Whole(std::string("\0", 1)), "^@");
}

TEST(Visible, C1ControlsAreShownInBothEncodings) {
  EXPECT_EQ(Whole("\x9b"
                  "31m"),
            "\\x9b31m");
  EXPECT_EQ(Whole("\xc2\x9b"
                  "31m"),
            "\\xc2\\x9b31m");
  EXPECT_EQ(Whole("\xc2\xa0"), "\xc2\xa0");
}

TEST(Visible, MalformedUtf8IsShownByteByByte) {
  EXPECT_EQ(Whole("\xc0\xaf"), "\\xc0\\xaf");           // overlong
  EXPECT_EQ(Whole("\xe0\x80\x80"), "\\xe0\\x80\\x80");  // overlong
  EXPECT_EQ(Whole("\xed\xa0\x80"), "\\xed\\xa0\\x80");  // surrogate
  EXPECT_EQ(Whole("\xf5"), "\\xf5");
  EXPECT_EQ(Whole("\xe2\x82"), "\\xe2\\x82");  // never completed
  EXPECT_EQ(Whole("\xe2\x82x"), "\\xe2\\x82x");
}

TEST(Visible, CharactersMayBeCutAnywhere) {
  const std::string text = "a\xf0\x9f\x98\x80z\xe2\x82\xac\033!";
  VisibleText visible;
  std::string out;
  for (const char c : text) out += visible.Add(std::string(1, c));
  EXPECT_EQ(out, "a\xf0\x9f\x98\x80z\xe2\x82\xac^[!");
  EXPECT_EQ(visible.Finish(), "");
}

TEST(Visible, ALineHasNoNewline) { EXPECT_EQ(VisibleLine("a\nb\tc\033"), "a b c^["); }

}  // namespace
}  // namespace twinroot::cli
