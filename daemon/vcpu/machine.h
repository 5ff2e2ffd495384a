// What runs the vCPUs of one VM, and what it asks of the VM: the seam between daemon/vcpu and
// daemon/host. Plain values only cross it, so that a VM can move into a process of its own later.
//
// A machine reports; the VM decides. A vCPU whose fault or hypercall cannot be decided at once is
// parked: it stays where it is until ResumeFault or AnswerMapGpa. Thread safety is stated at each
// class.
#ifndef TWINROOT_DAEMON_VCPU_MACHINE_H_
#define TWINROOT_DAEMON_VCPU_MACHINE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "daemon/vcpu/projection_counts.h"
#include "mmu/hw/ept_capabilities.h"
#include "mmu/tables/external_tables.h"
#include "mmu/tables/tlb_flusher.h"
#include "mmu/types/access.h"
#include "mmu/types/address.h"
#include "mmu/types/gfn_range.h"
#include "mmu/types/memory_kind.h"
#include "mmu/vm/guest_address_space.h"
#include "mmu/vm/page_source.h"
#include "mmu/vm/pml_source.h"
#include "mmu/vm/shadow_fault.h"

namespace twinroot::vcpu {

using VcpuIndex = uint32_t;

// What happens to a vCPU after the VM has looked at its exit.
enum class Verdict : uint8_t {
  kResume,  // run on: the access is tried again
  kParked,  // wait for ResumeFault or AnswerMapGpa
  kStop,    // the VM is stopping: leave the vCPU where it is
};

// Results of MapGPA, as the guest sees them in RAX.
enum class MapGpaResult : int64_t { kOk = 0, kDenied = -1, kInvalid = -22, kRetry = -11 };

inline constexpr uint64_t kMapGpaPreserve = 1 << 5;  // in RDX
// MapGPA as the guest asked: raw registers, nothing checked yet.
struct MapGpaCall {
  uint64_t gpa = 0;         // RBX
  uint64_t pages = 0;       // RCX
  uint64_t attributes = 0;  // RDX: bit 4 private, bit 5 preserve, bits 0 to 3 size hint
};
// What the guest gets.
struct MapGpaAnswer {
  // NOLINTNEXTLINE(google-explicit-constructor): most results say it all.
  MapGpaAnswer(MapGpaResult result = MapGpaResult::kOk, uint64_t next_gpa = 0)
      : result(result), next_gpa(next_gpa) {}
  MapGpaResult result;
  uint64_t next_gpa;  // with kRetry: the guest's new RBX, within its range; before it all is done
};
struct MapGpaVerdict {
  Verdict verdict = Verdict::kResume;
  MapGpaAnswer answer;  // if kResume
};

// What a vCPU on shadow tables does after a fault: as an EPT violation's verdict; or run on from a
// root; or go on behind the write, which was made; or take the page fault.
using ShadowAnswer =
    std::variant<Verdict, mmu::ShadowRunOn, mmu::ShadowWriteMade, mmu::GuestPageFault>;

// Why a VM stopped without an exit code; the names are those of Vm.stop_reason.
enum class StopReason : uint8_t {
  kStopRequested,
  kGuestReset,
  kTripleFault,
  kUnhandledExit,
  kMmioOutsideMemory,
  kConversionDenied,
  kConversionQuota,
  kMemoryFault,
  kOutOfMemory,
  kEngineBug,
  kBackendError,
  kDaemonStopping,
};

// Implemented by the VM. Called from the machine's threads, several at once. None of the calls
// waits for a vCPU or calls back into the machine's Stop or Join.
class MachineClient {
 public:
  virtual ~MachineClient() = default;

  // A vCPU touched what its tables do not allow. After kParked, ResumeFault(vcpu) follows, perhaps
  // before this call has returned. The same access may be reported again while it is parked (a
  // signal woke the vCPU, or another vCPU that waited for the same page was resumed): the answer is
  // again kParked, and still one ResumeFault follows.
  virtual Verdict OnEptViolation(VcpuIndex vcpu, const mmu::Fault& fault) = 0;

  // A vCPU met an entry that no table may hold. Nullopt: nor does the VM know it; the machine calls
  // OnFatal(kEngineBug). Never kParked. The default knows none.
  virtual std::optional<Verdict> OnEptMisconfiguration(VcpuIndex, mmu::Gpa) { return std::nullopt; }

  // A page fault on shadow tables; parking as for OnEptViolation. The default has none.
  virtual ShadowAnswer OnShadowFault(VcpuIndex, const mmu::ShadowFault&) {
    OnFatal(StopReason::kEngineBug, "a fault on shadow tables in a VM that has none");
    return Verdict::kStop;
  }

  // An explicit conversion. After kParked, AnswerMapGpa(vcpu, answer) follows.
  virtual MapGpaVerdict OnMapGpa(VcpuIndex vcpu, const MapGpaCall& call) = 0;

