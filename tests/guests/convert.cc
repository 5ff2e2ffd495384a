// Converts memory in every way the guest interface has, and checks every promise about the bytes:
// nothing private shows through the shared alias or the other way round, converted pages read zero
// unless they were preserved, pages that were already of that kind and all neighbours keep their
// bytes, and a refused request changes nothing.
//
// Command line: rounds=N (1). vCPU 0 works, the others end. Needs 16 MiB.
#include "tests/guests/check.h"

namespace {

using namespace twinroot::guest;

enum class Alias { kPrivate, kShared };

// Where each step works; all below 12 MiB.
constexpr uint64_t kOnePage = 3 * kMiB;
constexpr uint64_t kPreserved = 3 * kMiB + 64 * kPageSize;
constexpr uint64_t kPatchwork = 3 * kMiB + 128 * kPageSize;
constexpr uint64_t kRefused = 3 * kMiB + 192 * kPageSize;
constexpr uint64_t kLarge = 4 * kMiB;   // a 2 MiB page but for its first 4 KiB, and then more
constexpr uint64_t kAround = 8 * kMiB;  // a whole 2 MiB page and a page on each side
constexpr uint64_t kLargePages = 2 * kMiB / kPageSize + 1;

// What this guest asked for, for the summary.
struct Totals {
  uint64_t implicit = 0;    // conversions by an access
  uint64_t requests = 0;    // MapGPA calls that changed something
  uint64_t to_shared = 0;   // pages
  uint64_t to_private = 0;  // pages
};

class Converter {
 public:
  explicit Converter(const BootInfo& boot) : boot_(boot) {}

  void Round(uint64_t round) {
    salt_ = 2 * round + 1;
    ImplicitBothWays();
    ExplicitBothWays("explicit conversion of one page", kOnePage, 1);
    ExplicitBothWays("explicit conversion of 2 MiB + 4 KiB at + 4 KiB", kLarge + kPageSize,
                     kLargePages);
    ExplicitBothWays("explicit conversion around a 2 MiB page", kAround - kPageSize,
                     kLargePages + 1);
    PreservedBothWays();
    PagesOfThatKindKeepTheirBytes();
    RefusalsChangeNothing();
  }

  const Totals& totals() const { return totals_; }

 private:
  static volatile uint64_t* Word(Alias alias, uint64_t gpa) {
    return alias == Alias::kPrivate ? Private(gpa) : Shared(gpa);
  }

  void Fill(Alias alias, uint64_t gpa, uint64_t pages, uint64_t salt) {
    for (uint64_t at = gpa; at < gpa + pages * kPageSize; at += sizeof(uint64_t)) {
      *Word(alias, at) = Pattern(at, salt);
    }
  }

  void ExpectFilled(const char* what, Alias alias, uint64_t gpa, uint64_t pages, uint64_t salt) {
    for (uint64_t at = gpa; at < gpa + pages * kPageSize; at += sizeof(uint64_t)) {
      Expect(what, at, Pattern(at, salt), *Word(alias, at));
    }
  }

  void ExpectZero(const char* what, Alias alias, uint64_t gpa, uint64_t pages) {
    for (uint64_t at = gpa; at < gpa + pages * kPageSize; at += sizeof(uint64_t)) {
      // What it holds instead is nobody's business: it may be private.
      if (*Word(alias, at) != 0) Expect(what, at, 0, 1);
    }
  }

  // A conversion of `pages` pages, of which `changed` are of the other kind.
  void Convert(const char* what, uint64_t gpa, uint64_t pages, uint64_t attributes,
               uint64_t changed) {
    ExpectResult(what, gpa, kOk, MapGpa(gpa, pages, attributes));
    if (changed == 0) return;
    ++totals_.requests;
    ((attributes & kMapPrivate) != 0 ? totals_.to_private : totals_.to_shared) += changed;
  }

