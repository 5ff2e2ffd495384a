// A TlbFlusher that only remembers. Thread-safe.
#ifndef TWINROOT_TESTS_FAKES_RECORDING_FLUSHER_H_
#define TWINROOT_TESTS_FAKES_RECORDING_FLUSHER_H_

#include "mmu/tables/tlb_flusher.h"
#include "tests/fakes/call_log.h"

namespace twinroot::mmu {

class RecordingFlusher : public TlbFlusher {
 public:
  explicit RecordingFlusher(CallLog& log) : log_(log) {}
  void FlushRange(MemoryKind root, HwGfn first, uint64_t count) override {
    LogCall(log_, "flush", root, first.value, count);
  }
  void FlushAll() override { log_.Add("flush all"); }

 private:
  CallLog& log_;
};

}  // namespace twinroot::mmu

#endif  // TWINROOT_TESTS_FAKES_RECORDING_FLUSHER_H_
