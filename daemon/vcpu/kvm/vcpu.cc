#include "daemon/vcpu/kvm/vcpu.h"

#include <pthread.h>
#include <sched.h>
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

// As long as it lives, the thread may be kicked.
class OpenToKicks {
 public:
  explicit OpenToKicks(std::atomic<pid_t>& thread_id) : thread_id_(thread_id) {
    sigset_t kick;
    sigemptyset(&kick);
    sigaddset(&kick, KickSignal());
    pthread_sigmask(SIG_UNBLOCK, &kick, &before_);
    thread_id_.store(static_cast<pid_t>(syscall(SYS_gettid)), std::memory_order_release);
  }
  ~OpenToKicks() {
    // The kernel may give the number to another thread from now on.
    thread_id_.store(0, std::memory_order_release);
    pthread_sigmask(SIG_SETMASK, &before_, nullptr);
  }
  OpenToKicks(const OpenToKicks&) = delete;
  OpenToKicks& operator=(const OpenToKicks&) = delete;

 private:
  std::atomic<pid_t>& thread_id_;
  sigset_t before_;
};

// A page of the trap may be poisoned (NativeMemory::LetGo) while this vCPU is on its way to it,
// from before its frame became private. KVM sends a signal then, and tries again.
void BlockMemoryErrors() {
  sigset_t errors;
  sigemptyset(&errors);
  sigaddset(&errors, SIGBUS);
  pthread_sigmask(SIG_BLOCK, &errors, nullptr);
}

bool StayOn(const std::vector<uint32_t>& cpus) {
  if (cpus.empty()) return true;
  cpu_set_t* const set = CPU_ALLOC(cpus.back() + 1);  // they are sorted
  if (set == nullptr) return false;
  const size_t bytes = CPU_ALLOC_SIZE(cpus.back() + 1);
  CPU_ZERO_S(bytes, set);
  for (const uint32_t cpu : cpus) CPU_SET_S(cpu, bytes, set);
  const bool stays = sched_setaffinity(0, bytes, set) == 0;
  CPU_FREE(set);
  return stays;
}

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
                                                   const Environment& environment,
                                                   const Cpuid2& cpuid) {
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
  if (vcpu->fd_.Ioctl(kSetCpuid2, &cpuid) != 0) {
    return absl::FailedPreconditionError(absl::StrCat("KVM_SET_CPUID2: ", std::strerror(errno)));
  }
  return vcpu;
}

Vcpu::Vcpu(vcpu::VcpuIndex index, const Environment& environment, KvmFd fd, kvm_run* run)
    : index_(index),
      environment_(environment),
      fd_(std::move(fd)),
      run_(run),
      exits_(KvmStat::Open(fd_, "exits")),
      regs_{} {
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
  thread_ = std::thread([this] {
    const OpenToKicks open(thread_id_);
    if (environment_.native) BlockMemoryErrors();
    if (!StayOn(environment_.cpus)) {
      Fatal(StopReason::kBackendError,
            absl::StrCat("its thread cannot run on the processors that vm.placement names: ",
                         std::strerror(errno)));
      return;
    }
    if (environment_.thread_starts != nullptr) {
      if (const absl::Status status = environment_.thread_starts(); !status.ok()) {
        Fatal(StopReason::kBackendError, std::string(status.message()));
        return;
      }
    }
    Loop();
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

absl::Status Vcpu::RunUntilPort(uint16_t port) {
  const OpenToKicks open(thread_id_);
  const auto stops = [] { return absl::CancelledError("the VM stops"); };
  while (!stopping()) {
    if (fd_.Ioctl(KVM_RUN) != 0) {
      const int error = errno;
      if (stopping()) return stops();
      if (HandleRunError(error) == Next::kEnd) return stops();
      continue;
    }
    if (run_->exit_reason == KVM_EXIT_INTR) continue;
    if (run_->exit_reason != KVM_EXIT_IO || run_->io.port != port) {
      return absl::InternalError(absl::StrCat("vcpu ", index_, ": KVM exit reason ",
                                              run_->exit_reason, " while the guest was loaded"));
    }
    // KVM finishes the instruction when it is called next, and must not do so in another state.
    std::atomic_ref<__u8>(run_->immediate_exit).store(1);
    fd_.Ioctl(KVM_RUN);
    std::atomic_ref<__u8>(run_->immediate_exit).exchange(0);
    return stopping() ? stops() : absl::OkStatus();
  }
  return stops();
}

absl::Status Vcpu::Prefault(mmu::GfnRange range) {
  const OpenToKicks open(thread_id_);
  std::atomic_ref<__u8>(run_->immediate_exit).store(0);  // of a kick that came before
  PreFaultMemory request;
  request.gpa = range.first.value << mmu::kPageShift;
  request.size = range.count << mmu::kPageShift;
  while (request.size != 0 && !stopping()) {
    // Comes back in between with what is left, at the end of a memslot or for a signal.
    if (fd_.Ioctl(kPreFaultMemory, &request) == 0 || errno == EAGAIN) continue;
    // What the engine has taken away meanwhile: an access to it stops in the trap, and is kicked.
    if (errno == EINTR || errno == EFAULT || errno == ENOENT) return absl::OkStatus();
    return absl::ResourceExhaustedError(absl::StrCat(
        "KVM_PRE_FAULT_MEMORY at 0x", absl::Hex(request.gpa), ": ", std::strerror(errno)));
  }
  return absl::OkStatus();
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
    // After an error the exit reason may be stale: errno first.
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
  // With EFAULT the reason is of this run: KVM clears it first.
  if (error == EFAULT && run_->exit_reason == kExitMemoryFault) return HandleMemoryFault();
  // Bare EFAULT: the host could not give KVM a page just now, and says no address. The guest tries
  // the same access again.
  if (error == EFAULT && repeated_errors_.Add()) return Next::kRun;
  return Fatal(error == ENOMEM ? StopReason::kOutOfMemory : StopReason::kBackendError,
               absl::StrCat("KVM_RUN: ", std::strerror(error)));
}

}  // namespace twinroot::kvm
