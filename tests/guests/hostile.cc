// A guest that misbehaves on purpose, to show that only its own VM suffers. mode= chooses how:
//
//   exception     an undefined instruction, without an IDT
//   nowhere       jumps to an address that is not mapped
//   wander        jumps into zeroed memory and executes whatever follows, to the end of RAM
//   outside       writes behind the end of RAM, where no page table leads
//   outside-gpa   edits its page tables so that a write reaches a GPA outside RAM
//   loader-pages  converts its own page tables, descriptors and boot information
//   refused-loop  converts one page to shared, again and again, whatever the answer
//   ping-pong     converts one page by accesses through both aliases in turn
//   spin          never leaves the processor
//   console-flood writes to the console without end
//   door-storm    MapGPA with random arguments; checks every answer
//   alias-exec    executes through the shared alias, which is not promised to work
//
// count=N bounds the loops (0: for ever, the default but for door-storm's 1000); seed=N is of the
// storm. After a bounded loop the exit code is 0. The other vCPUs end, or spin with others=spin.
// Modes that must stop the VM exit with code 3 when they did not.
#include "tests/guests/check.h"

namespace {

using namespace twinroot::guest;

constexpr uint64_t kPage = 3 * kMiB;
constexpr uint8_t kSurvived = 3;

[[noreturn]] void Spin() {
  for (;;) Pause();
}

void Call(uint64_t address) { asm volatile("call *%0" : : "r"(address) : "memory"); }

// Counts iterations; a limit of 0 never ends.
class Rounds {
 public:
  explicit Rounds(uint64_t limit) : limit_(limit) {}
  bool Next() { return limit_ == 0 || done_++ < limit_; }

