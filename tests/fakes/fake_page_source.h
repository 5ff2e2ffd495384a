// Guest pages in plain memory: one arena for each kind, one slot of frames from gfn 0 on.
// Refuses on request, logs, and lets a test act in the middle of a call. Thread-safe as a real
// source is: the bytes themselves belong to whoever the engine lets at them.
#ifndef TWINROOT_TESTS_FAKES_FAKE_PAGE_SOURCE_H_
#define TWINROOT_TESTS_FAKES_FAKE_PAGE_SOURCE_H_

#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>

#include "mmu/vm/page_source.h"
#include "tests/fakes/call_log.h"

namespace twinroot::mmu {

class FakePageSource : public PageSource {
 public:
  FakePageSource(uint64_t frames, Pfn private_pfn, Pfn shared_pfn, CallLog& log)
      : frames_(frames), log_(log), first_{private_pfn, shared_pfn} {
    for (Arena& arena : arenas_) {
      // Zeroed by the system where it is large: nobody waits for a GiB that is hardly touched.
      arena.bytes.reset(static_cast<std::byte*>(std::calloc(frames, kPageSize)));
      arena.allocated = std::make_unique<std::atomic<bool>[]>(frames);
    }
  }

  std::optional<Level> Ready(Gfn gfn, MemoryKind kind) override {
    if (!knows_ready || !Of(kind).allocated[gfn.value]) return std::nullopt;
    return max_level;
  }

  absl::StatusOr<Page> Resolve(Gfn gfn, MemoryKind kind) override {
    if (on_resolve) on_resolve(gfn, kind);
    if (fail_resolve) return *fail_resolve;
    Of(kind).allocated[gfn.value] = true;
    return Page{wrong_frames ? first_[Index(Other(kind))] + gfn.value : PfnOf(gfn, kind),
                max_level};
  }

  absl::Status Reserve(GfnRange range, MemoryKind kind) override {
    log_.Add(CallText("reserve", kind, range.first.value, range.count));
    if (fail_reserve_in >= 0 && fail_reserve_in-- == 0) {
      return absl::ResourceExhaustedError("no memory for the copy");
    }
    for (uint64_t i = 0; i < range.count; ++i) {
      Of(kind).allocated[range.first.value + i] = true;
    }
    return absl::OkStatus();
  }

  void Copy(GfnRange range, MemoryKind from, MemoryKind to) override {
    log_.Add(CallText("copy", from, range.first.value, range.count));
    if (on_content) on_content(range);
    std::memcpy(Bytes(range.first, to), Bytes(range.first, from), range.count * kPageSize);
  }

  void Discard(GfnRange range, MemoryKind kind) override {
    log_.Add(CallText("discard", kind, range.first.value, range.count));
    if (on_content) on_content(range);
    std::memset(Bytes(range.first, kind), 0, range.count * kPageSize);
    for (uint64_t i = 0; i < range.count; ++i) {
      Of(kind).allocated[range.first.value + i] = false;
    }
  }

  Pfn PfnOf(Gfn gfn, MemoryKind kind) const { return first_[Index(kind)] + gfn.value; }
  std::byte* Bytes(Gfn gfn, MemoryKind kind) {
    return Of(kind).bytes.get() + gfn.value * kPageSize;
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
        return Of(kind).bytes.get() + (hpa - first);
      }
    }
    return nullptr;
  }
  uint64_t allocated(MemoryKind kind) {
    uint64_t n = 0;
    for (uint64_t i = 0; i < frames_; ++i) n += Of(kind).allocated[i];
    return n;
  }

  // Set before use.
  Level max_level = Level::k1G;
  std::optional<absl::Status> fail_resolve;
  bool knows_ready = false;   // Ready answers for pages that are allocated
  bool wrong_frames = false;  // gives frames of the other kind
  int fail_reserve_in = -1;   // the call after so many fails
  std::function<void(Gfn, MemoryKind)> on_resolve;
  std::function<void(GfnRange)> on_content;  // in Copy and Discard

 private:
  struct FreePages {
    void operator()(std::byte* p) const { std::free(p); }
  };
  struct Arena {
    std::unique_ptr<std::byte, FreePages> bytes;
    std::unique_ptr<std::atomic<bool>[]> allocated;
  };
  static int Index(MemoryKind kind) { return static_cast<int>(kind); }
  Arena& Of(MemoryKind kind) { return arenas_[Index(kind)]; }

  const uint64_t frames_;
  CallLog& log_;
  const Pfn first_[2];
  Arena arenas_[2];
};

}  // namespace twinroot::mmu

#endif  // TWINROOT_TESTS_FAKES_FAKE_PAGE_SOURCE_H_
