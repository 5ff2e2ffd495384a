// A guest that does whatever its source of choices says, on a machine that walks its tables and on
// one with shadows: it rewrites its own tables, switches roots and modes, and what it sees is
// compared byte by byte and flag by flag.
#ifndef TWINROOT_TESTS_MMU_SHADOW_RANDOM_GUEST_H_
#define TWINROOT_TESTS_MMU_SHADOW_RANDOM_GUEST_H_

#include <cstdint>
#include <functional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "tests/mmu/shadow/paged_machine.h"

namespace twinroot::mmu {

using manual::Kind;
using manual::Mode;

inline constexpr size_t kFrames = 2048;       // four pages of 2M
inline constexpr uint64_t kTableFrames = 12;  // frames 1 to 12 are used as tables, and as data

enum class Nested { kNo, kPaging, kEpt };
struct Arrangement {
  const char* name;
  Mode mode;
  Level root_level;
  Nested nested = Nested::kNo;
};

class RandomGuest {
 public:
  RandomGuest(std::function<uint64_t()> choices, const Arrangement& arrangement)
      : random_(std::move(choices)),
        mode_(arrangement.mode),
        root_level_(arrangement.root_level),
        plain_(kFrames),
        shadow_(kFrames, arrangement.root_level,
                arrangement.nested == Nested::kEpt ? ShadowFormat::kEpt : ShadowFormat::kPaging) {
    registers_.ept = arrangement.nested == Nested::kEpt;
    registers_.nested = arrangement.nested == Nested::kPaging;
    for (uint64_t frame = 1; frame <= kTableFrames; ++frame) {
      for (const uint64_t index : Indexes()) {
        const uint64_t at = frame * kPageSize + index * EntryBytes();
        const uint64_t entry = RandomEntry(frame <= 4);
        plain_.memory.Store(at, entry, static_cast<int>(EntryBytes()));
        shadow_.memory.Store(at, entry, static_cast<int>(EntryBytes()));
      }
    }
    registers_.state.mode = mode_;
    registers_.state.pse = true;
    registers_.state.maxphyaddr = 40;
    registers_.state.nxe = registers_.state.wp = true;
    LoadCr3();
  }

  // One step; what went wrong, or an empty string.
  std::string Step() {
    switch (random_() % 24) {
      case 0:
        LoadCr3();
        break;
      case 1:
        Toggle();
        break;
      case 2:
        shadow_.Invalidate(0, RandomAddress());
        break;
      case 3:
        Manage();
        break;
      case 4:
      case 5:
      case 6:
        if (std::string wrong = WriteTable(); !wrong.empty()) return wrong;
        break;
      default:
        if (std::string wrong = Access(); !wrong.empty()) return wrong;
    }
    if (const auto wrong = shadow_.Audit()) return "audit: " + *wrong;
    return Compare();
  }

  uint64_t done = 0, faulted = 0;
  const ShadowMachine& shadow() const { return shadow_; }

 private:
  uint64_t EntryBytes() const { return mode_ == Mode::k32 ? 4 : 8; }
  std::vector<uint64_t> Indexes() const {
    if (mode_ == Mode::k32) return {0, 1, 2, 513, 700};
    return {0, 1, 2, 511};
  }
  uint64_t Pick(const std::vector<uint64_t>& from) { return from[random_() % from.size()]; }
  bool OneIn(uint64_t n) { return random_() % n == 0; }

