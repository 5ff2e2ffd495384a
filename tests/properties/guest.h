// A guest that touches memory, in two ways: by asking the engine where a page is, and through the
// processor's own walker with TLBs that keep what nobody flushed.
#ifndef TWINROOT_TESTS_PROPERTIES_GUEST_H_
#define TWINROOT_TESTS_PROPERTIES_GUEST_H_

#include <array>
#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <variant>

#include "mmu/vmx/physical_memory.h"
#include "mmu/vmx/vcpu.h"
#include "tests/fakes/test_space.h"

namespace twinroot::mmu {

// What became of one access.
struct Touched {
  uint64_t value;
};
struct Refused {};  // a memory fault exit
struct Broken {     // what must never happen
  std::string what;
};
using Touch = std::variant<Touched, Refused, Broken>;

// One access to the first word of a page.
struct GuestAccess {
  Gfn gfn;
  MemoryKind alias;
  mmu::Access needed = mmu::Access::Read();
  bool execute_only = false;  // through the execute-only alias
  uint64_t value = 0;         // to write
};

class Guest {
 public:
  virtual ~Guest() = default;
  // A fetch gives the first byte only.
  virtual Touch Make(int vcpu, const GuestAccess& access) = 0;
  // `write`: the word to write, else it is a read.
  Touch Access(int vcpu, Gfn gfn, MemoryKind alias, std::optional<uint64_t> write) {
    return Make(vcpu, {.gfn = gfn,
                       .alias = alias,
                       .needed = write ? mmu::Access::Write() : mmu::Access::Read(),
                       .value = write.value_or(0)});
  }
  TestSpace& t() { return *t_; }

 protected:
  Gpa GpaOf(const GuestAccess& access) const {
    const HwGfn frame = t_->space->layout().HwGfnOf(access.gfn, access.alias, access.execute_only);
    return Gpa(frame.value << kPageShift);
  }
  // Nullopt: mapped, go on.
  std::optional<Touch> Fault(Gpa gpa, mmu::Access access) {
    const FaultOutcome outcome = t_->space->HandleFault({gpa, access});
    if (std::holds_alternative<MemoryFaultExit>(outcome)) return Refused{};
    if (const auto* failed = std::get_if<Failed>(&outcome)) {
      return Broken{"fault failed: " + failed->status.ToString()};
    }
    if (std::holds_alternative<Mmio>(outcome)) return Broken{"MMIO inside the slot"};
    return std::nullopt;
  }
  std::unique_ptr<TestSpace> t_;
};

class TranslatingGuest : public Guest {
 public:
  explicit TranslatingGuest(const TestSpaceOptions& options) {
    t_ = std::make_unique<TestSpace>(options);
  }
  Touch Make(int, const GuestAccess& access) override {
    if (const auto exit = Fault(GpaOf(access), access.needed)) return *exit;
    const auto walk = t_->space->Translate(Gpa(access.gfn.value << kPageShift), access.alias,
                                           access.execute_only);
    if (!walk.ok() || !walk->mapped) return Broken{"not mapped after its fault was fixed"};
    if (!walk->access.Includes(access.needed)) return Broken{"the leaf does not grant the access"};
    std::byte* bytes = t_->pages.At(walk->hpa);
    if (bytes == nullptr) return Broken{"maps no page of the VM"};
    auto& word = *reinterpret_cast<uint64_t*>(bytes);
    if (access.needed.write()) word = access.value;
    return Touched{access.needed.fetch() ? word & 0xFF : word};
  }
};

// Flushes every vCPU. `deaf`: forgets to, as a bug would.
class VcpuFlusher : public TlbFlusher {
 public:
  explicit VcpuFlusher(std::array<std::optional<vmx::Vcpu>, 2>& vcpus) : vcpus_(vcpus) {}
  void FlushRange(MemoryKind root, HwGfn first, uint64_t count) override {
    if (deaf) return;
    for (auto& vcpu : vcpus_) {
      if (vcpu) vcpu->FlushRange(root, first, count);
    }
  }
  void FlushAll() override {
    for (auto& vcpu : vcpus_) {
      if (vcpu && !deaf) vcpu->FlushAll();
    }
  }
  bool deaf = false;

 private:
  std::array<std::optional<vmx::Vcpu>, 2>& vcpus_;
};

class ProcessorGuest : public Guest, private vmx::PhysicalMemory {
 public:
  ProcessorGuest(TestSpaceOptions options, bool deaf) : flusher_(vcpus_) {
    flusher_.deaf = deaf;
    options.flusher = &flusher_;
    t_ = std::make_unique<TestSpace>(options);
    for (auto& vcpu : vcpus_) {
      vcpu.emplace(static_cast<vmx::PhysicalMemory*>(this), EptCapabilities{}, 52);
      vcpu->LoadRoots(t_->space->ept_pointer(MemoryKind::kPrivate),
                      t_->space->ept_pointer(MemoryKind::kShared), options.shared_bit);
    }
  }

  Touch Make(int vcpu, const GuestAccess& access) override {
    const Gpa gpa = GpaOf(access);
    while (true) {
      const vmx::AccessOutcome outcome = access.needed.write()
                                             ? vcpus_[vcpu]->Write(gpa, 8, access.value)
                                         : access.needed.fetch() ? vcpus_[vcpu]->Fetch(gpa)
                                                                 : vcpus_[vcpu]->Read(gpa, 8);
      if (const auto* done = std::get_if<vmx::AccessDone>(&outcome)) {
        return Touched{access.needed.write() ? access.value : done->value};
      }
      const auto* violation = std::get_if<vmx::EptViolationExit>(&outcome);
      if (violation == nullptr) return Broken{"a misconfiguration or a machine check"};
      if (violation->gpa != gpa) return Broken{"violation names another address"};
      if (const auto exit = Fault(violation->gpa, violation->qualification.needed())) return *exit;
    }
  }

 private:
  std::byte* At(Hpa hpa, size_t) override {
    const uint64_t pool_bytes = t_->options.pool_pages * kPageSize;
    if (hpa >= TestSpace::kPoolBase && hpa - TestSpace::kPoolBase < pool_bytes) {
      return t_->pool_memory.get() + (hpa - TestSpace::kPoolBase);
    }
    return t_->pages.At(hpa);
  }

  std::array<std::optional<vmx::Vcpu>, 2> vcpus_;
  VcpuFlusher flusher_;
};

}  // namespace twinroot::mmu

#endif  // TWINROOT_TESTS_PROPERTIES_GUEST_H_
