#include "daemon/vcpu/kvm/kernel_loader.h"

#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "daemon/vcpu/kvm/acpi_tables.h"
#include "daemon/vcpu/kvm/flat_segments.h"
#include "daemon/vcpu/kvm/low_memory.h"
#include "mmu/types/address.h"

namespace twinroot::kvm {
namespace {

constexpr uint64_t kGdt = 0x1000;
constexpr uint64_t kPvhStart = 0x6000;
constexpr uint64_t kPvhMemoryMap = 0x6100;
constexpr uint64_t kPvhModules = 0x6200;
constexpr uint64_t kBootParams = 0x7000;
constexpr uint64_t kPml4 = 0x9000;
constexpr uint64_t kPdpt = 0xa000;
constexpr uint64_t kDirectories = 0xb000;  // four
constexpr uint64_t kCmdline = 0x20000;
constexpr uint64_t kLowEnd = 0xa0000;  // where a PC has its screen
constexpr uint64_t kAcpi = 0xe0000;
constexpr uint64_t kGiB = uint64_t{1} << 30;

// Selectors that Linux's boot protocol asks for, also in 32-bit mode.
constexpr uint16_t kSelectorCode = 0x10;
constexpr uint16_t kSelectorData = 0x18;
constexpr uint16_t kSelectorTss = 0x20;

struct MemoryArea {
  enum Type : uint32_t { kRam = 1, kReserved = 2 };
  uint64_t begin;
  uint64_t end;
  Type type;
};

std::vector<MemoryArea> MemoryMap(uint64_t memory_bytes) {
  const uint64_t low_end = std::min(memory_bytes, memory::kLowRamLimit);
  std::vector<MemoryArea> map = {{0, kLowEnd, MemoryArea::kRam},
                                 {kAcpi, kImageBase, MemoryArea::kReserved},
                                 {kImageBase, low_end, MemoryArea::kRam}};
  if (memory_bytes > low_end) {
    map.push_back(
        {memory::kHighRamBase, memory::kHighRamBase + (memory_bytes - low_end), MemoryArea::kRam});
  }
  return map;
}

// As high as it may lie, so that it is in no kernel's way.
uint64_t InitrdBase(const BootPlan& plan, uint64_t memory_bytes) {
  const uint64_t end =
      std::min({memory_bytes, memory::kLowRamLimit, plan.image.initrd_end}) & ~mmu::kPageOffsetMask;
  if (plan.initrd.size() > end) return 0;
  return (end - plan.initrd.size()) & ~mmu::kPageOffsetMask;
}

// Linux's boot parameters, the "zero page" (Documentation/arch/x86/zero-page.rst).
void WriteBootParams(const BootPlan& plan, uint64_t initrd, uint64_t memory_bytes, LowMemory& low) {
  constexpr uint8_t kUnknownLoader = 0xff;
  low.Put(kBootParams + kSetupHeader, plan.image.setup_header);
  low.Put(kBootParams + 0x070, kAcpi);
  low.Put(kBootParams + 0x210, kUnknownLoader);
  low.Put(kBootParams + 0x218, static_cast<uint32_t>(plan.initrd.empty() ? 0 : initrd));
  low.Put(kBootParams + 0x21c, static_cast<uint32_t>(plan.initrd.size()));
  low.Put(kBootParams + 0x228, static_cast<uint32_t>(kCmdline));
  uint64_t entry = kBootParams + 0x2d0;
  const std::vector<MemoryArea> map = MemoryMap(memory_bytes);
  low.Put(kBootParams + 0x1e8, static_cast<uint8_t>(map.size()));
  for (const MemoryArea& area : map) {
    low.Put(entry, area.begin);
    low.Put(entry + 8, area.end - area.begin);
    low.Put(entry + 16, static_cast<uint32_t>(area.type));
    entry += 20;
  }
}

// struct hvm_start_info, version 1 (Xen, public/arch-x86/hvm/start_info.h).
void WritePvhStart(const BootPlan& plan, uint64_t initrd, uint64_t memory_bytes, LowMemory& low) {
  constexpr uint32_t kMagic = 0x336ec578;
  const std::vector<MemoryArea> map = MemoryMap(memory_bytes);
  low.Put(kPvhStart, kMagic);
  low.Put(kPvhStart + 4, uint32_t{1});
  if (!plan.initrd.empty()) {
    low.Put(kPvhStart + 12, uint32_t{1});
    low.Put(kPvhStart + 16, kPvhModules);
    low.Put(kPvhModules, initrd);
    low.Put(kPvhModules + 8, static_cast<uint64_t>(plan.initrd.size()));
  }
  low.Put(kPvhStart + 24, kCmdline);
  low.Put(kPvhStart + 32, kAcpi);
  low.Put(kPvhStart + 40, kPvhMemoryMap);
  low.Put(kPvhStart + 48, static_cast<uint32_t>(map.size()));
  uint64_t entry = kPvhMemoryMap;
  for (const MemoryArea& area : map) {
    low.Put(entry, area.begin);
    low.Put(entry + 8, area.end - area.begin);
    low.Put(entry + 16, static_cast<uint32_t>(area.type));
    entry += 24;
  }
}

// Virtual = guest physical for 4 GiB, in pages of 2 MiB (SDM vol. 3A, "4-Level Paging").
void WritePageTables(LowMemory& low) {
  constexpr uint64_t kTable = 0x3, kLargePage = 0x83;  // present, writable
  low.Put(kPml4, kPdpt | kTable);
  for (uint64_t gib = 0; gib < 4; ++gib) {
    const uint64_t directory = kDirectories + gib * mmu::kPageSize;
    low.Put(kPdpt + gib * 8, directory | kTable);
    for (uint64_t i = 0; i < 512; ++i) {
      low.Put(directory + i * 8, (gib * kGiB + (i << 21)) | kLargePage);
    }
  }
}

void WriteGdt(bool long_mode, LowMemory& low) {
  low.Put(kGdt + kSelectorCode, long_mode ? 0x00af9b000000ffff : 0x00cf9b000000ffff);
  low.Put(kGdt + kSelectorData, 0x00cf93000000ffff);
  low.Put(kGdt + kSelectorTss, 0x00008b0000000067);  // 32-bit, busy, at 0
}

}  // namespace

absl::Status CheckKernel(const BootPlan& plan, uint64_t memory_bytes) {
  const uint64_t low_end = std::min(memory_bytes, memory::kLowRamLimit);
  if (plan.image.end > low_end) {
    return absl::InvalidArgumentError(
        absl::StrCat("image: this kernel needs memory up to 0x", absl::Hex(plan.image.end),
                     ", but low memory ends at 0x", absl::Hex(low_end), "; give the VM more"));
  }
  if (plan.cmdline.size() > plan.image.max_cmdline) {
    return absl::InvalidArgumentError(absl::StrCat("cmdline: ", plan.cmdline.size(),
                                                   " bytes, but this kernel takes at most ",
                                                   plan.image.max_cmdline));
  }
  if (!plan.initrd.empty() && InitrdBase(plan, memory_bytes) < plan.image.end) {
    return absl::InvalidArgumentError(absl::StrCat(
        "initrd: ", plan.initrd.size(), " bytes do not fit between the kernel, which ends at 0x",
        absl::Hex(plan.image.end), ", and the end of low memory at 0x", absl::Hex(low_end),
        "; give the VM more memory"));
  }
  return absl::OkStatus();
}

void LoadKernel(const BootPlan& plan, memory::GuestRam& ram) {
  LowMemory low(ram);
  for (const GuestImage::Segment& segment : plan.image.segments) low.Put(segment.gpa, segment.data);
  const uint64_t initrd = InitrdBase(plan, ram.bytes());
  low.Put(initrd, plan.initrd);
  low.Put(kCmdline, plan.cmdline);  // memory is zero behind the text
  low.Put(kAcpi, MakeAcpiTables(kAcpi, plan.vcpus));
  if (plan.image.protocol == GuestImage::Protocol::kLinux64) {
    WriteBootParams(plan, initrd, ram.bytes(), low);
    WritePageTables(low);
    WriteGdt(true, low);
  } else {
    WritePvhStart(plan, initrd, ram.bytes(), low);
    WriteGdt(false, low);
  }
}

void SetKernelEntry(const GuestImage& image, kvm_sregs& sregs, kvm_regs& regs) {
  constexpr uint64_t kCr0Protected = 0x11, kCr0Paging = uint64_t{1} << 31;  // PE ET, PG
  constexpr uint64_t kCr4Pae = 1 << 5;
  constexpr uint64_t kEferLong = 1 << 8 | 1 << 10;  // LME LMA
  const bool long_mode = image.protocol == GuestImage::Protocol::kLinux64;
  SetFlatSegments({.code = kSelectorCode,
                   .data = kSelectorData,
                   .tss = kSelectorTss,
                   .code_is_64bit = long_mode,
                   .gdt = kGdt,
                   .gdt_limit = 0x27,
                   .tss_base = 0,
                   .tss_limit = 0x67},
                  sregs);
  sregs.cr0 = kCr0Protected | (long_mode ? kCr0Paging : 0);
  sregs.cr3 = long_mode ? kPml4 : 0;
  sregs.cr4 = long_mode ? kCr4Pae : 0;
  sregs.efer = long_mode ? kEferLong : 0;

  regs = {};
  regs.rip = image.entry;
  regs.rflags = 2;
  regs.rsi = long_mode ? kBootParams : 0;
  regs.rbx = long_mode ? 0 : kPvhStart;
}

}  // namespace twinroot::kvm
