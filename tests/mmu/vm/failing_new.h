// For a test program of one source: makes `new (std::nothrow)` fail. Include it once.
#ifndef TWINROOT_TESTS_MMU_VM_FAILING_NEW_H_
#define TWINROOT_TESTS_MMU_VM_FAILING_NEW_H_

#include <cstddef>
#include <new>

namespace twinroot::mmu {

// While it lives, only the next `successes` allocations of this thread succeed.
class FailingNew {
 public:
  explicit FailingNew(int successes) { left_ = successes; }
  ~FailingNew() { left_ = kUnlimited; }
  FailingNew(const FailingNew&) = delete;
  FailingNew& operator=(const FailingNew&) = delete;

  static bool Fails() {
    if (left_ == kUnlimited) return false;
    if (left_ == 0) return true;
    --left_;
    return false;
  }

 private:
  static constexpr int kUnlimited = -1;
  static inline thread_local int left_ = kUnlimited;
};

}  // namespace twinroot::mmu

// Asks the plain operator, so that a sanitizer sees what it always sees.
void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
  return twinroot::mmu::FailingNew::Fails() ? nullptr : ::operator new(size);
}

#endif  // TWINROOT_TESTS_MMU_VM_FAILING_NEW_H_
