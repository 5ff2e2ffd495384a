// What the SDM says of EPT entries, as data and in the simplest code: vol. 3C, tables "Format of an
// EPT ...", "EPT Misconfigurations", "EPT Violations", "Exit Qualification for EPT Violations",
// "Accessed and Dirty Flags for EPT", "Convertible EPT Violations". Nothing of mmu/hw is used.
#ifndef TWINROOT_TESTS_MMU_VMX_EPT_MANUAL_H_
#define TWINROOT_TESTS_MMU_VMX_EPT_MANUAL_H_

#include <cstdint>
#include <string_view>
#include <vector>

namespace twinroot::mmu::vmx::manual {

// One letter for each bit, 63 first. i ignored; 0 reserved; @ address, reserved from MAXPHYADDR on;
// r w x rights; u fetch by user mode under mode-based execute, else ignored; t memory type; p
// ignore PAT; P maps a page; A D flags; V suppress #VE; c ignored unless a control that nobody
// turns on.
// clang-format off
//                                          63..56     55..48     47..40     39..32     31..24     23..16     15..8      7..0
inline constexpr std::string_view kTopLink = "iiiiiiii" "iiii@@@@" "@@@@@@@@" "@@@@@@@@" "@@@@@@@@" "@@@@@@@@" "@@@@iuiA" "00000xwr";
inline constexpr std::string_view kLink    = "iiiiiiii" "iiii@@@@" "@@@@@@@@" "@@@@@@@@" "@@@@@@@@" "@@@@@@@@" "@@@@iuiA" "P0000xwr";
inline constexpr std::string_view k1GPage  = "Viicicci" "iiii@@@@" "@@@@@@@@" "@@@@@@@@" "@@000000" "00000000" "0000iuDA" "Ppttt" "xwr";
inline constexpr std::string_view k2MPage  = "Viicicci" "iiii@@@@" "@@@@@@@@" "@@@@@@@@" "@@@@@@@@" "@@@00000" "0000iuDA" "Ppttt" "xwr";
inline constexpr std::string_view k4KPage  = "Viccicci" "iiii@@@@" "@@@@@@@@" "@@@@@@@@" "@@@@@@@@" "@@@@@@@@" "@@@@iuDA" "ipttt" "xwr";
// clang-format on
static_assert(kTopLink.size() == 64 && kLink.size() == 64 && k1GPage.size() == 64 &&
              k2MPage.size() == 64 && k4KPage.size() == 64);

// The letter of a bit.
constexpr char Letter(std::string_view format, int bit) { return format[63 - bit]; }

struct Processor {
  bool execute_only = true;
  bool mode_based = false;
  bool page_2m = true, page_1g = true;
  bool advanced = false;  // advanced VM-exit information
  int maxphyaddr = 52;
};

constexpr uint64_t Bit(int bit) { return uint64_t{1} << bit; }
constexpr bool Has(uint64_t word, int bit) { return word >> bit & 1; }

// Level 1 is the PT.
inline bool MapsPage(uint64_t entry, int level) {
  return level == 1 || (level <= 3 && Has(entry, 7));
}
inline std::string_view FormatOf(uint64_t entry, int level) {
  if (level >= 4) return kTopLink;
  if (level == 1) return k4KPage;
  if (!MapsPage(entry, level)) return kLink;
  return level == 2 ? k2MPage : k1GPage;
}
// "An EPT paging-structure entry is present if any of bits 2:0 is 1; otherwise, not present"; with
// mode-based execute control, "any of bits 2:0 or bit 10".
inline bool Present(uint64_t entry, const Processor& cpu) {
  return (entry & 7) != 0 || (cpu.mode_based && Has(entry, 10));
}
// Of a present entry.
inline bool Misconfigured(uint64_t entry, int level, const Processor& cpu) {
  if (!Has(entry, 0) && Has(entry, 1)) return true;
  if (!cpu.execute_only && !Has(entry, 0) &&
      (Has(entry, 2) || (cpu.mode_based && Has(entry, 10)))) {
    return true;
  }
  const std::string_view format = FormatOf(entry, level);
  if (level == 2 && MapsPage(entry, level) && !cpu.page_2m) return true;
  if (level == 3 && MapsPage(entry, level) && !cpu.page_1g) return true;
  for (int bit = 0; bit < 64; ++bit) {
    if (!Has(entry, bit)) continue;
    if (Letter(format, bit) == '0') return true;
    if (Letter(format, bit) == '@' && bit >= cpu.maxphyaddr) return true;
  }
  const uint64_t type = entry >> 3 & 7;
  return MapsPage(entry, level) && (type == 2 || type == 3 || type == 7);
}

enum class Kind { kRead, kWrite, kFetch, kWalkRead, kWalkWrite };
struct Request {
  Kind kind = Kind::kRead;
  bool user_mode = false;
  // What the guest's own paging says of the linear address.
  bool guest_writable = true, guest_execute_disable = false;
};

enum class Verdict { kTranslated, kViolation, kMisconfiguration };
struct Expected {
  Verdict verdict;
  int level = 0;               // of the leaf or of the misconfigured entry
  uint64_t qualification = 0;  // of a violation
  bool convertible = false;
  uint64_t rights = 0;               // of a translation, bits 2:0
  std::vector<uint64_t> afterwards;  // the entries with their flags
};

// `entries` from the root down to the leaf (or further than the walk gets), `levels` of the root.
inline Expected Walk(std::vector<uint64_t> entries, int levels, const Processor& cpu,
                     const Request& request, bool flags) {
  const bool walk = request.kind == Kind::kWalkRead || request.kind == Kind::kWalkWrite;
  const bool fetch = request.kind == Kind::kFetch;
  // "Treated as writes with regard to EPT violations" if flags are on.
  const bool write =
      request.kind == Kind::kWrite || request.kind == Kind::kWalkWrite || (walk && flags);
  const bool read =
      request.kind == Kind::kRead || request.kind == Kind::kWalkRead || (walk && flags);
  uint64_t qualification = (read ? Bit(0) : 0) | (write ? Bit(1) : 0) | (fetch ? Bit(2) : 0) |
                           Bit(7) | (walk ? 0 : Bit(8));
  if (cpu.advanced && !walk) {
    qualification |= (request.user_mode ? Bit(9) : 0) | (request.guest_writable ? Bit(10) : 0) |
                     (request.guest_execute_disable ? Bit(11) : 0);
  }
  uint64_t all = ~uint64_t{0};
  for (size_t i = 0;; ++i) {
    const int level = levels - static_cast<int>(i);
    const uint64_t entry = entries[i];
    if (!Present(entry, cpu)) {
      return {Verdict::kViolation, level, qualification, !Has(entry, 63), 0, entries};
    }
    if (Misconfigured(entry, level, cpu)) {
      return {Verdict::kMisconfiguration, level, 0, false, 0, entries};
    }
    all &= entry;
    if (!MapsPage(entry, level)) continue;
    qualification |= (all & 7) << 3 | (cpu.mode_based && Has(all, 10) ? Bit(6) : 0);
    const int fetch_bit = cpu.mode_based && request.user_mode ? 10 : 2;
    if ((read && !Has(all, 0)) || (write && !Has(all, 1)) || (fetch && !Has(all, fetch_bit))) {
      return {Verdict::kViolation, level, qualification, !Has(entry, 63), 0, entries};
    }
    if (flags) {
      for (size_t used = 0; used <= i; ++used) entries[used] |= Bit(8);
      if (write) entries[i] |= Bit(9);
    }
    return {Verdict::kTranslated, level, 0, false, all & 7, entries};
  }
}

}  // namespace twinroot::mmu::vmx::manual

#endif  // TWINROOT_TESTS_MMU_VMX_EPT_MANUAL_H_
