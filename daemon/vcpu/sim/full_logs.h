// Page-modification logs that were full before somebody drained them.
//
// Thread-safe. The lock is held while entries move from a vCPU to here, so that whoever drains
// finds each entry in one of the two.
#ifndef TWINROOT_DAEMON_VCPU_SIM_FULL_LOGS_H_
#define TWINROOT_DAEMON_VCPU_SIM_FULL_LOGS_H_

#include <mutex>
#include <utility>
#include <vector>

#include "mmu/types/address.h"
#include "mmu/vmx/vcpu.h"

namespace twinroot::sim {

class FullLogs {
 public:
  // By the vCPU whose log is full, outside of guest mode.
  void TakeFrom(mmu::vmx::Vcpu& processor) {
    std::lock_guard lock(mutex_);
    Append(processor);
  }
  // What these processors have logged, and what they had to give away before.
  template <typename Processors>
  std::vector<mmu::Gpa> Drain(const Processors& processors) {
    std::lock_guard lock(mutex_);
    for (const auto& vcpu : processors) Append(vcpu->processor());
    return std::exchange(pages_, {});
  }

 private:
  void Append(mmu::vmx::Vcpu& processor) {
    const std::vector<mmu::Gpa> pages = processor.TakePml();
    pages_.insert(pages_.end(), pages.begin(), pages.end());
  }

  std::mutex mutex_;
  std::vector<mmu::Gpa> pages_;  // guarded by mutex_
};

}  // namespace twinroot::sim

#endif  // TWINROOT_DAEMON_VCPU_SIM_FULL_LOGS_H_
