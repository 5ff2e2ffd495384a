#include "daemon/vcpu/kvm/native_loader.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "daemon/memory/mapping.h"
#include "daemon/vcpu/kvm/boot_loader.h"
#include "daemon/vcpu/kvm/kvm_abi.h"

namespace twinroot::kvm {
namespace {

constexpr uint64_t kGiB = uint64_t{1} << 30;
constexpr uint64_t kTablesEnd = 512 * kGiB;  // of one page-directory-pointer table
constexpr uint64_t kLargePage = uint64_t{2} << 20;

// The copier's own pages, at the beginning of its memslot.
constexpr uint64_t kCode = 0;
constexpr uint64_t kPml4 = 0x1000;
constexpr uint64_t kPdpt = 0x2000;
constexpr uint64_t kDirectories = 0x3000;  // three for RAM, three for what is shown, one for itself
constexpr uint64_t kCopierBytes = kDirectories + 7 * 0x1000;

constexpr uint16_t kDonePort = 0xF6;
// rep movsq; out 0xF6, al
constexpr unsigned char kCopy[] = {0xf3, 0x48, 0xa5, 0xe6, kDonePort};

constexpr uint64_t kPtePresentWrite = 3;
constexpr uint64_t kPteLarge = 1 << 7;

// A memslot that goes when this does.
class ShownMemory {
 public:
  ShownMemory(const KvmFd* vm, uint32_t slot, uint64_t gpa, std::byte* data, uint64_t size)
      : vm_(vm) {
    region_.slot = slot;
    region_.guest_phys_addr = gpa;
    region_.memory_size = size;
    region_.userspace_addr = reinterpret_cast<uintptr_t>(data);
  }
  ~ShownMemory() {
    if (!shown_) return;
    region_.memory_size = 0;
    vm_->Ioctl(KVM_SET_USER_MEMORY_REGION, &region_);
  }
  absl::Status Show() {
    shown_ = vm_->Ioctl(KVM_SET_USER_MEMORY_REGION, &region_) == 0;
    if (shown_) return absl::OkStatus();
    return absl::ResourceExhaustedError(
        absl::StrCat("KVM refuses the loader's memory: ", std::strerror(errno)));
  }

 private:
  const KvmFd* const vm_;
  kvm_userspace_memory_region region_ = {};
  bool shown_ = false;
};

// Page tables that map every address to itself, where RAM, what is shown, and the copier lie.
class Tables {
 public:
  Tables(std::byte* pages, uint64_t gpa) : pages_(pages), gpa_(gpa) { Put(kPml4, gpa_ + kPdpt); }
  void Map(uint64_t begin, uint64_t size) {
    for (uint64_t gib = begin / kGiB * kGiB; gib < begin + size; gib += kGiB) {
      Put(kPdpt + gib / kGiB * 8, gpa_ + directory_);
      for (uint64_t i = 0; i < 512; ++i)
        Put(directory_ + i * 8, (gib + i * kLargePage) | kPteLarge);
      directory_ += 0x1000;
    }
  }

 private:
  void Put(uint64_t at, uint64_t value) {
    value |= kPtePresentWrite;
    std::memcpy(pages_ + at, &value, sizeof value);
  }

  std::byte* const pages_;
  const uint64_t gpa_;
  uint64_t directory_ = kDirectories;
};

}  // namespace

absl::Status LoadPrivateMemory(const KvmFd& vm, uint32_t slot, Vcpu& vcpu, memory::GuestRam& ram) {
  memory::Backing& staged = ram.slots()[0].private_pages;  // images lie in low memory
  // Between all memory there is and where the tables end.
  const uint64_t shown_bytes = (staged.size() + kGiB - 1) / kGiB * kGiB;
  uint64_t shown_gpa = uint64_t{1} << 32;
  for (bool moved = true; moved;) {
    moved = false;
    const mmu::GfnRange place = {mmu::Gfn(shown_gpa >> mmu::kPageShift),
                                 (shown_bytes + kGiB) >> mmu::kPageShift};
    for (const mmu::Memslot& memory : ram.Memslots()) {
      if (!memory.range.Overlaps(place)) continue;
      shown_gpa = ((memory.range.end().value << mmu::kPageShift) + kGiB - 1) / kGiB * kGiB;
      moved = true;
    }
  }
  const uint64_t copier_gpa = shown_gpa + shown_bytes;
  if (copier_gpa + kGiB > kTablesEnd) {
    return absl::ResourceExhaustedError(
        "no room for the loader below 512 GiB: add memslots there after the start");
  }
  absl::StatusOr<memory::Mapping> copier = memory::Mapping::Anonymous(kCopierBytes);
  if (!copier.ok()) return copier.status();
  std::memcpy(copier->data() + kCode, kCopy, sizeof kCopy);
  Tables tables(copier->data(), copier_gpa);
  tables.Map(0, staged.size());
  tables.Map(shown_gpa, staged.size());
  tables.Map(copier_gpa, kCopierBytes);

  ShownMemory shown(&vm, slot, shown_gpa, staged.data(), staged.size());
  if (absl::Status status = shown.Show(); !status.ok()) return status;
  ShownMemory code(&vm, slot + 1, copier_gpa, copier->data(), kCopierBytes);
  if (absl::Status status = code.Show(); !status.ok()) return status;

  absl::StatusOr<kvm_sregs> sregs = vcpu.GetSregs();
  if (!sregs.ok()) return sregs.status();
  BootPlan plan;
  plan.cpl = 0;
  plan.image.entry = copier_gpa + kCode;
  kvm_regs regs;
  SetEntryState(plan, 0, 0, *sregs, regs);
  sregs->cr3 = copier_gpa + kPml4;

  const auto end = static_cast<off_t>(staged.size());
  for (off_t begin = 0; begin < end;) {
    begin = lseek(staged.fd(), begin, SEEK_DATA);
    if (begin < 0) break;  // nothing was written from here on
    const off_t hole = std::min(lseek(staged.fd(), begin, SEEK_HOLE), end);
    regs.rsi = shown_gpa + static_cast<uint64_t>(begin);
    regs.rdi = static_cast<uint64_t>(begin);
    regs.rcx = static_cast<uint64_t>(hole - begin) / sizeof(uint64_t);
    if (absl::Status status = vcpu.SetState(regs, *sregs); !status.ok()) return status;
    if (absl::Status status = vcpu.RunUntilPort(kDonePort); !status.ok()) return status;
    begin = hole;
  }
  staged.Discard(0, staged.size());
  return absl::OkStatus();
}

}  // namespace twinroot::kvm
