// Access programs, in words or as a blob: what the compiler takes, the decoder takes; what a vCPU
// then does to its memory, on EPT or on shadow tables, leaves tables that the audit finds sound.
#include <google/protobuf/text_format.h>

#include <array>
#include <chrono>
#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <utility>

#include "absl/status/status.h"
#include "daemon/events/journal.h"
#include "daemon/host/vm_registry.h"
#include "daemon/vcpu/program/compiler.h"
#include "daemon/vcpu/program/decoder.h"
#include "tests/fuzz/message_mutator.h"
#include "tests/fuzz/no_kvm.h"
#include "tests/fuzz/require.h"

namespace twinroot {
namespace {

using fuzz::Require;

constexpr uint64_t kMemory = uint64_t{16} << 20;
constexpr uint32_t kMostVcpus = 4;
constexpr auto kPatience = std::chrono::milliseconds(30);

// For each run its own: with it ends every thread that a VM leaves behind, and what that holds.
std::unique_ptr<host::VmRegistry> MakeRegistry() {
  static events::Journal journal(1024);
  static fuzz::NoKvm no_kvm;
  host::RegistryOptions options;
  options.default_backend = host::BackendKind::kSim;
  options.kvm = &no_kvm;
  auto made = host::MakeVmRegistry(options, &journal);
  Require(made.ok(), "a registry is made");
  return *std::move(made);
}

// What vm.proto lists, of a guest that only its program and this file can stop.
const std::set<std::string>& Ends() {
  static const std::set<std::string> ends = {
      "STOP_REQUESTED",      "TRIPLE_FAULT", "UNHANDLED_EXIT", "GUEST_RESET",
      "MMIO_OUTSIDE_MEMORY", "MEMORY_FAULT", "OUT_OF_MEMORY",
  };
  return ends;
}

void Execute(const std::string& blob, uint32_t vcpus, mmu::MmuMode mode) {
  host::VmSpec spec;
  spec.name = "guest";
  spec.memory_bytes = kMemory;
  spec.vcpus = vcpus;
  spec.program = blob;
  spec.mmu = mode;
  const std::unique_ptr<host::VmRegistry> registry = MakeRegistry();
  auto vm = registry->Create(spec);
  Require(vm.ok(), "a good program makes a VM: " + std::string(vm.status().message()));
  if (const absl::Status started = (*vm)->Start(); !started.ok()) {
    Require(mode == mmu::MmuMode::kShadow &&
                started.message().find("uses the shared alias") != std::string_view::npos,
            "it starts: " + std::string(started.message()));
    Require(registry->Delete("guest").ok(), "it is forgotten");
    return;
  }
  const auto begin = std::chrono::steady_clock::now();
  while ((*vm)->status().state != host::VmState::kStopped) {
    if (std::chrono::steady_clock::now() - begin > kPatience) {
      Require((*vm)->Audit().ok(), "its tables are sound while it runs");
      Require((*vm)->Stop(vcpu::StopReason::kStopRequested).ok(), "it can be stopped");
      break;
    }
    std::this_thread::sleep_for(std::chrono::microseconds(100));
  }
  const host::VmStatus status = (*vm)->status();
  Require(status.state == host::VmState::kStopped, "it has stopped");
  Require(
      status.exit_code.has_value() ? *status.exit_code <= 255 : Ends().count(status.stop_reason),
      "it ends as the API says: " + status.stop_reason + " " + status.stop_message);
  const absl::Status audit = (*vm)->Audit();
  Require(audit.ok(), "its tables are sound: " + std::string(audit.message()));
  Require(registry->Delete("guest").ok(), "it is forgotten");
}

void Compile(const v1::AccessProgram& program) {
  const auto vcpus = static_cast<uint32_t>(program.vcpus_size());
  if (vcpus == 0 || vcpus > kMostVcpus) return;
  const auto blob = program::Compile(program, vcpus, kMemory);
  if (!blob.ok()) {
    Require(absl::IsInvalidArgument(blob.status()) && !blob.status().message().empty(),
            "a refusal has a reason");
    return;
  }
  Require(blob->size() <= program::kMaxBlobBytes, "a blob is no larger than it may be");
  Require(program::Decode(*blob, vcpus).ok(), "what was compiled is decoded");
  for (const auto mode : {mmu::MmuMode::kTdp, mmu::MmuMode::kShadow}) Execute(*blob, vcpus, mode);
}

// A blob that no compiler made.
void DecodeAnything(const std::string& blob) {
  for (const uint32_t vcpus : {1u, 2u}) {
    const auto decoded = program::Decode(blob, vcpus);
    if (!decoded.ok()) continue;
    Require(decoded->ops.size() == vcpus, "a program for each vCPU, or none");
    for (const auto& ops : decoded->ops) {
      Require(ops.empty() || ops.back().code == program::kOpEnd, "a program ends");
    }
  }
}

}  // namespace
}  // namespace twinroot

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace twinroot;
  v1::AccessProgram program;
  if (fuzz::ParseText(data, size, &program)) {
    Compile(program);
    return 0;
  }
  const std::string bytes(reinterpret_cast<const char*>(data), size);
  DecodeAnything(bytes);
  if (program.ParseFromString(bytes)) Compile(program);
  return 0;
}

// Every fourth change is one of bytes, for blobs and for messages that are no text.
extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size,
                                          unsigned seed) {
  using namespace twinroot;
  v1::AccessProgram program;
  if (size != 0 && seed % 4 == 0) {
    data[seed / 4 % size] = static_cast<uint8_t>(seed >> 24);
    return size;
  }
  return fuzz::MutateText(data, size, max_size, seed, {"hello", "\n"}, &program);
}
