#include "daemon/vcpu/kvm/guest_lib/twinroot_guest.h"

// The end of the image, from the linker script.
extern "C" char __image_end[];

// The compiler may call these for copies and clears it finds in the code.
extern "C" void* memcpy(void* to, const void* from, size_t size) {
  void* const result = to;
  asm volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(size) : : "memory");
  return result;
}
extern "C" void* memset(void* to, int value, size_t size) {
  void* const result = to;
  asm volatile("rep stosb" : "+D"(to), "+c"(size) : "a"(value) : "memory");
  return result;
}

namespace twinroot::guest {
namespace {

constinit SpinLock console_lock;

template <uint16_t kPort>
void Out8(uint8_t value) {
  asm volatile("outb %0, %1" : : "a"(value), "N"(kPort) : "memory");
}

bool IsSpace(char c) { return c == ' ' || c == '\t' || c == '\n'; }

// The value of `key=` in the command line, or null.
const char* FindOption(const BootInfo& boot, const char* key) {
  if (boot.cmdline_gpa == 0) return nullptr;
  const char* word = reinterpret_cast<const char*>(boot.cmdline_gpa);
  while (*word != 0) {
    while (IsSpace(*word)) ++word;
    const char* at = word;
    const char* expected = key;
    while (*expected != 0 && *at == *expected) ++at, ++expected;
    if (*expected == 0 && *at == '=') return at + 1;
    while (*word != 0 && !IsSpace(*word)) ++word;
  }
  return nullptr;
}

int DigitOf(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return 16;
}

}  // namespace

int64_t Hypercall(uint64_t number, uint64_t& rbx, uint64_t rcx, uint64_t rdx) {
  int64_t result = static_cast<int64_t>(number);
  asm volatile("outl %%eax, %[port]"
               : "+a"(result), "+b"(rbx)
               : "c"(rcx), "d"(rdx), "S"(uint64_t{0}), [port] "N"(kPortHypercall)
               : "memory");
  return result;
}

int64_t MapGpa(uint64_t gpa, uint64_t pages, uint64_t attributes) {
  for (;;) {
    uint64_t next = gpa;
    const int64_t result = Hypercall(kHypercallMapGpa, next, pages, attributes);
    if (result != kRetry) return result;
    const uint64_t done = (next - gpa) / kPageSize;
    // A retry that claims to be behind, complete, or amid a page is no retry: let the caller see
    // it.
    if (next < gpa || next % kPageSize != 0 || done >= pages) return result;
    gpa = next;
    pages -= done;
    Pause();
  }
}

void Exit(uint8_t code) {
  Out8<kPortExit>(code);
  EndVcpu();
}

void EndVcpu() {
  for (;;) {
    Out8<kPortVcpuEnd>(0);
    Pause();
  }
}

void Crash() {
  for (;;) asm volatile("ud2");
}

Range FreeMemory(const BootInfo& boot) {
  const uint64_t image_end = reinterpret_cast<uint64_t>(__image_end);
  const uint64_t low = boot.memory_bytes < kLowRamLimit ? boot.memory_bytes : kLowRamLimit;
  Range range;
  range.begin = image_end > 2 * kMiB ? (image_end + kPageSize - 1) & ~(kPageSize - 1) : 2 * kMiB;
  range.end = low - kStackBytes * boot.vcpus;
  if (range.end < range.begin) range.end = range.begin;
  return range;
}

bool SpinBarrier::OpenIfComplete(uint32_t members) {
  if (waiting_ + left_ < members) return false;
  waiting_ = 0;
  __atomic_store_n(&generation_, generation_ + 1, __ATOMIC_RELEASE);
  return true;
}

void SpinBarrier::Wait(uint32_t members) {
  lock_.Lock();
  const uint32_t mine = generation_;
  ++waiting_;
  OpenIfComplete(members);
  lock_.Unlock();
  while (__atomic_load_n(&generation_, __ATOMIC_ACQUIRE) == mine) Pause();
}

void SpinBarrier::Leave(uint32_t members) {
  lock_.Lock();
  ++left_;
  if (waiting_ > 0) OpenIfComplete(members);
  lock_.Unlock();
}

void Print(const char* text, size_t length) {
  console_lock.Lock();
  for (size_t i = 0; i < length; ++i) Out8<kPortConsole>(static_cast<uint8_t>(text[i]));
  console_lock.Unlock();
}

void Print(const char* text) {
  size_t length = 0;
  while (text[length] != 0) ++length;
  Print(text, length);
}

Line& Line::Text(const char* text) {
  while (*text != 0) Put(*text++);
  return *this;
}

Line& Line::Dec(uint64_t value) {
  char digits[20];
  int count = 0;
  do {
    digits[count++] = static_cast<char>('0' + value % 10);
    value /= 10;
  } while (value != 0);
  while (count > 0) Put(digits[--count]);
  return *this;
}

Line& Line::Signed(int64_t value) {
  if (value >= 0) return Dec(static_cast<uint64_t>(value));
  Put('-');
  return Dec(0 - static_cast<uint64_t>(value));
}

Line& Line::Hex(uint64_t value) {
  Text("0x");
  int shift = 60;
  while (shift > 0 && value >> shift == 0) shift -= 4;
  for (; shift >= 0; shift -= 4) Put("0123456789abcdef"[value >> shift & 15]);
  return *this;
}

void Line::End() {
  text_[size_++] = '\n';  // Put leaves room for it
  Print(text_, size_);
  size_ = 0;
}

uint64_t NumberOption(const BootInfo& boot, const char* key, uint64_t otherwise) {
  const char* text = FindOption(boot, key);
  if (text == nullptr) return otherwise;
  int base = 10;
  if (text[0] == '0' && text[1] == 'x') {
    base = 16;
    text += 2;
  }
  uint64_t value = 0;
  bool valid = *text != 0 && !IsSpace(*text);
  for (; valid && *text != 0 && !IsSpace(*text); ++text) {
    const int digit = DigitOf(*text);
    valid = digit < base && !__builtin_mul_overflow(value, static_cast<uint64_t>(base), &value) &&
            !__builtin_add_overflow(value, static_cast<uint64_t>(digit), &value);
  }
  if (!valid) {
    Line().Text("command line: ").Text(key).Text("= needs a number, decimal or 0x...").End();
    Exit(2);
  }
  return value;
}

bool OptionIs(const BootInfo& boot, const char* key, const char* value) {
  const char* text = FindOption(boot, key);
  if (text == nullptr) return false;
  while (*value != 0 && *text == *value) ++text, ++value;
  return *value == 0 && (*text == 0 || IsSpace(*text));
}

void CheckBootInfo(const BootInfo& boot) {
  if (boot.magic == kBootMagic && boot.version == kBootVersion && boot.zero == 0) return;
  Line().Text("boot information: magic ").Hex(boot.magic).Text(" version ").Dec(boot.version).End();
  Exit(2);
}

}  // namespace twinroot::guest