  void ImplicitBothWays() {
    const uint64_t page = kOnePage;
    Fill(Alias::kPrivate, page - kPageSize, 3, salt_);
    ExpectFilled("private bytes read back", Alias::kPrivate, page, 1, salt_);

    ExpectZero("implicit conversion to shared leaked private bytes", Alias::kShared, page, 1);
    ++totals_.implicit;
    ++totals_.to_shared;
    Fill(Alias::kShared, page, 1, salt_ + 1);
    ExpectFilled("shared bytes read back", Alias::kShared, page, 1, salt_ + 1);

    ExpectZero("implicit conversion to private kept shared bytes", Alias::kPrivate, page, 1);
    ++totals_.implicit;
    ++totals_.to_private;

    // The first access may be a write.
    *Shared(page + 8) = salt_;
    ++totals_.implicit;
    ++totals_.to_shared;
    Expect("a converting write", page + 8, salt_, *Shared(page + 8));
    Expect("the word before a converting write", page, 0, *Shared(page));
    *Private(page + 8) = ~salt_;
    ++totals_.implicit;
    ++totals_.to_private;
    Expect("a converting write", page + 8, ~salt_, *Private(page + 8));
    Expect("the word after a converting write", page + 16, 0, *Private(page + 16));

    ExpectFilled("the page before", Alias::kPrivate, page - kPageSize, 1, salt_);
    ExpectFilled("the page after", Alias::kPrivate, page + kPageSize, 1, salt_);
  }

  void ExplicitBothWays(const char* what, uint64_t gpa, uint64_t pages) {
    const uint64_t after = gpa + pages * kPageSize;
    Fill(Alias::kPrivate, gpa - kPageSize, pages + 2, salt_);

    Convert(what, gpa, pages, kMapShared, pages);
    ExpectZero("explicit conversion to shared leaked private bytes", Alias::kShared, gpa, pages);
    Fill(Alias::kShared, gpa, pages, salt_ + 1);
    Convert("a repeated conversion to shared", gpa, pages, kMapShared, 0);
    ExpectFilled("shared bytes after a repeated conversion", Alias::kShared, gpa, pages, salt_ + 1);

    Convert(what, gpa, pages, kMapPrivate, pages);
    ExpectZero("explicit conversion to private kept shared bytes", Alias::kPrivate, gpa, pages);
    Fill(Alias::kPrivate, gpa, pages, salt_ + 2);
    Convert("a repeated conversion to private", gpa, pages, kMapPrivate, 0);
    ExpectFilled("private bytes after a repeated conversion", Alias::kPrivate, gpa, pages,
                 salt_ + 2);

    ExpectFilled("the page before", Alias::kPrivate, gpa - kPageSize, 1, salt_);
    ExpectFilled("the page after", Alias::kPrivate, after, 1, salt_);
  }

  void PreservedBothWays() {
    constexpr uint64_t kPages = 3;
    Fill(Alias::kPrivate, kPreserved - kPageSize, kPages + 2, salt_);
    Convert("a preserving conversion to shared", kPreserved, kPages, kMapShared | kMapPreserve,
            kPages);
    ExpectFilled("bytes preserved to shared", Alias::kShared, kPreserved, kPages, salt_);
    Fill(Alias::kShared, kPreserved, kPages, salt_ + 1);
    Convert("a preserving conversion to private", kPreserved, kPages, kMapPrivate | kMapPreserve,
            kPages);
    ExpectFilled("bytes preserved to private", Alias::kPrivate, kPreserved, kPages, salt_ + 1);

    // What was preserved once has left no copy behind.
    Convert("a conversion after a preserving one", kPreserved, kPages, kMapShared, kPages);
    ExpectZero("a conversion after a preserving one", Alias::kShared, kPreserved, kPages);
    Convert("a conversion back", kPreserved, kPages, kMapPrivate, kPages);
    ExpectZero("a conversion back", Alias::kPrivate, kPreserved, kPages);
    ExpectFilled("the page before", Alias::kPrivate, kPreserved - kPageSize, 1, salt_);
    ExpectFilled("the page after", Alias::kPrivate, kPreserved + kPages * kPageSize, 1, salt_);
  }

