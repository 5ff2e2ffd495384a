#include "mmu/vm/dirty_tracking.h"

#include <algorithm>
#include <bit>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "mmu/engine/leaves.h"
#include "mmu/engine/max_level.h"
#include "mmu/engine/protect.h"
#include "mmu/vm/attribute_change.h"
#include "mmu/vm/chunks.h"
#include "mmu/vm/page_sizes.h"

namespace twinroot::mmu {
namespace {

absl::Status NoLog() {
  return absl::FailedPreconditionError("the dirty log of this VM is off; enable it first");
}

absl::Status CheckOptions(const AddressSpaceState& vm, const DirtyLogOptions& options) {
  if (options.initially_all_set && options.clear != DirtyClear::kManual) {
    return absl::InvalidArgumentError(
        "initially-all-set needs manual clearing: pages are protected when they are first cleared");
  }
  if (options.ring_entries != 0) {
    if (options.mode != DirtyLogMode::kWriteProtect || options.clear != DirtyClear::kAtHarvest) {
      return absl::InvalidArgumentError(
          "rings need write protection and clearing at the harvest: a vCPU fills its own ring");
    }
    if (options.ring_entries <= 2 * DirtyRing::kReserve) {
      return absl::InvalidArgumentError(absl::StrCat("a ring of ", options.ring_entries,
                                                     " entries is always full; take more than ",
                                                     2 * DirtyRing::kReserve));
    }
  }
  if (options.mode != DirtyLogMode::kWriteProtect && vm.shadow != nullptr) {
    return absl::FailedPreconditionError(
        "D bits and page-modification logs are EPT's, and this VM's guest runs on shadow tables; "
        "log by write protection");
  }
  if (options.mode != DirtyLogMode::kWriteProtect && !vm.config.capabilities.accessed_dirty) {
    return absl::FailedPreconditionError(
        "this processor's EPT has no D bits; log by write protection");
  }
  if (options.mode == DirtyLogMode::kPml && vm.env.pml == nullptr) {
    return absl::FailedPreconditionError(
        "this backend has no page-modification log; log by D bits or write protection");
  }
  absl::Status status;
  ForEachAlias(vm, [&](const Root& alias) {
    if (alias.external == nullptr) return;
    if (options.mode != DirtyLogMode::kWriteProtect || !alias.external->CanWithholdWrite()) {
      status = absl::FailedPreconditionError(
          "this backend cannot log writes: its tables are enforced elsewhere, where W cannot be "
          "withheld and D bits are not ours to read");
    }
  });
  return status;
}

// Words are of 64 pages as the guest numbers them, so a range begins at one; a memslot need not.
// Then the frames of the first word that lie before the memslot are clean; all others lie in
// memory.
absl::Status CheckLogRange(const AddressSpaceState& vm, const Turn& turn, GfnRange range) {
  if (range.first.value % DirtyBitmap::kWordBits != 0) {
    return absl::InvalidArgumentError("dirty pages are told from a multiple of 64 pages on");
  }
  if (vm.slots.Find(turn, range.first) == nullptr) {
    for (const Memslot& slot : vm.slots.all(turn)) {  // ordered
      if (slot.range.first < range.first) continue;
      const uint64_t before = slot.range.first - range.first;
      if (before < std::min(DirtyBitmap::kWordBits, range.count)) {
        range = {slot.range.first, range.count - before};
      }
      break;
    }
  }
  return CheckRange(vm, turn, range);
}

// The bits of the word that begins at `word` whose pages lie in `part`.
uint64_t MaskOf(GfnRange part, Gfn word) {
  const GfnRange in = Intersection(part, {word, DirtyBitmap::kWordBits});
  if (in.empty()) return 0;
  return (~uint64_t{0} >> (DirtyBitmap::kWordBits - in.count)) << (in.first - word);
}

Taken TakenBy(const DirtyLog& log) { return log.withholds_write() ? Taken::kWrite : Taken::kDirty; }

// Splits a chunk to 4K in every alias, if that is asked for. What stays large loses W in every mode
// (B9, F2): its first write splits it, or fails for want of a table. So D and the processors' logs
// always speak of 4K.
void SplitForLog(const Turn& turn, AddressSpaceState& vm, const DirtyLog& log, GfnRange chunk,
                 FlushBatch& batch, SplitResult& result) {
  ForEachAlias(vm, [&](const Root& alias) {
    if (log.options().eager_split) {
      SplitAlias(turn, vm, alias, chunk, Level::k4K, VmCount::kSplitDirtyLog, result);
    }
    TakeFromRange(turn, *vm.env.pool, vm.change, alias, chunk, Taken::kWriteOfLarge, batch,
                  [](Gfn, uint64_t) {});
  });
  if (vm.shadow == nullptr) return;
  if (log.options().eager_split) {
    vm.shadow->Split(turn, chunk, Level::k4K, VmCount::kSplitDirtyLog, result);
  }
  vm.shadow->WithholdWrite(turn, chunk, Level::k2M);
}

absl::Status WithholdWriteOutside(AddressSpaceState& vm, GfnRange chunk) {
  absl::Status status;
  ForEachAlias(vm, [&](const Root& alias) {
    if (alias.external != nullptr) status.Update(alias.external->WithholdWrite(chunk));
  });
  return status;
}

// The state of one chunk in which the next write of every page is seen.
absl::Status StartRound(const Turn& turn, AddressSpaceState& vm, const DirtyLog& log,
                        GfnRange chunk, SplitResult& result) {
  FlushBatch batch = vm.NewBatch();
  SplitForLog(turn, vm, log, chunk, batch, result);
  ForEachAlias(vm, [&](const Root& alias) {
    TakeFromRange(turn, *vm.env.pool, vm.change, alias, chunk, TakenBy(log), batch,
                  [](Gfn, uint64_t) {});
  });
  if (vm.shadow != nullptr) vm.shadow->WithholdWrite(turn, chunk);
  absl::Status status = WithholdWriteOutside(vm, chunk);
  status.Update(batch.Finish(turn));
  return status;
}

// Pages by their bits: word i stands for the pages from first + 64 i on.
struct PageWords {
  Gfn first;
  absl::Span<const uint64_t> words;
};

void Mark(const DirtyLog& log, const PageWords& pages) {
  for (size_t i = 0; i < pages.words.size(); ++i) {
    for (uint64_t left = pages.words[i]; left != 0; left &= left - 1) {
      const uint64_t bit = static_cast<uint64_t>(std::countr_zero(left));
      log.MarkRange({pages.first + i * DirtyBitmap::kWordBits + bit, 1});
    }
  }
}

// Takes W or D from pages whose marks were taken, and flushes. An error puts the marks back.
absl::Status TakeBack(const Turn& turn, AddressSpaceState& vm, const DirtyLog& log,
                      absl::Span<const PageWords> groups) {
  // Faults that marked before the marks were taken give W before it is taken here (dirty_log.h).
  if (log.withholds_write()) SynchronizeEpoch();
  FlushBatch batch = vm.NewBatch();
  ForEachAlias(vm, [&](const Root& alias) {
    for (const PageWords& pages : groups) {
      TakeFromPages(turn, *vm.env.pool, vm.change, alias, pages.first, pages.words, TakenBy(log),
                    batch);
    }
  });
  if (vm.shadow != nullptr) {
    for (const PageWords& pages : groups) vm.shadow->WithholdWrite(turn, pages.first, pages.words);
  }
  // An external table may give W where a leaf here has none: a large leaf lost it before its pages
  // were cleared (SplitForLog), or the last round failed between the two.
  absl::Status status;
  for (const PageWords& pages : groups) {
    status.Update(
        WithholdWriteOutside(vm, {pages.first, pages.words.size() * DirtyBitmap::kWordBits}));
  }
  status.Update(batch.Finish(turn));
  if (!status.ok()) {
    for (const PageWords& pages : groups) Mark(log, pages);
  }
  return status;
}

// What processors have logged becomes marks: once for each call, since it stops every vCPU.
void DrainPml(AddressSpaceState& vm, const DirtyLog& log, bool& drained) {
  if (log.options().mode != DirtyLogMode::kPml || std::exchange(drained, true)) return;
  vm.env.pml->Drain([&](Gpa gpa) { log.MarkPage(vm.config.layout.GfnOf(gpa)); });
}

// D bits of leaves become marks.
absl::Status CollectDirtyBits(const Turn& turn, AddressSpaceState& vm, const DirtyLog& log,
                              GfnRange range, bool clear) {
  if (log.options().mode != DirtyLogMode::kDirtyBit) return absl::OkStatus();
  FlushBatch batch = vm.NewBatch();
  ForEachAlias(vm, [&](const Root& alias) {
    const auto mark = [&](Gfn first, uint64_t frames) { log.MarkRange({first, frames}); };
    if (clear) {
      TakeFromRange(turn, *vm.env.pool, vm.change, alias, range, Taken::kDirty, batch, mark);
    } else {
      ForEachLeaf(turn, *vm.env.pool, alias, range, [&](Gfn gfn, Level level, EptEntry leaf) {
        if (leaf.dirty()) mark(gfn, FramesPerEntry(level));
      });
    }
  });
  return batch.Finish(turn);
}

// Adds the marks of the part's pages to `words`, the first of which stands for the pages from
// `first` on; and takes them, if `take`. False: there are none.
bool CopyMarks(DirtyBitmap& bitmap, GfnRange part, Gfn first, absl::Span<uint64_t> words,
               bool take) {
  const uint64_t at = (first - bitmap.first()) / DirtyBitmap::kWordBits;
  uint64_t any = 0;
  const auto copy = [&](size_t i, uint64_t mask) {
    const uint64_t marks = take ? bitmap.Take(at + i, mask) : bitmap.Word(at + i) & mask;
    words[i] |= marks;
    any |= marks;
  };
  // A word is shared with a neighbouring slot only where a slot ends inside it: masks keep them
  // apart.
  copy(0, MaskOf(part, first));
  for (size_t i = 1; i + 1 < words.size(); ++i) {
    if (bitmap.Word(at + i) != 0) copy(i, ~uint64_t{0});
  }
  if (const size_t last = words.size() - 1; last != 0) {
    copy(last, MaskOf(part, first + last * DirtyBitmap::kWordBits));
  }
  return any != 0;
}

std::vector<GfnRange> SlotRanges(const AddressSpaceState& vm, const Turn& turn) {
  std::vector<GfnRange> ranges;
  for (const Memslot& slot : vm.slots.all(turn)) ranges.push_back(slot.range);
  return ranges;
}

// Nothing is logged any more; only the log of `session`, if one is named.
absl::Status EndLog(AddressSpaceState& vm, std::optional<uint64_t> session) {
  const Turn turn(vm.turn_mutex);
  if (absl::Status status = vm.bugs.Check(); !status.ok()) return status;
  const DirtyLog* log = vm.log.load();
  if (log == nullptr || (session && log->session() != *session)) return NoLog();
  vm.log.store(nullptr);
  if (log->options().mode == DirtyLogMode::kPml) vm.env.pml->SetEnabled(false);
  SynchronizeEpoch();
  delete log;
  return absl::OkStatus();
}

absl::StatusOr<RecoverResult> RecoverAll(AddressSpaceState& vm) {
  return RecoverPages(vm, vm.everything, VmCount::kCollapseDirtyLog);
}

}  // namespace

absl::StatusOr<SplitResult> EnableDirtyLog(AddressSpaceState& vm, const DirtyLogOptions& options) {
  uint64_t session;
  {
    const Turn turn(vm.turn_mutex);
    if (absl::Status status = vm.bugs.Check(); !status.ok()) return status;
    if (vm.log.load() != nullptr) {
      return absl::FailedPreconditionError("the dirty log of this VM is on already");
    }
    if (absl::Status status = CheckOptions(vm, options); !status.ok()) return status;
    auto log = DirtyLog::Create(options, SlotRanges(vm, turn));
    if (!log.ok()) return log.status();
    if (options.mode == DirtyLogMode::kPml) {
      // What an earlier log left there is not of this one.
      vm.env.pml->Drain([](Gpa) {});
      vm.env.pml->SetEnabled(true);
    }
    session = (*log)->session();
    vm.log.store(log->release());
    // Faults that saw no log have published what they would; from here on they mark.
    SynchronizeEpoch();
  }
  SplitResult result;
  if (options.initially_all_set) return result;
  const absl::Status status =
      ForEachChunk(vm, vm.everything, [&](const Turn& turn, GfnRange chunk) {
        const DirtyLog* log = vm.log.load();
        // Somebody may have ended it, and begun another, between two chunks.
        if (log == nullptr || log->session() != session) return NoLog();
        return StartRound(turn, vm, *log, chunk, result);
      });
  if (!status.ok()) {
    // An external table refused: nothing is logged.
    if (EndLog(vm, session).ok()) RecoverAll(vm).IgnoreError();
    return status;
  }
  return result;
}

absl::StatusOr<RecoverResult> DisableDirtyLog(AddressSpaceState& vm) {
  if (absl::Status status = EndLog(vm, std::nullopt); !status.ok()) return status;
  return RecoverAll(vm);
}

absl::StatusOr<DirtyPages> HarvestDirty(AddressSpaceState& vm, GfnRange range) {
  {
    const Turn turn(vm.turn_mutex);
    if (absl::Status status = vm.bugs.Check(); !status.ok()) return status;
    if (absl::Status status = CheckLogRange(vm, turn, range); !status.ok()) return status;
  }
  DirtyPages pages{range, std::vector<uint64_t>((range.count + 63) / DirtyBitmap::kWordBits)};
  bool drained = false;
  const absl::Status status = ForEachChunk(vm, range, [&](const Turn& turn, GfnRange chunk) {
    const DirtyLog* log = vm.log.load();
    if (log == nullptr) return NoLog();
    const bool clear = log->options().clear == DirtyClear::kAtHarvest;
    DrainPml(vm, *log, drained);
    if (absl::Status status = CollectDirtyBits(turn, vm, *log, chunk, clear); !status.ok()) {
      return status;
    }
    std::vector<PageWords> groups;
    for (const auto& bitmap : log->bitmaps()) {
      const GfnRange part = Intersection(chunk, bitmap->slot());
      if (part.empty()) continue;
      const Gfn first = part.first - part.first.value % DirtyBitmap::kWordBits;
      const uint64_t count = (part.end() - first + 63) / DirtyBitmap::kWordBits;
      const absl::Span<uint64_t> words =
          absl::MakeSpan(pages.words)
              .subspan((first - range.first) / DirtyBitmap::kWordBits, count);
      if (CopyMarks(*bitmap, part, first, words, clear)) groups.push_back({first, words});
    }
    // D bits were cleared above already, where the log goes by them alone.
    if (clear && !groups.empty() && log->options().mode != DirtyLogMode::kDirtyBit) {
      return TakeBack(turn, vm, *log, groups);
    }
    return absl::OkStatus();
  });
  if (!status.ok()) {
    // Nobody hears of what the chunks before had: it is dirty still.
    const EpochGuard guard;
    if (const DirtyLog* log = vm.log.load()) Mark(*log, {range.first, pages.words});
    return status;
  }
  return pages;
}

absl::StatusOr<std::vector<Gfn>> HarvestDirtyRing(AddressSpaceState& vm, uint32_t vcpu,
                                                  size_t max) {
  const Turn turn(vm.turn_mutex);
  if (absl::Status status = vm.bugs.Check(); !status.ok()) return status;
  const DirtyLog* log = vm.log.load();
  if (log == nullptr) return NoLog();
  DirtyRing* ring = log->ring(vcpu);
  if (ring == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat("vCPU ", vcpu, " has no dirty ring"));
  }
  std::vector<Gfn> pages = ring->Take(max);
  std::sort(pages.begin(), pages.end());
  pages.erase(std::unique(pages.begin(), pages.end()), pages.end());
  // One group for the pages of one leaf table.
  constexpr size_t kWordsOfTable = kEntriesPerTable / DirtyBitmap::kWordBits;
  std::vector<Gfn> tables;
  std::vector<uint64_t> words;
  for (const Gfn page : pages) {
    const Gfn table = LeafRange(page, Level::k2M).first;
    if (tables.empty() || tables.back() != table) {
      tables.push_back(table);
      words.resize(words.size() + kWordsOfTable);
    }
    const uint64_t bit = page - table;
    words[words.size() - kWordsOfTable + bit / DirtyBitmap::kWordBits] |=
        uint64_t{1} << bit % DirtyBitmap::kWordBits;
  }
  std::vector<PageWords> groups;
  for (size_t i = 0; i < tables.size(); ++i) {
    groups.push_back(
        {tables[i], absl::MakeConstSpan(words).subspan(i * kWordsOfTable, kWordsOfTable)});
  }
  // One flush. After an error they are in the bitmap.
  if (absl::Status status = TakeBack(turn, vm, *log, groups); !status.ok()) return status;
  return pages;
}

