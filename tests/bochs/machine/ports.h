// I/O ports; port 0xE9, which Bochs prints, for what a person should read.
#ifndef TWINROOT_TESTS_BOCHS_MACHINE_PORTS_H_
#define TWINROOT_TESTS_BOCHS_MACHINE_PORTS_H_

#include <stdint.h>

namespace twinroot::bochs {

inline uint8_t In8(uint16_t port) {
  uint8_t value;
  asm volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
  return value;
}
inline void Out8(uint16_t port, uint8_t value) {
  asm volatile("outb %0, %1" ::"a"(value), "Nd"(port));
}
inline void In16s(uint16_t port, void* to, uint64_t words) {
  asm volatile("rep insw" : "+D"(to), "+c"(words) : "d"(port) : "memory");
}
inline void Out16s(uint16_t port, const void* from, uint64_t words) {
  asm volatile("rep outsw" : "+S"(from), "+c"(words) : "d"(port) : "memory");
}

inline void Print(const char* text) {
  for (; *text != 0; ++text) Out8(0xE9, static_cast<uint8_t>(*text));
}
[[noreturn]] inline void Fail(const char* why) {
  Print("\nTWINROOT-FAILED: ");
  Print(why);
  Print("\n");
  asm volatile("xchg %%bx, %%bx" ::: "memory");  // Bochs stops here
  for (;;) asm volatile("cli; hlt");
}

}  // namespace twinroot::bochs

#endif  // TWINROOT_TESTS_BOCHS_MACHINE_PORTS_H_
