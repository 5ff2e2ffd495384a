#include "daemon/host/vm_impl.h"

#include <algorithm>
#include <cstring>
#include <thread>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "daemon/host/event_words.h"
#include "daemon/host/memory_events.h"
#include "daemon/reasons.h"
#include "daemon/status_reason.h"
#include "daemon/vcpu/sim/sim_machine.h"
#include "mmu/types/level.h"
#include "spdlog/spdlog.h"

namespace twinroot::host {
namespace {

using mmu::kPageShift;
using mmu::MemoryKind;
using vcpu::StopReason;
using vcpu::VcpuIndex;
using vcpu::Verdict;

constexpr int kWalkBits = 48;  // 4 levels
constexpr int kSimMaxPhyAddr = 48;
// A guest that touches new memory is likely to go on; what it touches is left alone so long.
constexpr absl::Duration kSettleDelay = absl::Milliseconds(100);

absl::StatusOr<mmu::GpaLayout> LayoutOf(const VmSpec& spec, const kvm::KvmSystem* kvm) {
  const int maxphyaddr =
      spec.backend != BackendKind::kSim ? kvm->guest_maxphyaddr() : kSimMaxPhyAddr;
  // A6: tables that a guest made, with what they may name, stand between; so no bit is stolen.
  if (spec.mmu == mmu::MmuMode::kShadow) {
    return mmu::GpaLayout::Create(std::nullopt, kWalkBits, maxphyaddr);
  }
  return mmu::GpaLayout::Create(std::min(maxphyaddr, kWalkBits) - 1, kWalkBits, maxphyaddr);
}

// Enough tables to map all memory in 4 KiB pages through both roots, and as much again, which may
// be added in memslots. Pages that are never used cost nothing.
size_t TablePagesFor(uint64_t boot_bytes, uint32_t vcpus) {
  const uint64_t memory_bytes = 2 * boot_bytes;
  // Roots, upper levels, the two slots' edges; and what each vCPU's fault may hold in reserve.
  // Added memslots may lie far from each other: upper tables and edges of their own.
  const uint64_t slack = 32 + 4 * uint64_t{vcpus} + 4 * MemslotDesk::kMaxAdded;
  const uint64_t leaf_tables = memory_bytes / mmu::BytesPerEntry(mmu::Level::k2M) + 2;
  const uint64_t directories = memory_bytes / mmu::BytesPerEntry(mmu::Level::k1G) + 2;
  return 2 * (leaf_tables + directories) + slack;
}

}  // namespace

kvm::KvmMachineConfig KvmConfigOf(const VmSpec& spec) {
  return {.vcpus = spec.vcpus,
          .image = spec.image,
          .initrd = spec.initrd,
          .program = spec.program,
          .cmdline = spec.cmdline,
          .cpl = spec.cpl,
          .native = spec.backend == BackendKind::kKvmNative,
          .cpus = spec.cpus,
          .tells_registers = spec.tells_registers};
}

absl::StatusOr<std::shared_ptr<VmImpl>> VmImpl::Create(VmSpec spec, const House& house) {
  std::shared_ptr<VmImpl> vm(new VmImpl(std::move(spec), house));
  if (absl::Status status = vm->Build(); !status.ok()) return status;
  return vm;
}

VmImpl::VmImpl(VmSpec spec, const House& house)
    : spec_(std::move(spec)), house_(house), create_time_(absl::Now()), settings_(spec_) {}

VmImpl::~VmImpl() {
  if (machine_ != nullptr) {
    machine_->RequestStop();
    machine_->Join();
  }
}

absl::Status VmImpl::Build() {
  const absl::StatusOr<mmu::GpaLayout> layout = LayoutOf(spec_, house_.kvm);
  if (!layout.ok()) return layout.status();
  absl::StatusOr<std::unique_ptr<memory::GuestRam>> ram =
      memory::GuestRam::Create(spec_.memory_bytes, house_.hpa_space,
                               spec_.backend == BackendKind::kSim ? memory::Commit::kTouchedPages
                                                                  : memory::Commit::kWholeLeaves);
  if (!ram.ok()) return ram.status();
  ram_ = *std::move(ram);
  if (spec_.backend != BackendKind::kSim) {
    kvm::KvmMachineConfig config = KvmConfigOf(spec_);
    if (house_.cpu_groups != nullptr && house_.cpu_groups->ok()) {
      auto group = (**house_.cpu_groups)->Make(spec_.name, spec_.cpu_share);
      if (!group.ok()) return group.status();
      cpu_group_ = *std::move(group);
      config.vcpu_thread_starts = [group = cpu_group_.get()] { return group->Enter(); };
    }
    absl::StatusOr<std::unique_ptr<vcpu::Machine>> machine =
        kvm::MakeKvmMachine(std::move(config), house_.kvm, *layout, ram_.get(), this);
    if (!machine.ok()) return machine.status();
    machine_ = *std::move(machine);
  } else {
    sim::SimConfig config;
    config.vcpus = spec_.vcpus;
    config.program = spec_.program;
    config.mmu = spec_.mmu;
    machine_ = sim::MakeSimMachine(config, &physical_map_, this);
  }
  return BuildEngine(*layout);
}

absl::Status VmImpl::BuildEngine(const mmu::GpaLayout& layout) {
  const size_t table_pages = TablePagesFor(spec_.memory_bytes, spec_.vcpus);
  absl::StatusOr<memory::HpaRange> hpas = house_.hpa_space->Allocate(table_pages * mmu::kPageSize);
  if (!hpas.ok()) return hpas.status();
  table_hpas_ = *std::move(hpas);
  absl::StatusOr<memory::Mapping> arena = memory::Mapping::Anonymous(table_pages * mmu::kPageSize);
  if (!arena.ok()) return arena.status();
  table_arena_ = *std::move(arena);
  table_pool_ =
      std::make_unique<mmu::TablePool>(table_hpas_.base(), table_arena_.data(), table_pages);

  physical_map_.Add(table_hpas_.base(), table_arena_.data(), table_arena_.size());
  for (memory::RamSlot& slot : ram_->slots()) {
    for (const MemoryKind kind : mmu::kAllKinds) {
      physical_map_.Add(slot.pages(kind).hpa(), slot.pages(kind).data(), slot.pages(kind).size());
    }
  }

  mmu::GuestAddressSpace::Environment environment;
  environment.pool = table_pool_.get();
  environment.pages = machine_->pages() != nullptr ? machine_->pages() : ram_.get();
  environment.flusher = machine_->flusher();
  environment.pml = machine_->pml();
  environment.host_memory = &physical_map_;
  environment.bugs = this;
  environment.external_private = machine_->external(MemoryKind::kPrivate);
  environment.external_shared = machine_->external(MemoryKind::kShared);
  absl::StatusOr<std::unique_ptr<mmu::GuestAddressSpace>> engine = mmu::GuestAddressSpace::Create(
      {.layout = layout, .mmu = spec_.mmu, .nx_huge_pages = spec_.nx_huge_pages}, environment);
  if (!engine.ok()) return engine.status();
  engine_ = *std::move(engine);
  for (const mmu::Memslot& slot : ram_->Memslots()) {
    if (absl::Status status = engine_->AddMemslot(slot); !status.ok()) return status;
  }
  machine_->Attach(engine_.get());
  ConversionDesk::Hooks hooks;
  // Weak: a deadline may be decided while the VM goes away.
  hooks.resume_fault = [weak = weak_from_this()](VcpuIndex vcpu) {
    if (const auto vm = weak.lock()) vm->machine_->ResumeFault(vcpu);
  };
  hooks.answer_map_gpa = [weak = weak_from_this()](VcpuIndex vcpu, vcpu::MapGpaAnswer answer) {
    if (const auto vm = weak.lock()) vm->machine_->AnswerMapGpa(vcpu, answer);
  };
  hooks.fatal = [weak = weak_from_this()](StopReason reason, std::string message) {
    if (const auto vm = weak.lock()) vm->BeginStop(Stopped(reason, std::move(message)));
  };
  desk_ = std::make_shared<ConversionDesk>(spec_.name, spec_.policy, engine_.get(), house_.journal,
                                           house_.clock, house_.lanes, std::move(hooks));
  dirty_desk_ = std::make_unique<DirtyDesk>(
      spec_.name, spec_.vcpus, engine_.get(),
      [this](VcpuIndex vcpu) { machine_->ResumeFault(vcpu); },
      [this](v1::Event event) { Publish(std::move(event)); });
  memslot_desk_ = std::make_unique<MemslotDesk>(
      spec_.name, engine_.get(), machine_.get(), ram_.get(), &physical_map_, house_.hpa_space,
      [this](std::string why) { OnFatal(StopReason::kBackendError, std::move(why)); });
  return absl::OkStatus();
}

void VmImpl::CountExit(ExitMeter::Reason reason) {
  if (house_.exits != nullptr) house_.exits->CountExit(reason);
}

Verdict VmImpl::OnEptViolation(VcpuIndex vcpu, const mmu::Fault& reported) {
  const absl::Time exit_time = absl::Now();
  mmu::Fault fault = reported;
  fault.vcpu = vcpu;
  for (;;) {
    const uint64_t harvests = dirty_desk_->harvests();
    const mmu::FaultOutcome outcome = engine_->HandleFault(fault);
    const std::optional<Verdict> verdict = AnswerFault(vcpu, fault, outcome, harvests, exit_time);
    if (!verdict.has_value()) continue;
    if (house_.exits != nullptr) {
      house_.exits->CountFault(
          engine_->layout().KindOf(fault.gpa), outcome.index(),
          // Of the same clock as conversions; it may have been set meanwhile.
          absl::ToChronoNanoseconds(std::max(absl::Now() - exit_time, absl::ZeroDuration())));
    }
    return *verdict;
  }
}

vcpu::ShadowAnswer VmImpl::OnShadowFault(VcpuIndex vcpu, const mmu::ShadowFault& fault) {
  CountExit(ExitMeter::Reason::kShadowFault);
  const absl::Time exit_time = absl::Now();
  for (;;) {
    const uint64_t harvests = dirty_desk_->harvests();
    const mmu::ShadowFaultOutcome outcome = engine_->HandleShadowFault(fault);
    if (const auto* run_on = std::get_if<mmu::ShadowRunOn>(&outcome)) return *run_on;
    if (const auto* made = std::get_if<mmu::ShadowWriteMade>(&outcome)) return *made;
    if (const auto* refused = std::get_if<mmu::GuestPageFault>(&outcome)) return *refused;
    // The address is linear: nothing that follows looks at it but to name what the guest wanted.
    const std::optional<Verdict> verdict =
        AnswerFault(vcpu, {mmu::Gpa(0), fault.access.needed, vcpu},
                    std::get<mmu::FaultOutcome>(outcome), harvests, exit_time);
    if (verdict.has_value()) return *verdict;
  }
}

std::optional<Verdict> VmImpl::AnswerFault(VcpuIndex vcpu, const mmu::Fault& fault,
                                           const mmu::FaultOutcome& outcome, uint64_t harvests,
                                           absl::Time exit_time) {
  if (std::holds_alternative<mmu::Fixed>(outcome) ||
      std::holds_alternative<mmu::Spurious>(outcome)) {
    return Verdict::kResume;
  }
  // Pages that are on their way: the daemon's page sources wait for theirs, so none is.
  if (std::holds_alternative<mmu::Retry>(outcome) ||
      std::holds_alternative<mmu::PagePending>(outcome)) {
    std::this_thread::yield();
    return Verdict::kResume;  // the guest's own second try is the retry; a stop gets in between
  }
  if (std::holds_alternative<mmu::DirtyRingFull>(outcome)) {
    if (dirty_desk_->Park(vcpu, harvests)) return Verdict::kParked;
    return std::nullopt;
  }
  if (const auto* exit = std::get_if<mmu::MemoryFaultExit>(&outcome)) {
    // On shadow tables no page is of another kind than asked for.
    if (exit->denied.empty() && spec_.mmu == mmu::MmuMode::kTdp) {
      return desk_->Implicit(vcpu, fault, *exit, exit_time);
    }
    Publish(FaultEvent(spec_.name, vcpu, exit->gpa, exit->wanted, v1::MemoryFault::REASON_DENIED));
    OnFatal(StopReason::kMemoryFault,
            absl::StrCat("vcpu ", vcpu, ": the attributes of 0x", absl::Hex(exit->gpa.value),
                         " deny this access"));
    return Verdict::kStop;
  }
  if (const auto* mmio = std::get_if<mmu::Mmio>(&outcome)) {
    return StopAtMmio(vcpu, mmio->gpa, engine_->layout().KindOf(fault.gpa));
  }
  const absl::Status& status = std::get<mmu::Failed>(outcome).status;
  OnFatal(!engine_->bugged().empty()                              ? StopReason::kEngineBug
          : status.code() == absl::StatusCode::kResourceExhausted ? StopReason::kOutOfMemory
                                                                  : StopReason::kMemoryFault,
          absl::StrCat("vcpu ", vcpu, ": ", std::string(status.message())));
  return Verdict::kStop;
}

std::optional<Verdict> VmImpl::OnEptMisconfiguration(VcpuIndex vcpu, mmu::Gpa gpa) {
  CountExit(ExitMeter::Reason::kEptMisconfiguration);
  const mmu::MmioOutcome outcome = engine_->HandleMisconfiguration(gpa);
  if (std::holds_alternative<mmu::Retry>(outcome)) return Verdict::kResume;
  if (const auto* mmio = std::get_if<mmu::CachedMmio>(&outcome)) {
    return StopAtMmio(vcpu, mmio->gpa, engine_->layout().KindOf(gpa));
  }
  return std::nullopt;
}

Verdict VmImpl::StopAtMmio(VcpuIndex vcpu, mmu::Gpa gpa, MemoryKind alias) {
  Publish(FaultEvent(spec_.name, vcpu, gpa, alias, v1::MemoryFault::REASON_OUTSIDE_MEMORY));
  OnFatal(StopReason::kMmioOutsideMemory,
          absl::StrCat("vcpu ", vcpu, ": access outside memory at 0x", absl::Hex(gpa.value)));
  return Verdict::kStop;
}

vcpu::MapGpaVerdict VmImpl::OnMapGpa(VcpuIndex vcpu, const vcpu::MapGpaCall& call) {
  CountExit(ExitMeter::Reason::kMapGpa);
  // Nobody but the guest can copy there: a request that it cannot have, as any unknown bit.
  if (spec_.backend == BackendKind::kKvmNative && (call.attributes & vcpu::kMapGpaPreserve) != 0) {
    return {Verdict::kResume, vcpu::MapGpaResult::kInvalid};
  }
  return desk_->Explicit(vcpu, call, absl::Now());
}

void VmImpl::OnConsole(std::string_view bytes) {
  console_.Append(bytes);
  console_wakers_.Call();
}

void VmImpl::OnExitCode(VcpuIndex, uint8_t code) { BeginStop(Exited(code)); }

void VmImpl::OnVcpuEnded(VcpuIndex) {
  if (vcpus_running_.fetch_sub(1) == 1) BeginStop(Exited(0));
}

void VmImpl::OnFatal(StopReason reason, std::string message) {
  BeginStop(Stopped(reason, std::move(message)));
}

void VmImpl::ReportBug(const std::string& what) {
  // Elsewhere: the engine reports under its locks. Weak: the VM may be gone by then.
  house_.lanes->Post(this, [weak = weak_from_this(), what] {
    const auto vm = weak.lock();
    if (vm == nullptr) return;
    std::lock_guard lifecycle(vm->lifecycle_mutex_);  // not in the middle of a start
    vm->OnFatal(StopReason::kEngineBug, what);
  });
}

void VmImpl::RunLater(std::function<void()> task) {
  if (!house_.whole_leaves) return;  // nothing would come of it
  // Weak: the VM may be gone by then.
  const auto run = [weak = weak_from_this(), task = std::move(task)] {
    if (const auto vm = weak.lock()) task();
  };
  house_.clock->PostAt(absl::Now() + kSettleDelay, [lanes = house_.lanes, lane = machine_.get(),
                                                    run] { lanes->Post(lane, run); });
}

}  // namespace twinroot::host
