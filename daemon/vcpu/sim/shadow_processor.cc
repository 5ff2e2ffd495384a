#include "daemon/vcpu/sim/shadow_processor.h"

#include "mmu/shadow/guest_walker.h"
#include "mmu/types/guest_word.h"

namespace twinroot::sim {
namespace {

using mmu::ControlRegisters;
using mmu::Gpa;
using mmu::Hpa;

constexpr size_t kMostCached = 1024;

// Everything that decides besides the registers, which Load clears for.
uint64_t KeyOf(const mmu::LinearAccess& access) {
  const uint64_t kind = access.needed.write() ? 1 : access.needed.fetch() ? 2 : 0;
  return (access.address >> mmu::kPageShift) << 4 |
         uint64_t{access.mode == mmu::LinearMode::kUser} << 3 | uint64_t{access.eflags_ac} << 2 |
         kind;
}

}  // namespace

void ShadowProcessor::Load(Hpa root, const mmu::GuestPaging& guest) {
  ControlRegisters registers;
  registers.cr0 = ControlRegisters::kCr0Pg | ControlRegisters::kCr0Wp;
  registers.cr3 = root.value;
  registers.cr4 = ControlRegisters::kCr4Pae | ControlRegisters::kCr4La57;
  if (guest.on()) {
    registers.cr4 |=
        guest.registers.cr4 & (ControlRegisters::kCr4Smep | ControlRegisters::kCr4Smap);
  }
  registers.efer = ControlRegisters::kEferLma | ControlRegisters::kEferNxe;
  root_ = root;
  paging_.emplace(registers, mmu::GuestCpuFeatures{.maxphyaddr = maxphyaddr_});
  Invalidate();
}

void ShadowProcessor::Invalidate() {
  guest_mode_.Enter();
  tlb_.clear();
  guest_mode_.Leave();
}

void ShadowProcessor::FlushAll() {
  const mmu::vmx::GuestMode::Stop stop(guest_mode_);
  tlb_.clear();
}

ShadowProcessor::Outcome ShadowProcessor::Access(const mmu::LinearAccess& access, int bytes,
                                                 uint64_t value) {
  guest_mode_.Enter();
  const Outcome outcome = Inside(access, bytes, value);
  guest_mode_.Leave();
  return outcome;
}

ShadowProcessor::Outcome ShadowProcessor::Inside(const mmu::LinearAccess& access, int bytes,
                                                 uint64_t value) {
  Hpa page;
  const uint64_t key = KeyOf(access);
  if (const auto cached = tlb_.find(key); cached != tlb_.end()) {
    page = cached->second;
  } else {
    const mmu::GuestWalkOutcome walked = mmu::WalkGuest(*paging_, *this, access);
    if (const auto* fault = std::get_if<mmu::GuestPageFault>(&walked)) {
      return ShadowPageFaultExit{fault->error_code};
    }
    if (const auto* missing = std::get_if<mmu::GuestTableMissing>(&walked)) {
      return mmu::vmx::MachineCheck{Hpa(missing->entry.value)};
    }
    page = Hpa(std::get<mmu::GuestTranslation>(walked).gpa.value & ~mmu::kPageOffsetMask);
    if (tlb_.size() >= kMostCached) tlb_.clear();
    tlb_.emplace(key, page);
  }
  const Hpa hpa = page + (access.address & mmu::kPageOffsetMask);
  std::byte* const at = memory_->At(hpa, static_cast<size_t>(bytes));
  if (at == nullptr) return mmu::vmx::MachineCheck{hpa};
  if (!access.needed.write()) {
    return mmu::vmx::AccessDone{mmu::LoadGuestWord(at, bytes)};
  }
  mmu::StoreGuestWord(at, bytes, value);
  return mmu::vmx::AccessDone{value};
}

std::optional<uint64_t> ShadowProcessor::Read(Gpa word, int bytes) {
  std::byte* const at = memory_->At(Hpa(word.value), static_cast<size_t>(bytes));
  if (at == nullptr) return std::nullopt;
  return mmu::LoadGuestWord(at, bytes);
}

mmu::GuestMemory::Exchange ShadowProcessor::CompareExchange(Gpa word, int bytes, uint64_t expected,
                                                            uint64_t desired) {
  std::byte* const at = memory_->At(Hpa(word.value), static_cast<size_t>(bytes));
  if (at == nullptr) return Exchange::kNothing;
  return mmu::ExchangeGuestWord(at, bytes, expected, desired) == expected ? Exchange::kDone
                                                                          : Exchange::kChanged;
}

}  // namespace twinroot::sim