  uint64_t RandomEntry(bool link) {
    if (registers_.ept) return RandomEptEntry(link);
    uint64_t entry = OneIn(12) ? 0 : 1;
    entry |= OneIn(5) ? 0 : 2;
    entry |= OneIn(5) ? 0 : 4;
    entry |= random_() & 0x60;
    const bool wide = mode_ != Mode::k32;
    if (!link && OneIn(4)) return entry | 0x80 | (random_() % 4) << 21;  // large, at levels above 1
    const uint64_t frame = link || OneIn(2) ? 1 + random_() % kTableFrames
                           : OneIn(16)      ? kFrames + random_() % 4
                                            : 13 + random_() % (OneIn(2) ? 8 : kFrames - 13);
    entry |= frame << kPageShift;
    if (wide && OneIn(8)) entry |= manual::Bit(63);
    if (wide && OneIn(40)) entry |= manual::Bit(41);
    return entry;
  }
  uint64_t RandomEptEntry(bool link) {
    if (OneIn(12)) return 0;
    uint64_t entry = 7;
    // Execute-only and read-only pages; now and then W without R, which is a misconfiguration.
    if (OneIn(3)) entry = Pick({1, 3, 4, 5, 5, OneIn(8) ? 2ull : 1ull});
    entry |= random_() & 0x300;
    if (!link && OneIn(4)) return entry | 0x80 | 6 << 3 | (random_() % 4) << 21;
    const uint64_t frame = link || OneIn(2) ? 1 + random_() % kTableFrames
                           : OneIn(16)      ? kFrames + random_() % 4
                                            : 13 + random_() % (OneIn(2) ? 8 : kFrames - 13);
    // The memory type of a leaf is reserved in a link.
    return entry | frame << kPageShift | (link || OneIn(2) ? 0 : 6 << 3);
  }
  uint64_t RandomAddress() {
    uint64_t address = Pick({0, 1, 2, 511, random_() % 512}) * EntryBytes() & 0xFF8;
    const int levels = mode_ == Mode::k32 || mode_ == Mode::kPae ? 2 : 5;
    for (int level = 1; level <= levels; ++level) {
      address |= (level >= 4 ? random_() % 2 : Pick(Indexes())) << manual::ShiftOf(level, mode_);
    }
    if (mode_ == Mode::kPae) address |= (random_() % 4) << 30;
    if (mode_ == Mode::k4) address &= (uint64_t{1} << 47) - 1;
    return address;
  }
  manual::Request RandomRequest() {
    manual::Request request{static_cast<Kind>(random_() % 3), OneIn(2), false, false};
    if (!request.user) {
      request.ac = OneIn(2);
      request.implicit = OneIn(8);
    }
    return request;
  }

  void Load(const GuestRegisters& next) {
    if (!shadow_.Load(0, next)) throw std::runtime_error("good PDPTEs were refused");
  }
  void LoadCr3() {
    GuestRegisters next = registers_;
    next.paging = true;
    next.cr3 = (1 + random_() % 3) * kPageSize;
    if (mode_ == Mode::kPae) {
      next.cr3 |= (random_() % 4) * 32;
      FillPdptes(next.cr3);
      for (size_t i = 0; i < 4; ++i)
        next.pdptes[i] = PaePdpte(plain_.memory.Load(next.cr3 + 8 * i));
    }
    Load(next);
    registers_ = next;
  }
  // Entries that MOV to CR3 takes; through the second vCPU, as every write of the guest's.
  void FillPdptes(uint64_t table) {
    for (uint64_t i = 0; i < 4; ++i) {
      if (!OneIn(3)) continue;
      const uint64_t pdpte = OneIn(6) ? 0 : (1 + random_() % kTableFrames) << kPageShift | 1;
      WriteBoth({table + 8 * i, {Kind::kWrite, false, false, true}, 8, pdpte});
    }
    // Whatever else has been written there.
    for (uint64_t i = 0; i < 4; ++i) {
      if (PaePdpte(plain_.memory.Load(table + 8 * i)).Malformed(40)) {
        WriteBoth({table + 8 * i, {Kind::kWrite, false, false, true}, 8, 0});
      }
    }
  }
  void Toggle() {
    registers_.ept_flags = OneIn(2);
    switch (random_() % 5) {
      case 0:
        registers_.state.wp = !registers_.state.wp;
        break;
      case 1:
        registers_.state.smep = !registers_.state.smep;
        break;
      case 2:
        registers_.state.smap = !registers_.state.smap;
        break;
      case 3:
        registers_.state.nxe = !registers_.state.nxe;
        break;
      default:
        // LA57, where the shadow can follow.
        if (registers_.ept) break;
        if (root_level_ == Level::k256T && mode_ == Mode::k4) {
          mode_ = Mode::k5;
        } else if (mode_ == Mode::k5) {
          mode_ = Mode::k4;
        }
        registers_.state.mode = mode_;
    }
    Follow();
  }
  // What the hypervisor does for reasons of its own; the guest must not notice.
  void Manage() {
    ShadowFlush flush = shadow_.tables.NewFlush();
    switch (random_() % 6) {
      case 0:
        shadow_.tables.InvalidateAll(shadow_.turn(), flush);
        break;
      case 1:
        shadow_.tables.ZapObsolete(shadow_.turn(), 3, flush);
        break;
      case 2:
        shadow_.tables.ZapRange(shadow_.turn(), {Gfn(random_() % kFrames), 1 + random_() % 64},
                                flush);
        break;
      case 3:
        shadow_.tables.MakeRoom(shadow_.turn(), 190, flush);
        break;
      case 4:
        shadow_.largest = OneIn(2) ? Level::k2M : Level::k4K;
        break;
      default:
        SplitShadowPages(shadow_.turn(), shadow_.tables, {Gfn(0), kFrames}, Level::k4K,
                         random_() % 4);
    }
    flush.Finish(shadow_.turn());
  }

