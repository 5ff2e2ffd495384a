#include "daemon/vcpu/kvm/kernel_loader.h"

#include <gtest/gtest.h>

#include <cstring>
#include <string>

#include "daemon/memory/hpa_space.h"
#include "tests/daemon/vcpu/kvm/test_kernels.h"

namespace twinroot::kvm {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;
constexpr uint64_t kGiB = uint64_t{1} << 30;

class KernelLoader : public testing::Test {
 protected:
  void Load(const std::string& kernel, uint64_t memory) {
    kernel_ = kernel;
    auto image = ParseGuestImage(kernel_);
    ASSERT_TRUE(image.ok()) << image.status();
    plan_.image = *std::move(image);
    plan_.initrd = initrd_;
    plan_.cmdline = "console=ttyS0";
    plan_.vcpus = 2;
    auto ram = memory::GuestRam::Create(memory, &space_);
    ASSERT_TRUE(ram.ok());
    ram_ = *std::move(ram);
    ASSERT_TRUE(CheckKernel(plan_, memory).ok()) << CheckKernel(plan_, memory);
    LoadKernel(plan_, *ram_);
    SetKernelEntry(plan_.image, sregs_, regs_);
  }
  template <typename T>
  T Read(uint64_t gpa) {
    T value;
    std::memcpy(&value, ram_->slots()[0].private_pages.data() + gpa, sizeof value);
    return value;
  }
  std::string Text(uint64_t gpa, size_t size) {
    return std::string(reinterpret_cast<const char*>(ram_->slots()[0].private_pages.data() + gpa),
                       size);
  }

  memory::HpaSpace space_;
  std::string kernel_;
  const std::string initrd_ = "the initrd";
  BootPlan plan_;
  std::unique_ptr<memory::GuestRam> ram_;
  kvm_sregs sregs_ = {};
  kvm_regs regs_ = {};
};

TEST_F(KernelLoader, ABzImageFindsItsBootParameters) {
  Load(BzKernel("code"), 64 * kMiB);
  EXPECT_EQ(plan_.image.protocol, GuestImage::Protocol::kLinux64);
  EXPECT_EQ(regs_.rip, kKernelBase + 0x200);
  EXPECT_EQ(Text(regs_.rip, 4), "code");
  const uint64_t params = regs_.rsi;
  EXPECT_EQ(Text(params + 0x202, 4), "HdrS");
  EXPECT_EQ(Read<uint8_t>(params + 0x210), 0xff);
  EXPECT_EQ(Text(Read<uint32_t>(params + 0x228), 14), std::string("console=ttyS0\0", 14));
  EXPECT_EQ(Read<uint32_t>(params + 0x21c), initrd_.size());
  EXPECT_EQ(Text(Read<uint32_t>(params + 0x218), initrd_.size()), initrd_);
  EXPECT_EQ(Text(Read<uint64_t>(params + 0x70), 8), "RSD PTR ");
  // The memory map: all but the screen's hole, and the tables are reserved.
  EXPECT_EQ(Read<uint8_t>(params + 0x1e8), 3);
  EXPECT_EQ(Read<uint64_t>(params + 0x2d0 + 20), 0xe0000u);
  EXPECT_EQ(Read<uint32_t>(params + 0x2d0 + 20 + 16), 2u);
  EXPECT_EQ(Read<uint64_t>(params + 0x2d0 + 40), kMiB);
  EXPECT_EQ(Read<uint64_t>(params + 0x2d0 + 48), 63 * kMiB);
  // 64-bit mode; virtual = guest physical.
  EXPECT_TRUE(sregs_.cs.l);
  EXPECT_EQ(sregs_.efer, 0x500u);
  const uint64_t pdpt = Read<uint64_t>(sregs_.cr3) & ~uint64_t{0xfff};
  const uint64_t directory = Read<uint64_t>(pdpt + 3 * 8) & ~uint64_t{0xfff};
  EXPECT_EQ(Read<uint64_t>(directory + 511 * 8), (4 * kGiB - 2 * kMiB) | 0x83);
}

TEST_F(KernelLoader, APvhKernelFindsItsStartInformation) {
  Load(PvhKernel("code"), 5 * kGiB);
  EXPECT_EQ(plan_.image.protocol, GuestImage::Protocol::kPvh);
  EXPECT_EQ(regs_.rip, kKernelBase);
  EXPECT_EQ(sregs_.cr0, 0x11u);  // protected, not paged
  EXPECT_TRUE(sregs_.cs.db);
  const uint64_t start = regs_.rbx;
  EXPECT_EQ(Read<uint32_t>(start), 0x336ec578u);
  EXPECT_EQ(Read<uint32_t>(start + 12), 1u);
  const uint64_t module = Read<uint64_t>(start + 16);
  EXPECT_EQ(Text(Read<uint64_t>(module), Read<uint64_t>(module + 8)), initrd_);
  EXPECT_EQ(Text(Read<uint64_t>(start + 24), 13), "console=ttyS0");
  EXPECT_EQ(Text(Read<uint64_t>(start + 32), 8), "RSD PTR ");
  const uint64_t map = Read<uint64_t>(start + 40);
  ASSERT_EQ(Read<uint32_t>(start + 48), 4u);
  EXPECT_EQ(Read<uint64_t>(map + 3 * 24), 4 * kGiB);
  EXPECT_EQ(Read<uint64_t>(map + 3 * 24 + 8), 2 * kGiB);
}

TEST_F(KernelLoader, TheInitrdLiesWhereTheKernelTakesIt) {
  std::string kernel = BzKernel("code");
  PutAt(kernel, 0x22c, uint32_t{0x2ffffff});  // its highest byte
  Load(kernel, 256 * kMiB);
  EXPECT_EQ(Read<uint32_t>(regs_.rsi + 0x218), 0x2fff000u);
}

TEST_F(KernelLoader, WhatDoesNotFitIsRefused) {
  const auto refusal = [this](uint64_t memory) {
    return std::string(CheckKernel(plan_, memory).message());
  };
  Load(BzKernel("code"), 64 * kMiB);
  EXPECT_NE(refusal(16 * kMiB).find("needs memory up to 0x1200000"), std::string::npos);
  EXPECT_TRUE(CheckKernel(plan_, 20 * kMiB).ok());
  const std::string large(3 * kMiB, 'x');
  plan_.initrd = large;
  EXPECT_NE(refusal(20 * kMiB).find("initrd: 3145728 bytes do not fit"), std::string::npos);
  const std::string cmdline(101, 'x');
  plan_.cmdline = cmdline;
  EXPECT_NE(refusal(64 * kMiB).find("takes at most 100"), std::string::npos);
}

}  // namespace
}  // namespace twinroot::kvm
