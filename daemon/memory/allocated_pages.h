// Which pages of a backing are known to be allocated, so that a fault on one of them asks the
// kernel nothing.
//
// Thread-safe; Has takes no lock. A page that is discarded while somebody allocates it is not
// known: Remember adds nothing if anything was forgotten since its Ticket.
#ifndef TWINROOT_DAEMON_MEMORY_ALLOCATED_PAGES_H_
#define TWINROOT_DAEMON_MEMORY_ALLOCATED_PAGES_H_

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <mutex>

namespace twinroot::memory {

class AllocatedPages {
 public:
  // Without memory for its bits it knows no page.
  explicit AllocatedPages(uint64_t pages)
      // Zeroed by the system where it is large: nothing is touched before a bit is set.
      : words_(static_cast<Word*>(std::calloc((pages + kBits - 1) / kBits, sizeof(Word)))) {}

  bool Has(uint64_t page) const {
    return words_ != nullptr &&
           (words_[page / kBits].load(std::memory_order_acquire) >> page % kBits & 1) != 0;
  }

  bool HasAll(uint64_t first, uint64_t count) const {
    if (words_ == nullptr) return false;
    bool all = true;
    ForEachWord(first, count, [&](const Word& word, uint64_t mask) {
      all = all && (word.load(std::memory_order_acquire) & mask) == mask;
    });
    return all;
  }

  // Taken before pages are allocated.
  using Ticket = uint64_t;
  Ticket Begin() const { return forgets_.load(std::memory_order_acquire); }
  void Remember(Ticket ticket, uint64_t first, uint64_t count) {
    if (words_ == nullptr) return;
    const std::lock_guard lock(mutex_);
    if (forgets_.load(std::memory_order_relaxed) != ticket) return;
    ForEachWord(first, count, [](Word& word, uint64_t mask) {
      word.store(word.load(std::memory_order_relaxed) | mask, std::memory_order_release);
    });
  }
  // After they were discarded: what was allocated meanwhile may be gone too.
  void Forget(uint64_t first, uint64_t count) {
    if (words_ == nullptr) return;
    const std::lock_guard lock(mutex_);
    forgets_.fetch_add(1, std::memory_order_acq_rel);
    ForEachWord(first, count, [](Word& word, uint64_t mask) {
      const uint64_t now = word.load(std::memory_order_relaxed);
      if (now & mask) word.store(now & ~mask, std::memory_order_release);
    });
  }

 private:
  using Word = std::atomic<uint64_t>;
  static constexpr uint64_t kBits = 64;

  template <typename Function>
  void ForEachWord(uint64_t first, uint64_t count, const Function& function) const {
    for (uint64_t i = first; i < first + count;) {
      const uint64_t at = i % kBits;
      const uint64_t n = std::min(kBits - at, first + count - i);
      function(words_[i / kBits], (~uint64_t{0} >> (kBits - n)) << at);
      i += n;
    }
  }

  struct Free {
    void operator()(Word* words) const { std::free(words); }
  };
  const std::unique_ptr<Word[], Free> words_;
  std::mutex mutex_;  // of whoever changes bits
  std::atomic<uint64_t> forgets_{0};
};

}  // namespace twinroot::memory

#endif  // TWINROOT_DAEMON_MEMORY_ALLOCATED_PAGES_H_
