// What a vCPU does with the exits of its guest.
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "daemon/vcpu/kvm/vcpu.h"

namespace twinroot::kvm {
namespace {

using vcpu::MapGpaAnswer;
using vcpu::MapGpaCall;
using vcpu::MapGpaResult;
using vcpu::StopReason;
using vcpu::Verdict;

// Ports of the guest interface.
constexpr uint16_t kPortConsole = 0xE9;
constexpr uint16_t kPortExit = 0xF4;
constexpr uint16_t kPortVcpuEnd = 0xF5;
constexpr uint16_t kPortHypercall = 0xF8;
constexpr int64_t kUnknownHypercall = -1000;

constexpr uint32_t kInternalErrorEmulation = 1;

const char* NameOf(uint32_t reason) {
  switch (reason) {
    case KVM_EXIT_UNKNOWN:
      return "an exit of the processor that KVM does not know";
    case KVM_EXIT_EXCEPTION:
      return "an exception";
    case KVM_EXIT_DEBUG:
      return "a debug event";
    case KVM_EXIT_IRQ_WINDOW_OPEN:
      return "an interrupt window";
    case KVM_EXIT_SET_TPR:
      return "a write of the task priority";
    case KVM_EXIT_TPR_ACCESS:
      return "an access to the task priority";
    case KVM_EXIT_NMI:
      return "an NMI";
    case KVM_EXIT_SYSTEM_EVENT:
      return "a system event";
    case KVM_EXIT_IOAPIC_EOI:
      return "an end of interrupt";
    case KVM_EXIT_HYPERV:
      return "a Hyper-V call";
    case KVM_EXIT_X86_RDMSR:
      return "a read of an MSR";
    case KVM_EXIT_X86_WRMSR:
      return "a write of an MSR";
    case KVM_EXIT_X86_BUS_LOCK:
      return "a bus lock";
    case KVM_EXIT_NOTIFY:
      return "a guest that takes no events";
    default:
      return "an exit newer than this daemon";
  }
}

}  // namespace

Vcpu::Next Vcpu::HandleExit() {
  if (run_->exit_reason != KVM_EXIT_INTERNAL_ERROR) repeated_errors_.Forget();
  switch (run_->exit_reason) {
    case KVM_EXIT_IO:
      if (run_->io.direction == KVM_EXIT_IO_OUT) return HandlePortOut();
      HandlePortIn();
      return Next::kRun;
    case KVM_EXIT_HYPERCALL:
      return HandleKvmHypercall();
    case KVM_EXIT_MMIO:
      return HandleMmio();
    case KVM_EXIT_HLT:
      environment_.client->OnVcpuEnded(index_);
      return Next::kEnd;
    case KVM_EXIT_INTR:
      return Next::kRun;
    case KVM_EXIT_SHUTDOWN:
      return Fatal(StopReason::kTripleFault, "triple fault (an exception without a handler)");
    case KVM_EXIT_INTERNAL_ERROR:
      return HandleInternalError();
    case KVM_EXIT_FAIL_ENTRY:
      return Fatal(StopReason::kBackendError,
                   absl::StrCat("the processor refuses to enter the guest, hardware reason 0x",
                                absl::Hex(run_->fail_entry.hardware_entry_failure_reason)));
    default:
      return Fatal(StopReason::kUnhandledExit,
                   absl::StrCat("KVM exit reason ", run_->exit_reason, " (",
                                NameOf(run_->exit_reason), ") is not served"));
  }
}

void Vcpu::HandlePortIn() {
  uint8_t* data = reinterpret_cast<uint8_t*>(run_) + run_->io.data_offset;
  const size_t size = run_->io.size;
  std::memset(data, 0xff, size * run_->io.count);
  if (environment_.ports == nullptr) return;
  for (uint32_t i = 0; i < run_->io.count; ++i, data += size) {
    environment_.ports->In(run_->io.port, {data, size});
  }
}

Vcpu::Next Vcpu::HandlePortOut() {
  const uint8_t* data = reinterpret_cast<uint8_t*>(run_) + run_->io.data_offset;
  const uint8_t size = run_->io.size;
  if (run_->io.port == kPortConsole && size == 1) {  // string instructions come in one piece
    environment_.client->OnConsole(
        std::string_view(reinterpret_cast<const char*>(data), run_->io.count));
    return Next::kRun;
  }
  for (uint32_t i = 0; i < run_->io.count; ++i, data += size) {
    if (HandlePort(run_->io.port, size, data) == Next::kEnd) return Next::kEnd;
  }
  return Next::kRun;
}

Vcpu::Next Vcpu::HandlePort(uint16_t port, uint8_t size, const uint8_t* data) {
  switch (port) {
    case kPortConsole:
      environment_.client->OnConsole(std::string_view(reinterpret_cast<const char*>(data), 1));
      return Next::kRun;
    case kPortExit:
      environment_.client->OnExitCode(index_, data[0]);
      return Next::kEnd;
    case kPortVcpuEnd:
      environment_.client->OnVcpuEnded(index_);
      return Next::kEnd;
    case kPortHypercall:
      return size == 4 ? HandleDoor() : Next::kRun;
    default:
      return environment_.ports != nullptr ? HandlePcPort(port, size, data) : Next::kRun;
  }
}

Vcpu::Next Vcpu::HandlePcPort(uint16_t port, uint8_t size, const uint8_t* data) {
  switch (environment_.ports->Out(port, {data, size})) {
    case PcPorts::Effect::kNone:
      return Next::kRun;
    case PcPorts::Effect::kPowerOff:
      environment_.client->OnExitCode(index_, 0);
      return Next::kEnd;
    case PcPorts::Effect::kReset:
      return Fatal(StopReason::kGuestReset, "the guest asked for a reset");
  }
  return Next::kRun;
}

kvm_regs* Vcpu::Registers() {
  if (environment_.sync_regs) return &run_->s.regs.regs;
  if (fd_.Ioctl(KVM_GET_REGS, &regs_) != 0) return nullptr;
  return &regs_;
}

void Vcpu::RegistersChanged() {
  if (environment_.sync_regs) {
    run_->kvm_dirty_regs = KVM_SYNC_X86_REGS;
  } else {
    fd_.Ioctl(KVM_SET_REGS, &regs_);
  }
}

Vcpu::Next Vcpu::HandleDoor() {
  kvm_regs* regs = Registers();
  if (regs == nullptr) return Fatal(StopReason::kBackendError, "KVM_GET_REGS failed");
  int64_t result = kUnknownHypercall;
  if (regs->rax == kMapGpaHypercall) {
    const std::optional<MapGpaAnswer> answer = MapGpa({regs->rbx, regs->rcx, regs->rdx});
    if (!answer.has_value()) return Next::kEnd;
    result = static_cast<int64_t>(answer->result);
    if (answer->result == MapGpaResult::kRetry) regs->rbx = answer->next_gpa;
  }
  regs->rax = static_cast<uint64_t>(result);
  RegistersChanged();
  return Next::kRun;
}

Vcpu::Next Vcpu::HandleKvmHypercall() {
  if (run_->hypercall.nr != kMapGpaHypercall) {
    run_->hypercall.ret = static_cast<uint64_t>(kUnknownHypercall);
    return Next::kRun;
  }
  const std::optional<MapGpaAnswer> answer =
      MapGpa({run_->hypercall.args[0], run_->hypercall.args[1], run_->hypercall.args[2]});
  if (!answer.has_value()) return Next::kEnd;
  if (answer->result == MapGpaResult::kRetry) {
    kvm_regs* regs = Registers();
    if (regs == nullptr) return Fatal(StopReason::kBackendError, "KVM_GET_REGS failed");
    regs->rbx = answer->next_gpa;
    RegistersChanged();
  }
  run_->hypercall.ret = static_cast<uint64_t>(answer->result);
  return Next::kRun;
}

std::optional<MapGpaAnswer> Vcpu::MapGpa(const MapGpaCall& call) {
  {
    // Before the client knows of it: the answer may come at once.
    std::lock_guard lock(park_mutex_);
    map_gpa_waits_ = true;
    map_gpa_answer_.reset();
  }
  const vcpu::MapGpaVerdict verdict = environment_.client->OnMapGpa(index_, call);
  const bool parked = verdict.verdict == Verdict::kParked;
  std::optional<vcpu::Outside> outside;  // entered again without the lock: a kick takes it
  if (parked) outside.emplace(*environment_.gate, index_);
  std::unique_lock lock(park_mutex_);
  if (parked) {
    park_changed_.wait(lock, [this] { return map_gpa_answer_.has_value() || stopping(); });
  }
  map_gpa_waits_ = false;
  if (verdict.verdict == Verdict::kResume) return verdict.answer;
  return stopping() ? std::nullopt : map_gpa_answer_;
}

// Outside every memslot there is nothing to access. Inside, KVM's emulator could not make the
// access by itself; nobody makes it for the guest, since its memory may be private.
Vcpu::Next Vcpu::HandleMmio() {
  const mmu::Gfn gfn = environment_.layout->GfnOf(mmu::Gpa(run_->mmio.phys_addr));
  const std::string where =
      absl::StrCat(run_->mmio.is_write ? "write" : "read", " at 0x",
                   absl::Hex(gfn.value << mmu::kPageShift | (run_->mmio.phys_addr & 0xfff)));
  for (const mmu::Memslot& slot : environment_.ram->Memslots()) {
    if (slot.range.Contains(gfn)) {
      return Fatal(StopReason::kUnhandledExit,
                   "KVM could not complete a " + where + " in guest memory");
    }
  }
  return Fatal(StopReason::kMmioOutsideMemory, where + ", outside memory");
}

// KVM's emulator gives up when it cannot read the instruction bytes, which happens while their page
// is not projected. Let the engine map them; then the guest tries again.
Vcpu::Next Vcpu::HandleInternalError() {
  if (run_->internal.suberror == kInternalErrorEmulation && repeated_errors_.Add() &&
      ResolveFetch()) {
    return Next::kRun;
  }
  if (stopping()) return Next::kEnd;
  return Fatal(StopReason::kUnhandledExit,
               absl::StrCat("KVM internal error, suberror ", run_->internal.suberror,
                            run_->internal.suberror == kInternalErrorEmulation
                                ? environment_.native
                                      ? " (an instruction that KVM must emulate, and cannot read "
                                        "where it lies in private memory)"
                                      : " (an instruction that this host cannot emulate)"
                                : ""));
}

bool Vcpu::ResolveFetch() {
  const kvm_regs* regs = Registers();
  if (regs == nullptr) return false;
  constexpr uint64_t kLongestInstruction = 15;
  bool progress = false;
  for (const uint64_t offset : {uint64_t{0}, kLongestInstruction - 1}) {
    kvm_translation translation = {};
    translation.linear_address = regs->rip + offset;
    if (fd_.Ioctl(KVM_TRANSLATE, &translation) != 0 || !translation.valid) continue;
    if (!Resolve({mmu::Gpa(translation.physical_address), mmu::Access::Fetch()})) return false;
    progress = true;
  }
  return progress;
}

bool Vcpu::Resolve(const mmu::Fault& fault) {
  {
    std::lock_guard lock(park_mutex_);
    fetch_resumed_ = false;
  }
  switch (environment_.client->OnEptViolation(index_, fault)) {
    case Verdict::kResume:
      return !stopping();
    case Verdict::kParked: {
      const vcpu::Outside outside(*environment_.gate, index_);
      std::unique_lock lock(park_mutex_);
      park_changed_.wait(lock, [this] { return fetch_resumed_ || stopping(); });
      return !stopping();
    }
    case Verdict::kStop:
      return false;
  }
  return false;
}

// The access does not agree with KVM's attribute of its page. The alias says what the guest wanted,
// whatever KVM's flag says: that comes from a look before the attribute changed. Where the engine
// agrees with the access by now, it is simply made again.
Vcpu::Next Vcpu::HandleMemoryFault() {
  MemoryFault fault;
  std::memcpy(&fault, reinterpret_cast<const uint8_t*>(run_) + kMemoryFaultOffset, sizeof fault);
  const mmu::Gpa gpa(fault.gpa);
  if (last_memory_fault_ != gpa) repeated_errors_.Forget();
  last_memory_fault_ = gpa;
  if (!repeated_errors_.Add()) {
    return Fatal(StopReason::kBackendError,
                 absl::StrCat("KVM refuses its access at 0x",
                              absl::Hex(environment_.layout->GfnOf(gpa).value << mmu::kPageShift),
                              " again and again, which the tables allow"));
  }
  // KVM does not say what kind of access it was: a read is the least.
  return Resolve({gpa, mmu::Access::Read()}) ? Next::kRun : Next::kEnd;
}

std::string Vcpu::RegisterText() {
  kvm_regs regs;
  kvm_sregs sregs;
  if (fd_.Ioctl(KVM_GET_REGS, &regs) != 0 || fd_.Ioctl(KVM_GET_SREGS, &sregs) != 0) return "";
  std::string text;
  const std::pair<const char*, uint64_t> values[] = {
      {"rip", regs.rip},  {"rsp", regs.rsp},  {"rflags", regs.rflags}, {"rax", regs.rax},
      {"rbx", regs.rbx},  {"rcx", regs.rcx},  {"rdx", regs.rdx},       {"rsi", regs.rsi},
      {"rdi", regs.rdi},  {"rbp", regs.rbp},  {"r8", regs.r8},         {"r9", regs.r9},
      {"r10", regs.r10},  {"r11", regs.r11},  {"r12", regs.r12},       {"r13", regs.r13},
      {"r14", regs.r14},  {"r15", regs.r15},  {"cr0", sregs.cr0},      {"cr2", sregs.cr2},
      {"cr3", sregs.cr3}, {"cr4", sregs.cr4}, {"efer", sregs.efer},    {"cs", sregs.cs.selector}};
  for (const auto& [name, value] : values) {
    absl::StrAppend(&text, text.empty() ? "; " : " ", name, "=0x", absl::Hex(value));
  }
  return text;
}

Vcpu::Next Vcpu::Fatal(StopReason reason, const std::string& what) {
  environment_.client->OnFatal(
      reason, absl::StrCat("vcpu ", index_, ": ", what,
                           environment_.tells_registers ? RegisterText() : std::string()));
  return Next::kEnd;
}

}  // namespace twinroot::kvm
