// What shadow tables cost in memory, counted as it is asked for. A program of its own, for its
// operator new counts.
#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <new>
#include <string>

#include "mmu/shadow/shadow_tables.h"
#include "mmu/tables/bug_sink.h"
#include "mmu/tables/entry_change.h"
#include "mmu/tables/mutex.h"
#include "mmu/tables/table_pool.h"
#include "mmu/tables/vm_counts.h"
#include "tests/fakes/test_space.h"

namespace {

size_t bytes_held = 0;  // of one thread

void* Count(size_t bytes) {
  void* const at = std::malloc(bytes + sizeof(std::max_align_t));
  if (at == nullptr) throw std::bad_alloc();
  *static_cast<size_t*>(at) = bytes;
  bytes_held += bytes;
  return static_cast<std::byte*>(at) + sizeof(std::max_align_t);
}

void Uncount(void* at) {
  if (at == nullptr) return;
  at = static_cast<std::byte*>(at) - sizeof(std::max_align_t);
  bytes_held -= *static_cast<size_t*>(at);
  std::free(at);
}

}  // namespace

void* operator new(size_t bytes) { return Count(bytes); }
void* operator new[](size_t bytes) { return Count(bytes); }
void operator delete(void* at) noexcept { Uncount(at); }
void operator delete[](void* at) noexcept { Uncount(at); }
void operator delete(void* at, size_t) noexcept { Uncount(at); }
void operator delete[](void* at, size_t) noexcept { Uncount(at); }

namespace twinroot::mmu {
namespace {

struct Quiet : TlbFlusher, BugSink {
  void FlushRange(MemoryKind, HwGfn, uint64_t) override {}
  void FlushAll() override {}
  void ReportBug(const std::string& what) override { FAIL() << what; }
};

// TARGETS: 8 bytes of entry, of translation and of reverse map, and what they stand in.
TEST(ShadowMemoryTest, APageThatIsMappedOnceCostsLessThanTwentyFourAndAHalfBytes) {
  constexpr unsigned kGuestTables = 512;
  constexpr uint64_t kPages = kGuestTables * kEntriesPerTable;  // 1 GiB
  PoolMemory memory(kGuestTables);
  Quiet quiet;
  VmCounts counts;
  EntryChange change(counts);
  Mutex mutex;
  const Turn turn(mutex);
  TablePool pool(Hpa(uint64_t{1} << 32), memory.get(), kGuestTables);
  ShadowTables tables({.most_pages = kGuestTables}, {&pool, &change, &quiet, &quiet});
  const size_t before = bytes_held;
  for (unsigned n = 0; n < kGuestTables; ++n) {
    TableIdentity identity{Gfn(kPages + n), {}};
    identity.role.level = Level::k4K;
    identity.role.direct = false;
    identity.role.cr4_pae = identity.role.efer_lma = true;
    PreloadedTables preload(pool);
    ASSERT_TRUE(pool.Preload(1, preload).ok());
    ShadowFlush flush = tables.NewFlush();
    ShadowPage& page =
        tables.Make(turn, identity, ShadowTables::Sharing::kShared, preload.Take(), flush);
    for (unsigned i = 0; i < kEntriesPerTable; ++i) {
      const Gfn gfn(n * kEntriesPerTable + i);
      tables.SetLeaf(turn, page, i, {gfn, GuestRights::All(), HpaOf(Pfn(gfn.value)), {}}, flush);
    }
    flush.Finish(turn);
  }
  // Each page of entries, and what the pool keeps of it.
  const size_t entries = kGuestTables * (kPageSize + sizeof(Table));
  const double each = static_cast<double>(bytes_held - before + entries) / kPages;
  RecordProperty("bytes_for_a_mapped_page", std::to_string(each));
  std::printf("%.3f bytes for a mapped page\n", each);
  EXPECT_GT(each, 24.0);
  EXPECT_LE(each, 24.4);
}

}  // namespace
}  // namespace twinroot::mmu
