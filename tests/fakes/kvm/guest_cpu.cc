#include "tests/fakes/kvm/guest_cpu.h"

#include <algorithm>
#include <cstring>
#include <thread>
#include <utility>

namespace twinroot::kvm::fake {
namespace {

constexpr uint64_t kPage = 4096;
constexpr uint64_t kFrameMask = 0x000ffffffffff000;
constexpr uint64_t kPresent = 1;
constexpr uint64_t kLarge = 1 << 7;
constexpr int64_t kNoSuchHypercall = -1000;
constexpr int64_t kNotPermitted = -1;
constexpr int64_t kInvalid = -22;

}  // namespace

uint64_t MeetingPoint::Arrive(uint32_t members) {
  std::lock_guard lock(mutex_);
  const uint64_t round = round_;
  ++arrived_;
  OpenIfAll(members);
  return round;
}
void MeetingPoint::Leave(uint32_t members) {
  std::lock_guard lock(mutex_);
  ++left_;
  OpenIfAll(members);
}
bool MeetingPoint::Passed(uint64_t round) const {
  std::lock_guard lock(mutex_);
  return round_ != round;
}
void MeetingPoint::OpenIfAll(uint32_t members) {
  if (arrived_ == 0 || arrived_ + left_ < members) return;
  arrived_ = 0;
  ++round_;
}

Exit GuestCpu::Run(const std::function<bool()>& interrupted) {
  interrupted_ = interrupted;
  for (;;) {
    if (interrupted()) return {};
    if (std::optional<Exit> exit = Step(interrupted)) return *std::move(exit);
  }
}

void GuestCpu::Complete() {
  if (complete_) std::exchange(complete_, nullptr)();
}

Exit GuestCpu::Out(uint16_t port, std::string data, uint8_t size, std::function<void()> complete) {
  complete_ = std::move(complete);
  Exit exit;
  exit.kind = Exit::Kind::kPort;
  exit.port = port;
  exit.data = std::move(data);
  exit.size = size;
  return exit;
}

std::optional<Exit> GuestCpu::Physical(uint64_t gpa, void* data, size_t size,
                                       GuestMemory::Access access) {
  const GuestMemory::Outcome outcome = memory_.Touch(gpa, data, size, access, interrupted_);
  Exit exit;
  exit.gpa = gpa;
  exit.flags = outcome.flags;
  exit.write = access == GuestMemory::Access::kWrite;
  switch (outcome.result) {
    case GuestMemory::Result::kDone:
      return std::nullopt;
    case GuestMemory::Result::kMemoryFault:
      exit.kind = Exit::Kind::kMemoryFault;
      exit.gpa = gpa / kPage * kPage;
      return exit;
    case GuestMemory::Result::kMmio:
      exit.kind = Exit::Kind::kMmio;
      exit.data.assign(size, '\0');
      if (exit.write) std::memcpy(exit.data.data(), data, size);
      return exit;
    case GuestMemory::Result::kStopped:
      break;
  }
  return exit;
}

std::optional<Exit> GuestCpu::Access(uint64_t address, void* data, size_t size,
                                     GuestMemory::Access access) {
  auto* bytes = static_cast<std::byte*>(data);
  while (size != 0) {
    uint64_t table = sregs.cr3 & kFrameMask;
    uint64_t gpa = 0;
    for (int shift = 39;; shift -= 9) {
      uint64_t entry = 0;
      const uint64_t at = table + (address >> shift & 511) * 8;
      if (auto exit = Physical(at, &entry, 8, GuestMemory::Access::kRead)) return exit;
      if ((entry & kPresent) == 0) return Exit{.kind = Exit::Kind::kShutdown};  // no handler
      const uint64_t inside = (uint64_t{1} << shift) - 1;
      if (shift == 12 || (entry & kLarge) != 0) {
        gpa = (entry & kFrameMask & ~inside) | (address & inside);
        break;
      }
      table = entry & kFrameMask;
    }
    const size_t part = std::min<uint64_t>(size, kPage - gpa % kPage);
    if (auto exit = Physical(gpa, bytes, part, access)) return exit;
    bytes += part;
    address += part;
    size -= part;
  }
  return std::nullopt;
}

std::optional<Exit> GuestCpu::Step(const std::function<bool()>& interrupted) {
  if (program_.has_value()) return StepProgram();
  uint8_t code[3] = {};
  if (auto exit = Load(regs.rip, code)) return exit;
  switch (code[0]) {
    case 0xb0:  // mov al, imm8
      regs.rax = (regs.rax & ~uint64_t{0xff}) | code[1];
      regs.rip += 2;
      return std::nullopt;
    case 0xe6:  // out imm8, al; ends where it began, unless somebody has set RIP meanwhile
      return Out(code[1], std::string(1, static_cast<char>(regs.rax)), 1, [this, rip = regs.rip] {
        if (regs.rip == rip) regs.rip += 2;
      });
    case 0xeb:  // jmp to itself
      std::this_thread::yield();
      if (code[1] == 0xfe) return std::nullopt;
      break;
    case 0xf4:
      if (user()) return Exit{.kind = Exit::Kind::kShutdown};
      regs.rip += 1;
      return Exit{.kind = Exit::Kind::kHalt};
    case 0xf3:
      if (code[1] == 0x48 && code[2] == 0xa5) return RepMovs(interrupted);
      break;
    case 0x0f:
      if (code[1] == 0x01 && (code[2] == 0xd9 || code[2] == 0xc1)) return Vmcall();
      break;
    default:
      break;
  }
  return BeginProgram();
}

std::optional<Exit> GuestCpu::RepMovs(const std::function<bool()>& interrupted) {
  while (regs.rcx != 0) {
    if (interrupted()) return Exit{};
    uint64_t word = 0;
    if (auto exit = Load(regs.rsi, word)) return exit;
    if (auto exit = Access(regs.rdi, &word, sizeof word, GuestMemory::Access::kWrite)) return exit;
    regs.rsi += sizeof word;
    regs.rdi += sizeof word;
    --regs.rcx;
  }
  regs.rip += 3;
  return std::nullopt;
}

std::optional<Exit> GuestCpu::Vmcall() {
  constexpr uint64_t kLength = 3;
  const auto refuse = [this](int64_t result) {
    regs.rax = static_cast<uint64_t>(result);
    regs.rip += kLength;
    return std::nullopt;
  };
  if (user()) return refuse(kNotPermitted);
  if (!forwards_map_gpa || regs.rax != kMapGpaHypercall) return refuse(kNoSuchHypercall);
  const uint64_t bytes = regs.rcx * kPage;
  if (regs.rbx % kPage != 0 || regs.rcx == 0 || bytes / kPage != regs.rcx ||
      regs.rbx + bytes <= regs.rbx) {
    return refuse(kInvalid);
  }
  Exit exit;
  exit.kind = Exit::Kind::kHypercall;
  exit.map_gpa = {regs.rbx, regs.rcx, regs.rdx, 0};
  complete_ = [this] { regs.rip += kLength; };  // rax is the caller's to set
  return exit;
}

}  // namespace twinroot::kvm::fake
