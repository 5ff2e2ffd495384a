// What the SDM says of ordinary paging, as data and in the simplest code: vol. 3A, tables "Format
// of a ... Entry", "Determination of Access Rights", "Protection Keys", "Page-Fault Exceptions",
// "Accessed and Dirty Flags". Nothing of mmu/hw or mmu/shadow is used.
#ifndef TWINROOT_TESTS_MMU_SHADOW_PAGING_MANUAL_H_
#define TWINROOT_TESTS_MMU_SHADOW_PAGING_MANUAL_H_

#include <cstdint>
#include <string_view>
#include <vector>

namespace twinroot::mmu::manual {

// One letter for each bit, 63 first. P present; w R/W; u U/S; A D flags; S maps a page; x XD,
// reserved unless NXE; k protection key; i ignored (or caching, or global); 0 reserved; @ address,
// reserved from MAXPHYADDR on; h bits 39:32 of a 4M page's address, where PSE-36 has them; . not
// there.
// clang-format off
//                                          63..56     55..48     47..40     39..32     31..24     23..16     15..8      7..0
inline constexpr std::string_view kTopLink = "xiiiiiii" "iiii@@@@" "@@@@@@@@" "@@@@@@@@" "@@@@@@@@" "@@@@@@@@" "@@@@iiii" "0iAiiuwP";
inline constexpr std::string_view kLink    = "xiiiiiii" "iiii@@@@" "@@@@@@@@" "@@@@@@@@" "@@@@@@@@" "@@@@@@@@" "@@@@iiii" "SiAiiuwP";
inline constexpr std::string_view k1GPage  = "xkkkkiii" "iiii@@@@" "@@@@@@@@" "@@@@@@@@" "@@000000" "00000000" "000iiiii" "SDAiiuwP";
inline constexpr std::string_view k2MPage  = "xkkkkiii" "iiii@@@@" "@@@@@@@@" "@@@@@@@@" "@@@@@@@@" "@@@00000" "000iiiii" "SDAiiuwP";
inline constexpr std::string_view k4KPage  = "xkkkkiii" "iiii@@@@" "@@@@@@@@" "@@@@@@@@" "@@@@@@@@" "@@@@@@@@" "@@@@iiii" "iDAiiuwP";
inline constexpr std::string_view kPaeLink = "x0000000" "0000@@@@" "@@@@@@@@" "@@@@@@@@" "@@@@@@@@" "@@@@@@@@" "@@@@iiii" "SiAiiuwP";
inline constexpr std::string_view kPae2M   = "x0000000" "0000@@@@" "@@@@@@@@" "@@@@@@@@" "@@@@@@@@" "@@@00000" "000iiiii" "SDAiiuwP";
inline constexpr std::string_view kPae4K   = "x0000000" "0000@@@@" "@@@@@@@@" "@@@@@@@@" "@@@@@@@@" "@@@@@@@@" "@@@@iiii" "iDAiiuwP";
inline constexpr std::string_view k32Link  = "........" "........" "........" "........" "@@@@@@@@" "@@@@@@@@" "@@@@iiii" "iiAiiuwP";
inline constexpr std::string_view k32Page4M= "........" "........" "........" "........" "@@@@@@@@" "@@0hhhhh" "hhhiiiii" "SDAiiuwP";
inline constexpr std::string_view k32Page4K= "........" "........" "........" "........" "@@@@@@@@" "@@@@@@@@" "@@@@iiii" "iDAiiuwP";
// clang-format on
static_assert(kTopLink.size() == 64 && kLink.size() == 64 && k1GPage.size() == 64 &&
              k2MPage.size() == 64 && k4KPage.size() == 64 && kPaeLink.size() == 64 &&
              kPae2M.size() == 64 && kPae4K.size() == 64 && k32Link.size() == 64 &&
              k32Page4M.size() == 64 && k32Page4K.size() == 64);

enum class Mode { k32, kPae, k4, k5 };

// Registers and processor, each by its name in the manual.
struct State {
  Mode mode = Mode::k4;
  bool wp = false, smep = false, smap = false, pke = false, pks = false, pse = false, nxe = false;
  bool page_1g = true, pse36 = true;
  int maxphyaddr = 52;
  uint32_t pkru = 0, pkrs = 0;
};
enum class Kind { kRead, kWrite, kFetch };
struct Request {
  Kind kind = Kind::kRead;
  bool user = false;      // a user-mode access
  bool implicit = false;  // an implicit supervisor-mode access
  bool ac = false;        // EFLAGS.AC
};

constexpr uint64_t Bit(int bit) { return uint64_t{1} << bit; }
constexpr bool Has(uint64_t word, int bit) { return word >> bit & 1; }

// The entry at `level` (1: page table) maps a page.
inline bool MapsPage(uint64_t entry, int level, const State& state) {
  if (level == 1) return true;
  if (!Has(entry, 7)) return false;
  switch (state.mode) {
    case Mode::k32:
      return level == 2 && state.pse;
    case Mode::kPae:
      return level == 2;
    default:
      return level == 2 || (level == 3 && state.page_1g);
  }
}
inline std::string_view FormatOf(uint64_t entry, int level, const State& state) {
  const bool page = MapsPage(entry, level, state);
  if (state.mode == Mode::k32) return level == 1 ? k32Page4K : page ? k32Page4M : k32Link;
  if (state.mode == Mode::kPae) return level == 1 ? kPae4K : page ? kPae2M : kPaeLink;
  if (level >= 4) return kTopLink;
  if (level == 1) return k4KPage;
  if (!page) return kLink;
  return level == 2 ? k2MPage : k1GPage;
}
// Some reserved bit of a present entry is set.
inline bool HasReserved(uint64_t entry, int level, const State& state) {
  const std::string_view format = FormatOf(entry, level, state);
  const bool page = MapsPage(entry, level, state);
  for (size_t i = 0; i < 64; ++i) {
    const int bit = 63 - static_cast<int>(i);
    if (!Has(entry, bit)) continue;
    switch (format[i]) {
      case '0':
        return true;
      case '@':
        if (bit >= state.maxphyaddr) return true;
        break;
      case 'x':
        if (!state.nxe) return true;
        break;
      case 'h': {
        // Table "Format of a 32-Bit Page-Directory Entry that Maps a 4-MByte Page": bits (M-20):13
        // are bits (M-1):32 of the address, bits 21:(M-19) are reserved.
        const int m = !state.pse36 ? 32 : state.maxphyaddr < 40 ? state.maxphyaddr : 40;
        if (bit >= m - 19) return true;
        break;
      }
      case 'S':
        // A 1G page on a processor that has none; no other mode leaves a set S on a link.
        if (!page) return true;
        break;
      default:
        break;
    }
  }
  return false;
}

inline int ShiftOf(int level, Mode mode) { return 12 + (mode == Mode::k32 ? 10 : 9) * (level - 1); }
inline uint64_t PageOf(uint64_t entry, int level, const State& state) {
  const uint64_t address = entry & 0x000F'FFFF'FFFF'F000;
  if (level == 1) return address;
  if (state.mode == Mode::k32) return (entry & 0xFFC0'0000) | (entry & 0x001F'E000) << 19;
  return address & ~(Bit(ShiftOf(level, state.mode)) - 1);
}

struct Expected {
  bool fault = false;
  uint32_t error = 0;
  int level = 0;                     // of the leaf
  uint64_t page = 0;                 // where it begins
  std::vector<uint64_t> afterwards;  // the entries with their flags
};

// "Page-Fault Exceptions": what the error code says of the access itself.
inline uint32_t ErrorOf(const Request& request, const State& state) {
  uint32_t error = 0;
  if (request.kind == Kind::kWrite) error |= 1 << 1;
  if (request.user) error |= 1 << 2;
  const bool cr4_pae = state.mode != Mode::k32;
  if (request.kind == Kind::kFetch && (state.smep || (cr4_pae && state.nxe))) error |= 1 << 4;
  return error;
}

// "Protection Keys": 4-level and 5-level paging only, never a fetch.
inline bool KeyRefuses(bool user_address, uint64_t leaf, const Request& request,
                       const State& state) {
  if (state.mode != Mode::k4 && state.mode != Mode::k5) return false;
  if (request.kind == Kind::kFetch) return false;
  if (user_address ? !state.pke : !state.pks) return false;
  const int key = static_cast<int>(leaf >> 59 & 15);
  const uint32_t rights = user_address ? state.pkru : state.pkrs;
  const bool access_disable = Has(rights, 2 * key);
  const bool write_disable = Has(rights, 2 * key + 1);
  if (access_disable) return true;
  if (!write_disable || request.kind != Kind::kWrite) return false;
  return request.user ? true : state.wp;
}

// "Determination of Access Rights", but for protection keys: one case after the other.
inline bool RightsAllow(bool user_address, bool writable, bool execute_disable,
                        const Request& request, const State& state) {
  if (!request.user) {
    switch (request.kind) {
      case Kind::kRead:
        if (!user_address) return true;
        if (!state.smap) return true;
        return !request.implicit && request.ac;
      case Kind::kWrite:
        if (!user_address) return state.wp ? writable : true;
        if (!state.wp) {
          if (!state.smap) return true;
          return !request.implicit && request.ac;
        }
        if (!state.smap) return writable;
        return !request.implicit && request.ac && writable;
      case Kind::kFetch:
        if (user_address && state.smep) return false;
        if (state.mode == Mode::k32 || !state.nxe) return true;
        return !execute_disable;
    }
  }
  if (!user_address) return false;
  if (request.kind == Kind::kRead) return true;
  if (request.kind == Kind::kWrite) return writable;
  if (state.mode == Mode::k32 || !state.nxe) return true;
  return !execute_disable;
}

// `entries` from the top down to the leaf (or further than the walk gets). PAE: from the PDE.
inline Expected Walk(std::vector<uint64_t> entries, const State& state, const Request& request) {
  Expected expected;
  const uint32_t error = ErrorOf(request, state);
  bool user_address = true, writable = true, execute_disable = false;
  for (size_t i = 0;; ++i) {
    const int levels = state.mode == Mode::k5 ? 5 : state.mode == Mode::k4 ? 4 : 2;
    const int level = levels - static_cast<int>(i);
    const uint64_t entry = entries[i];
    if (!Has(entry, 0)) return {true, error, level, 0, entries};
    if (HasReserved(entry, level, state)) return {true, error | 1 | 1 << 3, level, 0, entries};
    user_address = user_address && Has(entry, 2);
    writable = writable && Has(entry, 1);
    execute_disable = execute_disable || Has(entry, 63);
    if (!MapsPage(entry, level, state)) continue;
    const bool key = KeyRefuses(user_address, entry, request, state);
    if (key || !RightsAllow(user_address, writable, execute_disable, request, state)) {
      return {true, error | 1 | (key ? 1u << 5 : 0u), level, 0, entries};
    }
    for (size_t used = 0; used <= i; ++used) entries[used] |= Bit(5);
    if (request.kind == Kind::kWrite) entries[i] |= Bit(6);
    return {false, 0, level, PageOf(entry, level, state), entries};
  }
}

// A bit that is reserved at this level whatever the registers say; 0: there is none.
inline uint64_t ReservedBit(Mode mode, int level, bool leaf) {
  if (mode == Mode::k32) return leaf && level == 2 ? Bit(21) : 0;
  return Bit(45);
}

// Present, R/W, U/S, XD, reserved, A and D of one entry: bits 0 to 6 of `i`.
inline uint64_t WithBits(uint64_t entry, unsigned i, Mode mode, int level, bool leaf) {
  entry &= ~uint64_t{0x67};
  entry |= i & 7;
  if (i & 8) entry |= mode == Mode::k32 ? 0 : Bit(63);
  if (i & 16) entry |= ReservedBit(mode, level, leaf);
  if (i & 32) entry |= Bit(5);
  if (i & 64) entry |= Bit(6);
  return entry;
}

}  // namespace twinroot::mmu::manual

#endif  // TWINROOT_TESTS_MMU_SHADOW_PAGING_MANUAL_H_
