// Strides over private memory, writes a word at each step, reads all of them back and reports a
// checksum that depends on the options alone.
//
// Command line: bytes=N (8 MiB, or what is free), stride=N (4096), rounds=N (1). vCPU 0 works, the
// others end.
#include "tests/guests/check.h"

using namespace twinroot::guest;

namespace {

uint64_t Smaller(uint64_t a, uint64_t b) { return a < b ? a : b; }

}  // namespace

extern "C" void GuestMain(const BootInfo* boot, uint64_t vcpu) {
  if (vcpu != 0) EndVcpu();
  CheckBootInfo(*boot);
  const Range free = FreeMemory(*boot);
  const uint64_t room = free.end - free.begin;
  const uint64_t bytes = NumberOption(*boot, "bytes", Smaller(8 * kMiB, room));
  const uint64_t stride = NumberOption(*boot, "stride", kPageSize);
  const uint64_t rounds = NumberOption(*boot, "rounds", 1);
  if (bytes > room || bytes % 8 != 0 || stride == 0 || stride % 8 != 0) {
    Line().Text("touch: bytes= is at most ").Dec(room).Text(", both are multiples of 8").End();
    Exit(2);
  }
  uint64_t words = 0, checksum = 0;
  for (uint64_t round = 0; round < rounds; ++round) {
    for (uint64_t at = 0; at < bytes; at += stride) {
      *Private(free.begin + at) = Pattern(at, round);
    }
    for (uint64_t at = 0; at < bytes; at += stride, ++words) {
      const uint64_t got = *Private(free.begin + at);
      Expect("a word written before", free.begin + at, Pattern(at, round), got);
      checksum = (checksum << 1 | checksum >> 63) ^ got;
    }
  }
  Line()
      .Text("touch: ok, bytes ")
      .Dec(bytes)
      .Text(", stride ")
      .Dec(stride)
      .Text(", rounds ")
      .Dec(rounds)
      .Text(", words ")
      .Dec(words)
      .Text(", checksum ")
      .Hex(checksum)
      .End();
  Exit(0);
}
