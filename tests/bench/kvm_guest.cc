#include "tests/bench/kvm_guest.h"

#include <cstring>
#include <utility>

#include "daemon/events/journal.h"
#include "daemon/host/wait_stopped.h"
#include "daemon/vcpu/program/compiler.h"
#include "google/protobuf/text_format.h"
#include "spdlog/spdlog.h"
#include "tests/bench/clock.h"

namespace twinroot::bench {
namespace {

// One daemon's worth for all rows. Ends with the program: a VM may still be taken down then.
struct House {
  House() {
    spdlog::set_level(spdlog::level::err);  // a table is printed
    auto made = host::MakeVmRegistry({}, &journal);
    Require(made.ok(), "a registry of VMs");
    registry = *std::move(made);
  }
  events::Journal journal;
  std::unique_ptr<host::VmRegistry> registry;
};

House& TheHouse() {
  static House house;
  return house;
}

host::VmSpec SpecOf(const std::string& program, const KvmGuest::Options& options) {
  v1::AccessProgram message;
  Require(google::protobuf::TextFormat::ParseFromString(program, &message), "a program");
  const auto blob = program::Compile(message, options.vcpus, options.memory_bytes);
  Require(blob.ok(), "a program that runs");
  host::VmSpec spec;
  spec.memory_bytes = options.memory_bytes;
  spec.vcpus = options.vcpus;
  spec.program = *blob;
  return spec;
}

}  // namespace

std::string KvmGuest::WhyNot() {
  const host::HostCapabilities& host = TheHouse().registry->capabilities();
  return host.kvm_usable ? "" : host.reason;
}

KvmGuest::KvmGuest(const std::string& program, const Options& options)
    : KvmGuest(SpecOf(program, options)) {}

std::unique_ptr<KvmGuest> KvmGuest::ThatExits(uint32_t times) {
  // mov ecx, times; again: out 0xe9, al; dec ecx; jnz again; mov al, 0; out 0xf4, al
  std::string code("\xb9    \xe6\xe9\xff\xc9\x75\xfa\xb0\x00\xe6\xf4", 15);
  std::memcpy(&code[1], &times, sizeof times);
  host::VmSpec spec;
  spec.memory_bytes = uint64_t{4} << 20;
  spec.vcpus = 1;
  spec.image = std::make_shared<const std::string>(code);
  return std::unique_ptr<KvmGuest>(new KvmGuest(std::move(spec)));
}

KvmGuest::KvmGuest(host::VmSpec spec) {
  spec.name = "bench";
  spec.backend = host::BackendKind::kKvm;
  auto vm = TheHouse().registry->Create(std::move(spec));
  Require(vm.ok(), std::string(vm.status().message()).c_str());
  vm_ = *std::move(vm);
  on_console_ = vm_->OnConsole([this] {
    const double now = Now(CLOCK_MONOTONIC);
    std::lock_guard lock(mutex_);
    prints_.push_back(now);
    printed_.notify_all();
  });
}

KvmGuest::~KvmGuest() {
  on_console_.reset();
  vm_.reset();
  Require(TheHouse().registry->Delete("bench").ok(), "the end of a VM");
}

void KvmGuest::Run() {
  Require(vm_->Start().ok(), "the start of a VM");
  Require(host::WaitStopped(*vm_, absl::Minutes(10)), "its end");
  Require(vm_->status().exit_code == 0u, "the guest's good end");
}

void KvmGuest::RunUntilSecondPrint() {
  Require(vm_->Start().ok(), "the start of a VM");
  std::unique_lock lock(mutex_);
  printed_.wait(lock, [this] { return prints_.size() >= 2; });
}

double KvmGuest::BetweenPrints() const {
  std::lock_guard lock(mutex_);
  Require(prints_.size() >= 2, "two prints");
  return prints_.back() - prints_.front();
}

}  // namespace twinroot::bench