  virtual void OnConsole(std::string_view bytes) = 0;
  // The guest gave this code to port 0xF4. The first one wins; the VM stops the machine.
  virtual void OnExitCode(VcpuIndex vcpu, uint8_t code) = 0;
  // This vCPU ended by itself (port 0xF5, hlt in ring 0, end of its program).
  virtual void OnVcpuEnded(VcpuIndex vcpu) = 0;
  // Something that ends the VM; `message` says which vCPU and what, never guest data.
  virtual void OnFatal(StopReason reason, std::string message) = 0;

  // Runs a task of the machine's a little later, elsewhere, unless the machine is gone by then. The
  // default has nobody for it, and the machine lives without.
  virtual void RunLater(std::function<void()>) {}
};

// The vCPUs of one VM. Order of life: create, (engine attaches to external() and flusher()),
// Start once, (Pause, Resume), RequestStop, Join, destroy.
class Machine {
 public:
  virtual ~Machine() = default;

  // The engine's other side; null if there is none. Valid as long as the machine.
  virtual mmu::ExternalTables* external(mmu::MemoryKind root) = 0;
  virtual mmu::TlbFlusher* flusher() = 0;
  // Where its guest pages come from, if not from the daemon's memory; else null.
  virtual mmu::PageSource* pages() { return nullptr; }
  // The page-modification logs of its vCPUs; null: they have none.
  virtual mmu::PmlSource* pml() { return nullptr; }

  // The engine whose tables the vCPUs run on. Called once, before Start.
  virtual void Attach(mmu::GuestAddressSpace* engine) = 0;

  // Loads the guest and lets every vCPU run. An error leaves nothing running.
  virtual absl::Status Start() = 0;

  // Bytes typed on the guest's serial port: all are taken, or none. kFailedPrecondition: it has no
  // such port; kResourceExhausted: too much waits that the guest has not read. Any thread, at any
  // time.
  virtual absl::Status Type(std::string_view) {
    return absl::FailedPreconditionError("it has no serial port; only operating systems do");
  }

  // Let a parked vCPU go on: one that waits in a fault tries its access again, one that waits in a
  // MapGPA gets its answer. Neither touches a vCPU that waits in the other, or does not wait: it
  // may have gone on by itself meanwhile. Any thread, but not under the VM's locks.
  virtual void ResumeFault(VcpuIndex vcpu) = 0;
  virtual void AnswerMapGpa(VcpuIndex vcpu, MapGpaAnswer answer) = 0;

  // Lets processors have what the engine has mapped of private memory, before they ask. What is
  // taken away meanwhile, or before Start, is left out.
  virtual absl::Status Prefault(mmu::GfnRange) { return absl::OkStatus(); }

  // Memory that comes, goes and moves while the machine lives. Runs `change`, in which the engine's
  // memslots may change and the calls below may be made, while no vCPU executes and none is inside
  // an access. kUnavailable: one is in an access, which may be over in a moment, or wait for a
  // decision; nothing was done. One at a time; not from a thread of the machine.
  virtual absl::Status Still(absl::FunctionRef<absl::Status()> change) { return change(); }
  // The VM's memory has a slot there from now on: before the engine has. An error changes nothing.
  virtual absl::Status AddMemory(mmu::GfnRange) { return absl::OkStatus(); }
  // The engine knows the slot no more, and its memory goes.
  virtual void RemoveMemory(mmu::GfnRange) {}
  // The engine has moved it. After an error the engine moves it back, and it is moved back here.
  virtual absl::Status MoveMemory(mmu::GfnRange, mmu::Gfn) { return absl::OkStatus(); }
  // Where its devices are: no memory comes there.
  virtual mmu::GfnRange devices() const { return {}; }

  // How often vCPUs left the guest, as far as somebody counts.
  virtual uint64_t exits() const { return 0; }

  // When Pause returns, no vCPU executes and the client gets no call of theirs, until Resume or
  // until the machine is stopped, which ends the wait. Parked vCPUs stay parked; those that are let
  // go meanwhile go on at Resume. Between Start and Join, not from a thread of the machine, one of
  // the two at a time; each Pause has its Resume.
  virtual void Pause() = 0;
  virtual void Resume() = 0;

  // Makes every vCPU that executes leave the guest soon. RequestStop follows, and does the rest: of
  // many machines that stop, none then waits for the processors of the others. As cheap as can be.
  virtual void AnnounceStop() {}
  // Makes every vCPU leave the guest soon, parked ones too, and makes no more calls to the client
  // but those under way. Thread-safe, returns at once, may be repeated, any thread.
  virtual void RequestStop() = 0;

  // Waits until all threads of the machine have ended. Not from one of them.
  virtual void Join() = 0;

  // Of external tables that are projections. Any thread.
  virtual ProjectionCounts projection_counts() const { return {}; }
};

}  // namespace twinroot::vcpu

#endif  // TWINROOT_DAEMON_VCPU_MACHINE_H_
