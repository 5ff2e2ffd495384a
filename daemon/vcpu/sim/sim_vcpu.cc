#include "daemon/vcpu/sim/sim_vcpu.h"

#include <thread>
#include <variant>

#include "absl/strings/str_cat.h"

namespace twinroot::sim {
namespace {

using mmu::Gpa;
using mmu::MemoryKind;
using program::Op;
using vcpu::MapGpaAnswer;
using vcpu::MapGpaResult;
using vcpu::StopReason;
using vcpu::Verdict;

constexpr uint64_t kNearReturn = 0xC3;
constexpr uint8_t kFailedCheckExitCode = 1;

}  // namespace

void SimVcpu::Run(const std::vector<Op>& ops, std::string_view blob) {
  shared_.gate.Enter(index_);
  registers_.emplace(GuestRegisters::Features{.maxphyaddr = shared_.guest_maxphyaddr,
                                              .keys = shared_.shadow_engine == nullptr,
                                              .legacy = !shared_.has_shared_bit});
  if (shared_.shadow_engine == nullptr || LoadShadowRoot()) ExecuteAll(ops, blob);
  shared_.gate.Leave(index_);
}

void SimVcpu::ExecuteAll(const std::vector<Op>& ops, std::string_view blob) {
  if (ops.empty()) {
    if (GoesOn()) shared_.client->OnVcpuEnded(index_);
    return;
  }
  size_t at = 0;
  while (GoesOn()) {
    if (ops[at].code == program::kOpEnd) {
      shared_.barrier.Leave();
      shared_.client->OnVcpuEnded(index_);
      return;
    }
    const std::optional<size_t> next = Execute(at, ops[at], blob);
    if (!next.has_value()) return;
    at = *next;
  }
}

std::optional<size_t> SimVcpu::Execute(size_t at, const Op& op, std::string_view blob) {
  bool goes_on = true;
  switch (op.code) {
    case program::kOpRead:
      goes_on = ExecuteRead(op);
      break;
    case program::kOpWrite:
      goes_on = ExecuteWrite(op);
      break;
    case program::kOpFetch:
      goes_on = ExecuteFetch(op);
      break;
    case program::kOpMapGpa:
      goes_on = ExecuteMapGpa(op);
      break;
    case program::kOpLoopBegin:
      return BeginLoop(at, op);
    case program::kOpLoopEnd:
      return EndLoop(at, op);
    case program::kOpExpect:
      goes_on = Check(op);
      break;
    case program::kOpPrint:
      shared_.client->OnConsole(blob.substr(op.gpa, op.value));
      break;
    case program::kOpExit:
      shared_.client->OnExitCode(index_, static_cast<uint8_t>(op.value));
      return std::nullopt;
    case program::kOpBarrier:
      goes_on = AwaitOthers();
      break;
    case program::kOpMove:
      goes_on = ExecuteMove(op);
      break;
    case program::kOpInvalidate:
      goes_on = ExecuteInvalidate();
      break;
    case program::kOpPrintLast:
      shared_.client->OnConsole(absl::StrCat("0x", absl::Hex(last_), "\n"));
      break;
    default:
      goes_on = Fatal(op, StopReason::kBackendError,
                      absl::StrCat("operation code ", op.code, " is unknown"));
  }
  return goes_on ? std::optional<size_t>(at + 1) : std::nullopt;
}

bool SimVcpu::ExecuteRead(const Op& op) {
  const Result read = Access(op, 0);
  if (!read.has_value()) return false;
  last_ = read->value;
  return !(op.flags & program::kFlagExpect) || Check(op);
}

bool SimVcpu::ExecuteWrite(const Op& op) {
  const Result write = Access(op, op.value + iteration() * op.value_stride);
  if (write.has_value() && (op.flags & program::kFlagCatch)) {
    last_ = write->faulted ? write->value : 0;
  }
  return write.has_value();
}

bool SimVcpu::ExecuteFetch(const Op& op) {
  const Result byte = Access(op, 0);
  if (!byte.has_value()) return false;
  if (op.flags & program::kFlagCatch) last_ = byte->faulted ? byte->value : 0;
  if (byte->faulted || byte->value == kNearReturn) return true;
  return Fatal(op, StopReason::kTripleFault,
               absl::StrCat("the instruction at 0x", absl::Hex(AddressOf(op)),
                            " is not a near return: an exception without a handler"));
}

// The guest's side of a retry: the rest of the range is asked for again.
bool SimVcpu::ExecuteMapGpa(const Op& op) {
  vcpu::MapGpaCall call = {AddressOf(op), op.value, op.attributes};
  for (;;) {
    const std::optional<MapGpaAnswer> answer = MapGpa(call);
    if (!answer.has_value()) return false;
    if (answer->result != MapGpaResult::kRetry) {
      last_ = static_cast<uint64_t>(static_cast<int64_t>(answer->result));
      return true;
    }
    call.pages -= (answer->next_gpa - call.gpa) >> mmu::kPageShift;
    call.gpa = answer->next_gpa;
    std::this_thread::yield();
  }
}

bool SimVcpu::Check(const Op& op) {
  if (last_ == op.value) return true;
  shared_.client->OnConsole(absl::StrCat(Where(op), ": expected 0x", absl::Hex(op.value),
                                         ", got 0x", absl::Hex(last_), "\n"));
  shared_.client->OnExitCode(index_, kFailedCheckExitCode);
  return false;
}

std::optional<size_t> SimVcpu::BeginLoop(size_t at, const Op& op) {
  if (op.value == 0) return op.target + 1;
  loops_.push_back({op.value, 0});
  return at + 1;
}

std::optional<size_t> SimVcpu::EndLoop(size_t at, const Op& op) {
  Loop& loop = loops_.back();
  if (++loop.i < loop.iterations) return op.target + 1;
  loops_.pop_back();
  return at + 1;
}

mmu::vmx::AccessOutcome SimVcpu::TryAccess(const Op& op, uint64_t value) {
  const Gpa gpa = processor_.AliasOf(Gpa(AddressOf(op)), op.flags & program::kFlagShared
                                                             ? MemoryKind::kShared
                                                             : MemoryKind::kPrivate);
  if (op.code == program::kOpWrite) return processor_.Write(gpa, op.size, value);
  if (op.code == program::kOpFetch) return processor_.Fetch(gpa);
  return processor_.Read(gpa, op.size);
}

SimVcpu::Result SimVcpu::Access(const Op& op, uint64_t value) {
  const uint64_t address = AddressOf(op);
  if (registers_->paging().on()) {
    const std::optional<uint64_t> linear = LinearAddress(registers_->paging(), address);
    if (linear && !(op.flags & program::kFlagShared)) {
      return shared_.shadow_engine != nullptr ? AccessOnShadow(op, *linear, value)
                                              : AccessThroughEpt(op, *linear, value);
    }
    Fatal(op, StopReason::kTripleFault,
          linear ? "with guest paging on, the guest's own tables name the alias: leave it out"
                 : absl::StrCat("0x", absl::Hex(address),
                                " is not canonical: an exception without a handler"));
    return std::nullopt;
  }
  if (address >> program::kAddressBits != 0) {
    Fatal(op, StopReason::kTripleFault,
          absl::StrCat("no page table of the guest names 0x", absl::Hex(address),
                       ": an exception without a handler"));
    return std::nullopt;
  }
  if (shared_.shadow_engine != nullptr) return AccessOnShadow(op, address, value);
  while (GoesOn()) {
    const mmu::vmx::AccessOutcome outcome = TryAccess(op, value);
    if (const auto* done = std::get_if<mmu::vmx::AccessDone>(&outcome)) return Made{done->value};
    if (!HandleExit(op, address, outcome)) return std::nullopt;
  }
  return std::nullopt;
}

bool SimVcpu::HandleExit(const Op& op, uint64_t address, const mmu::vmx::AccessOutcome& outcome) {
  if (const auto* exit = std::get_if<mmu::vmx::EptViolationExit>(&outcome)) {
    return HandleViolation(*exit);
  }
  if (std::holds_alternative<mmu::vmx::PmlFullExit>(outcome)) {
    shared_.full_logs.TakeFrom(processor_);
    return true;
  }
  if (const auto* exit = std::get_if<mmu::vmx::EptMisconfigurationExit>(&outcome)) {
    if (const std::optional<Verdict> verdict =
            shared_.client->OnEptMisconfiguration(index_, exit->gpa)) {
      std::this_thread::yield();
      return *verdict == Verdict::kResume;
    }
    return Fatal(op, StopReason::kEngineBug,
                 absl::StrCat("EPT misconfiguration for 0x", absl::Hex(address), " at level ",
                              static_cast<int>(exit->level)));
  }
  const auto& check = std::get<mmu::vmx::MachineCheck>(outcome);
  return Fatal(
      op, StopReason::kEngineBug,
      absl::StrCat("the tables for 0x", absl::Hex(address), " lead to 0x",
                   absl::Hex(check.hpa.value), " in host physical memory, where nothing is"));
}

bool SimVcpu::HandleViolation(const mmu::vmx::EptViolationExit& exit) {
  parking_.Open();
  switch (shared_.client->OnEptViolation(index_, {exit.gpa, exit.qualification.needed()})) {
    case Verdict::kResume:
      parking_.Close();
      // Often a change under way has to end first.
      std::this_thread::yield();
      return true;
    case Verdict::kParked:
      return AwaitDecision().has_value();
    case Verdict::kStop:
      break;
  }
  return false;
}

std::optional<MapGpaAnswer> SimVcpu::MapGpa(const vcpu::MapGpaCall& call) {
  if (!GoesOn()) return std::nullopt;
  parking_.Open();
  const vcpu::MapGpaVerdict verdict = shared_.client->OnMapGpa(index_, call);
  switch (verdict.verdict) {
    case Verdict::kResume:
      parking_.Close();
      return verdict.answer;
    case Verdict::kParked:
      return AwaitDecision();
    case Verdict::kStop:
      break;
  }
  return std::nullopt;
}

std::optional<MapGpaAnswer> SimVcpu::AwaitDecision() {
  const vcpu::Outside outside(shared_.gate, index_);
  return parking_.Wait();
}

bool SimVcpu::AwaitOthers() {
  const vcpu::Outside outside(shared_.gate, index_);
  return shared_.barrier.Arrive();
}

bool SimVcpu::Fatal(const Op& op, StopReason reason, const std::string& what) {
  shared_.client->OnFatal(reason, absl::StrCat(Where(op), ": ", what));
  return false;
}

std::string SimVcpu::Where(const Op& op) const {
  return absl::StrCat("vcpu ", index_, " step ", op.step);
}

}  // namespace twinroot::sim
