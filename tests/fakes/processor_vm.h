// An address space whose memory is touched by virtual processors alone: their walker, TLBs that
// keep what nobody flushed, A and D flags, page-modification logs.
//
// Each vCPU belongs to one thread; everything else is thread-safe.
#ifndef TWINROOT_TESTS_FAKES_PROCESSOR_VM_H_
#define TWINROOT_TESTS_FAKES_PROCESSOR_VM_H_

#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <variant>
#include <vector>

#include "mmu/vmx/physical_memory.h"
#include "mmu/vmx/vcpu.h"
#include "tests/fakes/test_space.h"

namespace twinroot::mmu {

// The vCPUs' logs. What a full log held waits here, so that Drain misses nothing.
class VcpuLogs : public PmlSource {
 public:
  explicit VcpuLogs(std::deque<vmx::Vcpu>& vcpus) : vcpus_(vcpus) {}
  void SetEnabled(bool enabled) override {
    for (vmx::Vcpu& vcpu : vcpus_) enabled ? vcpu.EnablePml() : vcpu.DisablePml();
  }
  void Drain(absl::FunctionRef<void(Gpa)> page) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (const Gpa gpa : spilled_) page(gpa);
    spilled_.clear();
    for (vmx::Vcpu& vcpu : vcpus_) {
      for (const Gpa gpa : vcpu.TakePml()) page(gpa);
    }
  }
  // By the owner of a vCPU whose log is full.
  void Spill(vmx::Vcpu& vcpu) {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (const Gpa gpa : vcpu.TakePml()) spilled_.push_back(gpa);
    ++spills;
  }
  uint64_t spills = 0;

 private:
  std::deque<vmx::Vcpu>& vcpus_;
  std::mutex mutex_;
  std::vector<Gpa> spilled_;
};

// Tells every vCPU, and counts.
class AllVcpusFlusher : public TlbFlusher {
 public:
  explicit AllVcpusFlusher(std::deque<vmx::Vcpu>& vcpus) : vcpus_(vcpus) {}
  void FlushRange(MemoryKind root, HwGfn first, uint64_t count) override {
    for (vmx::Vcpu& vcpu : vcpus_) vcpu.FlushRange(root, first, count);
  }
  void FlushAll() override {
    for (vmx::Vcpu& vcpu : vcpus_) vcpu.FlushAll();
  }

 private:
  std::deque<vmx::Vcpu>& vcpus_;
};

class ProcessorVm : private vmx::PhysicalMemory {
 public:
  explicit ProcessorVm(TestSpaceOptions options, size_t vcpus = 2)
      : flusher_(vcpus_), logs(vcpus_) {
    options.flusher = &flusher_;
    options.pml = &logs;
    t_ = std::make_unique<TestSpace>(options);
    for (size_t i = 0; i < vcpus; ++i) {
      vcpus_.emplace_back(static_cast<vmx::PhysicalMemory*>(this), options.capabilities, 52);
      vcpus_.back().LoadRoots(t_->space->ept_pointer(MemoryKind::kPrivate),
                              t_->space->ept_pointer(MemoryKind::kShared), options.shared_bit);
    }
  }

  struct Done {
    uint64_t value;
    int faults;  // on the way
  };
  struct Refused {};   // a memory fault exit
  struct RingFull {};  // the vCPU waits for its ring to be harvested
  struct Broken {
    std::string what;
  };
  using Outcome = std::variant<Done, Refused, RingFull, Broken>;

  // One access to the first word of a page, with as many faults as it takes.
  Outcome Touch(uint32_t vcpu, Gfn gfn, MemoryKind kind, Access access, uint64_t value = 0) {
    const Gpa gpa = t_->space->layout().GpaOf(gfn, kind);
    vmx::Vcpu& processor = vcpus_[vcpu];
    for (int faults = 0;; ++faults) {
      const vmx::AccessOutcome outcome = access.write()   ? processor.Write(gpa, 8, value)
                                         : access.fetch() ? processor.Fetch(gpa)
                                                          : processor.Read(gpa, 8);
      if (const auto* done = std::get_if<vmx::AccessDone>(&outcome)) {
        return Done{done->value, faults};
      }
      if (std::holds_alternative<vmx::PmlFullExit>(outcome)) {
        logs.Spill(processor);
        continue;
      }
      const auto* violation = std::get_if<vmx::EptViolationExit>(&outcome);
      if (violation == nullptr) return Broken{"a misconfiguration or a machine check"};
      const FaultOutcome fault =
          t_->space->HandleFault({gpa, violation->qualification.needed(), vcpu});
      if (std::holds_alternative<MemoryFaultExit>(fault)) return Refused{};
      if (std::holds_alternative<DirtyRingFull>(fault)) return RingFull{};
      if (std::holds_alternative<Mmio>(fault)) return Broken{"MMIO inside the slot"};
      if (const auto* failed = std::get_if<Failed>(&fault)) {
        return Broken{failed->status.ToString()};
      }
      if (std::holds_alternative<Retry>(fault)) std::this_thread::yield();
    }
  }
  Outcome Write(uint32_t vcpu, uint64_t gfn, MemoryKind kind, uint64_t value) {
    return Touch(vcpu, Gfn(gfn), kind, Access::Write(), value);
  }

  TestSpace& t() { return *t_; }
  GuestAddressSpace& space() { return *t_->space; }
  // By its owner.
  vmx::Vcpu& vcpu(uint32_t number) { return vcpus_[number]; }

 private:
  std::byte* At(Hpa hpa, size_t) override {
    const uint64_t pool_bytes = t_->options.pool_pages * kPageSize;
    if (hpa >= TestSpace::kPoolBase && hpa - TestSpace::kPoolBase < pool_bytes) {
      return t_->pool_memory.get() + (hpa - TestSpace::kPoolBase);
    }
    return t_->pages.At(hpa);
  }

  std::deque<vmx::Vcpu> vcpus_;  // they do not move
  AllVcpusFlusher flusher_;

 public:
  VcpuLogs logs;

 private:
  std::unique_ptr<TestSpace> t_;
};

}  // namespace twinroot::mmu

#endif  // TWINROOT_TESTS_FAKES_PROCESSOR_VM_H_
