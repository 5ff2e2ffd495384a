// Guest memory as a processor with nested paging reaches its guest's tables: through the EPT, whose
// exits end the walk. Not thread-safe: the vCPU's own thread.
#ifndef TWINROOT_DAEMON_VCPU_SIM_EPT_GUEST_MEMORY_H_
#define TWINROOT_DAEMON_VCPU_SIM_EPT_GUEST_MEMORY_H_

#include <cstdint>
#include <optional>
#include <utility>
#include <variant>

#include "mmu/shadow/guest_memory.h"
#include "mmu/vmx/vcpu.h"

namespace twinroot::sim {

class EptGuestMemory : public mmu::GuestMemory {
 public:
  explicit EptGuestMemory(mmu::vmx::Vcpu& processor) : processor_(processor) {}

  // What ended the last walk that found no memory.
  const mmu::vmx::AccessOutcome& exit() const { return exit_; }

  std::optional<uint64_t> Read(mmu::Gpa word, int bytes) override {
    exit_ = processor_.ReadGuestPagingEntry(word, bytes);
    if (const auto* done = std::get_if<mmu::vmx::AccessDone>(&exit_)) return done->value;
    return std::nullopt;
  }
  Exchange CompareExchange(mmu::Gpa word, int bytes, uint64_t expected, uint64_t desired) override {
    exit_ = processor_.ExchangeGuestPagingEntry(word, bytes, expected, desired);
    const auto* done = std::get_if<mmu::vmx::AccessDone>(&exit_);
    if (done == nullptr) return Exchange::kNothing;
    return done->value == expected ? Exchange::kDone : Exchange::kChanged;
  }

 private:
  mmu::vmx::Vcpu& processor_;
  mmu::vmx::AccessOutcome exit_;
};

}  // namespace twinroot::sim

#endif  // TWINROOT_DAEMON_VCPU_SIM_EPT_GUEST_MEMORY_H_
