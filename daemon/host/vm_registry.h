// The VMs of this daemon by name, and what they are made with. Thread-safe.
#ifndef TWINROOT_DAEMON_HOST_VM_REGISTRY_H_
#define TWINROOT_DAEMON_HOST_VM_REGISTRY_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "daemon/events/journal.h"
#include "daemon/host/exit_meter.h"
#include "daemon/host/vm.h"

namespace twinroot::kvm {
class KvmApi;
}  // namespace twinroot::kvm

namespace twinroot::host {

// One thing that the start-up probe looked at (Host.Check).
struct HostCheck {
  enum class Result : uint8_t { kOk, kMissing, kFallback };
  std::string name;
  Result result = Result::kOk;
  std::string detail;
};

// What this host can do, found once at start.
struct HostCapabilities {
  bool kvm_usable = false;
  bool native_usable = false;  // kvm-native
  std::string native_reason;   // why it is or is not, one sentence
  std::string reason;          // why kvm is or is not the default, one sentence
  std::vector<HostCheck> checks;
};

struct RegistryOptions {
  BackendKind default_backend = BackendKind::kAuto;  // kAuto: by the probe
  uint32_t max_vms = 4096;
  kvm::KvmApi* kvm = nullptr;  // null: the host's
  ExitMeter* exits = nullptr;  // outlives the registry; null: nobody counts
};
inline constexpr uint32_t kMaxVcpus = 64;
inline constexpr uint32_t kMaxAddedMemslots = 32;
inline constexpr uint64_t kMaxMemoryBytes = uint64_t{64} << 30;

class VmRegistry {
 public:
  virtual ~VmRegistry() = default;

  // Checks the spec (names, sizes, image, backend) and defines the VM. Errors as in vm.proto;
  // changes nothing then.
  virtual absl::StatusOr<std::shared_ptr<Vm>> Create(VmSpec spec) = 0;
  // The spec as Create would make it (its backend chosen), or Create's error; changes nothing.
  virtual absl::StatusOr<VmSpec> Check(VmSpec spec) const = 0;
  // kNotFound, with the name and the next step.
  virtual absl::StatusOr<std::shared_ptr<Vm>> Get(const std::string& name) const = 0;
  // By name, after `after` (exclusive; "" from the beginning), at most `max`.
  virtual std::vector<std::shared_ptr<Vm>> List(const std::string& after, size_t max) const = 0;
  virtual size_t size() const = 0;
  // Stops and forgets. May take long.
  virtual absl::Status Delete(const std::string& name, IfVersion if_version = std::nullopt) = 0;
  // Stops every VM with kDaemonStopping; Create refuses from now on (kUnavailable).
  virtual void Shutdown() = 0;

  // Calls `done` when everything that all VMs share has turned over: the clock of deadlines, a lane
  // of tasks, and the engine's epoch, which every fault handler and walk that is under way must
  // leave. Never, if one of them stands still. Does not block.
  virtual void AskProgress(std::function<void()> done) = 0;

  virtual const HostCapabilities& capabilities() const = 0;
  virtual BackendKind default_backend() const = 0;  // never kAuto
  virtual int shared_bit() const = 0;
};

// Probes the host and makes the registry. kFailedPrecondition: options ask for kvm by name and it
// is not usable (the message says what is missing). `journal` must outlive the registry.
absl::StatusOr<std::unique_ptr<VmRegistry>> MakeVmRegistry(const RegistryOptions& options,
                                                           events::Journal* journal);

}  // namespace twinroot::host

#endif  // TWINROOT_DAEMON_HOST_VM_REGISTRY_H_
