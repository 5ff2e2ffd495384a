#include "daemon/vcpu/kvm/boot_loader.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <optional>
#include <string>

#include "daemon/vcpu/kvm/boot_info.h"

namespace twinroot::kvm {
namespace {

constexpr uint64_t kGiB = uint64_t{1} << 30;
constexpr uint64_t kEntryAddress = 0x000ffffffffff000;

struct Leaf {
  uint64_t gpa;
  bool write, user, no_execute;
};

// An independent walk of 4-level paging with 2 MiB leaves.
std::optional<Leaf> Walk(memory::GuestRam& ram, uint64_t cr3, uint64_t address) {
  uint64_t table = cr3;
  bool write = true, user = true, no_execute = false;
  for (const int shift : {39, 30, 21}) {
    uint64_t entry;
    std::memcpy(&entry, ram.slots()[0].private_pages.data() + table + (address >> shift) % 512 * 8,
                sizeof entry);
    if ((entry & 1) == 0) return std::nullopt;
    write &= (entry >> 1) & 1;
    user &= (entry >> 2) & 1;
    no_execute |= entry >> 63;
    if (entry & 0x80) {
      EXPECT_EQ(shift, 21) << "pages are 2 MiB";
      return Leaf{(entry & kEntryAddress & ~uint64_t{0x1fffff}) | (address & 0x1fffff), write, user,
                  no_execute};
    }
    table = entry & kEntryAddress;
  }
  return std::nullopt;
}

class BootLoader : public testing::Test {
 protected:
  void Load(uint64_t memory) {
    absl::StatusOr<std::unique_ptr<memory::GuestRam>> ram =
        memory::GuestRam::Create(memory, &space_);
    ASSERT_TRUE(ram.ok());
    ram_ = *std::move(ram);
    absl::StatusOr<GuestImage> image = ParseGuestImage(image_bytes_);
    ASSERT_TRUE(image.ok());
    plan_.image = *std::move(image);
    plan_.vcpus = 2;
    plan_.shared_bit = 47;
    ASSERT_TRUE(LoadGuest(plan_, *ram_).ok());
    SetEntryState(plan_, ram_->low_bytes(), 1, sregs_, regs_);
  }
  template <typename T>
  T Read(uint64_t gpa) {
    T value;
    std::memcpy(&value, ram_->slots()[0].private_pages.data() + gpa, sizeof value);
    return value;
  }

