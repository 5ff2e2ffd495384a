#include "cli/render/map_picture.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <sstream>

namespace twinroot::cli {
namespace {

constexpr uint64_t k2M = 2 << 20;
constexpr auto kPrivate = v1::MEMORY_KIND_PRIVATE;
constexpr auto kShared = v1::MEMORY_KIND_SHARED;

// 8 MiB: 2 MiB large, then 64 KiB of small pages that were written, 64 KiB shared and written, the
// rest shared and not mapped.
MapPicture Picture() {
  MapPicture picture;
  picture.vm = "demo";
  picture.tables_known = true;
  picture.writes_known = true;
  picture.runs = {{0, k2M, kPrivate, Pages::kLarge, false},
                  {k2M, 64 << 10, kPrivate, Pages::kSmall, true},
                  {k2M + (64 << 10), 64 << 10, kShared, Pages::kSmall, true},
                  {k2M + (128 << 10), 3 * k2M - (128 << 10), kShared, Pages::kNotMapped, false}};
  return picture;
}

TEST(MapPicture, EachCharacterIsAPieceOfMemory) {
  const std::string text = RenderMap(Picture(), 80, Colors::kOff);
  EXPECT_EQ(text.substr(0, text.find('\n')), "vm demo, a character is 8KiB");
  EXPECT_NE(text.find("\n     0x0  " + std::string(64, 'P') + "\n"), std::string::npos) << text;
  EXPECT_NE(text.find("\n0x200000  ********++++++++" + std::string(48, '-') + "\n"),
            std::string::npos)
      << text;
  EXPECT_NE(text.find("private 2.1MiB    P 2MiB        p 64KiB       . 0B          * 64KiB\n"),
            std::string::npos)
      << text;
  EXPECT_NE(text.find("shared  5.9MiB    S 0B          s 64KiB       - 5.9MiB      + 64KiB\n"),
            std::string::npos)
      << text;
}

TEST(MapPicture, APieceOfBothKindsIsShownAsSuch) {
  MapPicture picture = Picture();
  picture.cell = k2M;
  const std::string text = RenderMap(picture, 80, Colors::kOff);
  EXPECT_NE(text.find("\n     0x0  P#--\n"), std::string::npos) << text;
  EXPECT_NE(text.find("both in one character: x, written in part: #"), std::string::npos) << text;
}

TEST(MapPicture, NoLineIsLongerThanTheTerminal) {
  for (size_t width = 40; width <= 250; width += 7) {
    std::istringstream lines(RenderMap(Picture(), width, Colors::kOff));
    size_t row = 0;
    for (std::string line; std::getline(lines, line); ++row) {
      const bool row_of_map = line.rfind("     0x", 0) == 0 || line.rfind("0x", 0) == 0;
      EXPECT_TRUE(!row_of_map || line.size() <= width) << line;
    }
    EXPECT_LE(row, 16u + 8);
  }
}

TEST(MapPicture, AHoleInMemoryTakesOneLine) {
  MapPicture picture;
  picture.vm = "big";
  const uint64_t gib = 1 << 30;
  picture.runs = {{0, 3 * gib, kPrivate, Pages::kNotKnown, false},
                  {4 * gib, 28 * gib, kPrivate, Pages::kNotKnown, false}};
  picture.cell = 1 << 20;
  picture.notes = {"pages are not shown: that takes the role admin"};
  const std::string text = RenderMap(picture, 80, Colors::kOff);
  const size_t hole = text.find("no memory\n");
  ASSERT_NE(hole, std::string::npos);
  EXPECT_EQ(text.find("no memory\n", hole + 1), std::string::npos);
  EXPECT_NE(text.find("\npages are not shown: that takes the role admin\n"), std::string::npos);
}

TEST(MapPicture, ALongOneLeavesEqualLinesOut) {
  MapPicture picture = Picture();
  picture.cell = 4096;
  const std::string text = RenderMap(picture, 80, Colors::kOff);
  EXPECT_NE(text.find("\n     0x0  " + std::string(64, 'P') + "\n          ...\n0x200000  "),
            std::string::npos)
      << text;
}

TEST(MapPicture, ColoursAreOnlyAddedAndEndWithTheirLine) {
  const std::string plain = RenderMap(Picture(), 80, Colors::kOff);
  std::string colored = RenderMap(Picture(), 80, Colors::kOn);
  EXPECT_NE(colored.find("\033[1;34mPPPP"), std::string::npos);
  EXPECT_EQ(plain.find('\033'), std::string::npos);
  std::string stripped;
  for (size_t i = 0; i < colored.size(); ++i) {
    if (colored[i] == '\033') {
      i = colored.find('m', i);
    } else {
      stripped += colored[i];
    }
  }
  EXPECT_EQ(stripped, plain);
}

TEST(MapSvg, HasARectangleForEachRunAndAKey) {
  const std::string svg = RenderMapSvg(Picture());
  EXPECT_EQ(svg.rfind("<svg xmlns=\"http://www.w3.org/2000/svg\"", 0), 0u);
  EXPECT_EQ(svg.substr(svg.size() - 7), "</svg>\n");
  EXPECT_NE(svg.find("<title>0x200000 +64KiB: private, 4KiB pages, written</title>"),
            std::string::npos)
      << svg;
  EXPECT_NE(svg.find(">shared, not mapped: 5.9MiB<"), std::string::npos) << svg;
  EXPECT_NE(svg.find(">written: 128KiB<"), std::string::npos) << svg;
}

TEST(MapSvg, ANameCannotWriteMarkup) {
  MapPicture picture = Picture();
  picture.vm = "<script>&\"";
  EXPECT_NE(RenderMapSvg(picture).find("&lt;script&gt;&amp;&quot;"), std::string::npos);
}

}  // namespace
}  // namespace twinroot::cli
