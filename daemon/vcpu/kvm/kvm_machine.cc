#include "daemon/vcpu/kvm/kvm_machine.h"

#include <signal.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "daemon/vcpu/kvm/boot_loader.h"
#include "daemon/vcpu/kvm/interpreter/interpreter_image.h"
#include "daemon/vcpu/kvm/projection.h"
#include "daemon/vcpu/kvm/userfault.h"
#include "daemon/vcpu/kvm/vcpu.h"

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
      : config_(config), system_(system), layout_(layout), ram_(ram), client_(client) {}

  ~KvmMachine() override {
    RequestStop();
    Join();
  }

  absl::Status Open();

  mmu::ExternalTables* external(MemoryKind root) override { return &projection(root); }
  mmu::TlbFlusher* flusher() override { return nullptr; }  // a projection needs none
  void Attach(mmu::GuestAddressSpace*) override {}
  absl::Status Start() override;
  void Unpark(VcpuIndex vcpu, vcpu::MapGpaResult result) override;
  void RequestStop() override;
  void Join() override;

 private:
  // Where a vCPU's fault is parked: its GPA's frame and alias, or nothing.
  struct ParkedFault {
    std::mutex mutex;
    std::optional<std::pair<MemoryKind, mmu::Gfn>> at;
  };

  Projection& projection(MemoryKind kind) { return *projections_[static_cast<size_t>(kind)]; }
  absl::Status AddMemorySlots();
  absl::Status CreateVcpus();
  void ServeFaults();
  void ServeFault(const uffd_msg& message);
  VcpuIndex VcpuOf(uint32_t thread) const;

  const KvmMachineConfig config_;
  const KvmSystem* const system_;
  const mmu::GpaLayout layout_;
  memory::GuestRam* const ram_;
  vcpu::MachineClient* const client_;

  std::optional<Userfault> userfault_;
  std::optional<Projection> projections_[2];
  Fd vm_;
  std::vector<std::unique_ptr<Vcpu>> vcpus_;
  std::vector<ParkedFault> parked_;
  std::thread handler_;
  std::atomic<pid_t> handler_thread_{0};
  std::atomic<bool> handler_done_{true};
  std::atomic<bool> stop_{false};
};