  memory::HpaSpace space_;
  std::unique_ptr<memory::GuestRam> ram_;
  const std::string image_bytes_ = "some code";
  BootPlan plan_;
  kvm_sregs sregs_ = {};
  kvm_regs regs_ = {};
};

TEST_F(BootLoader, EveryByteOfRamIsMappedThroughBothAliasesAndNothingElse) {
  Load(6 * kGiB);  // 3 GiB low, 3 GiB from 4 GiB on
  const uint64_t shared = uint64_t{1} << kSharedVirtualBit;
  for (const uint64_t gpa :
       {uint64_t{0}, uint64_t{0x100123}, 3 * kGiB - 1, 4 * kGiB, 7 * kGiB - 1}) {
    const std::optional<Leaf> own = Walk(*ram_, sregs_.cr3, gpa);
    ASSERT_TRUE(own.has_value()) << gpa;
    EXPECT_EQ(own->gpa, gpa);
    EXPECT_TRUE(own->write && own->user && !own->no_execute);
    const std::optional<Leaf> alias = Walk(*ram_, sregs_.cr3, gpa | shared);
    ASSERT_TRUE(alias.has_value()) << gpa;
    EXPECT_EQ(alias->gpa, gpa | uint64_t{1} << 47);
    EXPECT_TRUE(alias->write && alias->user && alias->no_execute);
  }
  for (const uint64_t hole : {3 * kGiB, 4 * kGiB - 1, 7 * kGiB, 512 * kGiB, shared + 3 * kGiB}) {
    EXPECT_FALSE(Walk(*ram_, sregs_.cr3, hole).has_value()) << hole;
  }
}

TEST_F(BootLoader, TheLargestMemoryFitsTheLoadersPages) {
  Load(64 * kGiB);
  EXPECT_EQ(Walk(*ram_, sregs_.cr3, 65 * kGiB - 1)->gpa, 65 * kGiB - 1);
  EXPECT_FALSE(Walk(*ram_, sregs_.cr3, 65 * kGiB).has_value());
  EXPECT_EQ(std::memcmp(ram_->slots()[0].private_pages.data() + kImageBase, "some code", 9), 0);
}

TEST_F(BootLoader, AHostWithoutMemoryIsToldOfAndEndsNothing) {
  Load(4 << 20);
  ram_ = *memory::GuestRam::Create(4 << 20, &space_);
  const int full = open("/dev/full", O_RDWR);  // allocates nothing
  ASSERT_EQ(dup2(full, ram_->slots()[0].private_pages.fd()), ram_->slots()[0].private_pages.fd());
  close(full);
  EXPECT_EQ(LoadGuest(plan_, *ram_).code(), absl::StatusCode::kResourceExhausted);
}

TEST_F(BootLoader, BootInformationSaysWhatTheGuestInterfacePromises) {
  plan_.cmdline = "rounds=3";
  plan_.program = "blob";
  Load(4 << 20);
  EXPECT_EQ(regs_.rsi, 1u);
  const auto info = Read<BootInfo>(regs_.rdi);
  EXPECT_EQ(info.magic, 0x544F4F524E495754u);
  EXPECT_EQ(info.version, 1u);
  EXPECT_EQ(info.vcpus, 2u);
  EXPECT_EQ(info.memory_bytes, uint64_t{4} << 20);
  EXPECT_EQ(info.shared_bit, 47u);
  EXPECT_EQ(info.zero, 0u);
  EXPECT_STREQ(
      reinterpret_cast<const char*>(ram_->slots()[0].private_pages.data()) + info.cmdline_gpa,
      "rounds=3");
  EXPECT_EQ(info.program_gpa, 0x101000u);
  EXPECT_EQ(info.program_bytes, 4u);
}

TEST_F(BootLoader, WithoutCommandLineAndProgramTheirAddressesAreZero) {
  Load(4 << 20);
  const auto info = Read<BootInfo>(regs_.rdi);
  EXPECT_EQ(info.cmdline_gpa, 0u);
  EXPECT_EQ(info.program_gpa, 0u);
}

TEST_F(BootLoader, StacksLieBelowTheTopOfLowRamSixtyFourKiBApart) {
  Load(4 << 20);
  EXPECT_EQ(regs_.rsp, (uint64_t{4} << 20) - 16 - 65536);
  EXPECT_EQ(regs_.rsp % 16, 0u);
  EXPECT_EQ(regs_.rip, kImageBase);
}

TEST_F(BootLoader, EveryPortIsOpenInTheIoBitmap) {
  Load(4 << 20);
  EXPECT_EQ(sregs_.tr.limit, 0x2068u);
  EXPECT_EQ(Read<uint16_t>(sregs_.tr.base + 0x66), 0x68);
  for (uint32_t byte = 0; byte < 8192; ++byte) {
    ASSERT_EQ(Read<uint8_t>(sregs_.tr.base + 0x68 + byte), 0) << byte;
  }
  EXPECT_EQ(Read<uint8_t>(sregs_.tr.base + 0x68 + 8192), 0xff);
  EXPECT_EQ(regs_.rflags >> 12 & 3, 3u) << "IOPL";
}

TEST_F(BootLoader, TheChosenPrivilegeLevelIsThatOfCodeAndStack) {
  Load(4 << 20);
  EXPECT_EQ(sregs_.cs.dpl, 3);
  EXPECT_EQ(sregs_.ss.dpl, 3);
  plan_.cpl = 0;
  SetEntryState(plan_, ram_->low_bytes(), 0, sregs_, regs_);
  EXPECT_EQ(sregs_.cs.dpl, 0);
  EXPECT_EQ(sregs_.ss.dpl, 0);
  EXPECT_EQ(sregs_.cs.l, 1);
}

TEST_F(BootLoader, AProgramThatWouldReachIntoTheStacksIsRefused) {
  Load(2 << 20);
  const std::string blob(1 << 20, 'p');
  plan_.program = blob;
  EXPECT_EQ(PlaceProgram(plan_, 2 << 20).status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace twinroot::kvm