 private:
  const uint64_t limit_;
  uint64_t done_ = 0;
};

uint64_t LowEnd(const BootInfo& boot) {
  return boot.memory_bytes < kLowRamLimit ? boot.memory_bytes : kLowRamLimit;
}

void Wander() {
  // `add %al, (%rax)`, two zero bytes, is harmless where RAX points to a byte of our own.
  static uint8_t victim;
  asm volatile("jmp *%0" : : "r"(kPage), "a"(&victim) : "memory");
}

// Page tables are ordinary memory of the guest, in the first MiB; CR3 is not for ring 3 to read, so
// find the top table by its two entries: the private and the shared half.
volatile uint64_t* FindTopTable() {
  constexpr uint64_t kPresentWritableUser = 7;
  constexpr uint64_t kSharedEntry = 1 << (kSharedVirtualBit - 39);
  for (uint64_t table = 0; table < kMiB; table += kPageSize) {
    volatile uint64_t* entries = Private(table);
    bool top = true;
    for (uint64_t i = 0; i < kWordsPerPage && top; ++i) {
      const uint64_t entry = entries[i];
      const bool used = i == 0 || i == kSharedEntry;
      top = used ? (entry & kPresentWritableUser) == kPresentWritableUser && entry < kMiB
                 : entry == 0;
    }
    if (top) return entries;
  }
  return nullptr;
}

void WriteOutsideByPageTables() {
  constexpr uint64_t kAddressMask = ~uint64_t{0xfff};
  constexpr uint64_t kLastPage = 511;  // virtual: the last 2 MiB of the first GiB
  constexpr uint64_t kWritable2M = 0xe7;
  constexpr uint64_t kOutside = uint64_t{1} << 40;
  volatile uint64_t* top = FindTopTable();
  if (top == nullptr) {
    Print("hostile: no page tables in the first MiB\n");
    Exit(2);
  }
  volatile uint64_t* pointers = Private(top[0] & kAddressMask);
  volatile uint64_t* directory = Private(pointers[0] & kAddressMask);
  directory[kLastPage] = kOutside | kWritable2M;
  *Private(kLastPage * 2 * kMiB) = 1;
}

void DoorStorm(const BootInfo& boot, uint64_t count) {
  const Range free = FreeMemory(boot);
  const uint64_t low_end = LowEnd(boot);
  Random random(NumberOption(boot, "seed", 1));
  uint64_t accepted = 0, refused = 0, spared = 0;
  for (uint64_t i = 0; i < count; ++i) {
    // Small, near the edges, or anything.
    uint64_t gpa = random.Next(), pages = random.Next(), attributes = random.Next();
    switch (random.Next() % 8) {
      case 0:
        break;
      case 1:
        gpa = low_end - random.Next() % 4 * kPageSize;
        pages %= 8;
        break;
      case 2:
        gpa = 0 - random.Next() % 4 * kPageSize;
        pages %= 8;
        break;
      case 3:
        gpa = free.begin;
        pages = (uint64_t{1} << 52) - random.Next() % 4;
        break;
      default:
        gpa = free.begin + gpa % (free.end - free.begin);
        if (random.Next() % 4 != 0) gpa &= ~(kPageSize - 1);
        pages %= 64;
        break;
    }
    if (random.Next() % 4 != 0) attributes &= 0x3f;

    const bool in_ram = gpa < low_end && pages <= (low_end - gpa) / kPageSize;
    const bool valid =
        gpa % kPageSize == 0 && pages != 0 && in_ram && (attributes & ~uint64_t{0x3f}) == 0;
    if (valid && (gpa < free.begin || gpa + pages * kPageSize > free.end)) {
      ++spared;  // our own image or stacks
      continue;
    }
    if (boot.memory_bytes > kLowRamLimit && gpa >= low_end) {
      ++spared;  // perhaps RAM above 4 GiB
      continue;
    }
    const int64_t result = MapGpa(gpa, pages, attributes);
    if (valid && result == kDenied) {
      ++refused;
      continue;
    }
    ExpectResult("random arguments", gpa, valid ? kOk : kInvalid, result);
    ++(valid ? accepted : refused);
  }
  Line()
      .Text("hostile: door-storm, accepted ")
      .Dec(accepted)
      .Text(", refused ")
      .Dec(refused)
      .Text(", spared ")
      .Dec(spared)
      .End();
}

void Misbehave(const BootInfo& boot) {
  const auto mode = [&boot](const char* name) { return OptionIs(boot, "mode", name); };
  Rounds rounds(NumberOption(boot, "count", 0));
  if (mode("exception")) {
    Crash();
  } else if (mode("nowhere")) {
    Call(uint64_t{1} << 45);
  } else if (mode("wander")) {
    Wander();
  } else if (mode("outside")) {
    *Private(uint64_t{1} << 45) = 1;
  } else if (mode("outside-gpa")) {
    WriteOutsideByPageTables();
  } else if (mode("loader-pages")) {
    MapGpa(0, kMiB / kPageSize, kMapShared);
    *Private(FreeMemory(boot).begin) = 1;
  } else if (mode("refused-loop")) {
    while (rounds.Next()) MapGpa(kPage, 1, kMapShared);
    Exit(0);
  } else if (mode("ping-pong")) {
    while (rounds.Next()) {
      *Shared(kPage) = 1;
      *Private(kPage) = 1;
    }
    Exit(0);
  } else if (mode("spin")) {
    while (rounds.Next()) Pause();
    Exit(0);
  } else if (mode("console-flood")) {
    while (rounds.Next()) Print("all work and no play makes Jack a dull boy\n");
    Exit(0);
  } else if (mode("door-storm")) {
    DoorStorm(boot, NumberOption(boot, "count", 1000));
    Exit(0);
  } else if (mode("alias-exec")) {
    *Shared<uint8_t>(kPage) = 0xC3;  // a near return
    Call(SharedAddress(kPage));
    Exit(0);
  } else {
    Print("hostile: mode= is one of those in tests/guests/README.md\n");
    Exit(2);
  }
}

}  // namespace

extern "C" void GuestMain(const BootInfo* boot, uint64_t vcpu) {
  if (vcpu != 0) {
    if (OptionIs(*boot, "others", "spin")) Spin();
    EndVcpu();
  }
  CheckBootInfo(*boot);
  Misbehave(*boot);
  Print("FAILED: hostile: still running\n");
  Exit(kSurvived);
}
