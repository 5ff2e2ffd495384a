#include "daemon/vcpu/kvm/kvm_machine.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "daemon/vcpu/kvm/guest_cpuid.h"
#include "daemon/vcpu/kvm/kernel_loader.h"
#include "daemon/vcpu/kvm/kvm_machine_impl.h"
#include "daemon/vcpu/kvm/native_loader.h"

namespace twinroot::kvm {

using mmu::MemoryKind;
using vcpu::StopReason;
using vcpu::VcpuIndex;

namespace {

// Processors without unrestricted guest mode want three pages of their own; they lie in the hole
// between low and high memory.
constexpr unsigned long kTssAddress = 0xfffbd000;

// In IA32_APIC_BASE: the local APIC is reached by MSRs. KVM has to emulate whatever accesses it in
// memory, and cannot read instructions that lie in native private memory.
constexpr uint64_t kX2Apic = 1 << 10;

}  // namespace

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
    projection.emplace(kind, &*userfault_, [this] { SettleSoon(); });
    if (absl::Status status = projection->Open(*ram_); !status.ok()) return status;
  }
  vm_ = system_->fd().Make(KVM_CREATE_VM, config_.native ? kVmTypeSwProtected : kVmTypeDefault);
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
  if (config_.native) native_.emplace(&vm_, ram_, &projection(MemoryKind::kPrivate));
  for (const memory::RamSlot& slot : ram_->slots()) {
    const uint32_t slots[2] = {next_number_++, next_number_++};
    if (absl::Status status = AddRegions(slot, slots); !status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status KvmMachine::CreateVcpus() {
  Vcpu::Environment environment;
  environment.vm = &vm_;
  environment.run_bytes = system_->vcpu_run_bytes();
  environment.sync_regs = system_->sync_regs();
  environment.client = client_;
  environment.layout = &layout_;
  environment.ram = ram_;
  environment.stop = &stop_;
  environment.gate = &gate_;
  environment.cpus = config_.cpus;
  environment.thread_starts = config_.vcpu_thread_starts;
  environment.tells_registers = config_.tells_registers;
  environment.native = config_.native;
  if (pc_ != nullptr) environment.ports = &pc_->ports();
  for (VcpuIndex index = 0; index < config_.vcpus; ++index) {
    std::optional<Cpuid2> own;
    if (pc_ != nullptr) {
      own =
          GuestCpuid(system_->cpuid(), index, config_.vcpus, pc_->deadline_timer(), config_.native);
    }
    absl::StatusOr<std::unique_ptr<Vcpu>> vcpu =
        Vcpu::Create(index, environment, own.has_value() ? *own : system_->cpuid());
    if (!vcpu.ok()) return vcpu.status();
    vcpus_.push_back(*std::move(vcpu));
  }
  if (native_.has_value() && system_->prefaults()) {
    absl::StatusOr<std::unique_ptr<Vcpu>> vcpu =
        Vcpu::Create(config_.vcpus, environment, system_->cpuid());
    if (!vcpu.ok()) return vcpu.status();
    std::lock_guard lock(prefault_mutex_);  // of a Prefault that comes as early
    prefaulter_ = *std::move(vcpu);
  }
  return absl::OkStatus();
}

absl::Status KvmMachine::Load(const BootPlan& plan) {
  if (plan.image.kernel()) {
    if (absl::Status status = LoadKernel(plan, *ram_); !status.ok()) return status;
  } else if (absl::Status status = LoadGuest(plan, *ram_); !status.ok()) {
    return status;
  }
  if (engine_ != nullptr) {
    // Frames that were made shared before the start have no private bytes, loaded ones included.
    for (const mmu::AttributeRun& run : engine_->GetMemoryAttributes()) {
      if (run.kind != MemoryKind::kShared) continue;
      for (const memory::RamSlot& slot : ram_->slots()) {  // runs may reach over slots
        const mmu::GfnRange part = Intersection(run.range, slot.range);
        if (!part.empty()) ram_->Discard(part, MemoryKind::kPrivate);
      }
    }
  }
  return absl::OkStatus();
}

absl::Status KvmMachine::Start() {
  std::lock_guard starting(start_mutex_);
  absl::StatusOr<BootPlan> plan = PlanBoot(config_, ram_->bytes(), *layout_.shared_bit());
  if (!plan.ok()) return plan.status();
  if (absl::Status status = Load(*plan); !status.ok()) return status;
  if (absl::Status status = CreateVcpus(); !status.ok()) return status;
  counts_exits_.store(true, std::memory_order_release);
  parked_.resize(vcpus_.size());
  trapped_.resize(vcpus_.size());
  try {
    // The handler runs before KVM touches guest memory for the first time.
    handler_ = std::thread([this] { ServeFaults(); });
    if (native_.has_value()) {
      absl::Status loaded = LoadPrivateMemory(vm_, next_number_, *vcpus_[0], *ram_);
      if (!loaded.ok()) return loaded;
    }
    for (const std::unique_ptr<Vcpu>& vcpu : vcpus_) {
      absl::StatusOr<kvm_sregs> sregs = vcpu->GetSregs();
      if (!sregs.ok()) return sregs.status();
      kvm_regs regs = {};
      if (pc_ != nullptr) {
        if (config_.native) sregs->apic_base |= kX2Apic;
        // The others wait in KVM for the kernel to start them, which leaves the APIC as it is.
        if (vcpu->index() == 0) SetKernelEntry(plan->image, *sregs, regs);
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

absl::Status KvmMachine::Type(std::string_view bytes) {
  if (pc_ == nullptr) return Machine::Type(bytes);
  if (pc_->serial().Type(bytes)) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      "the guest does not read what was typed before; try again when it does");
}

void KvmMachine::AnswerMapGpa(VcpuIndex vcpu, vcpu::MapGpaAnswer answer) {
  if (vcpu < vcpus_.size()) vcpus_[vcpu]->AnswerMapGpa(answer);
}

absl::Status KvmMachine::Prefault(mmu::GfnRange range) {
  std::lock_guard lock(prefault_mutex_);
  return prefaulter_ != nullptr ? prefaulter_->Prefault(range) : absl::OkStatus();
}

uint64_t KvmMachine::exits() const {
  uint64_t sum = 0;
  if (!counts_exits_.load(std::memory_order_acquire)) return sum;
  for (const std::unique_ptr<Vcpu>& vcpu : vcpus_) sum += vcpu->exits();
  return sum;
}

void KvmMachine::Pause() {
  gate_.Pause([this](VcpuIndex vcpu) { vcpus_[vcpu]->Kick(); });
  // A kick takes a vCPU out of a fault that the handler has begun to serve.
  std::lock_guard served(serve_mutex_);
}

void KvmMachine::Resume() {
  gate_.Resume();
  SignalHandler();
}

void KvmMachine::SettleSoon() {
  if (!settling_soon_.exchange(true)) client_->RunLater([this] { SettleLeaves(); });
}

void KvmMachine::SettleLeaves() {
  settling_soon_ = false;
  for (std::optional<Projection>& projection : projections_) {
    if (projection->NeedsRenewal()) RenewProjection(*projection);
    while (!stop_.load(std::memory_order_acquire) && projection->Settle()) continue;
  }
}

void KvmMachine::RenewProjection(Projection& projection) {
  // One that is held may be inside an access of KVM's own, which must not fail: later, then. To
  // look before saves a pause, to look after is sure.
  if (gate_.AnyHeld()) return SettleSoon();
  std::lock_guard no_start(start_mutex_);
  Pause();
  if (gate_.AnyHeld()) {
    Resume();
    return SettleSoon();
  }
  if (absl::Status status = projection.Renew(); !status.ok()) {
    client_->OnFatal(StopReason::kBackendError, std::string(status.message()));
  }
  Resume();
}

void KvmMachine::AnnounceStop() {
  if (stop_.exchange(true)) return;
  gate_.Stop();
  for (const std::unique_ptr<Vcpu>& vcpu : vcpus_) vcpu->Kick();
}

void KvmMachine::RequestStop() {
  if (stop_requested_.exchange(true)) return;
  AnnounceStop();
  if (prefaulter_ != nullptr) prefaulter_->Kick();
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
