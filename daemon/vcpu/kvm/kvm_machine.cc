#include "daemon/vcpu/kvm/kvm_machine.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <iterator>
#include <mutex>
#include <optional>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "daemon/vcpu/kvm/boot_loader.h"
#include "daemon/vcpu/kvm/guest_cpuid.h"
#include "daemon/vcpu/kvm/kernel_loader.h"
#include "daemon/vcpu/kvm/pc.h"
#include "daemon/vcpu/kvm/projection.h"
#include "daemon/vcpu/kvm/userfault.h"
#include "daemon/vcpu/kvm/vcpu.h"
#include "daemon/vcpu/pause_gate.h"

namespace twinroot::kvm {
namespace {

using mmu::MemoryKind;
using vcpu::StopReason;
using vcpu::VcpuIndex;
using vcpu::Verdict;

// Processors without unrestricted guest mode want three pages of their own; they lie in the hole
// between low and high memory.
constexpr unsigned long kTssAddress = 0xfffbd000;

class KvmMachine : public vcpu::Machine {
 public:
  KvmMachine(const KvmMachineConfig& config, const KvmSystem* system, const mmu::GpaLayout& layout,
             memory::GuestRam* ram, vcpu::MachineClient* client)
      : config_(config),
        system_(system),
        layout_(layout),
        ram_(ram),
        client_(client),
        gate_(config.vcpus) {}

  ~KvmMachine() override {
    RequestStop();
    Join();
  }

  absl::Status Open();

  mmu::ExternalTables* external(MemoryKind root) override { return &projection(root); }
  mmu::TlbFlusher* flusher() override { return nullptr; }  // a projection needs none
  void Attach(mmu::GuestAddressSpace* engine) override { engine_ = engine; }
  absl::Status Start() override;
  absl::Status Type(std::string_view bytes) override;
  void ResumeFault(VcpuIndex vcpu) override;
  void AnswerMapGpa(VcpuIndex vcpu, vcpu::MapGpaAnswer answer) override;
  void Pause() override;
  void Resume() override;
  void RequestStop() override;
  void Join() override;

 private:
  // A fault that a vCPU waits in: a frame of one alias. It is woken once it is resumed and the gate
  // lets it go.
  struct Parked {
    MemoryKind kind;
    mmu::Gfn gfn;
    bool resumed = false;
  };

  Projection& projection(MemoryKind kind) { return *projections_[static_cast<size_t>(kind)]; }
  absl::Status AddMemorySlots();
  absl::Status CreateVcpus();
  // The handler's thread. Nobody else wakes vCPUs: between reading a fault and serving it, the vCPU
  // that it tells of stays where it is.
  void ServeFaults();
  // False: the VM ends.
  bool ServeNextFault();
  void ServeFault(const uffd_msg& message);
  void ServeFault(std::optional<VcpuIndex> vcpu, Parked fault, mmu::Access access);
  void WakeResumed();
  void WakeIfResumed(VcpuIndex vcpu);
  void WakeWorkers();
  void SignalHandler();
  std::optional<VcpuIndex> VcpuOf(uint32_t thread) const;

  const KvmMachineConfig config_;
  const KvmSystem* const system_;
  const mmu::GpaLayout layout_;
  memory::GuestRam* const ram_;
  vcpu::MachineClient* const client_;