  std::string WriteBoth(const Poke& poke) {
    const Seen expected = plain_.Access(GuestRegisters{}, poke);
    const Seen seen = shadow_.Access(1, poke);
    return seen == expected ? "" : "a write without paging went elsewhere";
  }
  // The guest writes entries by physical address, then says so.
  std::string WriteTable() {
    std::string wrong;
    for (uint64_t n = 1 + random_() % 5; n > 0 && wrong.empty(); --n) {
      const uint64_t frame = 1 + random_() % kTableFrames;
      const uint64_t at = frame * kPageSize + Pick(Indexes()) * EntryBytes();
      wrong = WriteBoth({at,
                         {Kind::kWrite, false, false, true},
                         static_cast<int>(EntryBytes()),
                         RandomEntry(OneIn(2))});
    }
    Follow();
    return wrong;
  }
  // The guest flushes: what it wrote counts from here.
  void Follow() {
    GuestRegisters next = registers_;
    if (mode_ == Mode::kPae) {
      FillPdptes(next.cr3);
      for (size_t i = 0; i < 4; ++i)
        next.pdptes[i] = PaePdpte(plain_.memory.Load(next.cr3 + 8 * i));
    }
    Load(next);
    registers_ = next;
  }

  std::string Access() {
    const Poke poke{RandomAddress(), RandomRequest(), static_cast<int>(EntryBytes()),
                    RandomEntry(OneIn(2))};
    const Seen expected = plain_.Access(registers_, poke);
    const Seen seen = shadow_.Access(0, poke);
    if (!(seen == expected)) {
      return "address " + std::to_string(poke.address) + " kind " +
             std::to_string(static_cast<int>(poke.request.kind)) + ": expected " + Words(expected) +
             ", seen " + Words(seen);
    }
    (expected.kind == Seen::Kind::kDone ? done : faulted) += 1;
    const bool wrote = expected.kind == Seen::Kind::kDone && poke.request.kind == Kind::kWrite;
    if (wrote && expected.gpa >> kPageShift <= kTableFrames) Follow();
    return "";
  }
  static std::string Words(const Seen& seen) {
    return std::to_string(static_cast<int>(seen.kind)) + " value " + std::to_string(seen.value) +
           " error " + std::to_string(seen.error) + " gpa " + std::to_string(seen.gpa);
  }

  // Tables with their flags at every step, all memory now and then.
  std::string Compare() {
    const uint64_t frames = OneIn(64) ? kFrames : kTableFrames + 1;
    for (uint64_t at = 0; at < frames * kPageSize; at += 8) {
      if (plain_.memory.Load(at) != shadow_.memory.Load(at)) {
        return "memory at " + std::to_string(at) + ": expected " +
               std::to_string(plain_.memory.Load(at)) + ", is " +
               std::to_string(shadow_.memory.Load(at));
      }
    }
    return "";
  }

  std::function<uint64_t()> random_;
  Mode mode_;
  const Level root_level_;
  PlainMachine plain_;
  ShadowMachine shadow_;
  GuestRegisters registers_;
};

inline constexpr Arrangement kArrangements[] = {
    {"Guest32OnPae", Mode::k32, Level::k1G},
    {"Guest32On4Levels", Mode::k32, Level::k512G},
    {"Guest32On5Levels", Mode::k32, Level::k256T},
    {"PaeOnPae", Mode::kPae, Level::k1G},
    {"PaeOn4Levels", Mode::kPae, Level::k512G},
    {"PaeOn5Levels", Mode::kPae, Level::k256T},
    {"Guest4On4Levels", Mode::k4, Level::k512G},
    {"Guest4On5Levels", Mode::k4, Level::k256T},
    {"Guest5On5Levels", Mode::k5, Level::k256T},
    {"Nested32On4Levels", Mode::k32, Level::k512G, Nested::kPaging},
    {"Nested32On5Levels", Mode::k32, Level::k256T, Nested::kPaging},
    {"NestedPaeOn4Levels", Mode::kPae, Level::k512G, Nested::kPaging},
    {"NestedPaeOn5Levels", Mode::kPae, Level::k256T, Nested::kPaging},
    {"Nested4On4Levels", Mode::k4, Level::k512G, Nested::kPaging},
    {"Nested4On5Levels", Mode::k4, Level::k256T, Nested::kPaging},
    {"Nested5On5Levels", Mode::k5, Level::k256T, Nested::kPaging},
    {"NestedEptOn4Levels", Mode::k4, Level::k512G, Nested::kEpt},
    {"NestedEptOn5Levels", Mode::k4, Level::k256T, Nested::kEpt},
};

}  // namespace twinroot::mmu

#endif  // TWINROOT_TESTS_MMU_SHADOW_RANDOM_GUEST_H_
