// Guest pages in plain memory: one arena for each kind, one slot of frames from gfn 0 on.
// Refuses on request, logs, and lets a test act in the middle of a call. Thread-safe as a real
// source is: the bytes themselves belong to whoever the engine lets at them.
//
// Sparse: a slot of many GiB costs what was touched of it. A page holds something only if somebody
// asked for its bytes (Bytes, Mark, At), so Copy and Discard look at those pages alone.
#ifndef TWINROOT_TESTS_FAKES_FAKE_PAGE_SOURCE_H_
#define TWINROOT_TESTS_FAKES_FAKE_PAGE_SOURCE_H_

#include <sys/mman.h>

#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <optional>

#include "mmu/vm/page_source.h"
#include "tests/fakes/atomic_bitmap.h"
#include "tests/fakes/call_log.h"

namespace twinroot::mmu {

class FakePageSource : public PageSource {
 public:
  FakePageSource(uint64_t frames, Pfn private_pfn, Pfn shared_pfn, CallLog& log)
      : frames_(frames), log_(log), first_{private_pfn, shared_pfn} {}

  Level LargestLeaf(Gfn, MemoryKind) override { return max_level; }
  absl::StatusOr<Page> Resolve(Gfn gfn, MemoryKind kind, Level wanted) override {
    last_wanted = wanted;
    if (on_resolve) on_resolve(gfn, kind);
    if (fail_resolve) return *fail_resolve;
    Of(kind).allocated.Set(gfn.value);
    return Page{wrong_frames ? first_[Index(Other(kind))] + gfn.value : PfnOf(gfn, kind),
                max_level};
  }

  absl::Status Reserve(GfnRange range, MemoryKind kind) override {
    LogCall(log_, "reserve", kind, range.first.value, range.count);
    if (fail_reserve_in >= 0 && fail_reserve_in-- == 0) {
      return absl::ResourceExhaustedError("no memory for the copy");
    }
    Of(kind).allocated.SetRange(range.first.value, range.count);
    return absl::OkStatus();
  }

  void Copy(GfnRange range, MemoryKind from, MemoryKind to) override {
    LogCall(log_, "copy", from, range.first.value, range.count);
    if (on_content) on_content(range);
    Clean(range, to);
    Of(from).touched.ForEach(range.first.value, range.count, [&](uint64_t gfn) {
      std::memcpy(Bytes(Gfn(gfn), to), Bytes(Gfn(gfn), from), kPageSize);
    });
  }

  void Discard(GfnRange range, MemoryKind kind) override {
    LogCall(log_, "discard", kind, range.first.value, range.count);
    if (on_content) on_content(range);
    Clean(range, kind);
    Of(kind).allocated.Take(range.first.value, range.count, [](uint64_t) {});
  }

  // The frames of a slot stay where they are; only what is Ready may be asked for there.
  absl::Status Move(GfnRange from, Gfn to) override {
    return can_move ? absl::OkStatus() : PageSource::Move(from, to);
  }

  // The default of the interface, unless a test wants faults to be served without Resolve.
  std::optional<Level> Ready(Gfn, MemoryKind) override {
    return ready ? std::optional<Level>(max_level) : std::nullopt;
  }

  Pfn PfnOf(Gfn gfn, MemoryKind kind) const { return first_[Index(kind)] + gfn.value; }
  std::byte* Bytes(Gfn gfn, MemoryKind kind) {
    Of(kind).touched.Set(gfn.value);
    return Of(kind).bytes + gfn.value * kPageSize;
  }
  // A word at the start of a page, as a test's mark.
  uint64_t& Mark(Gfn gfn, MemoryKind kind) {
    return *reinterpret_cast<uint64_t*>(Bytes(gfn, kind));
  }
  // The byte at a host physical address; null: not one of ours.
  std::byte* At(Hpa hpa) {
    for (const MemoryKind kind : kAllKinds) {
      const Hpa first = HpaOf(first_[Index(kind)]);
      if (hpa >= first && hpa < first + frames_ * kPageSize) {
        return Bytes(Gfn(mmu::PfnOf(hpa) - first_[Index(kind)]), kind) + hpa.value % kPageSize;
      }
    }
    return nullptr;
  }
  uint64_t allocated(MemoryKind kind) { return Of(kind).allocated.Count(); }
  // Calls `visit(gfn)` for each page that may hold something.
  template <typename Visit>
  void ForEachTouched(MemoryKind kind, const Visit& visit) {
    Of(kind).touched.ForEach(0, frames_, visit);
  }

  std::atomic<Level> last_wanted{Level::k4K};  // of Resolve

  // Set before use.
  Level max_level = Level::k1G;
  std::optional<absl::Status> fail_resolve;
  bool ready = false;  // Ready knows every page
  bool can_move = false;
  bool wrong_frames = false;  // gives frames of the other kind
  int fail_reserve_in = -1;   // the call after so many fails
  std::function<void(Gfn, MemoryKind)> on_resolve;
  std::function<void(GfnRange)> on_content;  // in Copy and Discard

 private:
  struct Arena {
    explicit Arena(uint64_t frames) : size(frames * kPageSize), allocated(frames), touched(frames) {
      void* const memory = mmap(nullptr, size, PROT_READ | PROT_WRITE,
                                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
      if (memory == MAP_FAILED) std::abort();
      bytes = static_cast<std::byte*>(memory);
    }
    ~Arena() { munmap(bytes, size); }
    Arena(const Arena&) = delete;
    Arena& operator=(const Arena&) = delete;

    const size_t size;
    std::byte* bytes;
    AtomicBitmap allocated;  // as a real source counts them
    AtomicBitmap touched;    // may be other than zero
  };
  void Clean(GfnRange range, MemoryKind kind) {
    Arena& arena = Of(kind);
    arena.touched.Take(range.first.value, range.count, [&arena](uint64_t gfn) {
      std::memset(arena.bytes + gfn * kPageSize, 0, kPageSize);
    });
  }
  static int Index(MemoryKind kind) { return static_cast<int>(kind); }
  Arena& Of(MemoryKind kind) { return arenas_[Index(kind)]; }

  const uint64_t frames_;
  CallLog& log_;
  const Pfn first_[2];
  Arena arenas_[2] = {Arena(frames_), Arena(frames_)};
};

}  // namespace twinroot::mmu

#endif  // TWINROOT_TESTS_FAKES_FAKE_PAGE_SOURCE_H_
