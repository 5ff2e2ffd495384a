// How the machine serves the faults of its vCPUs.
#include <poll.h>
#include <unistd.h>

#include <thread>
#include <vector>

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
  std::vector<Parked> resumed;
  {
    std::lock_guard lock(parked_mutex_);
    for (const std::optional<Parked>& parked : parked_) {
      if (parked.has_value() && parked->resumed) resumed.push_back(*parked);
    }
    for (const Parked& parked : workers_parked_) {
      if (parked.resumed) resumed.push_back(parked);
    }
  }
  for (const Parked& parked : resumed) WakePage(parked);
}

bool KvmMachine::WakePage(const Parked& page, bool let_go) {
  std::vector<VcpuIndex> vcpus;
  bool workers;
  {
    std::lock_guard lock(parked_mutex_);
    for (VcpuIndex vcpu = 0; vcpu < parked_.size(); ++vcpu) {
      if (parked_[vcpu].has_value() && parked_[vcpu]->IsOf(page)) vcpus.push_back(vcpu);
    }
    if (!gate_.Release(vcpus)) return false;
    for (const VcpuIndex vcpu : vcpus) parked_[vcpu].reset();
    workers =
        std::erase_if(workers_parked_, [&](const Parked& parked) { return parked.IsOf(page); }) > 0;
  }
  const bool trapped = native_.has_value() && page.kind == MemoryKind::kPrivate;
  if (trapped) {
    // Nothing comes to where they wait: out of KVM, and in again, where the attribute counts.
    for (const VcpuIndex vcpu : vcpus) vcpus_[vcpu]->Kick();
  }
  if (!trapped) {
    projection(page.kind).Wake(page.gfn);
  } else if (workers || let_go) {
    if (const absl::Status status = native_->LetGo(page.gfn); !status.ok()) {
      client_->OnFatal(StopReason::kBackendError, std::string(status.message()));
    }
  }
  return true;
}

// The guest reaches a private page past the trap once its leaf is there. KVM itself, when it
// emulates an instruction of the guest or on it, reads the host's side, and stops here again.
bool KvmMachine::CheckTrapped(VcpuIndex vcpu, mmu::Gfn gfn) {
  // Another vCPU may just have mapped it.
  const int max_times = pc_ != nullptr ? 8 : 1000;
  if (engine_ == nullptr) return true;
  const auto walk =
      engine_->Translate(layout_.GpaOf(gfn, MemoryKind::kPrivate), MemoryKind::kPrivate);
  Trapped& trapped = trapped_[vcpu];
  if (!walk.ok() || !walk->mapped || trapped.gfn != gfn) trapped = {gfn, 0};
  if (++trapped.times < max_times) return true;
  if (pc_ != nullptr) {
    // An operating system takes exceptions: what KVM cannot read it makes one of. So ends every
    // undefined instruction, by which Linux warns, since KVM looks at it first.
    const Parked page{MemoryKind::kPrivate, gfn};
    if (!WakePage(page, /*let_go=*/true)) {  // paused meanwhile: it comes again
      Park(vcpu, {page.kind, page.gfn, /*resumed=*/true});
      gate_.Hold(vcpu);
    }
    return false;
  }
  client_->OnFatal(
      StopReason::kUnhandledExit,
      absl::StrCat("vcpu ", vcpu, ": KVM emulates an access to private memory at 0x",
                   absl::Hex(gfn.value << mmu::kPageShift),
                   ", which only the guest's own instructions reach: use shared memory for it"));
  return false;
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
  for (const MemoryKind kind : mmu::kAllKinds) {
    const std::optional<mmu::Gfn> gfn = projection(kind).GfnAt(fault.address);
    if (!gfn.has_value()) continue;
    if (gate_.paused()) {
      // Nobody is told, and nothing is mapped: it comes again after Resume.
      Park(vcpu, {kind, *gfn, /*resumed=*/true});
      if (vcpu.has_value()) gate_.Hold(*vcpu);
      return;
    }
    const bool trapped = native_.has_value() && kind == MemoryKind::kPrivate;
    if (trapped && !CheckTrapped(vcpu.value_or(0), *gfn)) return;
    // A fetch looks like a read here.
    const mmu::Access access =
        (fault.flags & UFFD_PAGEFAULT_FLAG_WRITE) ? mmu::Access::Write() : mmu::Access::Read();
    ServeFault(vcpu, {kind, *gfn}, access);
    return;
  }
}

void KvmMachine::Park(std::optional<VcpuIndex> vcpu, const Parked& fault) {
  std::lock_guard lock(parked_mutex_);
  if (vcpu.has_value()) {
    parked_[*vcpu] = fault;
  } else {
    workers_parked_.push_back(fault);
  }
}

void KvmMachine::ServeFault(std::optional<VcpuIndex> vcpu, const Parked& fault,
                            mmu::Access access) {
  Park(vcpu, fault);  // before the client knows of it: it may be resumed at once
  const Projection::Faulting faulting(fault.gfn);
  const mmu::Gpa gpa = layout_.GpaOf(fault.gfn, fault.kind);
  const Verdict verdict = client_->OnEptViolation(vcpu.value_or(0), {gpa, access});
  // Not held yet: it comes to the gate by itself where a pause has begun meanwhile.
  if (verdict == Verdict::kResume && WakePage(fault)) return;
  if (verdict == Verdict::kResume) Park(vcpu, {fault.kind, fault.gfn, /*resumed=*/true});
  if (vcpu.has_value()) gate_.Hold(*vcpu);
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