absl::Status ClearDirty(AddressSpaceState& vm, const DirtyPages& pages) {
  {
    const Turn turn(vm.turn_mutex);
    if (absl::Status status = CheckLogRange(vm, turn, pages.range); !status.ok()) return status;
    if (pages.words.size() !=
        (pages.range.count + DirtyBitmap::kWordBits - 1) / DirtyBitmap::kWordBits) {
      return absl::InvalidArgumentError("a clear has one word for each 64 pages");
    }
  }
  bool drained = false;
  return ForEachChunk(vm, pages.range, [&](const Turn& turn, GfnRange chunk) {
    const DirtyLog* log = vm.log.load();
    if (log == nullptr) return NoLog();
    if (log->options().clear != DirtyClear::kManual) {
      return absl::FailedPreconditionError("this log is cleared by each harvest");
    }
    // What was written since the harvest is cleared too: the caller copies after this.
    DrainPml(vm, *log, drained);
    // Under initially-all-set pages are still large and writable: split before they are protected.
    if (log->options().initially_all_set) {
      FlushBatch batch = vm.NewBatch();
      SplitResult ignored;
      SplitForLog(turn, vm, *log, chunk, batch, ignored);
      if (absl::Status status = batch.Finish(turn); !status.ok()) return status;
    }
    const Gfn first = chunk.first - chunk.first.value % DirtyBitmap::kWordBits;
    std::vector<uint64_t> cleared((chunk.end() - first + 63) / DirtyBitmap::kWordBits);
    for (const auto& bitmap : log->bitmaps()) {
      const GfnRange part = Intersection(chunk, bitmap->slot());
      if (part.empty()) continue;
      for (uint64_t i = 0; i < cleared.size(); ++i) {
        const Gfn at = first + i * DirtyBitmap::kWordBits;
        const uint64_t mask =
            MaskOf(part, at) & pages.words[(at - pages.range.first) / DirtyBitmap::kWordBits];
        if (mask == 0) continue;
        cleared[i] |= bitmap->Take((at - bitmap->first()) / DirtyBitmap::kWordBits, mask);
      }
    }
    const PageWords group{first, cleared};
    return TakeBack(turn, vm, *log, {&group, 1});
  });
}

}  // namespace twinroot::mmu
