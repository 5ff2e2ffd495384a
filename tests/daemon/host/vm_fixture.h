// A registry of real VMs, and one VM that runs an access program.
#ifndef TWINROOT_TESTS_DAEMON_HOST_VM_FIXTURE_H_
#define TWINROOT_TESTS_DAEMON_HOST_VM_FIXTURE_H_

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "daemon/events/journal.h"
#include "daemon/host/vm_registry.h"
#include "daemon/status_reason.h"
#include "daemon/vcpu/program/compiler.h"
#include "google/protobuf/text_format.h"
#include "gtest/gtest.h"

namespace twinroot::host {

class VmFixture : public testing::Test {
 protected:
  void SetUp() override {
    auto registry = MakeVmRegistry({}, &journal_);
    ASSERT_TRUE(registry.ok()) << registry.status();
    registry_ = *std::move(registry);
  }

  // `program`: text of an AccessProgram.
  void Make(
      const std::string& program, uint32_t vcpus = 1, BackendKind backend = BackendKind::kSim,
      const std::function<void(VmSpec&)>& change = [](VmSpec&) {}) {
    v1::AccessProgram message;
    ASSERT_TRUE(google::protobuf::TextFormat::ParseFromString(program, &message));
    VmSpec spec;
    spec.name = "demo";
    spec.memory_bytes = uint64_t{16} << 20;
    spec.vcpus = vcpus;
    spec.backend = backend;
    auto blob = program::Compile(message, vcpus, spec.memory_bytes);
    ASSERT_TRUE(blob.ok()) << blob.status();
    spec.program = *blob;
    change(spec);
    auto vm = registry_->Create(std::move(spec));
    ASSERT_TRUE(vm.ok()) << vm.status();
    vm_ = *std::move(vm);
  }

  void Start() { ASSERT_TRUE(vm_->Start().ok()); }
  template <typename Condition>
  static void Eventually(Condition condition) {
    while (!condition()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  void Finish() {
    Eventually([this] { return vm_->status().state == VmState::kStopped; });
    EXPECT_EQ(vm_->status().exit_code, 0u) << vm_->status().stop_message;
    EXPECT_TRUE(vm_->Audit().ok()) << vm_->Audit();
  }

  events::Journal journal_;
  std::unique_ptr<VmRegistry> registry_;
  std::shared_ptr<Vm> vm_;
};

}  // namespace twinroot::host

#endif  // TWINROOT_TESTS_DAEMON_HOST_VM_FIXTURE_H_
