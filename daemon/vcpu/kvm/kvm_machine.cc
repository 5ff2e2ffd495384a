#include "daemon/vcpu/kvm/kvm_machine.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <mutex>
#include <optional>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "daemon/vcpu/kvm/boot_loader.h"
#include "daemon/vcpu/kvm/fault_wait.h"
#include "daemon/vcpu/kvm/interpreter/interpreter_image.h"
#include "daemon/vcpu/kvm/native_loader.h"
#include "daemon/vcpu/kvm/native_memory.h"
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

absl::StatusOr<BootPlan> PlanBoot(const KvmMachineConfig& config, uint64_t memory_bytes,
                                  int shared_bit) {
  BootPlan plan;
  absl::StatusOr<GuestImage> image = ParseGuestImage(
      config.image != nullptr ? std::string_view(*config.image) : InterpreterImage());
  if (!image.ok()) return image.status();
  plan.image = *std::move(image);
  plan.program = config.program;
  plan.cmdline = config.cmdline;
  plan.vcpus = config.vcpus;
  plan.shared_bit = shared_bit;
  plan.cpl = config.cpl;
  if (absl::Status fits = CheckImageFits(plan.image, memory_bytes, config.vcpus); !fits.ok()) {
    return fits;
  }
  if (!plan.program.empty()) {
    if (absl::Status placed = PlaceProgram(plan, memory_bytes).status(); !placed.ok()) {
      return placed;
    }
  }
  return plan;
}

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

  mmu::ExternalTables* external(MemoryKind root) override {
    if (root == MemoryKind::kPrivate && native_.has_value()) return &*native_;
    return &projection(root);
  }
  mmu::PageSource* pages() override { return native_.has_value() ? &*native_ : nullptr; }
  mmu::TlbFlusher* flusher() override { return nullptr; }  // a projection needs none
  void Attach(mmu::GuestAddressSpace* engine) override { engine_ = engine; }
  absl::Status Start() override;
  void ResumeFault(VcpuIndex vcpu) override;
  void AnswerMapGpa(VcpuIndex vcpu, vcpu::MapGpaAnswer answer) override;
  absl::Status Prefault(mmu::GfnRange range) override;
  void Pause() override;
  void Resume() override;
  void RequestStop() override;
  void Join() override;
  vcpu::ProjectionCounts projection_counts() const override {
    vcpu::ProjectionCounts counts;
    for (const auto& projection : projections_) projection->AddCounts(counts);
    return counts;
  }

 private:
  // A fault that a vCPU waits in: a frame of one alias. It is woken once it is resumed and the gate
  // lets it go.
  struct Parked {
    MemoryKind kind;
    mmu::Gfn gfn;
    bool resumed = false;
  };

  Projection& projection(MemoryKind kind) { return *projections_[static_cast<size_t>(kind)]; }
  // Large leaves become whole, apart from the faults that made them.
  void SettleSoon();
  void SettleLeaves();
  void RenewProjection(Projection& projection);
  absl::Status AddMemorySlots();
  absl::Status AddWindows(const Projection& projection);
  absl::Status CreateVcpus();
  absl::Status Load(const BootPlan& plan);
  // The handler's thread. Nobody else wakes vCPUs: between reading a fault and serving it, the vCPU
  // that it tells of stays where it is.
  void ServeFaults();
  // False: the VM ends.
  bool ServeNextFault();
  void ServeFault(const uffd_msg& message);
  void WakeResumed();
  void WakeIfResumed(VcpuIndex vcpu);
  // False: the access would stop here for ever, and the VM was told so.
  bool CheckTrapped(VcpuIndex vcpu, mmu::Gfn gfn);
  void SignalHandler();
  VcpuIndex VcpuOf(uint32_t thread) const;

  const KvmMachineConfig config_;
  const KvmSystem* const system_;
  const mmu::GpaLayout layout_;
  memory::GuestRam* const ram_;
  vcpu::MachineClient* const client_;

  mmu::GuestAddressSpace* engine_ = nullptr;  // null where a test plays the engine
  std::optional<Userfault> userfault_;
  std::optional<Projection> projections_[2];
  KvmFd vm_;
  std::optional<NativeMemory> native_;  // then the private projection is its trap, never filled
  uint32_t next_slot_ = 0;
  std::vector<std::unique_ptr<Vcpu>> vcpus_;
  std::thread handler_;
  Fd handler_event_;  // tells the handler of resumed faults and of the stop
  std::mutex parked_mutex_;
  std::vector<std::optional<Parked>> parked_;  // by vCPU; guarded by parked_mutex_
  std::atomic<bool> stop_{false};
  std::atomic<bool> settling_soon_{false};
  std::mutex start_mutex_;  // a start, or the renewal of a projection
  vcpu::PauseGate gate_;
  std::mutex serve_mutex_;  // held while a fault is served
  struct Trapped {
    mmu::Gfn gfn;
    int times = 0;
  };
  std::vector<Trapped> trapped_;  // by vCPU: accesses that had their leaf; of the handler's thread
  std::mutex prefault_mutex_;
  std::unique_ptr<Vcpu> prefaulter_;  // never runs; set before the handler is, used under the mutex
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
  return AddMemorySlots();
}

