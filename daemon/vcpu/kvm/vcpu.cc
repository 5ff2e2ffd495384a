#include "daemon/vcpu/kvm/vcpu.h"

#include <pthread.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"

namespace twinroot::kvm {
namespace {

using vcpu::MapGpaAnswer;
using vcpu::MapGpaCall;
using vcpu::MapGpaResult;
using vcpu::StopReason;
using vcpu::Verdict;

// Ports of the guest interface.
constexpr uint16_t kPortConsole = 0xE9;
constexpr uint16_t kPortExit = 0xF4;
constexpr uint16_t kPortVcpuEnd = 0xF5;
constexpr uint16_t kPortHypercall = 0xF8;
constexpr int64_t kUnknownHypercall = -1000;

// KVM_RUN may fail a few times while the host changes mappings below it; more often in a row than
// this, with no exit in between, is an error.
constexpr int kMaxRepeatedErrors = 10000;

constexpr uint32_t kInternalErrorEmulation = 1;

}  // namespace

int KickSignal() {
  static const int signal_number = [] {
    struct sigaction action = {};
    action.sa_handler = [](int) {};
    sigaction(SIGRTMIN, &action, nullptr);  // no SA_RESTART: calls must return
    return SIGRTMIN;
  }();
  return signal_number;
}

absl::StatusOr<std::unique_ptr<Vcpu>> Vcpu::Create(vcpu::VcpuIndex index,
                                                   const Environment& environment) {
  KvmFd fd = environment.vm->Make(KVM_CREATE_VCPU, index);
  if (!fd.valid()) {
    return absl::ResourceExhaustedError(
        absl::StrCat("KVM_CREATE_VCPU for vcpu ", index, ": ", std::strerror(errno)));
  }
  void* const run = fd.api().Map(fd.get(), environment.run_bytes);
  if (run == nullptr) {
    return absl::ResourceExhaustedError(
        absl::StrCat("cannot map the state of vcpu ", index, ": ", std::strerror(errno)));
  }
  std::unique_ptr<Vcpu> vcpu(
      new Vcpu(index, environment, std::move(fd), static_cast<kvm_run*>(run)));
  if (vcpu->fd_.Ioctl(kSetCpuid2, environment.cpuid) != 0) {
    return absl::FailedPreconditionError(absl::StrCat("KVM_SET_CPUID2: ", std::strerror(errno)));
  }
  return vcpu;
}

Vcpu::Vcpu(vcpu::VcpuIndex index, const Environment& environment, KvmFd fd, kvm_run* run)
    : index_(index), environment_(environment), fd_(std::move(fd)), run_(run), regs_{} {
  if (environment_.sync_regs) run_->kvm_valid_regs = KVM_SYNC_X86_REGS;
}

Vcpu::~Vcpu() {
  JoinThread();
  fd_.api().Unmap(run_, environment_.run_bytes);
}

absl::Status Vcpu::SetState(const kvm_regs& regs, const kvm_sregs& sregs) {
  if (fd_.Ioctl(KVM_SET_SREGS, &sregs) != 0 || fd_.Ioctl(KVM_SET_REGS, &regs) != 0) {
    return absl::FailedPreconditionError(
        absl::StrCat("KVM refuses the entry state of vcpu ", index_, ": ", std::strerror(errno)));
  }
  return absl::OkStatus();
}

absl::StatusOr<kvm_sregs> Vcpu::GetSregs() {
  kvm_sregs sregs;
  if (fd_.Ioctl(KVM_GET_SREGS, &sregs) != 0) {
    return absl::FailedPreconditionError(absl::StrCat("KVM_GET_SREGS: ", std::strerror(errno)));
  }
  return sregs;
}

void Vcpu::StartThread() {
  KickSignal();
  thread_ = std::thread([this] {
    sigset_t kick;
    sigemptyset(&kick);
    sigaddset(&kick, KickSignal());
    pthread_sigmask(SIG_UNBLOCK, &kick, nullptr);
    thread_id_.store(static_cast<pid_t>(syscall(SYS_gettid)), std::memory_order_release);
    Loop();
    // The kernel may give the number to another thread from now on.
    thread_id_.store(0, std::memory_order_release);
  });
}

void Vcpu::JoinThread() {
  if (thread_.joinable()) thread_.join();
}

void Vcpu::Kick() {
  // KVM reads it before it enters the guest, so a signal that comes too early is not lost.
  std::atomic_ref<__u8>(run_->immediate_exit).store(1);
  if (const pid_t thread = thread_id(); thread != 0) {
    syscall(SYS_tgkill, getpid(), thread, KickSignal());
  }
  std::lock_guard lock(park_mutex_);
  park_changed_.notify_all();
}

void Vcpu::AnswerMapGpa(MapGpaAnswer answer) {
  std::lock_guard lock(park_mutex_);
  if (!map_gpa_waits_) return;
  map_gpa_answer_ = answer;
  park_changed_.notify_all();
}

void Vcpu::ResumeFetch() {
  std::lock_guard lock(park_mutex_);
  fetch_resumed_ = true;
  park_changed_.notify_all();
}

void Vcpu::Loop() {
  environment_.gate->Enter(index_);
  Execute();
  environment_.gate->Leave(index_);
}

void Vcpu::Execute() {
  while (GoesOn()) {
    const int result = fd_.Ioctl(KVM_RUN);
    const int error = errno;
    if (stopping()) return;
    // After an error the exit reason is stale.
    const Next next = result == 0 ? HandleExit() : HandleRunError(error);
    if (next == Next::kEnd) return;
  }
}

Vcpu::Next Vcpu::HandleRunError(int error) {
  if (error == EINTR) {
    // The kick was heard. Reading it orders what it was for, a stop or a pause, before the next
    // look.
    std::atomic_ref<__u8>(run_->immediate_exit).exchange(0);
    return Next::kRun;
  }
  if (error == EAGAIN) return Next::kRun;
  // Bare EFAULT: the host could not give KVM a page just now, and says no address. The guest tries
  // the same access again.
  if (error == EFAULT && ++repeated_errors_ < kMaxRepeatedErrors) return Next::kRun;
  return Fatal(StopReason::kBackendError, absl::StrCat("KVM_RUN: ", std::strerror(error)));
}

Vcpu::Next Vcpu::HandleExit() {
  if (run_->exit_reason != KVM_EXIT_INTERNAL_ERROR) repeated_errors_ = 0;
  switch (run_->exit_reason) {
    case KVM_EXIT_IO:
      if (run_->io.direction == KVM_EXIT_IO_OUT) return HandlePortOut();
      HandlePortIn();
      return Next::kRun;
    case KVM_EXIT_HYPERCALL:
      return HandleKvmHypercall();
    case KVM_EXIT_MMIO:
      return HandleMmio();
    case KVM_EXIT_HLT:
      environment_.client->OnVcpuEnded(index_);
      return Next::kEnd;
    case KVM_EXIT_INTR:
      return Next::kRun;
    case KVM_EXIT_SHUTDOWN:
      return Fatal(StopReason::kTripleFault, "triple fault (an exception without a handler)");
    case KVM_EXIT_INTERNAL_ERROR:
      return HandleInternalError();
    case KVM_EXIT_FAIL_ENTRY:
      return Fatal(StopReason::kBackendError,
                   absl::StrCat("the processor refuses to enter the guest, hardware reason 0x",
                                absl::Hex(run_->fail_entry.hardware_entry_failure_reason)));
    default:
      return Fatal(StopReason::kUnhandledExit,
                   absl::StrCat("KVM exit reason ", run_->exit_reason, " is not served"));
  }
}

void Vcpu::HandlePortIn() {
  uint8_t* data = reinterpret_cast<uint8_t*>(run_) + run_->io.data_offset;
  const size_t size = run_->io.size;
  std::memset(data, 0xff, size * run_->io.count);
  if (environment_.ports == nullptr) return;
  for (uint32_t i = 0; i < run_->io.count; ++i, data += size) {
    environment_.ports->In(run_->io.port, {data, size});
  }
}

Vcpu::Next Vcpu::HandlePortOut() {
  const uint8_t* data = reinterpret_cast<uint8_t*>(run_) + run_->io.data_offset;
  const uint8_t size = run_->io.size;
  if (run_->io.port == kPortConsole && size == 1) {  // string instructions come in one piece
    environment_.client->OnConsole(
        std::string_view(reinterpret_cast<const char*>(data), run_->io.count));
    return Next::kRun;
  }
  for (uint32_t i = 0; i < run_->io.count; ++i, data += size) {
    if (HandlePort(run_->io.port, size, data) == Next::kEnd) return Next::kEnd;
  }
  return Next::kRun;
}

Vcpu::Next Vcpu::HandlePort(uint16_t port, uint8_t size, const uint8_t* data) {
  switch (port) {
    case kPortConsole:
      environment_.client->OnConsole(std::string_view(reinterpret_cast<const char*>(data), 1));
      return Next::kRun;
    case kPortExit:
      environment_.client->OnExitCode(index_, data[0]);
      return Next::kEnd;
    case kPortVcpuEnd:
      environment_.client->OnVcpuEnded(index_);
      return Next::kEnd;
    case kPortHypercall:
      return size == 4 ? HandleDoor() : Next::kRun;
    default:
      return environment_.ports != nullptr ? HandlePcPort(port, size, data) : Next::kRun;
  }
}

Vcpu::Next Vcpu::HandlePcPort(uint16_t port, uint8_t size, const uint8_t* data) {
  switch (environment_.ports->Out(port, {data, size})) {
    case PcPorts::Effect::kNone:
      return Next::kRun;
    case PcPorts::Effect::kPowerOff:
      environment_.client->OnExitCode(index_, 0);
      return Next::kEnd;
    case PcPorts::Effect::kReset:
      return Fatal(StopReason::kGuestReset, "the guest asked for a reset");
  }
  return Next::kRun;
}

kvm_regs* Vcpu::Registers() {
  if (environment_.sync_regs) return &run_->s.regs.regs;
  if (fd_.Ioctl(KVM_GET_REGS, &regs_) != 0) return nullptr;
  return &regs_;
}

void Vcpu::RegistersChanged() {
  if (environment_.sync_regs) {
    run_->kvm_dirty_regs = KVM_SYNC_X86_REGS;
  } else {
    fd_.Ioctl(KVM_SET_REGS, &regs_);
  }
}

Vcpu::Next Vcpu::HandleDoor() {
  kvm_regs* regs = Registers();
  if (regs == nullptr) return Fatal(StopReason::kBackendError, "KVM_GET_REGS failed");
  int64_t result = kUnknownHypercall;
  if (regs->rax == kMapGpaHypercall) {
    const std::optional<MapGpaAnswer> answer = MapGpa({regs->rbx, regs->rcx, regs->rdx});
    if (!answer.has_value()) return Next::kEnd;
    result = static_cast<int64_t>(answer->result);
    if (answer->result == MapGpaResult::kRetry) regs->rbx = answer->next_gpa;
  }
  regs->rax = static_cast<uint64_t>(result);
  RegistersChanged();
  return Next::kRun;
}

Vcpu::Next Vcpu::HandleKvmHypercall() {
  if (run_->hypercall.nr != kMapGpaHypercall) {
    run_->hypercall.ret = static_cast<uint64_t>(kUnknownHypercall);
    return Next::kRun;
  }
  const std::optional<MapGpaAnswer> answer =
      MapGpa({run_->hypercall.args[0], run_->hypercall.args[1], run_->hypercall.args[2]});
  if (!answer.has_value()) return Next::kEnd;
  if (answer->result == MapGpaResult::kRetry) {
    kvm_regs* regs = Registers();
    if (regs == nullptr) return Fatal(StopReason::kBackendError, "KVM_GET_REGS failed");
    regs->rbx = answer->next_gpa;
    RegistersChanged();
  }
  run_->hypercall.ret = static_cast<uint64_t>(answer->result);
  return Next::kRun;
}

std::optional<MapGpaAnswer> Vcpu::MapGpa(const MapGpaCall& call) {
  {
    // Before the client knows of it: the answer may come at once.
    std::lock_guard lock(park_mutex_);
    map_gpa_waits_ = true;
    map_gpa_answer_.reset();
  }
  const vcpu::MapGpaVerdict verdict = environment_.client->OnMapGpa(index_, call);
  const bool parked = verdict.verdict == Verdict::kParked;
  std::optional<vcpu::Outside> outside;  // entered again without the lock: a kick takes it
  if (parked) outside.emplace(*environment_.gate, index_);
  std::unique_lock lock(park_mutex_);
  if (parked) {
    park_changed_.wait(lock, [this] { return map_gpa_answer_.has_value() || stopping(); });
  }
  map_gpa_waits_ = false;
  if (verdict.verdict == Verdict::kResume) return verdict.answer;
  return stopping() ? std::nullopt : map_gpa_answer_;
}

// Outside every memslot there is nothing to access. Inside, KVM's emulator could not make the
// access by itself; nobody makes it for the guest, since its memory may be private.
Vcpu::Next Vcpu::HandleMmio() {
  const mmu::Gfn gfn = environment_.layout->GfnOf(mmu::Gpa(run_->mmio.phys_addr));
  const std::string where =
      absl::StrCat(run_->mmio.is_write ? "write" : "read", " at 0x",
                   absl::Hex(gfn.value << mmu::kPageShift | (run_->mmio.phys_addr & 0xfff)));
  for (const memory::RamSlot& slot : environment_.ram->slots()) {
    if (slot.range.Contains(gfn)) {
      return Fatal(StopReason::kUnhandledExit,
                   "KVM could not complete a " + where + " in guest memory");
    }
  }
  return Fatal(StopReason::kMmioOutsideMemory, where + ", outside memory");
}

// KVM's emulator gives up when it cannot read the instruction bytes, which happens while their page
// is not projected. Let the engine map them; then the guest tries again.
Vcpu::Next Vcpu::HandleInternalError() {
  if (run_->internal.suberror == kInternalErrorEmulation &&
      ++repeated_errors_ < kMaxRepeatedErrors && ResolveFetch()) {
    return Next::kRun;
  }
  if (stopping()) return Next::kEnd;
  return Fatal(StopReason::kUnhandledExit,
               absl::StrCat("KVM internal error, suberror ", run_->internal.suberror,
                            run_->internal.suberror == kInternalErrorEmulation
                                ? " (an instruction that this host cannot emulate)"
                                : ""));
}

bool Vcpu::ResolveFetch() {
  const kvm_regs* regs = Registers();
  if (regs == nullptr) return false;
  constexpr uint64_t kLongestInstruction = 15;
  bool progress = false;
  for (const uint64_t offset : {uint64_t{0}, kLongestInstruction - 1}) {
    kvm_translation translation = {};
    translation.linear_address = regs->rip + offset;
    if (fd_.Ioctl(KVM_TRANSLATE, &translation) != 0 || !translation.valid) continue;
    const mmu::Fault fault = {mmu::Gpa(translation.physical_address), mmu::Access::Fetch()};
    {
      std::lock_guard lock(park_mutex_);
      fetch_resumed_ = false;
    }
    switch (environment_.client->OnEptViolation(index_, fault)) {
      case Verdict::kResume:
        progress = true;
        break;
      case Verdict::kParked: {
        // Parked outside the guest: wait here for the decision.
        const vcpu::Outside outside(*environment_.gate, index_);
        std::unique_lock lock(park_mutex_);
        park_changed_.wait(lock, [this] { return fetch_resumed_ || stopping(); });
        progress = true;
        break;
      }
      case Verdict::kStop:
        return false;
    }
    if (stopping()) return false;
  }
  return progress;
}

Vcpu::Next Vcpu::Fatal(StopReason reason, const std::string& what) {
  environment_.client->OnFatal(reason, absl::StrCat("vcpu ", index_, ": ", what));
  return Next::kEnd;
}

}  // namespace twinroot::kvm
