// A registry of fake VMs, which behaves as daemon/host/vm_registry.h promises.
// Thread-safe.
#ifndef TWINROOT_TESTS_DAEMON_FAKES_FAKE_VM_REGISTRY_H_
#define TWINROOT_TESTS_DAEMON_FAKES_FAKE_VM_REGISTRY_H_

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "daemon/events/journal.h"
#include "daemon/host/vm_registry.h"
#include "tests/daemon/fakes/fake_vm.h"

namespace twinroot::fakes {

class FakeVmRegistry : public host::VmRegistry {
 public:
  explicit FakeVmRegistry(events::Journal* journal, size_t max_vms = 4096);

  // The VM, which must be there.
  FakeVm& vm(const std::string& name) const;
  bool shut_down() const;

  absl::StatusOr<std::shared_ptr<host::Vm>> Create(host::VmSpec spec) override;
  absl::StatusOr<std::shared_ptr<host::Vm>> Get(const std::string& name) const override;
  std::vector<std::shared_ptr<host::Vm>> List(const std::string& after, size_t max) const override;
  size_t size() const override;
  absl::StatusOr<host::VmSpec> Check(host::VmSpec spec) const override;
  absl::Status Delete(const std::string& name, host::IfVersion if_version = std::nullopt) override;
  void Shutdown() override;
  void AskProgress(std::function<void()> done) override { done(); }
  const host::HostCapabilities& capabilities() const override { return capabilities_; }
  host::BackendKind default_backend() const override { return host::BackendKind::kSim; }
  int shared_bit() const override { return 47; }

 private:
  // Needs the lock.
  absl::Status CheckRoom(const host::VmSpec& spec) const;

  events::Journal* const journal_;
  const size_t max_vms_;
  const host::HostCapabilities capabilities_;
  mutable std::mutex mutex_;
  std::map<std::string, std::shared_ptr<FakeVm>> vms_;
  bool shut_down_ = false;
};

}  // namespace twinroot::fakes

#endif  // TWINROOT_TESTS_DAEMON_FAKES_FAKE_VM_REGISTRY_H_
