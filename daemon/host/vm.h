// One VM: its memory, its machine, its conversions, its console and its state.
// Thread-safe. See vm.proto for what callers may expect of each call.
#ifndef TWINROOT_DAEMON_HOST_VM_H_
#define TWINROOT_DAEMON_HOST_VM_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "daemon/callbacks.h"
#include "daemon/host/cpu_share.h"
#include "daemon/vcpu/machine.h"
#include "mmu/vm/guest_address_space.h"

namespace twinroot::host {

enum class VmState : uint8_t { kDefined, kRunning, kPaused, kStopped };
enum class PolicyMode : uint8_t { kAuto, kOrchestrator, kDeny };
enum class OnTimeout : uint8_t { kDeny, kApply };
enum class BackendKind : uint8_t { kAuto, kKvm, kSim, kKvmNative };

// As vm.proto says; of the quotas 0 means none.
struct ConversionPolicy {
  PolicyMode mode = PolicyMode::kAuto;
  absl::Duration decision_timeout = absl::Seconds(30);
  OnTimeout on_timeout = OnTimeout::kDeny;
  uint64_t max_shared_bytes = 0;
  uint32_t max_conversions_per_second = 0;
  uint32_t conversion_burst = 0;  // 0: as many as in a second
  uint32_t ping_pong_limit = 0;
  absl::Duration ping_pong_window = absl::Seconds(1);

  friend bool operator==(const ConversionPolicy&, const ConversionPolicy&) = default;
};

using Labels = std::map<std::string, std::string>;

// What may change as long as the VM is there.
struct VmSettings {
  ConversionPolicy policy;
  Labels labels;
  CpuShare cpu_share;

  friend bool operator==(const VmSettings&, const VmSettings&) = default;
};

// What a VM is defined as, beginning with its settings; checked by VmRegistry::Create.
struct VmSpec : VmSettings {
  std::string name;  // bare
  uint64_t memory_bytes = 0;
  uint32_t vcpus = 0;
  std::string image_name;                     // "images/..." or empty
  std::shared_ptr<const std::string> image;   // its bytes, or null
  std::string initrd_name;                    // as image_name, of a kernel's initial RAM disk
  std::shared_ptr<const std::string> initrd;  // its bytes, or null
  std::string cmdline;
  std::string program;  // compiled blob (daemon/vcpu/program/op.h), or empty
  BackendKind backend = BackendKind::kAuto;
  int cpl = 3;
  bool nx_huge_pages = false;    // mmu::GuestAddressSpace::Config
  std::vector<uint32_t> cpus;    // of the host, ordered; empty: all that the daemon has
  bool tells_registers = false;  // when a vCPU stops the VM
  mmu::MmuMode mmu = mmu::MmuMode::kTdp;
};

struct VmStatus {
  // Another one with each change of the status or of the settings; no two VMs share any.
  uint64_t version = 0;
  VmState state = VmState::kDefined;
  std::optional<uint32_t> exit_code;
  std::string stop_reason;  // as Vm.stop_reason
  std::string stop_message;
};

// A call is made only if the VM is still of this version; nullopt: whatever it is. Otherwise it is
// kAborted, reason ETAG_MISMATCH, and changes nothing.
using IfVersion = std::optional<uint64_t>;

enum class Direction : uint8_t { kToShared, kToPrivate };
enum class Cause : uint8_t { kImplicit, kExplicit, kApi };
enum class Resolution : uint8_t { kApply, kDeny };
// How a conversion ended, and who said so.
enum class Decision : uint8_t { kApplied, kDenied, kExpired, kQuota };
enum class Decider : uint8_t { kPolicy, kOrchestrator, kDeadline, kVmStop };

// What came of Resolve.
struct ResolveResult {
  enum class Outcome : uint8_t { kDecided, kAlreadyDecided, kExpired, kUnknown };
  struct Verdict {
    Decision decision;
    Decider decider;
  };
  Outcome outcome = Outcome::kUnknown;
  std::optional<Verdict> verdict;  // if it is still known
};

struct PendingConversion {
  enum class State : uint8_t { kWaiting, kHeld, kApplying };
  uint64_t id = 0;
  uint32_t vcpu = 0;
  uint64_t gpa = 0;
  uint64_t size = 0;
  Direction direction = Direction::kToShared;
  Cause cause = Cause::kImplicit;
  absl::Time deadline;  // kApplying has none
  State state = State::kWaiting;
  uint64_t done = 0;  // of size, if kApplying
};

// Counters for metrics, summed when asked for.
struct VmCounters {
  mmu::AddressSpaceStats memory;
  uint64_t private_bytes_allocated = 0;
  uint64_t shared_bytes_allocated = 0;
  uint64_t pending_conversions = 0;    // kWaiting and kHeld
  uint64_t held_back_conversions = 0;  // requests that waited for a lossless watch
  uint64_t throttled_conversions = 0;  // requests that the rate made wait or come again
  bool dirty_log_enabled = false;
  uint64_t dirty_pages_harvested = 0;
  uint32_t vcpus_waiting_for_harvest = 0;
  vcpu::ProjectionCounts projection;
  uint64_t kvm_exits = 0;
};

class Vm {
 public:
  virtual ~Vm() = default;

