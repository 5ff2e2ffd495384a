// One vCPU of a KVM machine: its thread, its exits. All of it runs on its own thread but for Kick
// and the two releases, which any thread may call.
#ifndef TWINROOT_DAEMON_VCPU_KVM_VCPU_H_
#define TWINROOT_DAEMON_VCPU_KVM_VCPU_H_

#include <linux/kvm.h>
#include <sys/types.h>

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "daemon/memory/guest_ram.h"
#include "daemon/vcpu/kvm/kvm_abi.h"
#include "daemon/vcpu/kvm/kvm_api.h"
#include "daemon/vcpu/kvm/kvm_stats.h"
#include "daemon/vcpu/kvm/pc_ports.h"
#include "daemon/vcpu/kvm/repeated_errors.h"
#include "daemon/vcpu/machine.h"
#include "daemon/vcpu/pause_gate.h"
#include "mmu/vm/gpa_layout.h"

namespace twinroot::kvm {

class Vcpu {
 public:
  struct Environment {
    const KvmFd* vm = nullptr;
    size_t run_bytes = 0;      // KVM_GET_VCPU_MMAP_SIZE
    bool sync_regs = false;    // KVM_CAP_SYNC_REGS has general registers
    PcPorts* ports = nullptr;  // of an operating system's PC, or null
    vcpu::MachineClient* client = nullptr;
    const mmu::GpaLayout* layout = nullptr;
    const memory::GuestRam* ram = nullptr;
    const std::atomic<bool>* stop = nullptr;
    vcpu::PauseGate* gate = nullptr;
    std::vector<uint32_t> cpus;                   // of the host, for its thread; empty: any
    std::function<absl::Status()> thread_starts;  // KvmMachineConfig
    bool tells_registers = false;                 // in messages to the client
    bool native = false;                          // private memory is not the host's
  };

  static absl::StatusOr<std::unique_ptr<Vcpu>> Create(vcpu::VcpuIndex index,
                                                      const Environment& environment,
                                                      const Cpuid2& cpuid);
  ~Vcpu();

  absl::Status SetState(const kvm_regs& regs, const kvm_sregs& sregs);
  absl::StatusOr<kvm_sregs> GetSregs();

  // On the caller's thread, before StartThread: until the guest writes a byte to `port`. Any other
  // exit is an error; kCancelled: the VM stops.
  absl::Status RunUntilPort(uint16_t port);
  // On the caller's thread, of a vCPU that never runs: lets every vCPU have the pages that KVM has
  // of the range, from its beginning until one is missing.
  absl::Status Prefault(mmu::GfnRange range);

  void StartThread();
  void JoinThread();

  vcpu::VcpuIndex index() const { return index_; }
  // The kernel's id of the thread; 0 before it runs.
  pid_t thread_id() const { return thread_id_.load(std::memory_order_acquire); }

  // What it left the guest for, KVM's own reasons included.
  uint64_t exits() const { return exits_.Read(); }

  // Makes KVM_RUN return soon; `stop` was set before, or the gate was closed.
  void Kick();
  // Answers a parked MapGPA; does nothing where none waits.
  void AnswerMapGpa(vcpu::MapGpaAnswer answer);
  // Lets a fetch go on that waits outside the guest (ResolveFetch).
  void ResumeFetch();

 private:
  enum class Next : uint8_t { kRun, kEnd };

  Vcpu(vcpu::VcpuIndex index, const Environment& environment, KvmFd fd, kvm_run* run);

  void Loop();
  void Execute();
  Next HandleExit();
  Next HandleRunError(int error);
  Next HandleMemoryFault();
  Next HandlePortOut();
  void HandlePortIn();
  Next HandlePort(uint16_t port, uint8_t size, const uint8_t* data);
  Next HandlePcPort(uint16_t port, uint8_t size, const uint8_t* data);
  Next HandleDoor();
  Next HandleKvmHypercall();
  Next HandleMmio();
  Next HandleInternalError();
  // The guest's MapGPA; waits while it is parked. nullopt: the VM stops.
  std::optional<vcpu::MapGpaAnswer> MapGpa(const vcpu::MapGpaCall& call);
  // Lets the engine map what an instruction at RIP needs. False: nothing, or the VM stops.
  bool ResolveFetch();
  // Takes an access to the engine from outside of KVM, and waits there if it is parked. False: the
  // VM stops.
  bool Resolve(const mmu::Fault& fault);
  std::string RegisterText();
  Next Fatal(vcpu::StopReason reason, const std::string& what);
  // Waits while the machine is paused. False: it stops.
  bool GoesOn() {
    environment_.gate->Pass(index_);
    return !stopping();
  }
  bool stopping() const { return environment_.stop->load(std::memory_order_acquire); }
  kvm_regs* Registers();
  void RegistersChanged();

  const vcpu::VcpuIndex index_;
  const Environment environment_;
  const KvmFd fd_;
  kvm_run* const run_;
  const KvmStat exits_;
  kvm_regs regs_;  // where KVM_CAP_SYNC_REGS is missing
  RepeatedErrors repeated_errors_;
  std::optional<mmu::Gpa> last_memory_fault_;
  std::thread thread_;
  std::atomic<pid_t> thread_id_{0};

  std::mutex park_mutex_;
  std::condition_variable park_changed_;
  // Guarded by park_mutex_.
  bool map_gpa_waits_ = false;
  std::optional<vcpu::MapGpaAnswer> map_gpa_answer_;
  bool fetch_resumed_ = false;
};

// The signal that Kick sends; its handler does nothing. Installed once for the process.
int KickSignal();

}  // namespace twinroot::kvm

#endif  // TWINROOT_DAEMON_VCPU_KVM_VCPU_H_
