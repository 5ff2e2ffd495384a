#include "mmu/vmx/vcpu.h"

namespace twinroot::mmu::vmx {
namespace {

AccessKind KindOf(Access needed) {
  if (needed.write()) return AccessKind::kWrite;
  return needed.fetch() ? AccessKind::kFetch : AccessKind::kRead;
}

AccessDone Move(std::byte* at, const GuestAccess& access, int size, uint64_t value,
                uint64_t expected) {
  if (!access.needed.write()) return AccessDone{LoadGuestWord(at, size)};
  if (access.target == AccessTarget::kGuestPagingEntry) {
    return AccessDone{ExchangeGuestWord(at, size, expected, value)};
  }
  StoreGuestWord(at, size, value);
  return AccessDone{value};
}

}  // namespace

void Vcpu::LoadRoots(EptPointer private_root, EptPointer shared_root,
                     std::optional<int> shared_bit) {
  const GuestMode::Stop stop(guest_mode_);
  roots_[static_cast<size_t>(MemoryKind::kPrivate)] = private_root;
  roots_[static_cast<size_t>(MemoryKind::kShared)] = shared_root;
  shared_mask_.store(shared_bit.has_value() ? uint64_t{1} << *shared_bit : 0,
                     std::memory_order_relaxed);
  access_tlb_.Clear();
  tlb_.FlushAll();
}

EptPointer Vcpu::RootOf(Gpa gpa) const {
  const bool shared = gpa.value & shared_mask_.load(std::memory_order_relaxed);
  return roots_[static_cast<size_t>(shared ? MemoryKind::kShared : MemoryKind::kPrivate)];
}

Gpa Vcpu::AliasOf(Gpa unaliased, MemoryKind alias) const {
  return alias == MemoryKind::kShared
             ? Gpa(unaliased.value | shared_mask_.load(std::memory_order_relaxed))
             : unaliased;
}

AccessOutcome Vcpu::ReadGuestPagingEntry(Gpa gpa, int size) {
  return Make({gpa, Access::Read(), mode_, AccessTarget::kGuestPagingEntry}, size, 0);
}

AccessOutcome Vcpu::ExchangeGuestPagingEntry(Gpa gpa, int size, uint64_t expected,
                                             uint64_t desired) {
  return Make({gpa, Access::Write(), mode_, AccessTarget::kGuestPagingEntry}, size, desired,
              expected);
}

void Vcpu::EnterGuest() {
  if (MayGoOn()) return;
  if (staying_) guest_mode_.Leave();
  guest_mode_.Enter();
  staying_ = true;
}

void Vcpu::LeaveGuest() {
  staying_ = false;
  guest_mode_.Leave();
}

void Vcpu::SetMode(LinearMode mode) {
  // Stoppers touch access_tlb_ too, so it is changed inside.
  const bool stayed = staying_;
  EnterGuest();
  mode_ = mode;
  access_tlb_.Clear();
  if (!stayed) LeaveGuest();
}

AccessOutcome Vcpu::Make(const GuestAccess& access, int size, uint64_t value, uint64_t expected) {
  const bool stayed = staying_;
  EnterGuest();
  AccessOutcome outcome = MakeInside(access, size, value, expected);
  if (!stayed || !std::holds_alternative<AccessDone>(outcome)) LeaveGuest();
  return outcome;
}

AccessOutcome Vcpu::MakeInside(const GuestAccess& access, int size, uint64_t value,
                               uint64_t expected) {
  const Gpa gpa = access.gpa;
  const bool translated = access.target == AccessTarget::kTranslation;
  if (translated && access_tlb_.Hits(KindOf(access.needed), gpa)) {
    return Move(access_tlb_.HostOf(gpa), access, size, value, expected);
  }
  const EptPointer root = RootOf(gpa);
  const HwGfn frame(gpa.value >> kPageShift);
  EptTranslation translation;
  if (const EptTranslation* cached = tlb_.Lookup(root.root(), frame);
      cached != nullptr && Serves(*cached, EptWalker::Needed(root, access))) {
    translation = *cached;
  } else {
    const WalkOutcome walked = walker_.Walk(root, access, pml_enabled_ ? pml_.get() : nullptr);
    if (const auto* violation = std::get_if<EptViolationExit>(&walked)) {
      return Refuse(root.root(), *violation);
    }
    if (const auto* misconfiguration = std::get_if<EptMisconfigurationExit>(&walked)) {
      return *misconfiguration;
    }
    if (const auto* check = std::get_if<MachineCheck>(&walked)) return *check;
    if (const auto* full = std::get_if<PmlFullExit>(&walked)) return *full;
    translation = std::get<EptTranslation>(walked);
    tlb_.Insert(root.root(), frame, translation);
  }
  const Hpa hpa = translation.HpaOf(gpa);
  const Hpa page(hpa.value & ~kPageOffsetMask);
  std::byte* at = memory_->At(page, kPageSize);
  if (at != nullptr) {
    access_tlb_.Insert(gpa, at,
                       {Serves(translation, Access::Read()), Serves(translation, Access::Write()),
                        Serves(translation, Access::Fetch())});
    at += hpa - page;
  } else {
    // Memory may end inside of a page.
    at = memory_->At(hpa, static_cast<size_t>(size));
    if (at == nullptr) return MachineCheck{hpa};
  }
  return Move(at, access, size, value, expected);
}

// Rights that a cached translation lacks may have been granted since, and a first write must set
// the dirty flag: both walk again.
bool Vcpu::Serves(const EptTranslation& translation, Access needed) const {
  return walker_.Grants(translation, needed, mode_) && (translation.dirty || !needed.write());
}

// "An EPT violation invalidates any guest-physical mappings that would be used to translate the
// guest-physical address that caused the EPT violation" (SDM, "Operations that Invalidate Cached
// Mappings").
AccessOutcome Vcpu::Refuse(Hpa root, const EptViolationExit& violation) {
  access_tlb_.Forget(violation.gpa);
  tlb_.FlushRange(root, HwGfn(violation.gpa.value >> kPageShift), 1);
  if (ept_violation_ve_ && violation.convertible && !ve_information_busy_) {
    ve_information_busy_ = true;
    return VirtualizationException{violation.gpa, violation.qualification};
  }
  return violation;
}

void Vcpu::SetEptViolationVe(bool enabled) {
  const GuestMode::Stop stop(guest_mode_);
  ept_violation_ve_ = enabled;
}

void Vcpu::EnablePml() {
  const GuestMode::Stop stop(guest_mode_);
  if (pml_ == nullptr) pml_ = std::make_unique<PageModificationLog>();
  pml_enabled_ = true;
}

void Vcpu::DisablePml() {
  const GuestMode::Stop stop(guest_mode_);
  pml_enabled_ = false;
}

std::vector<Gpa> Vcpu::TakePml() {
  const GuestMode::Stop stop(guest_mode_);
  return pml_ != nullptr ? pml_->Take() : std::vector<Gpa>();
}

void Vcpu::FlushRange(MemoryKind root, HwGfn first, uint64_t count) {
  const GuestMode::Stop stop(guest_mode_);
  access_tlb_.Clear();
  tlb_.FlushRange(roots_[static_cast<size_t>(root)].root(), first, count);
}

void Vcpu::FlushAll() {
  const GuestMode::Stop stop(guest_mode_);
  access_tlb_.Clear();
  tlb_.FlushAll();
}

}  // namespace twinroot::mmu::vmx
