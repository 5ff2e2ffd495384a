#include "daemon/vcpu/kvm/guest_image.h"

#include <elf.h>
#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "tests/daemon/vcpu/kvm/test_kernels.h"

namespace twinroot::kvm {
namespace {

// A small ELF: one header, `segments` of 16 bytes each.
struct Elf {
  Elf64_Ehdr header = {};
  std::vector<Elf64_Phdr> segments;

  Elf() {
    std::memcpy(header.e_ident, ELFMAG, SELFMAG);
    header.e_ident[EI_CLASS] = ELFCLASS64;
    header.e_ident[EI_DATA] = ELFDATA2LSB;
    header.e_type = ET_EXEC;
    header.e_machine = EM_X86_64;
    header.e_phoff = sizeof header;
    header.e_phentsize = sizeof(Elf64_Phdr);
    header.e_entry = 0x100004;
    Add(0x100000);
  }
  void Add(uint64_t gpa) {
    Elf64_Phdr segment = {};
    segment.p_type = PT_LOAD;
    segment.p_vaddr = segment.p_paddr = gpa;
    segment.p_filesz = 16;
    segment.p_memsz = 64;
    segments.push_back(segment);
  }
  std::string Bytes() {
    header.e_phnum = static_cast<Elf64_Half>(segments.size());
    uint64_t offset = sizeof header + segments.size() * sizeof(Elf64_Phdr);
    std::string data;
    for (size_t i = 0; i < segments.size(); ++i) {
      if (segments[i].p_offset == 0) segments[i].p_offset = offset;
      offset += 16;
      data += std::string(16, static_cast<char>('a' + i));
    }
    std::string bytes(reinterpret_cast<const char*>(&header), sizeof header);
    for (const Elf64_Phdr& segment : segments) {
      bytes.append(reinterpret_cast<const char*>(&segment), sizeof segment);
    }
    return bytes + data;
  }
};

TEST(GuestImage, AnElfIsLoadedAtItsPhysicalAddressesAndEnteredThere) {
  Elf elf;
  elf.segments[0].p_vaddr = 0x40000000;  // linked elsewhere than loaded
  elf.header.e_entry = 0x40000004;
  elf.Add(0x200000);
  const std::string bytes = elf.Bytes();
  const absl::StatusOr<GuestImage> image = ParseGuestImage(bytes);
  ASSERT_TRUE(image.ok()) << image.status();
  EXPECT_EQ(image->entry, 0x100004u);
  ASSERT_EQ(image->segments.size(), 2u);
  EXPECT_EQ(image->segments[0].data, std::string(16, 'a'));
  EXPECT_EQ(image->segments[1].gpa, 0x200000u);
  EXPECT_EQ(image->segments[1].memory_bytes, 64u);
  EXPECT_EQ(image->end, 0x200040u);
}

TEST(GuestImage, AnythingElseIsAFlatBinaryAtOneMiB) {
  const absl::StatusOr<GuestImage> image = ParseGuestImage("\xf4");
  ASSERT_TRUE(image.ok());
  EXPECT_EQ(image->entry, kImageBase);
  EXPECT_EQ(image->segments[0].gpa, kImageBase);
}

struct BadImage {
  const char* name;
  const char* message;  // part of it
  std::function<std::string()> bytes;
};

class BadImages : public testing::TestWithParam<BadImage> {};

TEST_P(BadImages, AreRefusedAndSaidWhy) {
  const absl::Status status = ParseGuestImage(GetParam().bytes()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(std::string(status.message()).find(GetParam().message), std::string::npos) << status;
}

std::string With(const std::function<void(Elf&)>& change) {
  Elf elf;
  change(elf);
  return elf.Bytes();
}

INSTANTIATE_TEST_SUITE_P(
    GuestImage, BadImages,
    testing::Values(
        BadImage{"Empty", "empty", [] { return std::string(); }},
        BadImage{"HeaderTruncated", "truncated", [] { return Elf().Bytes().substr(0, 40); }},
        BadImage{"MagicOnly", "truncated", [] { return std::string(ELFMAG, SELFMAG); }},
        BadImage{"ProgramHeadersTruncated", "truncated",
                 [] { return Elf().Bytes().substr(0, sizeof(Elf64_Ehdr) + 10); }},
        BadImage{"SegmentTruncated", "truncated",
                 [] {
                   const std::string bytes = Elf().Bytes();
                   return bytes.substr(0, bytes.size() - 1);
                 }},
        BadImage{"SegmentOffsetHuge", "truncated",
                 [] { return With([](Elf& e) { e.segments[0].p_offset = ~uint64_t{0} - 4; }); }},
        BadImage{"Of32Bits", "32-bit",
                 [] { return With([](Elf& e) { e.header.e_ident[EI_CLASS] = ELFCLASS32; }); }},
        BadImage{"OfAnotherMachine", "another machine",
                 [] { return With([](Elf& e) { e.header.e_machine = EM_AARCH64; }); }},
        BadImage{"PositionIndependent", "-no-pie",
                 [] { return With([](Elf& e) { e.header.e_type = ET_DYN; }); }},
        BadImage{"WithInterpreter", "-static",
                 [] {
                   return With([](Elf& e) {
                     e.Add(0x300000);
                     e.segments[1].p_type = PT_INTERP;
                   });
                 }},
        BadImage{"BelowOneMiB", "below 1 MiB",
                 [] { return With([](Elf& e) { e.segments[0].p_paddr = 0xff000; }); }},
        BadImage{"Overlapping", "overlap", [] { return With([](Elf& e) { e.Add(0x100020); }); }},
        BadImage{"Wrapping", "wraps",
                 [] { return With([](Elf& e) { e.segments[0].p_paddr = ~uint64_t{0} - 16; }); }},
        BadImage{"MoreBytesThanMemory", "more bytes",
                 [] { return With([](Elf& e) { e.segments[0].p_memsz = 8; }); }},
        BadImage{"EntryNowhere", "entry point",
                 [] { return With([](Elf& e) { e.header.e_entry = 0x900000; }); }},
        BadImage{"NothingToLoad", "no segment",
                 [] { return With([](Elf& e) { e.segments[0].p_type = PT_NOTE; }); }}),
    [](const auto& info) { return info.param.name; });

TEST(GuestImage, EveryTruncationIsRefusedOrLoadsOnlyWhatIsThere) {
  const std::string whole = With([](Elf& e) { e.Add(0x200000); });
  for (size_t size = SELFMAG; size < whole.size(); ++size) {
    EXPECT_FALSE(ParseGuestImage(std::string_view(whole).substr(0, size)).ok()) << size;
  }
}

TEST(GuestImage, MustLeaveRoomForTheStacksOfEveryVcpu) {
  const std::string bytes(1 << 20, 'x');  // [1 MiB, 2 MiB)
  const absl::StatusOr<GuestImage> image = ParseGuestImage(bytes);
  ASSERT_TRUE(image.ok());
  EXPECT_TRUE(CheckImageFits(*image, 4 << 20, 32).ok());
  EXPECT_FALSE(CheckImageFits(*image, 4 << 20, 33).ok());
  EXPECT_FALSE(CheckImageFits(*image, 2 << 20, 1).ok());
  EXPECT_TRUE(CheckImageFits(*image, uint64_t{64} << 30, 64).ok());
}

TEST(GuestImage, ABzImageIsAKernelWithA64BitEntry) {
  const std::string bytes = BzKernel("code");
  const absl::StatusOr<GuestImage> image = ParseGuestImage(bytes);
  ASSERT_TRUE(image.ok()) << image.status();
  EXPECT_TRUE(image->kernel());
  EXPECT_EQ(image->entry, kKernelBase + 0x200);
  EXPECT_EQ(image->end, kKernelBase + 0x200000);
  EXPECT_EQ(image->setup_header.size(), 0x26cu - kSetupHeader);
  EXPECT_EQ(image->initrd_end, 0x80000000u);
  EXPECT_EQ(image->max_cmdline, 100u);
}

TEST(GuestImage, AnElfWithAPvhNoteIsAKernel) {
  const std::string bytes = PvhKernel("code", kKernelBase + 2);
  const absl::StatusOr<GuestImage> image = ParseGuestImage(bytes);
  ASSERT_TRUE(image.ok()) << image.status();
  EXPECT_EQ(image->protocol, GuestImage::Protocol::kPvh);
  EXPECT_EQ(image->entry, kKernelBase + 2);
}

TEST(GuestImage, AKernelThatCannotBeEnteredIsRefused) {
  const auto refusal = [](const std::string& bytes) {
    return std::string(ParseGuestImage(bytes).status().message());
  };
  std::string old = BzKernel("code");
  PutAt(old, 0x206, uint16_t{0x020b});
  EXPECT_NE(refusal(old).find("without a 64-bit entry"), std::string::npos);
  std::string narrow = BzKernel("code");
  PutAt(narrow, 0x236, uint16_t{0});
  EXPECT_NE(refusal(narrow).find("without a 64-bit entry"), std::string::npos);
  EXPECT_NE(refusal(BzKernel("").substr(0, 1024)).find("truncated"), std::string::npos);
  std::string high = BzKernel("code");
  PutAt(high, 0x258, uint64_t{1} << 40);
  EXPECT_NE(refusal(high).find("wants to lie at 0x10000000000"), std::string::npos);
  EXPECT_NE(refusal(PvhKernel("code", 0x42)).find("PVH entry point 0x42"), std::string::npos);
}

}  // namespace
}  // namespace twinroot::kvm
