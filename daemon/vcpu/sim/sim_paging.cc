// Accesses by linear address: through the guest's tables and EPT, or on shadow tables.
#include <thread>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "daemon/vcpu/sim/ept_guest_memory.h"
#include "daemon/vcpu/sim/sim_vcpu.h"
#include "mmu/hw/control_registers.h"
#include "mmu/shadow/guest_walker.h"

namespace twinroot::sim {

using mmu::GuestPageFault;
using program::Op;
using vcpu::StopReason;
using vcpu::Verdict;

mmu::LinearAccess SimVcpu::LinearAccessOf(const Op& op, uint64_t address) const {
  mmu::LinearAccess access;
  access.address = address;
  access.needed = op.code == program::kOpWrite   ? mmu::Access::Write()
                  : op.code == program::kOpFetch ? mmu::Access::Fetch()
                                                 : mmu::Access::Read();
  access.mode = registers_->user() ? mmu::LinearMode::kUser : mmu::LinearMode::kSupervisor;
  access.eflags_ac = registers_->eflags_ac();
  return access;
}

SimVcpu::Result SimVcpu::TakePageFault(const Op& op, const GuestPageFault& fault) {
  if (op.flags & program::kFlagCatch) return Made{program::kCaughtFault | fault.error_code, true};
  Fatal(op, StopReason::kTripleFault,
        absl::StrCat("a page fault at 0x", absl::Hex(fault.address), " with error code 0x",
                     absl::Hex(fault.error_code), ": an exception without a handler"));
  return std::nullopt;
}

SimVcpu::Result SimVcpu::AccessThroughEpt(const Op& op, uint64_t address, uint64_t value) {
  const mmu::LinearAccess access = LinearAccessOf(op, address);
  const mmu::Ia32Paging paging(registers_->paging().registers, GuestFeatures(),
                               registers_->paging().pdptes);
  while (GoesOn()) {
    EptGuestMemory tables(processor_);
    const mmu::GuestWalkOutcome walked = mmu::WalkGuest(paging, tables, access);
    if (const auto* fault = std::get_if<GuestPageFault>(&walked)) return TakePageFault(op, *fault);
    mmu::vmx::AccessOutcome outcome = tables.exit();
    if (const auto* walk = std::get_if<mmu::GuestTranslation>(&walked)) {
      outcome = access.needed.write()   ? processor_.Write(walk->gpa, op.size, value)
                : access.needed.fetch() ? processor_.Fetch(walk->gpa)
                                        : processor_.Read(walk->gpa, op.size);
      if (const auto* done = std::get_if<mmu::vmx::AccessDone>(&outcome)) return Made{done->value};
    }
    if (!HandleExit(op, address, outcome)) return std::nullopt;
  }
  return std::nullopt;
}

SimVcpu::Result SimVcpu::AccessOnShadow(const Op& op, uint64_t address, uint64_t value) {
  const mmu::GuestPaging& paging = registers_->paging();
  mmu::LinearAccess access = LinearAccessOf(op, address & paging.LinearMask());
  if (!paging.on()) access.mode = mmu::LinearMode::kSupervisor;
  while (GoesOn()) {
    const ShadowProcessor::Outcome outcome = shadow_.Access(access, op.size, value);
    if (const auto* done = std::get_if<mmu::vmx::AccessDone>(&outcome)) return Made{done->value};
    if (std::holds_alternative<mmu::vmx::MachineCheck>(outcome)) {
      HandleExit(op, address, std::get<mmu::vmx::MachineCheck>(outcome));
      return std::nullopt;
    }
    if (std::get<ShadowPageFaultExit>(outcome).error_code & mmu::PageFaultError::kReserved) {
      Fatal(op, StopReason::kEngineBug, "a shadow table has a reserved bit");
      return std::nullopt;
    }
    parking_.Open();
    mmu::ShadowFault fault{access, index_, op.size, value};
    fault.access.address = address;
    const vcpu::ShadowAnswer answer = shared_.client->OnShadowFault(index_, fault);
    if (const auto* verdict = std::get_if<Verdict>(&answer)) {
      if (*verdict == Verdict::kStop) return std::nullopt;
      if (*verdict == Verdict::kParked && !AwaitDecision()) return std::nullopt;
      if (*verdict == Verdict::kResume) {
        parking_.Close();
        std::this_thread::yield();
      }
      continue;
    }
    parking_.Close();
    if (const auto* refused = std::get_if<GuestPageFault>(&answer)) {
      return TakePageFault(op, *refused);
    }
    if (std::holds_alternative<mmu::ShadowWriteMade>(answer)) return Made{value};
    const mmu::Hpa root = std::get<mmu::ShadowRunOn>(answer).root;
    if (root != shadow_.root()) shadow_.Load(root, paging);
  }
  return std::nullopt;
}

bool SimVcpu::LoadShadowRoot() {
  const absl::StatusOr<mmu::Hpa> root =
      shared_.shadow_engine->LoadPaging(index_, registers_->paging());
  if (!root.ok()) {
    shared_.client->OnFatal(
        absl::IsResourceExhausted(root.status()) ? StopReason::kOutOfMemory
                                                 : StopReason::kBackendError,
        absl::StrCat("vcpu ", index_, ": ", std::string(root.status().message())));
    return false;
  }
  shadow_.Load(*root, registers_->paging());
  return true;
}

std::optional<mmu::LoadPdptesOutcome> SimVcpu::ReadPdptes(const Op& op, uint64_t cr3) {
  if (shared_.shadow_engine != nullptr) return shared_.shadow_engine->ReadPdptes(cr3);
  while (GoesOn()) {
    EptGuestMemory tables(processor_);
    mmu::LoadPdptesOutcome outcome = mmu::LoadPdptes(tables, cr3, shared_.guest_maxphyaddr);
    if (!std::holds_alternative<mmu::GuestTableMissing>(outcome)) return outcome;
    if (!HandleExit(op, std::get<mmu::GuestTableMissing>(outcome).entry.value, tables.exit())) {
      break;
    }
  }
  return std::nullopt;
}

bool SimVcpu::ExecuteMove(const Op& op) {
  bool goes_on = true;
  const auto to = static_cast<program::Register>(op.size);
  const GuestRegisters::Outcome outcome =
      registers_->Move(to, op.value, [&](uint64_t cr3) -> mmu::LoadPdptesOutcome {
        const auto pdptes = ReadPdptes(op, cr3);
        goes_on = pdptes.has_value();
        return goes_on ? *pdptes : mmu::GuestTableMissing{};
      });
  if (!goes_on) return false;
  if (const auto* wrong = std::get_if<GuestRegisters::GeneralProtection>(&outcome)) {
    return Fatal(op, StopReason::kTripleFault,
                 absl::StrCat(wrong->why, ": an exception without a handler"));
  }
  if (const auto* refused = std::get_if<GuestRegisters::Refused>(&outcome)) {
    return Fatal(op, StopReason::kUnhandledExit, refused->why);
  }
  if (const auto* missing = std::get_if<GuestRegisters::TableMissing>(&outcome)) {
    return Fatal(op, StopReason::kMmioOutsideMemory,
                 absl::StrCat("PDPTEs outside memory at 0x", absl::Hex(missing->gpa.value)));
  }
  const bool translates = to != program::Register::kCpl && to != program::Register::kEflagsAc &&
                          to != program::Register::kPkru;
  return shared_.shadow_engine == nullptr || !translates || LoadShadowRoot();
}

// With nested paging nothing is cached by linear address.
bool SimVcpu::ExecuteInvalidate() {
  if (shared_.shadow_engine == nullptr) return true;
  shared_.shadow_engine->InvalidatePaging();
  shadow_.Invalidate();
  return true;
}

}  // namespace twinroot::sim
