// How the machine serves the faults of its vCPUs.
#include <poll.h>
#include <unistd.h>

#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "daemon/vcpu/kvm/fault_wait.h"
#include "daemon/vcpu/kvm/kvm_machine_impl.h"

namespace twinroot::kvm {

using mmu::MemoryKind;
using vcpu::StopReason;
using vcpu::VcpuIndex;
using vcpu::Verdict;

void KvmMachine::ServeFaults() {
  pollfd sources[] = {{userfault_->fd(), POLLIN, 0}, {handler_event_.get(), POLLIN, 0}};
  // Where every processor may have a vCPU to run nobody else stays awake on one.
  const bool may_stay_awake = config_.vcpus < std::thread::hardware_concurrency();
  bool served = false;
  while (!stop_.load(std::memory_order_acquire)) {
    if (!FaultWait::For(sources, served && may_stay_awake)) continue;
    if (sources[1].revents != 0) WakeResumed();
    served = sources[0].revents != 0;
    if (served && !ServeNextFault()) return;
  }
}

bool KvmMachine::ServeNextFault() {
  std::lock_guard serve(serve_mutex_);
  const absl::StatusOr<std::optional<uffd_msg>> message = userfault_->Next();
  if (!message.ok()) {
    client_->OnFatal(StopReason::kBackendError, std::string(message.status().message()));
    return false;
  }
  if (message->has_value()) ServeFault(**message);
  return true;
}

void KvmMachine::WakeResumed() {
  uint64_t count;
  (void)!read(handler_event_.get(), &count, sizeof count);
  for (VcpuIndex vcpu = 0; vcpu < config_.vcpus; ++vcpu) WakeIfResumed(vcpu);
  const std::lock_guard serve(serve_mutex_);
  if (gate_.paused()) return;
  WakeWorkers();
  for (const uffd_msg& message : std::exchange(deferred_, {})) ServeFault(message);
}

void KvmMachine::WakeIfResumed(VcpuIndex vcpu) {
  std::optional<Parked> parked;
  {
    std::lock_guard lock(parked_mutex_);
    if (!parked_[vcpu].has_value() || !parked_[vcpu]->resumed || !gate_.Release(vcpu)) return;
    parked.swap(parked_[vcpu]);
  }
  if (native_.has_value() && parked->kind == MemoryKind::kPrivate) {
    // Nothing comes to where it waits: out of KVM, and in again, where the attribute counts.
    vcpus_[vcpu]->Kick();
  } else {
    projection(parked->kind).Wake(parked->gfn);
  }
}

// The guest reaches a private page past the trap once its leaf is there. KVM itself, when it
// emulates an instruction of the guest or on it, reads the host's side, and stops here again.
bool KvmMachine::CheckTrapped(VcpuIndex vcpu, mmu::Gfn gfn) {
  constexpr int kMaxTimes = 1000;  // another vCPU may just have mapped it
  if (engine_ == nullptr) return true;
  const auto walk =
      engine_->Translate(layout_.GpaOf(gfn, MemoryKind::kPrivate), MemoryKind::kPrivate);
  Trapped& trapped = trapped_[vcpu];
  if (!walk.ok() || !walk->mapped || trapped.gfn != gfn) trapped = {gfn, 0};
  if (++trapped.times < kMaxTimes) return true;
  client_->OnFatal(
      StopReason::kUnhandledExit,
      absl::StrCat("vcpu ", vcpu, ": KVM emulates an access to private memory at 0x",
                   absl::Hex(gfn.value << mmu::kPageShift),
                   ", which only the guest's own instructions reach: use shared memory for it"));
  return false;
}

void KvmMachine::WakeWorkers() {
  std::lock_guard lock(parked_mutex_);
  std::erase_if(workers_parked_, [this](const Parked& fault) {
    if (fault.resumed) projection(fault.kind).Wake(fault.gfn);
    return fault.resumed;
  });
}

void KvmMachine::SignalHandler() {
  const uint64_t one = 1;
  (void)!write(handler_event_.get(), &one, sizeof one);
}

std::optional<VcpuIndex> KvmMachine::VcpuOf(uint32_t thread) const {
  for (const std::unique_ptr<Vcpu>& vcpu : vcpus_) {
    if (static_cast<uint32_t>(vcpu->thread_id()) == thread) return vcpu->index();
  }
  return std::nullopt;
}

void KvmMachine::ServeFault(const uffd_msg& message) {
  if (message.event != UFFD_EVENT_PAGEFAULT) return;
  const auto& fault = message.arg.pagefault;
  if (prefaulter_ != nullptr &&
      static_cast<uint32_t>(prefaulter_->thread_id()) == fault.feat.ptid) {
    prefaulter_->Kick();  // what it wanted is not there
    return;
  }
  const std::optional<VcpuIndex> vcpu = VcpuOf(fault.feat.ptid);
  if (!vcpu.has_value() && gate_.paused()) {
    deferred_.push_back(message);  // its vCPU, whichever it is, is paused: it may not be told of
    return;
  }
  for (const MemoryKind kind : mmu::kAllKinds) {
    const std::optional<mmu::Gfn> gfn = projection(kind).GfnAt(fault.address);
    if (!gfn.has_value()) continue;
    const bool trapped = native_.has_value() && kind == MemoryKind::kPrivate;
    if (trapped && !CheckTrapped(vcpu.value_or(0), *gfn)) return;
    // A fetch looks like a read here.
    const mmu::Access access =
        (fault.flags & UFFD_PAGEFAULT_FLAG_WRITE) ? mmu::Access::Write() : mmu::Access::Read();
    ServeFault(vcpu, {kind, *gfn}, access);
    return;
  }
}

void KvmMachine::ServeFault(std::optional<VcpuIndex> vcpu, Parked fault, mmu::Access access) {
  {
    // Before the client knows of it: it may be resumed at once.
    std::lock_guard lock(parked_mutex_);
    if (vcpu.has_value()) {
      parked_[*vcpu] = fault;
    } else {
      workers_parked_.push_back(fault);
    }
  }
  const Projection::Faulting faulting(fault.gfn);
  const mmu::Gpa gpa = layout_.GpaOf(fault.gfn, fault.kind);
  const Verdict verdict = client_->OnEptViolation(vcpu.value_or(0), {gpa, access});
  if (!vcpu.has_value()) {
    if (verdict == Verdict::kResume) {
      std::lock_guard lock(parked_mutex_);
      for (Parked& parked : workers_parked_) {
        if (parked.kind == fault.kind && parked.gfn == fault.gfn) parked.resumed = true;
      }
    }
    WakeWorkers();
    return;
  }
  if (verdict == Verdict::kResume) {
    std::lock_guard lock(parked_mutex_);
    parked_[*vcpu]->resumed = true;
  }
  gate_.Hold(*vcpu);
  WakeIfResumed(*vcpu);
}

void KvmMachine::ResumeFault(VcpuIndex vcpu) {
  if (vcpu >= vcpus_.size()) return;
  vcpus_[vcpu]->ResumeFetch();
  {
    std::lock_guard lock(parked_mutex_);
    if (parked_[vcpu].has_value()) parked_[vcpu]->resumed = true;
    // Which of them it is for is not said: those that must wait on are told of again.
    for (Parked& parked : workers_parked_) parked.resumed |= vcpu == 0;
  }
  SignalHandler();
}

}  // namespace twinroot::kvm
