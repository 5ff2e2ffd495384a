// An address space whose memory is that of the machine in Bochs. The engine is told host physical
// addresses that exist there: its tables' pool has that of an area of the machine, its page source
// hands out frames of the machine. So the tables that it makes are right for that machine as they
// stand, every link and every leaf; loading them is a copy to the address that DumpTables names.
//
//   1M      the kernel's end        128M   private pages of the small slot
//   16M     the pool of tables      160M   its shared pages
//                                   1G     private pages of the large slot, 2G its shared ones
#ifndef TWINROOT_TESTS_BOCHS_BOCHS_SPACE_H_
#define TWINROOT_TESTS_BOCHS_BOCHS_SPACE_H_

#include <cstddef>
#include <memory>
#include <optional>
#include <utility>

#include "mmu/vm/guest_address_space.h"
#include "mmu/vmx/physical_memory.h"
#include "tests/bochs/bochs_machine.h"
#include "tests/fakes/test_space.h"

namespace twinroot::bochs {

inline constexpr int kSpaceMemoryMib = 3072;
// Two slots, each of frames that follow each other in both backings. The small one ends in 4K
// pages.
inline constexpr uint64_t kSmallFrames = 2064, kLargeFirst = 0x40000, kLargeFrames = 0x40000;

// Frames of the machine; what is in them is the machine's. Thread-safe: it keeps nothing.
class MachinePages : public mmu::PageSource {
 public:
  static mmu::Memslot SlotOf(mmu::Gfn gfn) {
    if (gfn.value < kLargeFirst) {
      return {{mmu::Gfn(0), kSmallFrames}, mmu::Pfn(0x8000), mmu::Pfn(0xA000)};
    }
    return {{mmu::Gfn(kLargeFirst), kLargeFrames}, mmu::Pfn(0x40000), mmu::Pfn(0x80000)};
  }

  explicit MachinePages(mmu::Level largest) : largest_(largest) {}
  mmu::Level LargestLeaf(mmu::Gfn, mmu::MemoryKind) override { return largest_; }
  absl::StatusOr<Page> Resolve(mmu::Gfn gfn, mmu::MemoryKind kind, mmu::Level) override {
    const mmu::Memslot slot = SlotOf(gfn);
    const mmu::Pfn first = kind == mmu::MemoryKind::kPrivate ? *slot.private_pfn : *slot.shared_pfn;
    return Page{first + (gfn - slot.range.first), largest_};
  }
  absl::Status Reserve(mmu::GfnRange, mmu::MemoryKind) override { return absl::OkStatus(); }
  void Copy(mmu::GfnRange, mmu::MemoryKind, mmu::MemoryKind) override {}
  void Discard(mmu::GfnRange, mmu::MemoryKind) override {}

 private:
  const mmu::Level largest_;
};

struct BochsSpaceOptions {
  mmu::RootArrangement arrangement = mmu::RootArrangement::kTwoRoots;
  bool execute_only_alias = false;
  bool flags = true;  // accessed and dirty
  bool large_slot = true;
  mmu::Level largest = mmu::Level::k1G;
  bool nx_huge_pages = false;
  mmu::MmioCaching mmio = mmu::MmioCaching::kNone;
};

// Also the software processor's view of the tables: where the engine has them in this process.
class BochsSpace : public mmu::vmx::PhysicalMemory {
 public:
  static constexpr mmu::Hpa kPool{uint64_t{16} << 20};
  static constexpr size_t kPoolPages = 2048;

  explicit BochsSpace(const BochsSpaceOptions& options)
      : capabilities(CapabilitiesOf(options)),
        pool_memory_(kPoolPages),
        pool_(kPool, pool_memory_.get(), kPoolPages),
        pages_(options.largest) {
    // The processor's addresses have 40 bits, so the stolen ones are the highest of them.
    const std::optional<int> execute_only =
        options.execute_only_alias ? std::optional<int>(39) : std::nullopt;
    auto made = mmu::GuestAddressSpace::Create(
        {.layout = *mmu::GpaLayout::Create(/*shared_bit=*/38, /*walk_bits=*/48,
                                           /*guest_maxphyaddr=*/38, execute_only),
         .host_maxphyaddr = kBochsMaxphyaddr,
         .capabilities = capabilities,
         .arrangement = options.arrangement,
         .nx_huge_pages = options.nx_huge_pages,
         .mmio_caching = options.mmio},
        {.pool = &pool_, .pages = &pages_});
    status = made.status();
    if (!status.ok()) return;
    space = *std::move(made);
    status = space->AddMemslot(MachinePages::SlotOf(mmu::Gfn(0)));
    if (status.ok() && options.large_slot) {
      status = space->AddMemslot(MachinePages::SlotOf(mmu::Gfn(kLargeFirst)));
    }
  }

  std::byte* At(mmu::Hpa hpa, size_t size) override {
    const uint64_t offset = hpa - kPool;
    return hpa >= kPool && offset + size <= kPoolPages * mmu::kPageSize
               ? pool_memory_.get() + offset
               : nullptr;
  }

  const mmu::EptCapabilities capabilities;
  absl::Status status;

 private:
  static mmu::EptCapabilities CapabilitiesOf(const BochsSpaceOptions& options) {
    mmu::EptCapabilities capabilities;
    capabilities.accessed_dirty = options.flags;
    capabilities.walk_length_5 = false;
    return capabilities;
  }

  mmu::PoolMemory pool_memory_;
  mmu::TablePool pool_;
  MachinePages pages_;

 public:
  std::unique_ptr<mmu::GuestAddressSpace> space;  // goes before what it uses
};

}  // namespace twinroot::bochs

#endif  // TWINROOT_TESTS_BOCHS_BOCHS_SPACE_H_