absl::Status KvmMachine::AddMemorySlots() {
  if (config_.native) {
    native_.emplace(&vm_, ram_);
    absl::Status status = native_->Open(projection(MemoryKind::kPrivate), next_slot_);
    return status.ok() ? AddWindows(projection(MemoryKind::kShared)) : status;
  }
  for (const MemoryKind kind : mmu::kAllKinds) {
    if (absl::Status status = AddWindows(projection(kind)); !status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status KvmMachine::AddWindows(const Projection& projection) {
  for (const Projection::Window& window : projection.windows()) {
    kvm_userspace_memory_region region = {};
    region.slot = next_slot_++;
    region.guest_phys_addr = layout_.GpaOf(window.range.first, projection.kind()).value;
    region.memory_size = window.mapping.size();
    region.userspace_addr = reinterpret_cast<uintptr_t>(window.mapping.data());
    if (vm_.Ioctl(KVM_SET_USER_MEMORY_REGION, &region) != 0) {
      return absl::ResourceExhaustedError(absl::StrCat("KVM refuses memory at 0x",
                                                       absl::Hex(region.guest_phys_addr), ": ",
                                                       std::strerror(errno)));
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
  environment.cpus = config_.cpus;
  environment.tells_registers = config_.tells_registers;
  environment.native = config_.native;
  for (VcpuIndex index = 0; index < config_.vcpus; ++index) {
    absl::StatusOr<std::unique_ptr<Vcpu>> vcpu = Vcpu::Create(index, environment);
    if (!vcpu.ok()) return vcpu.status();
    vcpus_.push_back(*std::move(vcpu));
  }
  if (native_.has_value() && system_->prefaults()) {
    absl::StatusOr<std::unique_ptr<Vcpu>> vcpu = Vcpu::Create(config_.vcpus, environment);
    if (!vcpu.ok()) return vcpu.status();
    std::lock_guard lock(prefault_mutex_);  // of a Prefault that comes as early
    prefaulter_ = *std::move(vcpu);
  }
  return absl::OkStatus();
}

absl::Status KvmMachine::Load(const BootPlan& plan) {
  if (absl::Status status = LoadGuest(plan, *ram_); !status.ok()) return status;
  if (engine_ != nullptr) {
    // Frames that were made shared before the start have no private bytes, loaded ones included.
    for (const mmu::AttributeRun& run : engine_->GetMemoryAttributes()) {
      if (run.kind == MemoryKind::kShared) ram_->Discard(run.range, MemoryKind::kPrivate);
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
  parked_.resize(vcpus_.size());
  trapped_.resize(vcpus_.size());
  try {
    // The handler runs before KVM touches guest memory for the first time.
    handler_ = std::thread([this] { ServeFaults(); });
    if (native_.has_value()) {
      absl::Status loaded = LoadPrivateMemory(vm_, next_slot_, *vcpus_[0], *ram_);
      if (!loaded.ok()) return loaded;
    }
    for (const std::unique_ptr<Vcpu>& vcpu : vcpus_) {
      absl::StatusOr<kvm_sregs> sregs = vcpu->GetSregs();
      if (!sregs.ok()) return sregs.status();
      kvm_regs regs;
      SetEntryState(*plan, ram_->low_bytes(), vcpu->index(), *sregs, regs);
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
  bool served = false;
  while (!stop_.load(std::memory_order_acquire)) {
    if (!FaultWait::For(sources, served)) continue;
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

void KvmMachine::SignalHandler() {
  const uint64_t one = 1;
  (void)!write(handler_event_.get(), &one, sizeof one);
}

VcpuIndex KvmMachine::VcpuOf(uint32_t thread) const {
  for (const std::unique_ptr<Vcpu>& vcpu : vcpus_) {
    if (static_cast<uint32_t>(vcpu->thread_id()) == thread) return vcpu->index();
  }
  return 0;  // KVM touched memory while the entry state was set
}

void KvmMachine::ServeFault(const uffd_msg& message) {
  if (message.event != UFFD_EVENT_PAGEFAULT) return;
  const auto& fault = message.arg.pagefault;
  for (const MemoryKind kind : mmu::kAllKinds) {
    const std::optional<mmu::Gfn> gfn = projection(kind).GfnAt(fault.address);
    if (!gfn.has_value()) continue;
    if (prefaulter_ != nullptr &&
        static_cast<uint32_t>(prefaulter_->thread_id()) == fault.feat.ptid) {
      prefaulter_->Kick();  // what it wanted is not there
      return;
    }
    const VcpuIndex vcpu = VcpuOf(fault.feat.ptid);
    if (native_.has_value() && kind == MemoryKind::kPrivate && !CheckTrapped(vcpu, *gfn)) return;
    // A fetch looks like a read here.
    const mmu::Access access =
        (fault.flags & UFFD_PAGEFAULT_FLAG_WRITE) ? mmu::Access::Write() : mmu::Access::Read();
    {
      // Before the client knows of it: it may be resumed at once.
      std::lock_guard lock(parked_mutex_);
      parked_[vcpu] = Parked{kind, *gfn};
    }
    const Projection::Faulting faulting(*gfn);
    if (client_->OnEptViolation(vcpu, {layout_.GpaOf(*gfn, kind), access}) == Verdict::kResume) {
      std::lock_guard lock(parked_mutex_);
      parked_[vcpu]->resumed = true;
    }
    gate_.Hold(vcpu);
    WakeIfResumed(vcpu);
    return;
  }
}

void KvmMachine::ResumeFault(VcpuIndex vcpu) {
  if (vcpu >= vcpus_.size()) return;
  vcpus_[vcpu]->ResumeFetch();
  {
    std::lock_guard lock(parked_mutex_);
    if (!parked_[vcpu].has_value()) return;
    parked_[vcpu]->resumed = true;
  }
  SignalHandler();
}

void KvmMachine::AnswerMapGpa(VcpuIndex vcpu, vcpu::MapGpaAnswer answer) {
  if (vcpu < vcpus_.size()) vcpus_[vcpu]->AnswerMapGpa(answer);
}

absl::Status KvmMachine::Prefault(mmu::GfnRange range) {
  std::lock_guard lock(prefault_mutex_);
  return prefaulter_ != nullptr ? prefaulter_->Prefault(range) : absl::OkStatus();
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
  std::lock_guard no_start(start_mutex_);
  Pause();
  if (absl::Status status = projection.Renew(); !status.ok()) {
    client_->OnFatal(StopReason::kBackendError, std::string(status.message()));
  }
  Resume();
}

void KvmMachine::RequestStop() {
  if (stop_.exchange(true)) return;
  gate_.Stop();
  for (const std::unique_ptr<Vcpu>& vcpu : vcpus_) vcpu->Kick();
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
