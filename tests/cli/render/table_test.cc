#include "cli/render/table.h"

#include <gtest/gtest.h>

namespace twinroot::cli {
namespace {

TEST(Table, ColumnsAlignUnderOneHeader) {
  Table table({{"NAME"}, {"SIZE", Align::kRight}, {"KIND"}});
  table.AddRow({"a", "64MiB", "PRIVATE"});
  table.AddRow({"longer-name", "4KiB", ""});
  EXPECT_EQ(table.Render(Header::kPrint),
            "NAME          SIZE  KIND\n"
            "a            64MiB  PRIVATE\n"
            "longer-name   4KiB  -\n");
  EXPECT_EQ(table.Render(Header::kOmit),
            "a            64MiB  PRIVATE\n"
            "longer-name   4KiB  -\n");
}

TEST(Table, AnEmptyTableHasItsHeaderOnly) {
  EXPECT_EQ(Table({{"NAME"}, {"STATE"}}).Render(Header::kPrint), "NAME  STATE\n");
  EXPECT_EQ(Table({{"NAME"}, {"STATE"}}).Render(Header::kOmit), "");
}

TEST(Table, CellsCannotCommandTheTerminal) {
  Table table({{"NAME"}});
  table.AddRow({"a\033[2J\nb"});
  EXPECT_EQ(table.Render(Header::kOmit), "a^[[2J b\n");
}

TEST(Table, WidthCountsCharactersNotBytes) {
  Table table({{"A"}, {"B"}});
  table.AddRow({"\xc3\xa4", "x"});
  table.AddRow({"ae", "y"});
  EXPECT_EQ(table.Render(Header::kOmit), "\xc3\xa4   x\nae  y\n");
}

TEST(Sheet, ValuesBeginInOneColumnAndEmptyOnesAreLeftOut) {
  Sheet sheet;
  sheet.Add("Name", "demo");
  sheet.Add("Stop reason", "");
  sheet.Add("vCPUs", "2");
  EXPECT_EQ(sheet.Render(), "Name:   demo\nvCPUs:  2\n");
}

}  // namespace
}  // namespace twinroot::cli
