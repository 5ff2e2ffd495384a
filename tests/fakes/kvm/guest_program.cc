// How a GuestCpu executes access programs: as daemon/vcpu/kvm/interpreter does, whose messages and
// ports these are.
#include <algorithm>
#include <cstring>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "daemon/vcpu/kvm/boot_info.h"
#include "tests/fakes/kvm/guest_cpu.h"

namespace twinroot::kvm::fake {
namespace {

using program::BlobHeader;
using program::Op;

constexpr uint16_t kPortConsole = 0xE9;
constexpr uint16_t kPortExit = 0xF4;
constexpr uint16_t kPortVcpuEnd = 0xF5;
constexpr uint16_t kPortHypercall = 0xF8;
constexpr int64_t kRetry = -11;
constexpr uint8_t kNearReturn = 0xC3;
constexpr uint64_t kPrintAtOnce = 512;

Exit Shutdown() { return Exit{.kind = Exit::Kind::kShutdown}; }

std::string Word(uint64_t value) {
  return std::string(reinterpret_cast<const char*>(&value), sizeof(uint32_t));
}

}  // namespace

std::optional<Exit> GuestCpu::BeginProgram() {
  BootInfo boot = {};
  if (auto exit = Load(regs.rdi, boot)) return exit;
  if (boot.magic != kBootMagic || boot.program_gpa == 0) return Shutdown();
  BlobHeader header = {};
  if (auto exit = Load(boot.program_gpa, header)) return exit;
  if (header.magic != program::kBlobMagic) return Shutdown();
  Program begun;
  begun.blob = boot.program_gpa;
  begun.vcpu = static_cast<uint32_t>(regs.rsi);
  for (uint32_t i = 0; i < header.vcpus; ++i) {
    uint32_t offset = 0;
    if (auto exit = Load(begun.blob + sizeof header + i * sizeof offset, offset)) return exit;
    begun.members += offset != 0;
    if (i == begun.vcpu && offset != 0) begun.ops = begun.blob + offset;
  }
  program_ = begun;
  return std::nullopt;
}

std::optional<Exit> GuestCpu::StepProgram() {
  Program& program = *program_;
  if (program.exit_code.has_value()) {  // as the guest's last loop
    return Out(kPortExit, std::string(1, static_cast<char>(*program.exit_code)), 1, nullptr);
  }
  if (program.ops == 0) return Out(kPortVcpuEnd, std::string(1, '\0'), 1, nullptr);
  if (program.round.has_value()) {
    if (!meeting_.Passed(*program.round)) {
      std::this_thread::yield();
      return std::nullopt;
    }
    program.round.reset();
    ++program.pc;
  }
  Op op = {};
  if (auto exit = Load(program.ops + program.pc * sizeof op, op)) return exit;
  return Execute(op);
}

std::optional<Exit> GuestCpu::Finish(uint8_t code) {
  program_->exit_code = code;
  return std::nullopt;
}

std::optional<Exit> GuestCpu::Fail(const Op& op) {
  const std::string line =
      absl::StrCat("vcpu ", program_->vcpu, " step ", op.step, ": expected 0x", absl::Hex(op.value),
                   ", got 0x", absl::Hex(program_->last), "\n");
  return Out(kPortConsole, line, 1, [this] { Finish(1); });
}

std::optional<Exit> GuestCpu::Execute(const Op& op) {
  Program& program = *program_;
  const uint64_t gpa = op.gpa + program.iteration() * op.stride;
  const bool shared = (op.flags & program::kFlagShared) != 0;
  const uint64_t address = shared ? gpa | uint64_t{1} << kSharedVirtualBit : gpa;
  const bool accesses =
      op.code == program::kOpRead || op.code == program::kOpWrite || op.code == program::kOpFetch;
  if (accesses && gpa >> program::kAddressBits != 0) return Shutdown();
  switch (op.code) {
    case program::kOpEnd:
      meeting_.Leave(program.members);
      program.ops = 0;
      return std::nullopt;
    case program::kOpRead: {
      uint64_t value = 0;
      if (auto exit = Access(address, &value, op.size, GuestMemory::Access::kRead)) return exit;
      program.last = value;
      if ((op.flags & program::kFlagExpect) != 0 && value != op.value) return Fail(op);
      break;
    }
    case program::kOpWrite: {
      uint64_t value = op.value + program.iteration() * op.value_stride;
      if (auto exit = Access(address, &value, op.size, GuestMemory::Access::kWrite)) return exit;
      break;
    }
    case program::kOpFetch: {
      uint8_t code = 0;
      if (auto exit = Load(address, code)) return exit;
      if (code != kNearReturn) return Shutdown();
      break;
    }
    case program::kOpMapGpa:
      return ExecuteMapGpa(op);
    case program::kOpLoopBegin:
      if (op.value == 0) {
        program.pc = op.target + 1;
        return std::nullopt;
      }
      program.loops.push_back({0, op.value});
      break;
    case program::kOpLoopEnd:
      if (++program.loops.back().iteration < program.loops.back().count) {
        program.pc = op.target + 1;
        return std::nullopt;
      }
      program.loops.pop_back();
      break;
    case program::kOpExpect:
      if (program.last != op.value) return Fail(op);
      break;
    case program::kOpPrint: {
      const uint64_t left = op.value - program.printed;
      if (left == 0) {
        program.printed = 0;
        break;
      }
      std::string text(std::min(left, kPrintAtOnce), '\0');
      if (auto exit = Access(program.blob + op.gpa + program.printed, text.data(), text.size(),
                             GuestMemory::Access::kRead)) {
        return exit;
      }
      return Out(kPortConsole, text, 1, [this, size = text.size()] { program_->printed += size; });
    }
    case program::kOpExit:
      return Finish(static_cast<uint8_t>(op.value));
    case program::kOpBarrier:
      program.round = meeting_.Arrive(program.members);
      return std::nullopt;  // goes on where the round has passed
    default:
      return Shutdown();
  }
  ++program.pc;
  return std::nullopt;
}

// Ring 3 takes the port, ring 0 the hypercall where KVM forwards it. A retry is followed.
std::optional<Exit> GuestCpu::ExecuteMapGpa(const Op& op) {
  Program& program = *program_;
  if (program.map_pages == 0) {
    program.map_gpa = op.gpa + program.iteration() * op.stride;
    program.map_pages = op.value;
  }
  regs.rax = kMapGpaHypercall;
  regs.rbx = program.map_gpa;
  regs.rcx = program.map_pages;
  regs.rdx = op.attributes;
  const auto answered = [this] {
    Program& asked = *program_;
    if (static_cast<int64_t>(regs.rax) == kRetry) {
      const uint64_t done = (regs.rbx - asked.map_gpa) >> 12;
      if (regs.rbx >= asked.map_gpa && done < asked.map_pages) {
        asked.map_gpa = regs.rbx;
        asked.map_pages -= done;
        return;
      }
    }
    asked.last = regs.rax;
    asked.map_pages = 0;
    ++asked.pc;
  };
  if (user() || !forwards_map_gpa) {
    return Out(kPortHypercall, Word(regs.rax), sizeof(uint32_t), answered);
  }
  std::optional<Exit> exit = Vmcall();
  if (!exit.has_value()) {
    answered();
  } else {
    complete_ = answered;
  }
  return exit;
}

}  // namespace twinroot::kvm::fake
