// Checks what the guest interface says about ports it does not name: reads give all ones, writes
// are ignored, and an access belongs to its first port alone. vCPU 0 works, the others end.
#include "tests/guests/check.h"

namespace {

using namespace twinroot::guest;

template <typename T>
T In(uint16_t port) {
  T value = 0;
  asm volatile("in %w1, %0" : "+a"(value) : "d"(port));
  return value;
}

template <typename T>
void Out(uint16_t port, T value) {
  asm volatile("out %0, %w1" : : "a"(value), "d"(port) : "memory");
}

template <typename T>
void CheckPort(uint16_t port) {
  Out<T>(port, 0x5a);
  Expect("a read of an unused port", port, static_cast<T>(~T{0}), In<T>(port));
}

}  // namespace

extern "C" void GuestMain(const BootInfo* boot, uint64_t vcpu) {
  if (vcpu != 0) EndVcpu();
  CheckBootInfo(*boot);
  constexpr uint16_t kUnused[] = {0x0,  0x10,  0x80,  0x92,  0xE8,  0xEA,   0xF0,
                                  0xFC, 0x100, 0x3F8, 0x510, 0xCF8, 0x1000, 0xFFF0};
  for (const uint16_t port : kUnused) {
    CheckPort<uint8_t>(port);
    CheckPort<uint16_t>(port);
    CheckPort<uint32_t>(port);
  }
  // These reach over the console, the exit or the hypercall port, but begin before it.
  Out<uint16_t>(kPortConsole - 1, 0x2121);
  Out<uint16_t>(kPortExit - 1, 0x0909);
  Out<uint32_t>(kPortExit - 2, 0x09090909);
  Out<uint32_t>(kPortHypercall - 1, kHypercallMapGpa);
  Print("ports: ok\n");
  Exit(0);
}
