// What a guest may rely on, and the few calls every guest needs. Freestanding: no C or C++ library,
// no static constructors, general registers only, so that it runs in ring 3 and in ring 0.
//
// Every vCPU runs GuestMain at the same time; when it returns, that vCPU has ended. Console lines
// of several vCPUs do not mix (Line and Print hold a lock while they write).
#ifndef TWINROOT_DAEMON_VCPU_KVM_GUEST_LIB_TWINROOT_GUEST_H_
#define TWINROOT_DAEMON_VCPU_KVM_GUEST_LIB_TWINROOT_GUEST_H_

#include <stddef.h>
#include <stdint.h>

#include "daemon/vcpu/kvm/boot_info.h"

namespace twinroot::guest {

using kvm::BootInfo;
using kvm::kBootMagic;
using kvm::kBootVersion;
using kvm::kSharedVirtualBit;

// Guests in the field were built against these positions.
static_assert(offsetof(BootInfo, magic) == 0);
static_assert(offsetof(BootInfo, version) == 8);
static_assert(offsetof(BootInfo, vcpus) == 12);
static_assert(offsetof(BootInfo, memory_bytes) == 16);
static_assert(offsetof(BootInfo, shared_bit) == 24);
static_assert(offsetof(BootInfo, zero) == 28);
static_assert(offsetof(BootInfo, cmdline_gpa) == 32);
static_assert(offsetof(BootInfo, program_gpa) == 40);
static_assert(offsetof(BootInfo, program_bytes) == 48);
static_assert(sizeof(BootInfo) == 56);
static_assert(kSharedVirtualBit == 46);

inline constexpr uint64_t kPageSize = 4096;
inline constexpr uint64_t kMiB = uint64_t{1} << 20;
inline constexpr uint64_t kStackBytes = 64 * 1024;  // for each vCPU, from the top of low RAM
inline constexpr uint64_t kLowRamLimit = uint64_t{3} << 30;  // RAM is one range up to here

// Ports.
inline constexpr uint16_t kPortConsole = 0xE9;
inline constexpr uint16_t kPortExit = 0xF4;
inline constexpr uint16_t kPortVcpuEnd = 0xF5;
inline constexpr uint16_t kPortHypercall = 0xF8;

// MapGPA: number, attributes, results.
inline constexpr uint64_t kHypercallMapGpa = 12;
inline constexpr uint64_t kMapPrivate = 1 << 4;
inline constexpr uint64_t kMapShared = 0;
inline constexpr uint64_t kMapPreserve = 1 << 5;
inline constexpr int64_t kOk = 0;
inline constexpr int64_t kDenied = -1;
inline constexpr int64_t kRetry = -11;
inline constexpr int64_t kInvalid = -22;
inline constexpr int64_t kUnknownHypercall = -1000;

// One hypercall through the port. `rbx` is updated: a retried MapGPA advances it.
int64_t Hypercall(uint64_t number, uint64_t& rbx, uint64_t rcx, uint64_t rdx);

// Asks for a conversion and follows retries to the end.
int64_t MapGpa(uint64_t gpa, uint64_t pages, uint64_t attributes);

// Ends the VM with this code (the first one wins); does not return.
[[noreturn]] void Exit(uint8_t code);
// Ends this vCPU; does not return.
[[noreturn]] void EndVcpu();
// Stops the VM by an exception: there is no IDT.
[[noreturn]] void Crash();

inline void Pause() { asm volatile("pause" ::: "memory"); }

// A frame through one of its two aliases.
inline uint64_t PrivateAddress(uint64_t gpa) { return gpa; }
inline uint64_t SharedAddress(uint64_t gpa) { return gpa | uint64_t{1} << kSharedVirtualBit; }
template <typename T = uint64_t>
volatile T* Private(uint64_t gpa) {
  return reinterpret_cast<volatile T*>(PrivateAddress(gpa));
}
template <typename T = uint64_t>
volatile T* Shared(uint64_t gpa) {
  return reinterpret_cast<volatile T*>(SharedAddress(gpa));
}

// The frames a guest may use as it likes: from 2 MiB, or the end of the image if that is higher, to
// the stacks.
struct Range {
  uint64_t begin;
  uint64_t end;
};
Range FreeMemory(const BootInfo& boot);

// Mutual exclusion between vCPUs. Zero-initialised is unlocked.
class SpinLock {
 public:
  bool TryLock() { return __atomic_exchange_n(&held_, 1, __ATOMIC_ACQUIRE) == 0; }
  void Lock() {
    while (!TryLock()) Pause();
  }
  void Unlock() { __atomic_store_n(&held_, 0, __ATOMIC_RELEASE); }

 private:
  uint32_t held_ = 0;
};

// Waits for `members` vCPUs, or fewer when some have left for good. Zero-initialised is ready.
class SpinBarrier {
 public:
  void Wait(uint32_t members);
  // The caller never waits again.
  void Leave(uint32_t members);

 private:
  bool OpenIfComplete(uint32_t members);

  SpinLock lock_;
  uint32_t waiting_ = 0;
  uint32_t left_ = 0;
  uint32_t generation_ = 0;
};

// Writes `length` bytes, or a NUL-terminated text, to the console.
void Print(const char* text, size_t length);
void Print(const char* text);

// Builds one console line and writes it whole; what does not fit is cut.
//   Line().Text("rounds ").Dec(rounds).End();
class Line {
 public:
  Line& Text(const char* text);
  Line& Dec(uint64_t value);
  Line& Signed(int64_t value);
  Line& Hex(uint64_t value);  // 0x..., lower case, no leading zeros
  void End();

 private:
  void Put(char c) {
    if (size_ < sizeof text_ - 1) text_[size_++] = c;
  }

  size_t size_ = 0;
  char text_[160];
};

// Looks up `key=value` among the words of the command line. The number may be decimal or 0x...; a
// word that is not a number is reported and ends the VM with code 2.
uint64_t NumberOption(const BootInfo& boot, const char* key, uint64_t otherwise);
// Whether the command line has the word `key=value`.
bool OptionIs(const BootInfo& boot, const char* key, const char* value);

// Checks the boot information; a guest calls it first. Ends the VM with code 2 if it is wrong.
void CheckBootInfo(const BootInfo& boot);

}  // namespace twinroot::guest

// Defined by each guest.
extern "C" void GuestMain(const twinroot::guest::BootInfo* boot, uint64_t vcpu);

#endif  // TWINROOT_DAEMON_VCPU_KVM_GUEST_LIB_TWINROOT_GUEST_H_
