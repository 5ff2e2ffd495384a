// Records every write to a piece of memory, in the order in which a processor makes them: the pages
// are read-only, a write faults, is let through as one single step, and the pages are compared.
// Nothing that writes knows of it. x86-64 Linux; one recorder, one thread.
#ifndef TWINROOT_TESTS_FAKES_WRITE_RECORDER_H_
#define TWINROOT_TESTS_FAKES_WRITE_RECORDER_H_

#include <signal.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "mmu/types/address.h"

namespace twinroot::mmu {

class WriteRecorder {
 public:
  // Words that one instruction changed; one, but for vector stores.
  struct Change {
    uint64_t word;  // its number, from the start of the memory
    uint64_t value;
    int step;  // which instruction
  };

  // `memory`: `pages` whole pages.
  WriteRecorder(std::byte* memory, size_t pages)
      : memory_(memory), bytes_(pages * kPageSize), shadow_(memory, memory + bytes_) {
    // Handlers must not allocate.
    changes_.reserve(kMostChanges);
    active_ = this;
    struct sigaction action = {};
    action.sa_sigaction = OnSegv;
    action.sa_flags = SA_SIGINFO;
    sigaction(SIGSEGV, &action, &old_segv_);
    action.sa_sigaction = OnTrap;
    sigaction(SIGTRAP, &action, &old_trap_);
    mprotect(memory_, bytes_, PROT_READ);
  }
  ~WriteRecorder() {
    mprotect(memory_, bytes_, PROT_READ | PROT_WRITE);
    sigaction(SIGSEGV, &old_segv_, nullptr);
    sigaction(SIGTRAP, &old_trap_, nullptr);
    active_ = nullptr;
  }
  WriteRecorder(const WriteRecorder&) = delete;
  WriteRecorder& operator=(const WriteRecorder&) = delete;

  int steps() const { return step_; }
  const std::vector<Change>& changes() const { return changes_; }

 private:
  static constexpr size_t kMostChanges = 1 << 16;
  static constexpr greg_t kTrapFlag = 0x100;

  static void OnSegv(int, siginfo_t* info, void* context) {
    auto* const at = static_cast<std::byte*>(info->si_addr);
    WriteRecorder* const me = active_;
    if (me == nullptr || at < me->memory_ || at >= me->memory_ + me->bytes_ || me->open_ == 2) {
      signal(SIGSEGV, SIG_DFL);  // a true fault: again, and die
      return;
    }
    const size_t page = static_cast<size_t>(at - me->memory_) / kPageSize;
    me->opened_[me->open_++] = page;
    mprotect(me->memory_ + page * kPageSize, kPageSize, PROT_READ | PROT_WRITE);
    static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_EFL] |= kTrapFlag;
  }

  static void OnTrap(int, siginfo_t*, void* context) {
    WriteRecorder* const me = active_;
    static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_EFL] &= ~kTrapFlag;
    for (int i = 0; i < me->open_; ++i) me->Compare(me->opened_[i]);
    me->open_ = 0;
    ++me->step_;
  }

  void Compare(size_t page) {
    const size_t first = page * kPageSize / sizeof(uint64_t);
    const auto* now = reinterpret_cast<const uint64_t*>(memory_);
    auto* shadow = reinterpret_cast<uint64_t*>(shadow_.data());
    for (size_t word = first; word < first + kPageSize / sizeof(uint64_t); ++word) {
      if (now[word] == shadow[word]) continue;
      shadow[word] = now[word];
      if (changes_.size() == kMostChanges) std::abort();
      changes_.push_back({word, now[word], step_});
    }
    mprotect(memory_ + page * kPageSize, kPageSize, PROT_READ);
  }

  static inline WriteRecorder* active_ = nullptr;
  std::byte* const memory_;
  const size_t bytes_;
  std::vector<std::byte> shadow_;
  std::vector<Change> changes_;
  size_t opened_[2] = {};  // an instruction may reach over a page's end
  int open_ = 0;
  int step_ = 0;
  struct sigaction old_segv_, old_trap_;
};

}  // namespace twinroot::mmu

#endif  // TWINROOT_TESTS_FAKES_WRITE_RECORDER_H_