  void PagesOfThatKindKeepTheirBytes() {
    constexpr uint64_t kPages = 4, kKept = 1;
    const uint64_t kept = kPatchwork + kKept * kPageSize;
    Fill(Alias::kPrivate, kPatchwork, kPages, salt_);
    Convert("one page of four to shared", kept, 1, kMapShared, 1);
    Fill(Alias::kShared, kept, 1, salt_ + 1);
    Convert("all four to shared", kPatchwork, kPages, kMapShared, kPages - 1);
    ExpectFilled("a page that was shared already", Alias::kShared, kept, 1, salt_ + 1);
    ExpectZero("pages that were private", Alias::kShared, kPatchwork, kKept);
    ExpectZero("pages that were private", Alias::kShared, kept + kPageSize, kPages - kKept - 1);
    // The size hint (bits 0 to 3) changes nothing.
    Convert("all four to private, with a size hint", kPatchwork, kPages, kMapPrivate | 1, kPages);
    ExpectZero("pages that were shared", Alias::kPrivate, kPatchwork, kPages);
  }

  void ExpectRefused(const char* what, uint64_t gpa, uint64_t pages, uint64_t attributes) {
    uint64_t rbx = gpa;
    ExpectResult(what, gpa, kInvalid, Hypercall(kHypercallMapGpa, rbx, pages, attributes));
    Expect("RBX after a refused request", gpa, gpa, rbx);
  }

  void RefusalsChangeNothing() {
    const uint64_t low_end = boot_.memory_bytes < kLowRamLimit ? boot_.memory_bytes : kLowRamLimit;
    constexpr uint64_t kTwoTo52 = uint64_t{1} << 52;
    Fill(Alias::kPrivate, kRefused, 2, salt_);
    ExpectRefused("an unaligned address", kRefused + 8, 1, kMapShared);
    ExpectRefused("zero pages", kRefused, 0, kMapShared);
    ExpectRefused("a byte count that overflows", kRefused, kTwoTo52, kMapShared);
    ExpectRefused("a byte count that overflows to one page", kRefused, kTwoTo52 + 1, kMapShared);
    ExpectRefused("an end that wraps", kRefused, kTwoTo52 - 1, kMapShared);
    ExpectRefused("the largest page count", kRefused, ~uint64_t{0}, kMapShared);
    ExpectRefused("the last page of the address space", 0 - kPageSize, 2, kMapShared);
    ExpectRefused("the alias bit", kRefused | uint64_t{1} << boot_.shared_bit, 1, kMapShared);
    ExpectRefused("a range that leaves RAM", low_end - kPageSize, 2, kMapShared);
    ExpectRefused("a page outside RAM", low_end, 1, kMapShared);
    ExpectRefused("attribute bit 6", kRefused, 1, 1 << 6);
    ExpectRefused("attribute bit 63", kRefused, 1, uint64_t{1} << 63 | kMapPrivate);
    uint64_t rbx = kRefused;
    ExpectResult("an unknown hypercall", kRefused, kUnknownHypercall,
                 Hypercall(kHypercallMapGpa + 1000, rbx, 1, kMapShared));
    ExpectFilled("private bytes after refused requests", Alias::kPrivate, kRefused, 2, salt_);
  }

  const BootInfo& boot_;
  uint64_t salt_ = 0;
  Totals totals_;
};

}  // namespace

extern "C" void GuestMain(const BootInfo* boot, uint64_t vcpu) {
  if (vcpu != 0) EndVcpu();
  CheckBootInfo(*boot);
  const uint64_t rounds = NumberOption(*boot, "rounds", 1);
  if (FreeMemory(*boot).end < 12 * kMiB) {
    Print("convert: needs a VM of 16 MiB or more\n");
    Exit(2);
  }
  Converter converter(*boot);
  for (uint64_t round = 0; round < rounds; ++round) converter.Round(round);
  const Totals& totals = converter.totals();
  Line()
      .Text("convert: ok, rounds ")
      .Dec(rounds)
      .Text(", implicit conversions ")
      .Dec(totals.implicit)
      .Text(", MapGPA requests ")
      .Dec(totals.requests)
      .Text(", pages to shared ")
      .Dec(totals.to_shared)
      .Text(", to private ")
      .Dec(totals.to_private)
      .End();
  Exit(0);
}
