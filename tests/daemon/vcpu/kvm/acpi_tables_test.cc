#include "daemon/vcpu/kvm/acpi_tables.h"

#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <string>

namespace twinroot::kvm {
namespace {

constexpr uint64_t kGpa = 0xe0000;

template <typename T>
T At(const std::string& bytes, size_t offset) {
  T value;
  std::memcpy(&value, bytes.data() + offset, sizeof value);
  return value;
}

uint8_t Sum(const std::string& bytes) {
  uint8_t sum = 0;
  for (const char c : bytes) sum += static_cast<uint8_t>(c);
  return sum;
}

// The tables as a kernel finds them, by signature; all checksums hold.
std::map<std::string, std::string> Find(uint32_t vcpus) {
  const std::string blob = MakeAcpiTables(kGpa, vcpus);
  EXPECT_EQ(blob.substr(0, 8), "RSD PTR ");
  EXPECT_EQ(Sum(blob.substr(0, 20)), 0);
  EXPECT_EQ(Sum(blob.substr(0, 36)), 0);
  std::map<std::string, std::string> tables;
  const auto add = [&](uint64_t gpa) {
    const std::string table = blob.substr(gpa - kGpa, At<uint32_t>(blob, gpa - kGpa + 4));
    tables[table.substr(0, 4)] = table;
    return table;
  };
  const std::string xsdt = add(At<uint64_t>(blob, 24));
  for (size_t i = 36; i < xsdt.size(); i += 8) add(At<uint64_t>(xsdt, i));
  add(At<uint64_t>(tables["FACP"], 140));
  EXPECT_EQ(At<uint64_t>(tables["FACP"], 140), At<uint32_t>(tables["FACP"], 40));
  for (const auto& [name, table] : tables) EXPECT_EQ(Sum(table), 0) << name;
  EXPECT_EQ(blob.substr(At<uint32_t>(tables["FACP"], 36) - kGpa, 4), "FACS");
  EXPECT_EQ(At<uint32_t>(tables["FACP"], 36) % 64, 0u);
  return tables;
}

TEST(AcpiTables, EveryProcessorIsThere) {
  for (const uint32_t vcpus : {1u, 3u, 64u}) {
    const std::string madt = Find(vcpus)["APIC"];
    uint32_t processors = 0, io_apics = 0;
    for (size_t at = 44; at < madt.size(); at += At<uint8_t>(madt, at + 1)) {
      ASSERT_NE(At<uint8_t>(madt, at + 1), 0);
      io_apics += At<uint8_t>(madt, at) == 1;
      if (At<uint8_t>(madt, at) != 0) continue;
      EXPECT_EQ(At<uint8_t>(madt, at + 3), processors);
      EXPECT_EQ(At<uint32_t>(madt, at + 4), 1u);
      ++processors;
    }
    EXPECT_EQ(processors, vcpus);
    EXPECT_EQ(io_apics, 1u);
  }
}

TEST(AcpiTables, TheyTellHowToPowerOffAndReset) {
  std::map<std::string, std::string> tables = Find(1);
  const std::string& fadt = tables["FACP"];
  EXPECT_EQ(fadt.size(), 276u);
  EXPECT_EQ(At<uint32_t>(fadt, 64), kPortPm1Control);
  EXPECT_EQ(At<uint64_t>(fadt, 176), kPortPm1Control);
  EXPECT_EQ(At<uint64_t>(fadt, 120), kPortReset);
  EXPECT_EQ(At<uint8_t>(fadt, 128), kResetValue);
  EXPECT_TRUE(At<uint32_t>(fadt, 112) & 1 << 10);
  const std::string body = tables["DSDT"].substr(36);
  EXPECT_EQ(body.substr(0, 6), "\x08_S5_\x12");
  EXPECT_EQ(static_cast<size_t>(body[6]), body.size() - 6);  // the package ends with the table
  EXPECT_EQ(body[9], kSleepTypeOff);
}

}  // namespace
}  // namespace twinroot::kvm
