#include "daemon/memory/physical_map.h"

#include <array>

#include "gtest/gtest.h"

namespace twinroot::memory {
namespace {

using mmu::Hpa;

TEST(PhysicalMap, FindsWhatLiesWhollyInAnArea) {
  std::array<std::byte, 64> a, b;
  PhysicalMap map;
  ASSERT_TRUE(map.Add(Hpa(0x1000), a.data(), a.size()));
  ASSERT_TRUE(map.Add(Hpa(0x2000), b.data(), b.size()));
  EXPECT_EQ(map.At(Hpa(0x1000), 8), a.data());
  EXPECT_EQ(map.At(Hpa(0x2038), 8), b.data() + 0x38);
  EXPECT_EQ(map.At(Hpa(0x2039), 8), nullptr);
  EXPECT_EQ(map.At(Hpa(0xfff), 1), nullptr);
  EXPECT_EQ(map.At(Hpa(0x1040), 1), nullptr);
}

TEST(PhysicalMap, PlacesOfRemovedAreasAreUsedAgain) {
  std::array<std::byte, 64> bytes;
  PhysicalMap map;
  for (uint64_t i = 0; i < PhysicalMap::kMaxAreas; ++i) {
    ASSERT_TRUE(map.Add(Hpa((i + 1) << 12), bytes.data(), bytes.size()));
  }
  EXPECT_FALSE(map.Add(Hpa(0x1000000), bytes.data(), bytes.size()));
  map.Remove(Hpa(5 << 12));
  EXPECT_EQ(map.At(Hpa(5 << 12), 1), nullptr);
  EXPECT_EQ(map.At(Hpa(6 << 12), 1), bytes.data());
  EXPECT_TRUE(map.Add(Hpa(0x1000000), bytes.data(), bytes.size()));
  EXPECT_EQ(map.At(Hpa(0x1000000), 1), bytes.data());
}

}  // namespace
}  // namespace twinroot::memory
