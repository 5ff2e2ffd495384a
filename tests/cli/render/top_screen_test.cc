#include "cli/render/top_screen.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <sstream>

namespace twinroot::cli {
namespace {

TopVm Vm(const std::string& name, double conversions, double faults) {
  TopVm vm;
  vm.name = name;
  vm.state = "RUNNING";
  vm.backend = "KVM";
  vm.policy = "AUTO";
  vm.memory_bytes = 64 << 20;
  vm.counted = true;
  vm.rates.conversions = conversions;
  vm.rates.faults = faults;
  return vm;
}

std::vector<std::string> Lines(const std::string& text) {
  std::istringstream stream(text);
  std::vector<std::string> lines;
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

TopPicture Picture() {
  return {"14:03:07",
          {Vm("idle", 0, 0), Vm("busy", 1234, 5), Vm("web", 7, 90)},
          TopOrder::kConversions};
}

TEST(TopScreen, ShowsTheBusiestFirstUnderAHeadline) {
  const auto lines = Lines(RenderTop(Picture(), {80, 24}, Header::kPrint, Colors::kOff));
  ASSERT_EQ(lines.size(), 5u);
  EXPECT_EQ(lines[0], "14:03:07  3 VMs, 3 running; 1241 conversions/s, 95 faults/s, 0 waiting");
  EXPECT_EQ(lines[1],
            "NAME      CONV/S  FAULTS/S  STATE    SPLITS/S    DIRTY/S     SHARED     MEMORY");
  EXPECT_EQ(lines[2],
            "busy        1234         5  RUNNING         0         0B         0B      64MiB");
  EXPECT_EQ(lines[4].substr(0, 4), "idle");
}

TEST(TopScreen, IsOrderedAsAsked) {
  TopPicture picture = Picture();
  picture.order = TopOrder::kFaults;
  EXPECT_EQ(Lines(RenderTop(picture, {80, 24}, Header::kOmit, Colors::kOff))[0].substr(0, 3),
            "web");
  picture.order = TopOrder::kName;
  EXPECT_EQ(Lines(RenderTop(picture, {80, 24}, Header::kOmit, Colors::kOff))[0].substr(0, 4),
            "busy");
}

TEST(TopScreen, FitsEverySize) {
  TopPicture picture = Picture();
  picture.vms.push_back(Vm(std::string(63, 'n'), 1e9, 1e7));
  for (size_t columns = 1; columns <= 250; ++columns) {
    for (const size_t rows : {1, 2, 3, 24}) {
      const auto lines = Lines(RenderTop(picture, {columns, rows}, Header::kPrint, Colors::kOff));
      EXPECT_LE(lines.size(), rows);
      for (const std::string& line : lines) EXPECT_LE(line.size(), columns) << line;
    }
  }
}

TEST(TopScreen, SaysHowManyVmsFoundNoRoom) {
  EXPECT_EQ(Lines(RenderTop(Picture(), {80, 4}, Header::kPrint, Colors::kOff)).back(),
            "... 2 more");
  EXPECT_EQ(Lines(RenderTop(Picture(), {80, 0}, Header::kPrint, Colors::kOff)).size(), 5u);
}

TEST(TopScreen, AWideOneHasMoreColumnsAndWholeNames) {
  TopPicture picture = Picture();
  picture.vms[0].name = "a-vm-with-a-rather-long-name";
  const std::string wide = RenderTop(picture, {200, 24}, Header::kPrint, Colors::kOff);
  EXPECT_NE(wide.find("POLICY"), std::string::npos);
  EXPECT_NE(wide.find("a-vm-with-a-rather-long-name"), std::string::npos);
  const std::string narrow = RenderTop(picture, {80, 24}, Header::kPrint, Colors::kOff);
  EXPECT_NE(narrow.find("a-vm-with-a-rather-l+"), std::string::npos) << narrow;
}

TEST(TopScreen, ColoursOnlyWhereTheyAreWanted) {
  TopPicture picture = Picture();
  picture.vms[0].state = "STOPPED";
  EXPECT_EQ(RenderTop(picture, {80, 24}, Header::kPrint, Colors::kOff).find('\033'),
            std::string::npos);
  const std::string colored = RenderTop(picture, {80, 24}, Header::kPrint, Colors::kOn);
  EXPECT_NE(colored.find("\033[1mCONV/S\033[0m"), std::string::npos);
  EXPECT_NE(colored.find("\033[2midle"), std::string::npos);
}

TEST(TopScreen, AVmWithoutSeriesHasDashes) {
  TopPicture picture = Picture();
  picture.vms = {Vm("other", 0, 0)};
  picture.vms[0].counted = false;
  EXPECT_EQ(Lines(RenderTop(picture, {30, 24}, Header::kOmit, Colors::kOff))[0],
            "other          -         -");
}

TEST(Rates, HaveAtMostFiveCharacters) {
  EXPECT_EQ(FormatRate(0), "0");
  EXPECT_EQ(FormatRate(0.04), "0");
  EXPECT_EQ(FormatRate(0.34), "0.3");
  EXPECT_EQ(FormatRate(3), "3");
  EXPECT_EQ(FormatRate(9999.4), "9999");
  EXPECT_EQ(FormatRate(12'345), "12k");
  EXPECT_EQ(FormatRate(2.5e9), "2500M");
}

}  // namespace
}  // namespace twinroot::cli