  virtual const VmSpec& spec() const = 0;
  virtual BackendKind backend() const = 0;  // never kAuto
  virtual absl::Time create_time() const = 0;
  virtual VmStatus status() const = 0;

  virtual VmSettings settings() const = 0;

  // Is it of this version?
  virtual absl::Status Check(IfVersion if_version) const = 0;
  virtual absl::Status Update(const VmSettings& settings, IfVersion if_version) = 0;
  // May take long (loads the image). kFailedPrecondition unless DEFINED.
  virtual absl::Status Start(IfVersion if_version = std::nullopt) = 0;
  // As vm.proto says; they wait for the vCPUs.
  virtual absl::Status Pause(IfVersion if_version = std::nullopt) = 0;
  virtual absl::Status Resume(IfVersion if_version = std::nullopt) = 0;
  virtual absl::Status Stop(vcpu::StopReason reason, IfVersion if_version = std::nullopt) = 0;

  // Calls `done` once, when the VM is STOPPED or deleted (then with kNotFound), from some thread,
  // or before returning. Dropping the handle cancels; then `done` is not called any more.
  using Waiter = CallbackHandle;
  virtual std::unique_ptr<Waiter> OnStopped(std::function<void(absl::Status)> done) = 0;

  // Up to `max` console bytes from `offset` on (or from the oldest kept). `ended`: the VM is
  // stopped and nothing will follow.
  struct ConsoleChunk {
    uint64_t offset = 0;
    std::string data;
    bool ended = false;
  };
  virtual ConsoleChunk ReadConsole(uint64_t offset, size_t max) const = 0;
  // Calls `wake` after new console bytes and when the console ends; must not block.
  virtual std::unique_ptr<Waiter> OnConsole(std::function<void()> wake) = 0;
  // Types on the guest's serial port, as Machine::Type; kFailedPrecondition unless it runs.
  virtual absl::Status WriteConsole(std::string_view bytes) = 0;

