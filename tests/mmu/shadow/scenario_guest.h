// A guest by hand on a machine with shadows: frames that say their number, tables written entry by
// entry, and what became of each access.
#ifndef TWINROOT_TESTS_MMU_SHADOW_SCENARIO_GUEST_H_
#define TWINROOT_TESTS_MMU_SHADOW_SCENARIO_GUEST_H_

#include <gtest/gtest.h>

#include <cstdint>

#include "tests/mmu/shadow/paged_machine.h"

namespace twinroot::mmu {

class ScenarioGuest {
 public:
  static constexpr size_t kFrames = 2048;
  static constexpr uint64_t kMark = 0xF000;  // the first word of frame n is kMark + n
  static constexpr uint64_t kRwu = 7, kRu = 5, kDirty = 0x40, kAccessed = 0x20, kLarge = 0x80;
  static constexpr int kNoPage = -1;

  explicit ScenarioGuest(Level root_level, ShadowFormat format = ShadowFormat::kPaging)
      : machine(kFrames, root_level, format) {
    for (uint64_t frame = 16; frame < kFrames; ++frame) {
      machine.memory.Store(frame * kPageSize, kMark + frame, 4);
    }
  }
  ~ScenarioGuest() {
    const auto wrong = machine.Audit();
    EXPECT_FALSE(wrong.has_value()) << *wrong;
  }

  static GuestRegisters Registers(manual::Mode mode, uint64_t top_frame) {
    GuestRegisters registers;
    registers.paging = true;
    registers.state.mode = mode;
    registers.state.wp = registers.state.nxe = registers.state.pse = true;
    registers.state.maxphyaddr = 40;
    registers.cr3 = top_frame * kPageSize;
    return registers;
  }
  static GuestRegisters Ept(uint64_t top_frame) {
    GuestRegisters registers;
    registers.paging = registers.ept = true;
    registers.cr3 = top_frame * kPageSize;
    return registers;
  }
  void Load(const GuestRegisters& registers) {
    ASSERT_TRUE(machine.Load(0, registers));
    loaded_ = registers;
  }
  void Reload() { Load(loaded_); }

  // Entry `index` of the table in `frame`, by the other vCPU, which has no paging.
  void Write(uint64_t frame, uint64_t index, uint64_t entry, int bytes = 8) {
    const Poke poke{frame * kPageSize + index * static_cast<uint64_t>(bytes),
                    {manual::Kind::kWrite, false, false, true},
                    bytes,
                    entry};
    ASSERT_EQ(machine.Access(1, poke).kind, Seen::Kind::kDone);
  }
  static uint64_t Link(uint64_t frame) { return frame * kPageSize | kRwu; }
  static uint64_t Page(uint64_t frame, uint64_t rights = kRwu) {
    return frame * kPageSize | rights;
  }

  // The frame that a user's read of the address finds, or kNoPage.
  int FrameAt(uint64_t address) {
    const Seen seen = machine.Access(0, {address, {manual::Kind::kRead, true, false, false}, 4, 0});
    return seen.kind == Seen::Kind::kDone ? static_cast<int>(seen.value - kMark) : kNoPage;
  }
  // A user writes the mark of the frame that is there, so that nothing but flags changes.
  bool Touch(uint64_t address) {
    const int frame = FrameAt(address);
    if (frame == kNoPage) return false;
    const Poke poke{address,
                    {manual::Kind::kWrite, true, false, false},
                    4,
                    kMark + static_cast<uint64_t>(frame)};
    return machine.Access(0, poke).kind == Seen::Kind::kDone;
  }
  // Whether a page of 4K, and one of 2M, stands for the frame in exactly so many shadow leaves.
  size_t Mappings(uint64_t frame, Level level = Level::k4K) const {
    const SlotList* const slots = machine.tables.reverse_map().Find(level, Gfn(frame));
    return slots != nullptr ? slots->size() : 0;
  }
  // The one shadow of the guest's table in `frame`.
  ShadowPage& ShadowOf(uint64_t frame) const {
    const auto pages = machine.tables.PagesOf(Gfn(frame));
    EXPECT_EQ(pages.size(), 1u);
    return *pages.front();
  }

  // Four levels on frames 1 to 4, as far down as is asked; entry 0 of each.
  void FourLevels(int links = 3) {
    for (int i = 1; i <= links; ++i) {
      Write(static_cast<uint64_t>(i), 0, Link(static_cast<uint64_t>(i) + 1));
    }
    Load(Registers(manual::Mode::k4, 1));
  }

  ShadowMachine machine;

 private:
  GuestRegisters loaded_;
};

}  // namespace twinroot::mmu

#endif  // TWINROOT_TESTS_MMU_SHADOW_SCENARIO_GUEST_H_
