#include "mmu/vmx/vcpu.h"

#include <atomic>
#include <thread>

namespace twinroot::mmu::vmx {
namespace {

// Aligned accesses are single-copy atomic and ordered as on the real processor (TSO).
template <typename Word>
uint64_t Move(std::byte* at, bool write, uint64_t value) {
  std::atomic_ref<Word> word(*reinterpret_cast<Word*>(at));
  if (!write) return word.load(std::memory_order_acquire);
  word.store(static_cast<Word>(value), std::memory_order_release);
  return value;
}

uint64_t Move(std::byte* at, int size, bool write, uint64_t value) {
  switch (size) {
    case 1:
      return Move<uint8_t>(at, write, value);
    case 2:
      return Move<uint16_t>(at, write, value);
    case 4:
      return Move<uint32_t>(at, write, value);
    default:
      return Move<uint64_t>(at, write, value);
  }
}

// Rights that a cached translation lacks may have been granted since, and a first write must set
// the dirty flag: both walk again.
bool Serves(const EptTranslation& translation, Access needed) {
  return translation.access.Includes(needed) && (translation.dirty || !needed.write());
}

}  // namespace

void Vcpu::LoadRoots(EptPointer private_root, EptPointer shared_root,
                     std::optional<int> shared_bit) {
  std::lock_guard lock(mutex_);
  roots_[static_cast<size_t>(MemoryKind::kPrivate)] = private_root;
  roots_[static_cast<size_t>(MemoryKind::kShared)] = shared_root;
  shared_mask_ = shared_bit.has_value() ? uint64_t{1} << *shared_bit : 0;
  tlb_.FlushAll();
}

std::unique_lock<std::mutex> Vcpu::LockForAccess() {
  while (flushes_waiting_.load(std::memory_order_relaxed) != 0) std::this_thread::yield();
  return std::unique_lock(mutex_);
}

std::unique_lock<std::mutex> Vcpu::LockForFlush() {
  flushes_waiting_.fetch_add(1, std::memory_order_relaxed);
  std::unique_lock lock(mutex_);
  flushes_waiting_.fetch_sub(1, std::memory_order_relaxed);
  return lock;
}

MemoryKind Vcpu::RootOf(Gpa gpa) const {
  return gpa.value & shared_mask_ ? MemoryKind::kShared : MemoryKind::kPrivate;
}

Gpa Vcpu::AliasOf(Gpa unaliased, MemoryKind alias) {
  std::lock_guard lock(mutex_);
  return alias == MemoryKind::kShared ? Gpa(unaliased.value | shared_mask_) : unaliased;
}

AccessOutcome Vcpu::Read(Gpa gpa, int size) { return Make(gpa, Access::Read(), size, 0); }

AccessOutcome Vcpu::Write(Gpa gpa, int size, uint64_t value) {
  return Make(gpa, Access::Write(), size, value);
}

AccessOutcome Vcpu::Fetch(Gpa gpa) { return Make(gpa, Access::Fetch(), 1, 0); }

AccessOutcome Vcpu::Make(Gpa gpa, Access needed, int size, uint64_t value) {
  const auto lock = LockForAccess();
  const EptPointer root = roots_[static_cast<size_t>(RootOf(gpa))];
  const HwGfn frame(gpa.value >> kPageShift);
  EptTranslation translation;
  if (const EptTranslation* cached = tlb_.Lookup(root.root(), frame);
      cached != nullptr && Serves(*cached, needed)) {
    translation = *cached;
  } else {
    const WalkOutcome walked = walker_.Walk(root, gpa, needed);
    if (const auto* violation = std::get_if<EptViolationExit>(&walked)) {
      // An EPT violation itself forgets the page that it is about.
      tlb_.FlushRange(root.root(), frame, 1);
      return *violation;
    }
    if (const auto* misconfiguration = std::get_if<EptMisconfigurationExit>(&walked)) {
      return *misconfiguration;
    }
    if (const auto* check = std::get_if<MachineCheck>(&walked)) return *check;
    translation = std::get<EptTranslation>(walked);
    tlb_.Insert(root.root(), frame, translation);
  }
  const Hpa hpa = translation.HpaOf(gpa);
  std::byte* const at = memory_->At(hpa, static_cast<size_t>(size));
  if (at == nullptr) return MachineCheck{hpa};
  return AccessDone{Move(at, size, needed.write(), value)};
}

void Vcpu::FlushRange(MemoryKind root, HwGfn first, uint64_t count) {
  const auto lock = LockForFlush();
  tlb_.FlushRange(roots_[static_cast<size_t>(root)].root(), first, count);
}

void Vcpu::FlushAll() {
  const auto lock = LockForFlush();
  tlb_.FlushAll();
}

}  // namespace twinroot::mmu::vmx
