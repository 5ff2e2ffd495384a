#include "daemon/vcpu/sim/sim_machine.h"

#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"

namespace twinroot::sim {
namespace {

using mmu::MemoryKind;

bool UsesSharedAlias(const program::DecodedProgram& program) {
  for (const std::vector<program::Op>& ops : program.ops) {
    for (const program::Op& op : ops) {
      if (op.flags & program::kFlagShared) return true;
    }
  }
  return false;
}

uint32_t VcpusWithProgram(const program::DecodedProgram& program) {
  uint32_t count = 0;
  for (const std::vector<program::Op>& ops : program.ops) count += ops.empty() ? 0 : 1;
  return count;
}

}  // namespace

SimMachine::SimMachine(const SimConfig& config, mmu::vmx::PhysicalMemory* memory,
                       vcpu::MachineClient* client)
    : config_(config), shared_(config.vcpus) {
  shared_.client = client;
  for (vcpu::VcpuIndex index = 0; index < config_.vcpus; ++index) {
    vcpus_.push_back(std::make_unique<SimVcpu>(index, &shared_, memory, config_.capabilities,
                                               config_.host_maxphyaddr));
  }
}

SimMachine::~SimMachine() {
  RequestStop();
  Join();
}

void SimMachine::Attach(mmu::GuestAddressSpace* engine) {
  LoadRoots(engine->ept_pointer(MemoryKind::kPrivate), engine->ept_pointer(MemoryKind::kShared),
            engine->layout().shared_bit());
  shared_.guest_maxphyaddr = engine->layout().guest_maxphyaddr();
  if (config_.mmu == mmu::MmuMode::kShadow) shared_.shadow_engine = engine;
}

void SimMachine::LoadRoots(mmu::EptPointer private_root, mmu::EptPointer shared_root,
                           std::optional<int> shared_bit) {
  shared_.has_shared_bit = shared_bit.has_value();
  roots_ = {private_root};
  if (shared_.has_shared_bit) roots_.push_back(shared_root);
  for (const std::unique_ptr<SimVcpu>& vcpu : vcpus_) {
    vcpu->processor().LoadRoots(private_root, shared_root, shared_bit);
  }
}

absl::Status SimMachine::CheckRoots() const {
  if (roots_.empty()) return absl::InternalError("sim: no engine is attached to the machine");
  for (const mmu::EptPointer root : roots_) {
    if (!root.Valid(config_.capabilities, config_.host_maxphyaddr)) {
      return absl::InternalError(
          absl::StrCat("sim: VM entry refuses the EPT pointer 0x", absl::Hex(root.raw())));
    }
  }
  return absl::OkStatus();
}

absl::Status SimMachine::Start() {
  if (config_.program.empty()) {
    return absl::FailedPreconditionError(
        "an image cannot run on sim, which executes access programs only: create the VM with an "
        "access program (--program FILE), or on a host where the kvm backend works");
  }
  {
    std::lock_guard lock(start_mutex_);
    if (started_) return absl::FailedPreconditionError("sim: the machine was started before");
    absl::StatusOr<program::DecodedProgram> program =
        program::Decode(config_.program, config_.vcpus);
    if (!program.ok()) return program.status();
    if (absl::Status status = CheckRoots(); !status.ok()) return status;
    if (UsesSharedAlias(*program) && !shared_.has_shared_bit) {
      return absl::FailedPreconditionError(
          "the program uses the shared alias, but this VM has no shared bit");
    }
    started_ = true;
    program_ = *std::move(program);
    shared_.barrier.Expect(VcpusWithProgram(program_));
    try {
      for (vcpu::VcpuIndex index = 0; index < config_.vcpus; ++index) {
        threads_.emplace_back([this, index] {
          // No vCPU runs before all exist.
          { std::lock_guard wait(start_mutex_); }
          vcpus_[index]->Run(program_.ops[index], program_.blob);
        });
      }
      return absl::OkStatus();
    } catch (const std::system_error&) {
      RequestStop();
    }
  }
  Join();
  return absl::ResourceExhaustedError(
      absl::StrCat("sim: the host gives no thread for each of ", config_.vcpus,
                   " vCPUs; stop other VMs or raise the limit of threads"));
}

// A vCPU here leaves its parking place by its own release only, so one place serves both waits.
void SimMachine::AnswerMapGpa(vcpu::VcpuIndex vcpu, vcpu::MapGpaAnswer answer) {
  if (vcpu < vcpus_.size()) vcpus_[vcpu]->Unpark(answer);
}

// Each comes to the gate by itself, after one operation at most.
void SimMachine::Pause() {
  shared_.gate.Pause([](vcpu::VcpuIndex) {});
}

void SimMachine::RequestStop() {
  shared_.stop.store(true, std::memory_order_release);
  shared_.barrier.Stop();
  shared_.gate.Stop();
  for (const std::unique_ptr<SimVcpu>& vcpu : vcpus_) vcpu->Stop();
}

void SimMachine::Join() {
  std::lock_guard lock(join_mutex_);
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

void SimMachine::FlushRange(MemoryKind root, mmu::HwGfn first, uint64_t count) {
  if (shared_.shadow_engine != nullptr) return FlushAll();
  for (const std::unique_ptr<SimVcpu>& vcpu : vcpus_) {
    vcpu->processor().FlushRange(root, first, count);
  }
}

void SimMachine::FlushAll() {
  for (const std::unique_ptr<SimVcpu>& vcpu : vcpus_) {
    if (shared_.shadow_engine != nullptr) {
      vcpu->shadow().FlushAll();
    } else {
      vcpu->processor().FlushAll();
    }
  }
}

void SimMachine::SetEnabled(bool enabled) {
  for (const std::unique_ptr<SimVcpu>& vcpu : vcpus_) {
    if (enabled) {
      vcpu->processor().EnablePml();
    } else {
      vcpu->processor().DisablePml();
    }
  }
  // The next log begins empty.
  if (!enabled) shared_.full_logs.Drain(vcpus_);
}

void SimMachine::Drain(absl::FunctionRef<void(mmu::Gpa)> page) {
  for (const mmu::Gpa gpa : shared_.full_logs.Drain(vcpus_)) page(gpa);
}

std::unique_ptr<vcpu::Machine> MakeSimMachine(const SimConfig& config,
                                              mmu::vmx::PhysicalMemory* memory,
                                              vcpu::MachineClient* client) {
  return std::make_unique<SimMachine>(config, memory, client);
}

}  // namespace twinroot::sim