absl::Status KvmMachine::Open() {
  absl::StatusOr<Userfault> userfault = Userfault::Open();
  if (!userfault.ok()) return userfault.status();
  userfault_ = *std::move(userfault);
  for (const MemoryKind kind : mmu::kAllKinds) {
    std::optional<Projection>& projection = projections_[static_cast<size_t>(kind)];
    projection.emplace(kind, &*userfault_);
    if (absl::Status status = projection->Open(*ram_); !status.ok()) return status;
  }
  vm_ = Fd(ioctl(system_->fd(), KVM_CREATE_VM, 0));
  if (!vm_.valid()) {
    return absl::ResourceExhaustedError(absl::StrCat("KVM_CREATE_VM: ", std::strerror(errno)));
  }
  ioctl(vm_.get(), KVM_SET_TSS_ADDR, kTssAddress);  // where it is not needed it may be refused
  if (system_->map_gpa_exits()) {
    kvm_enable_cap enable = {};
    enable.cap = KVM_CAP_EXIT_HYPERCALL;
    enable.args[0] = 1 << kMapGpaHypercall;
    ioctl(vm_.get(), KVM_ENABLE_CAP, &enable);  // the port is the door that must work
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
      if (ioctl(vm_.get(), KVM_SET_USER_MEMORY_REGION, &region) != 0) {
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
  environment.vm_fd = vm_.get();
  environment.run_bytes = system_->vcpu_run_bytes();
  environment.cpuid = &system_->cpuid();
  environment.sync_regs = system_->sync_regs();
  environment.client = client_;
  environment.layout = &layout_;
  environment.ram = ram_;
  environment.stop = &stop_;
  for (VcpuIndex index = 0; index < config_.vcpus; ++index) {
    absl::StatusOr<std::unique_ptr<Vcpu>> vcpu = Vcpu::Create(index, environment);
    if (!vcpu.ok()) return vcpu.status();
    vcpus_.push_back(*std::move(vcpu));
  }
  return absl::OkStatus();
}

absl::Status KvmMachine::Start() {
  absl::StatusOr<BootPlan> plan = PlanBoot(config_, ram_->bytes(), *layout_.shared_bit());
  if (!plan.ok()) return plan.status();
  if (absl::Status status = LoadGuest(*plan, *ram_); !status.ok()) return status;
  if (absl::Status status = CreateVcpus(); !status.ok()) return status;
  parked_ = std::vector<ParkedFault>(vcpus_.size());
  // The handler runs before KVM touches guest memory for the first time.
  KickSignal();
  handler_done_ = false;
  handler_ = std::thread([this] { ServeFaults(); });
  for (const std::unique_ptr<Vcpu>& vcpu : vcpus_) {
    absl::StatusOr<kvm_sregs> sregs = vcpu->GetSregs();
    if (!sregs.ok()) return sregs.status();
    kvm_regs regs;
    SetEntryState(*plan, ram_->low_bytes(), vcpu->index(), *sregs, regs);
    if (absl::Status status = vcpu->SetState(regs, *sregs); !status.ok()) return status;
  }
  for (const std::unique_ptr<Vcpu>& vcpu : vcpus_) vcpu->StartThread();
  return absl::OkStatus();
}

void KvmMachine::ServeFaults() {
  sigset_t kick;
  sigemptyset(&kick);
  sigaddset(&kick, KickSignal());
  pthread_sigmask(SIG_UNBLOCK, &kick, nullptr);
  handler_thread_ = static_cast<pid_t>(syscall(SYS_gettid));
  uffd_msg messages[16];
  while (!stop_.load(std::memory_order_acquire)) {
    const absl::StatusOr<size_t> count = userfault_->Read(absl::MakeSpan(messages));
    if (!count.ok()) {
      client_->OnFatal(StopReason::kBackendError, std::string(count.status().message()));
      break;
    }
    for (size_t i = 0; i < *count && !stop_.load(std::memory_order_acquire); ++i) {
      ServeFault(messages[i]);
    }
  }
  handler_done_ = true;
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
    const VcpuIndex vcpu = VcpuOf(fault.feat.ptid);
    // A fetch looks like a read here.
    const mmu::Access access =
        (fault.flags & UFFD_PAGEFAULT_FLAG_WRITE) ? mmu::Access::Write() : mmu::Access::Read();
    {
      // Before the client knows of it: Unpark may come at once.
      std::lock_guard lock(parked_[vcpu].mutex);
      parked_[vcpu].at.emplace(kind, *gfn);
    }
    if (client_->OnEptViolation(vcpu, {layout_.GpaOf(*gfn, kind), access}) == Verdict::kResume) {
      {
        std::lock_guard lock(parked_[vcpu].mutex);
        parked_[vcpu].at.reset();
      }
      projection(kind).Wake(*gfn);
    }
    return;
  }
}

void KvmMachine::Unpark(VcpuIndex vcpu, vcpu::MapGpaResult result) {
  if (vcpu >= parked_.size()) return;
  std::optional<std::pair<MemoryKind, mmu::Gfn>> at;
  {
    std::lock_guard lock(parked_[vcpu].mutex);
    at.swap(parked_[vcpu].at);
  }
  if (at.has_value()) projection(at->first).Wake(at->second);
  vcpus_[vcpu]->Unpark(result);
}

void KvmMachine::RequestStop() {
  if (stop_.exchange(true)) return;
  for (const std::unique_ptr<Vcpu>& vcpu : vcpus_) vcpu->Kick();
  for (std::optional<Projection>& projection : projections_) {
    if (projection.has_value()) projection->Revoke();
  }
}

void KvmMachine::Join() {
  // The handler may be just about to read when a signal comes; so signal until it is gone.
  while (!handler_done_) {
    if (const pid_t thread = handler_thread_; thread != 0) {
      syscall(SYS_tgkill, getpid(), thread, KickSignal());
    }
    std::this_thread::sleep_for(std::chrono::microseconds(200));
  }
  if (handler_.joinable()) handler_.join();
  for (const std::unique_ptr<Vcpu>& vcpu : vcpus_) {
    vcpu->Kick();
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