  mmu::GuestAddressSpace* engine_ = nullptr;  // null where a test plays the engine
  std::optional<Userfault> userfault_;
  std::optional<Projection> projections_[2];
  KvmFd vm_;
  std::unique_ptr<Pc> pc_;  // null: the guest is no operating system; fixed after Open
  std::vector<std::unique_ptr<Vcpu>> vcpus_;
  std::thread handler_;
  Fd handler_event_;  // tells the handler of resumed faults and of the stop
  std::mutex parked_mutex_;
  std::vector<std::optional<Parked>> parked_;  // by vCPU; guarded by parked_mutex_
  // Faults of threads that are no vCPU's. With interrupt controllers KVM has a worker of its own
  // fetch a page while the vCPU halts: the vCPU can be paused, and nobody knows which it is; the VM
  // is told of vCPU 0.
  std::vector<Parked> workers_parked_;  // guarded by parked_mutex_
  std::vector<uffd_msg> deferred_;      // while the machine is paused; the handler's own
  std::atomic<bool> stop_{false};
  vcpu::PauseGate gate_;
  std::mutex serve_mutex_;  // held while a fault is served
};

absl::Status KvmMachine::Open() {
  absl::StatusOr<Userfault> userfault = Userfault::Open();
  if (!userfault.ok()) return userfault.status();
  userfault_ = *std::move(userfault);
  handler_event_ = Fd(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!handler_event_.valid()) {
    return absl::ResourceExhaustedError(absl::StrCat("eventfd: ", std::strerror(errno)));
  }
  for (const MemoryKind kind : mmu::kAllKinds) {
    std::optional<Projection>& projection = projections_[static_cast<size_t>(kind)];
    projection.emplace(kind, &*userfault_);
    if (absl::Status status = projection->Open(*ram_); !status.ok()) return status;
  }
  vm_ = system_->fd().Make(KVM_CREATE_VM, kVmTypeDefault);
  if (!vm_.valid()) {
    return absl::ResourceExhaustedError(absl::StrCat("KVM_CREATE_VM: ", std::strerror(errno)));
  }
  vm_.Ioctl(KVM_SET_TSS_ADDR, kTssAddress);  // where it is not needed it may be refused
  if (system_->map_gpa_exits()) {
    kvm_enable_cap enable = {};
    enable.cap = KVM_CAP_EXIT_HYPERCALL;
    enable.args[0] = 1 << kMapGpaHypercall;
    vm_.Ioctl(KVM_ENABLE_CAP, &enable);  // the port is the door that must work
  }
  const absl::StatusOr<BootPlan> plan = PlanBoot(config_, ram_->bytes(), *layout_.shared_bit());
  if (!plan.ok()) return plan.status();
  if (plan->image.kernel()) {
    absl::StatusOr<std::unique_ptr<Pc>> pc =
        Pc::Create(&vm_, [this](std::string_view bytes) { client_->OnConsole(bytes); });
    if (!pc.ok()) return pc.status();
    pc_ = *std::move(pc);
  }
  return AddMemorySlots();
}

absl::Status KvmMachine::AddMemorySlots() {
  uint32_t slot = 0;
  for (const std::optional<Projection>& projection : projections_) {
    for (const Projection::Window& window : projection->windows()) {
      kvm_userspace_memory_region region = {};
      region.slot = slot++;
      region.guest_phys_addr = layout_.GpaOf(window.range.first, projection->kind()).value;
      region.memory_size = window.mapping.size();
      region.userspace_addr = reinterpret_cast<uintptr_t>(window.mapping.data());
      if (vm_.Ioctl(KVM_SET_USER_MEMORY_REGION, &region) != 0) {
        return absl::ResourceExhaustedError(absl::StrCat("KVM refuses memory at 0x",
                                                         absl::Hex(region.guest_phys_addr), ": ",
                                                         std::strerror(errno)));
      }
    }
  }
  return absl::OkStatus();
}

absl::Status KvmMachine::CreateVcpus() {
  Vcpu::Environment environment;
  environment.vm = &vm_;
  environment.run_bytes = system_->vcpu_run_bytes();
  environment.cpuid = &system_->cpuid();
  environment.sync_regs = system_->sync_regs();
  environment.client = client_;
  environment.layout = &layout_;
  environment.ram = ram_;
  environment.stop = &stop_;
  environment.gate = &gate_;
  if (pc_ != nullptr) environment.ports = &pc_->ports();
  for (VcpuIndex index = 0; index < config_.vcpus; ++index) {
    std::optional<Cpuid2> own;
    if (pc_ != nullptr) {
      own = GuestCpuid(system_->cpuid(), index, config_.vcpus, pc_->deadline_timer());
      environment.cpuid = &*own;
    }
    absl::StatusOr<std::unique_ptr<Vcpu>> vcpu = Vcpu::Create(index, environment);
    if (!vcpu.ok()) return vcpu.status();
    vcpus_.push_back(*std::move(vcpu));
  }
  return absl::OkStatus();
}

absl::Status KvmMachine::Start() {
  absl::StatusOr<BootPlan> plan = PlanBoot(config_, ram_->bytes(), *layout_.shared_bit());
  if (!plan.ok()) return plan.status();
  if (plan->image.kernel()) {
    LoadKernel(*plan, *ram_);
  } else if (absl::Status status = LoadGuest(*plan, *ram_); !status.ok()) {
    return status;
  }
  if (engine_ != nullptr) {
    // Frames that were made shared before the start have no private bytes, loaded ones included.
    for (const mmu::AttributeRun& run : engine_->GetMemoryAttributes()) {
      if (run.kind == MemoryKind::kShared) ram_->Discard(run.range, MemoryKind::kPrivate);
    }
  }
  if (absl::Status status = CreateVcpus(); !status.ok()) return status;
  parked_.resize(vcpus_.size());
  try {
    // The handler runs before KVM touches guest memory for the first time.
    handler_ = std::thread([this] { ServeFaults(); });
    for (const std::unique_ptr<Vcpu>& vcpu : vcpus_) {
      absl::StatusOr<kvm_sregs> sregs = vcpu->GetSregs();
      if (!sregs.ok()) return sregs.status();
      kvm_regs regs;
      if (pc_ != nullptr) {
        if (vcpu->index() != 0) break;  // they wait in KVM for the kernel to start them
        SetKernelEntry(plan->image, *sregs, regs);
      } else {
        SetEntryState(*plan, ram_->low_bytes(), vcpu->index(), *sregs, regs);
      }
      if (absl::Status status = vcpu->SetState(regs, *sregs); !status.ok()) return status;
    }
    for (const std::unique_ptr<Vcpu>& vcpu : vcpus_) vcpu->StartThread();
  } catch (const std::system_error& error) {  // those that run are stopped by the VM
    return absl::ResourceExhaustedError(
        absl::StrCat("cannot start a thread for a vCPU: ", error.what(),
                     "; raise TasksMax, or run fewer vCPUs"));
  }
  return absl::OkStatus();
}

void KvmMachine::ServeFaults() {
  pollfd sources[] = {{userfault_->fd(), POLLIN, 0}, {handler_event_.get(), POLLIN, 0}};
  while (!stop_.load(std::memory_order_acquire)) {
    if (poll(sources, std::size(sources), -1) < 0) continue;  // a signal
    if (sources[1].revents != 0) WakeResumed();
    if (sources[0].revents == 0) continue;
    if (!ServeNextFault()) return;
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
  projection(parked->kind).Wake(parked->gfn);
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
  const std::optional<VcpuIndex> vcpu = VcpuOf(fault.feat.ptid);
  if (!vcpu.has_value() && gate_.paused()) {
    deferred_.push_back(message);  // its vCPU, whichever it is, is paused: it may not be told of
    return;
  }
  for (const MemoryKind kind : mmu::kAllKinds) {
    const std::optional<mmu::Gfn> gfn = projection(kind).GfnAt(fault.address);
    if (!gfn.has_value()) continue;
    // A fetch looks like a read here.
    const mmu::Access access =
        (fault.flags & UFFD_PAGEFAULT_FLAG_WRITE) ? mmu::Access::Write() : mmu::Access::Read();
    ServeFault(vcpu, {kind, *gfn}, access);
    return;
  }
}

void KvmMachine::ServeFault(std::optional<VcpuIndex> vcpu, Parked fault, mmu::Access access) {
  const mmu::Gpa gpa = layout_.GpaOf(fault.gfn, fault.kind);
  {
    // Before the client knows of it: it may be resumed at once.
    std::lock_guard lock(parked_mutex_);
    if (vcpu.has_value()) {
      parked_[*vcpu] = fault;
    } else {
      workers_parked_.push_back(fault);
    }
  }
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

absl::Status KvmMachine::Type(std::string_view bytes) {
  if (pc_ == nullptr) return Machine::Type(bytes);
  if (pc_->serial().Type(bytes)) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      "the guest does not read what was typed before; try again when it does");
}

void KvmMachine::AnswerMapGpa(VcpuIndex vcpu, vcpu::MapGpaAnswer answer) {
  if (vcpu < vcpus_.size()) vcpus_[vcpu]->AnswerMapGpa(answer);
}

void KvmMachine::Pause() {
  gate_.Pause([this] {
    for (const std::unique_ptr<Vcpu>& vcpu : vcpus_) vcpu->Kick();
  });
  // A kick takes a vCPU out of a fault that the handler has begun to serve.
  std::lock_guard served(serve_mutex_);
}

void KvmMachine::Resume() {
  gate_.Resume();
  SignalHandler();
}

void KvmMachine::RequestStop() {
  if (stop_.exchange(true)) return;
  gate_.Stop();
  for (const std::unique_ptr<Vcpu>& vcpu : vcpus_) vcpu->Kick();
  for (std::optional<Projection>& projection : projections_) {
    if (projection.has_value()) projection->Revoke();
  }
  SignalHandler();
}

void KvmMachine::Join() {
  if (handler_.joinable()) handler_.join();
  for (const std::unique_ptr<Vcpu>& vcpu : vcpus_) {
    vcpu->Kick();  // again, for one that had no thread yet
    vcpu->JoinThread();
  }
}

}  // namespace

absl::Status CheckKvmMachine(const KvmMachineConfig& config, uint64_t memory_bytes) {
  constexpr int kAnyBit = 47;
  return PlanBoot(config, memory_bytes, kAnyBit).status();
}

absl::StatusOr<std::unique_ptr<vcpu::Machine>> MakeKvmMachine(const KvmMachineConfig& config,
                                                              const KvmSystem* system,
                                                              const mmu::GpaLayout& layout,
                                                              memory::GuestRam* ram,
                                                              vcpu::MachineClient* client) {
  auto machine = std::make_unique<KvmMachine>(config, system, layout, ram, client);
  if (absl::Status status = machine->Open(); !status.ok()) return status;
  return machine;
}

}  // namespace twinroot::kvm
