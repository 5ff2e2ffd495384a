#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <utility>

#include "tests/fakes/kvm/fake_vm.h"

namespace twinroot::kvm::fake {
namespace {

constexpr uint64_t kPage = 4096;
constexpr size_t kDataOffset = 2 * kPage;  // of the bytes of a port access in the run area

}  // namespace

std::shared_ptr<FakeVcpu> FakeVcpu::Create(std::shared_ptr<FakeVm> vm) {
  auto area = memory::Mapping::Anonymous(kRunAreaBytes);
  if (!area.ok()) return nullptr;
  return std::shared_ptr<FakeVcpu>(new FakeVcpu(std::move(vm), *std::move(area)));
}

int64_t FakeVcpu::Ioctl(unsigned long request, void* argument) {
  std::lock_guard lock(mutex_);
  switch (request) {
    case KVM_RUN:
      return Run();
    case kPreFaultMemory:
      return Prefault(*static_cast<PreFaultMemory*>(argument));
    case kSetCpuid2:
      return 0;
    case KVM_GET_REGS:
      *static_cast<kvm_regs*>(argument) = cpu_.regs;
      return 0;
    case KVM_SET_REGS:
      cpu_.regs = *static_cast<kvm_regs*>(argument);
      return 0;
    case KVM_GET_SREGS:
      *static_cast<kvm_sregs*>(argument) = cpu_.sregs;
      return 0;
    case KVM_SET_SREGS:
      cpu_.sregs = *static_cast<kvm_sregs*>(argument);
      return 0;
    case KVM_TRANSLATE:
      // It would read page tables from host memory, where private ones are not.
      static_cast<kvm_translation*>(argument)->valid = 0;
      return 0;
    default:
      return -ENOTTY;
  }
}

// A signal is not seen here; whoever sends one sets immediate_exit first.
bool FakeVcpu::Interrupted() const {
  return std::atomic_ref<__u8>(run_->immediate_exit).load() != 0;
}

void FakeVcpu::SyncOut() {
  if ((run_->kvm_valid_regs & KVM_SYNC_X86_REGS) != 0) run_->s.regs.regs = cpu_.regs;
}

int64_t FakeVcpu::Run() {
  if ((run_->kvm_dirty_regs & KVM_SYNC_X86_REGS) != 0) {
    cpu_.regs = run_->s.regs.regs;
    run_->kvm_dirty_regs = 0;
  }
  if (run_->exit_reason == KVM_EXIT_HYPERCALL) cpu_.regs.rax = run_->hypercall.ret;
  cpu_.Complete();
  if (Interrupted()) {  // the last reason stays where it is
    SyncOut();
    return -EINTR;
  }
  run_->exit_reason = KVM_EXIT_UNKNOWN;
  cpu_.forwards_map_gpa = vm_->forwards_map_gpa();
  const Exit exit = cpu_.Run([this] { return Interrupted(); });
  const int64_t result = Tell(exit);
  SyncOut();
  return result;
}

int64_t FakeVcpu::Tell(const Exit& exit) {
  switch (exit.kind) {
    case Exit::Kind::kPort:
      run_->exit_reason = KVM_EXIT_IO;
      run_->io.direction = KVM_EXIT_IO_OUT;
      run_->io.port = exit.port;
      run_->io.size = exit.size;
      run_->io.count = static_cast<uint32_t>(exit.data.size() / exit.size);
      run_->io.data_offset = kDataOffset;
      std::memcpy(area_.data() + kDataOffset, exit.data.data(), exit.data.size());
      return 0;
    case Exit::Kind::kHypercall:
      run_->exit_reason = KVM_EXIT_HYPERCALL;
      run_->hypercall.nr = kMapGpaHypercall;
      run_->hypercall.args[0] = exit.map_gpa.address;
      run_->hypercall.args[1] = exit.map_gpa.size;
      run_->hypercall.args[2] = exit.map_gpa.attributes;
      run_->hypercall.longmode = 1;
      return 0;
    case Exit::Kind::kMmio:
      run_->exit_reason = KVM_EXIT_MMIO;
      run_->mmio.phys_addr = exit.gpa;
      run_->mmio.len = static_cast<uint32_t>(exit.data.size());
      run_->mmio.is_write = exit.write;
      std::memcpy(run_->mmio.data, exit.data.data(), std::min<size_t>(exit.data.size(), 8));
      return 0;
    case Exit::Kind::kHalt:
      run_->exit_reason = KVM_EXIT_HLT;
      return 0;
    case Exit::Kind::kShutdown:
      run_->exit_reason = KVM_EXIT_SHUTDOWN;
      return 0;
    case Exit::Kind::kMemoryFault: {
      run_->exit_reason = kExitMemoryFault;
      const MemoryFault fault = {exit.flags, exit.gpa, kPage};
      std::memcpy(reinterpret_cast<std::byte*>(run_) + kMemoryFaultOffset, &fault, sizeof fault);
      return -EFAULT;
    }
    case Exit::Kind::kStopped:
      if (!Interrupted()) return -EFAULT;  // bare: the reason stays unknown
      run_->exit_reason = KVM_EXIT_INTR;
      return -EINTR;
  }
  return -EINVAL;
}

int64_t FakeVcpu::Prefault(PreFaultMemory& request) {
  if (!vm_->memory().is_protected() && request.flags != 0) return -EINVAL;
  if (request.flags != 0 || request.size == 0 || request.gpa % kPage != 0 ||
      request.size % kPage != 0 || request.gpa + request.size <= request.gpa) {
    return -EINVAL;
  }
  for (bool progress = false; request.size != 0; progress = true) {
    int64_t error = 0;
    uint8_t byte;
    if (Interrupted()) {
      error = -EINTR;
    } else if (!vm_->memory().HasSlot(request.gpa)) {
      error = -ENOENT;
    } else {
      const GuestMemory::Outcome outcome = vm_->memory().Touch(
          request.gpa, &byte, 1, GuestMemory::Access::kRead, [this] { return Interrupted(); });
      if (outcome.result == GuestMemory::Result::kMemoryFault) {
        error =
            Tell({.kind = Exit::Kind::kMemoryFault, .gpa = request.gpa, .flags = outcome.flags});
      } else if (outcome.result != GuestMemory::Result::kDone) {
        error = Interrupted() ? -EINTR : -EFAULT;
      }
    }
    if (error != 0) return progress ? 0 : error;
    request.gpa += kPage;
    request.size -= kPage;
  }
  return 0;
}

}  // namespace twinroot::kvm::fake
