// One implicit conversion of one page and one explicit conversion of four, to shared, with a line
// before and after each: while an orchestrator has not decided, the second line is not there.
//
// Command line: only=implicit|explicit; expect=denied|applied ends with code 1 if the explicit one
// was decided otherwise. vCPU 0 works, the others end.
#include "tests/guests/check.h"

namespace {

using namespace twinroot::guest;

constexpr uint64_t kImplicit = 3 * kMiB;
constexpr uint64_t kExplicit = 3 * kMiB + 16 * kPageSize;
constexpr uint64_t kExplicitPages = 4;
constexpr uint64_t kSalt = 5;

void Say(const char* what, uint64_t pages, uint64_t gpa) {
  Line()
      .Text("orchestrated: ")
      .Text(what)
      .Text(" conversion of ")
      .Dec(pages)
      .Text(pages == 1 ? " page at " : " pages at ")
      .Hex(gpa)
      .End();
}

void ImplicitConversion() {
  *Private(kImplicit) = Pattern(kImplicit, kSalt);
  Say("before the implicit", 1, kImplicit);
  if (*Shared(kImplicit) != 0) Expect("private bytes leaked", kImplicit, 0, 1);
  Say("after the implicit", 1, kImplicit);
}

// True if it was applied, false if it was denied.
bool ExplicitConversion() {
  constexpr uint64_t kEnd = kExplicit + kExplicitPages * kPageSize;
  for (uint64_t at = kExplicit; at < kEnd; at += 8) *Private(at) = Pattern(at, kSalt);
  Say("before the explicit", kExplicitPages, kExplicit);
  const int64_t result = MapGpa(kExplicit, kExplicitPages, kMapShared);
  if (result == kDenied) {
    Print("orchestrated: denied\n");
    for (uint64_t at = kExplicit; at < kEnd; at += 8) {
      Expect("private bytes after a denial", at, Pattern(at, kSalt), *Private(at));
    }
    return false;
  }
  ExpectResult("an explicit conversion", kExplicit, kOk, result);
  for (uint64_t at = kExplicit; at < kEnd; at += 8) {
    if (*Shared(at) != 0) Expect("private bytes leaked", at, 0, 1);
  }
  Say("after the explicit", kExplicitPages, kExplicit);
  return true;
}

}  // namespace

extern "C" void GuestMain(const BootInfo* boot, uint64_t vcpu) {
  if (vcpu != 0) EndVcpu();
  CheckBootInfo(*boot);
  if (!OptionIs(*boot, "only", "explicit")) ImplicitConversion();
  if (!OptionIs(*boot, "only", "implicit")) {
    const bool applied = ExplicitConversion();
    if (OptionIs(*boot, "expect", applied ? "denied" : "applied")) {
      Print("FAILED: the conversion was decided otherwise than expected\n");
      Exit(1);
    }
  }
  Print("orchestrated: done\n");
  Exit(0);
}