  // SetMemoryAttributes as a host request (cause API), whatever `change.requester` says. `id` is 0
  // when nothing was converted.
  struct ConversionResult : mmu::AttributeChangeResult {
    uint64_t id = 0;
  };
  virtual absl::StatusOr<ConversionResult> Change(mmu::AttributeChange change) = 0;
  // What Change would do now.
  virtual absl::StatusOr<mmu::AttributeChangePlan> PlanChange(
      mmu::AttributeChange change) const = 0;
  // All of the ranges, or none.
  absl::StatusOr<ConversionResult> Convert(std::vector<mmu::GfnRange> ranges, mmu::MemoryKind kind,
                                           mmu::Content content) {
    mmu::AttributeChange change;
    change.ranges = std::move(ranges);
    change.kind = kind;
    change.content = content;
    return Change(std::move(change));
  }
  virtual absl::StatusOr<std::vector<mmu::AttributeRun>> Attributes(
      std::optional<mmu::GfnRange> range) const = 0;
  virtual absl::StatusOr<mmu::Translation> Translate(uint64_t gpa, mmu::MemoryKind alias) const = 0;
  // Shared memory only; any alignment.
  virtual absl::StatusOr<std::string> ReadMemory(uint64_t gpa, uint64_t size) = 0;
  virtual absl::Status WriteMemory(uint64_t gpa, const std::string& data) = 0;

  // As dirty_log.proto says; `options.ring_vcpus` is ignored.
  virtual absl::StatusOr<mmu::SplitResult> EnableDirtyLog(const mmu::DirtyLogOptions& options) = 0;
  virtual absl::StatusOr<mmu::RecoverResult> DisableDirtyLog() = 0;
  // Maximal runs, ordered. A range begins at a multiple of 64 pages.
  virtual absl::StatusOr<std::vector<mmu::GfnRange>> HarvestDirty(
      std::optional<mmu::GfnRange> range) = 0;
  virtual absl::Status ClearDirty(const std::vector<mmu::GfnRange>& ranges) = 0;
  // A harvest did not reach who asked for it: these pages count as written again.
  virtual void UndoHarvest(const std::vector<mmu::GfnRange>& runs) = 0;

  // Down to pages of `target` (k4K or k2M); and back to large ones where nothing forbids it.
  virtual absl::StatusOr<mmu::SplitResult> SplitPages(const std::vector<mmu::GfnRange>& ranges,
                                                      mmu::Level target) = 0;
  virtual absl::StatusOr<mmu::RecoverResult> RecoverPages(
      const std::vector<mmu::GfnRange>& ranges) = 0;
  // As memory.proto says. `kind` nullopt: each page by its attribute.
  virtual absl::StatusOr<mmu::PrefaultResult> Prefault(mmu::GfnRange range,
                                                       std::optional<mmu::MemoryKind> kind) = 0;
  // Validate only: what adding this would answer, but for want of memory.
  virtual absl::Status CheckAddMemslot(mmu::GfnRange range) const = 0;
  virtual absl::Status AddMemslot(mmu::GfnRange range) = 0;
  virtual absl::Status RemoveMemslot(mmu::Gfn first) = 0;
  virtual absl::Status MoveMemslot(mmu::Gfn first, mmu::Gfn new_first) = 0;
  // As GuestAddressSpace says.
  virtual absl::StatusOr<std::vector<mmu::TableImage>> DumpTables(mmu::MemoryKind root,
                                                                  const mmu::TableImage* after,
                                                                  size_t max) const = 0;
  virtual mmu::EptPointer ept_pointer(mmu::MemoryKind root) const = 0;
  // Which pages were accessed since the last call: maximal runs, ordered.
  virtual absl::StatusOr<std::vector<mmu::GfnRange>> AgePages(mmu::GfnRange range) = 0;
  virtual absl::StatusOr<mmu::RecoverResult> RecoverNxPages(uint64_t max) = 0;
  // All memslots by address; neighbours are joined.
  virtual std::vector<mmu::GfnRange> Memory() const = 0;
  // Not OK: the first invariant of the engine that does not hold.
  virtual absl::Status Audit() const = 0;

  // Oldest first. Never waits for a conversion.
  virtual std::vector<PendingConversion> Pending() const = 0;
  virtual ResolveResult Resolve(uint64_t id, Resolution resolution) = 0;

  virtual VmCounters counters() const = 0;
};

}  // namespace twinroot::host

#endif  // TWINROOT_DAEMON_HOST_VM_H_
