#include "tests/fakes/kvm/host_access.h"

#include <setjmp.h>
#include <signal.h>

#include <cstdint>

namespace twinroot::kvm::fake {
namespace {

// Where a signal leads while the thread accesses; null: it accesses nothing.
thread_local sigjmp_buf* volatile landing = nullptr;

void Leave(int number) {
  if (landing != nullptr) siglongjmp(*landing, 1);
  if (number == SIGRTMIN) return;  // as the daemon's own handler
  signal(number, SIG_DFL);         // a fault of somebody else: it comes again
}

void TakeSignals() {
  struct sigaction action = {};
  action.sa_handler = Leave;
  for (const int number : {SIGRTMIN, SIGSEGV, SIGBUS}) sigaction(number, &action, nullptr);
}

// Words in one piece, as a processor has them. Not looked at by sanitizers: what races here are the
// guest's processors.
__attribute__((no_sanitize("thread", "address"))) void Move(void* to, const void* from,
                                                            size_t size) {
  auto* out = static_cast<volatile uint8_t*>(to);
  auto* in = static_cast<const volatile uint8_t*>(from);
  if (size == sizeof(uint64_t)) {
    *reinterpret_cast<volatile uint64_t*>(out) = *reinterpret_cast<const volatile uint64_t*>(in);
    return;
  }
  for (size_t i = 0; i < size; ++i) out[i] = in[i];
}

bool Guarded(void* to, const void* from, size_t size, const std::function<bool()>& interrupted) {
  static const bool takes_signals = (TakeSignals(), true);
  (void)takes_signals;
  sigjmp_buf here;
  if (sigsetjmp(here, 1) != 0) {
    landing = nullptr;
    return false;
  }
  landing = &here;
  const bool early = interrupted();  // a signal that came before had nowhere to lead
  if (!early) Move(to, from, size);
  landing = nullptr;
  return !early;
}

}  // namespace

bool ReadHost(const void* from, void* to, size_t size, const std::function<bool()>& interrupted) {
  return Guarded(to, from, size, interrupted);
}

bool WriteHost(void* to, const void* from, size_t size, const std::function<bool()>& interrupted) {
  return Guarded(to, from, size, interrupted);
}

}  // namespace twinroot::kvm::fake
