#include "cli/quantity.h"

#include <gtest/gtest.h>

namespace twinroot::cli {
namespace {

std::string WhyNot(const std::string& text) {
  const auto size = ParseSize(text);
  return size.ok() ? "" : std::string(size.status().message());
}

TEST(Quantity, SizesAreReadAsPeopleWriteThem) {
  EXPECT_EQ(*ParseSize("0"), 0u);
  EXPECT_EQ(*ParseSize("4096"), 4096u);
  EXPECT_EQ(*ParseSize("0x1000"), 4096u);
  EXPECT_EQ(*ParseSize("0X1f"), 31u);
  EXPECT_EQ(*ParseSize("4k"), 4096u);
  EXPECT_EQ(*ParseSize("64MiB"), uint64_t{64} << 20);
  EXPECT_EQ(*ParseSize("64mib"), uint64_t{64} << 20);
  EXPECT_EQ(*ParseSize("64M"), uint64_t{64} << 20);
  EXPECT_EQ(*ParseSize("1G"), uint64_t{1} << 30);
  EXPECT_EQ(*ParseSize("2GiB"), uint64_t{2} << 30);
  EXPECT_EQ(*ParseSize("1T"), uint64_t{1} << 40);
  EXPECT_EQ(*ParseSize("0x10K"), 16u << 10);
  EXPECT_EQ(*ParseSize("18446744073709551615"), UINT64_MAX);
}

TEST(Quantity, BadSizesSayWhatIsWrongAndHowToWriteIt) {
  EXPECT_EQ(WhyNot("64MB"),
            "'64MB' is not a size or address: units are binary, MB could mean either; write 4096, "
            "0x1000, 64MiB, 64M or 2G");
  EXPECT_NE(WhyNot("").find("it is empty"), std::string::npos);
  EXPECT_NE(WhyNot("-1").find("it is negative"), std::string::npos);
  EXPECT_NE(WhyNot("1.5G").find("fractions are not taken"), std::string::npos);
  EXPECT_NE(WhyNot("MiB").find("it has no digits"), std::string::npos);
  EXPECT_NE(WhyNot("0x").find("it has no digits"), std::string::npos);
  EXPECT_NE(WhyNot("18446744073709551616").find("does not fit 64 bits"), std::string::npos);
  EXPECT_NE(WhyNot("16777216T").find("does not fit 64 bits"), std::string::npos);
  for (const char* text : {"64P", "64 M", "64Mi", "64MiBs", "0x10000G7", "+4", " 4", "4096 "}) {
    EXPECT_NE(WhyNot(text), "") << text;
  }
}

TEST(Quantity, RangesAreAddressAndSize) {
  const auto ranges = ParseRanges("0x200000:64KiB,1G:2M");
  ASSERT_TRUE(ranges.ok());
  ASSERT_EQ(ranges->size(), 2u);
  EXPECT_EQ((*ranges)[0].gpa, 0x200000u);
  EXPECT_EQ((*ranges)[0].size, 65536u);
  EXPECT_EQ((*ranges)[1].gpa, uint64_t{1} << 30);
  EXPECT_EQ((*ranges)[1].size, uint64_t{2} << 20);
}

TEST(Quantity, BadRangesAreRefused) {
  for (const char* text : {"", "4096", "0x1000:", ":4k", "0:4k,", ",0:4k", "0:4k:4k", "0-4k"}) {
    EXPECT_FALSE(ParseRanges(text).ok()) << text;
  }
  EXPECT_NE(ParseRange("0xfffffffffffff000:8k").status().message().find("wraps around"),
            absl::string_view::npos);
  EXPECT_TRUE(ParseRange("0xfffffffffffff000:4k").ok());
}

TEST(Quantity, DurationsNeedAUnitAndAreMoreThanZero) {
  EXPECT_EQ(*ParseDuration("30s"), absl::Seconds(30));
  EXPECT_EQ(*ParseDuration("500ms"), absl::Milliseconds(500));
  EXPECT_EQ(*ParseDuration("2m"), absl::Minutes(2));
  EXPECT_EQ(*ParseDuration("1h"), absl::Hours(1));
  EXPECT_EQ(*ParseDuration("1h30m"), absl::Minutes(90));
  for (const char* text :
       {"", "30", "-1s", "inf", "s", "0s", "1 s", "1y", "99999999999999999999h"}) {
    EXPECT_FALSE(ParseDuration(text).ok()) << text;
  }
}

TEST(Quantity, SizesPrintExactlyInTheLargestUnit) {
  EXPECT_EQ(FormatSize(0), "0B");
  EXPECT_EQ(FormatSize(4096), "4KiB");
  EXPECT_EQ(FormatSize(uint64_t{64} << 20), "64MiB");
  EXPECT_EQ(FormatSize((uint64_t{1} << 30) + 4096), "1048580KiB");
  EXPECT_EQ(FormatSize(4097), "4097B");
  EXPECT_EQ(FormatSize(UINT64_MAX), "18446744073709551615B");
  EXPECT_EQ(FormatRoughSize(25'125'978'112), "23.4GiB");
  EXPECT_EQ(FormatRoughSize(uint64_t{64} << 30), "64GiB");
}

TEST(Quantity, EverySizeThatIsPrintedReadsBackTheSame) {
  for (uint64_t size = 1; size < (uint64_t{1} << 50); size = size * 3 + 1) {
    const std::string text = FormatSize(size);
    if (text.back() == 'B' && text[text.size() - 2] != 'i') continue;  // Plain bytes have a B.
    EXPECT_EQ(*ParseSize(text), size);
  }
}

TEST(Quantity, DurationsPrintInAUnitThatReadsWell) {
  EXPECT_EQ(ShortDuration(absl::Microseconds(63)), "63us");
  EXPECT_EQ(ShortDuration(absl::Nanoseconds(1'254'000)), "1.25ms");
  EXPECT_EQ(ShortDuration(absl::Seconds(30)), "30s");
  EXPECT_EQ(ShortDuration(absl::Seconds(86400)), "86400s");
  EXPECT_EQ(ShortDuration(absl::Nanoseconds(999)), "999ns");
  EXPECT_EQ(ShortDuration(absl::ZeroDuration()), "0ns");
}

}  // namespace
}  // namespace twinroot::cli
