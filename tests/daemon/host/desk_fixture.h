// A conversion desk on an engine with fakes all around: the test plays the vCPUs.
#ifndef TWINROOT_TESTS_DAEMON_HOST_DESK_FIXTURE_H_
#define TWINROOT_TESTS_DAEMON_HOST_DESK_FIXTURE_H_

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "daemon/events/journal.h"
#include "daemon/host/conversion_desk.h"
#include "gtest/gtest.h"
#include "tests/fakes/test_space.h"

namespace twinroot::host {

inline constexpr uint64_t kMapPrivateBit = 1 << 4;
inline constexpr uint64_t kMapPreserveBit = 1 << 5;

// One VM as the desk sees it. Keeps what the desk told its vCPUs.
class DeskVm {
 public:
  DeskVm(const std::string& name, const ConversionPolicy& policy, events::Journal* journal,
         TaskThread* clock, TaskLanes* lanes, const mmu::TestSpaceOptions& options = {})
      : space_(options) {
    EXPECT_TRUE(space_.create_status.ok()) << space_.create_status;
    ConversionDesk::Hooks hooks;
    hooks.resume_fault = [this](vcpu::VcpuIndex vcpu) { Note([&] { ++resumed_[vcpu]; }); };
    hooks.answer_map_gpa = [this](vcpu::VcpuIndex vcpu, vcpu::MapGpaAnswer answer) {
      Note([&] { answers_.insert_or_assign(vcpu, answer); });
    };
    hooks.fatal = [this](vcpu::StopReason reason, std::string message) {
      Note([&] {
        if (!fatal_) fatal_.emplace(reason, std::move(message));
      });
    };
    desk_ = std::make_shared<ConversionDesk>(name, policy, space_.space.get(), journal, clock,
                                             lanes, std::move(hooks));
  }

  ConversionDesk& desk() { return *desk_; }
  mmu::TestSpace& space() { return space_; }
  mmu::GuestAddressSpace& engine() { return *space_.space; }

  // An access of the vCPU through that alias. nullopt: it may go on.
  std::optional<vcpu::Verdict> Access(vcpu::VcpuIndex vcpu, uint64_t gfn, mmu::MemoryKind kind) {
    const absl::Time exit_time = absl::Now();
    const mmu::Fault fault = {engine().layout().GpaOf(mmu::Gfn(gfn), kind), mmu::Access::Read(),
                              vcpu};
    const mmu::FaultOutcome outcome = engine().HandleFault(fault);
    const auto* exit = std::get_if<mmu::MemoryFaultExit>(&outcome);
    if (exit == nullptr) return std::nullopt;
    return desk_->Implicit(vcpu, fault, *exit, exit_time);
  }
  vcpu::MapGpaVerdict MapGpa(vcpu::VcpuIndex vcpu, uint64_t gfn, uint64_t pages,
                             uint64_t attributes = 0) {
    return desk_->Explicit(vcpu, {gfn << mmu::kPageShift, pages, attributes}, absl::Now());
  }

  template <typename Condition>
  bool Wait(const Condition& condition) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::seconds(30), condition);
  }
  bool WaitResumed(vcpu::VcpuIndex vcpu, int times = 1) {
    return Wait([&] { return resumed_[vcpu] >= times; });
  }
  std::optional<vcpu::MapGpaAnswer> WaitAnswer(vcpu::VcpuIndex vcpu) {
    if (!Wait([&] { return answers_.contains(vcpu); })) return std::nullopt;
    std::lock_guard lock(mutex_);
    return answers_.extract(vcpu).mapped();
  }
  std::optional<std::pair<vcpu::StopReason, std::string>> fatal() {
    std::lock_guard lock(mutex_);
    return fatal_;
  }
  int resumed(vcpu::VcpuIndex vcpu) {
    std::lock_guard lock(mutex_);
    return resumed_[vcpu];
  }

 private:
  template <typename Change>
  void Note(const Change& change) {
    std::lock_guard lock(mutex_);
    change();
    changed_.notify_all();
  }

  mmu::TestSpace space_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<vcpu::VcpuIndex, int> resumed_;
  std::map<vcpu::VcpuIndex, vcpu::MapGpaAnswer> answers_;
  std::optional<std::pair<vcpu::StopReason, std::string>> fatal_;
  std::shared_ptr<ConversionDesk> desk_;
};

class DeskFixture : public testing::Test {
 protected:
  DeskVm& Make(const ConversionPolicy& policy, const mmu::TestSpaceOptions& options = {}) {
    vms_.push_back(std::make_unique<DeskVm>("vm" + std::to_string(vms_.size()), policy, &journal_,
                                            &clock_, &lanes_, options));
    return *vms_.back();
  }
  void TearDown() override {
    for (const auto& vm : vms_) vm->desk().Close(ConversionDesk::Closing::kStopped);
  }

  std::vector<v1::Event> Events(const std::string& vm = "vm0") {
    std::vector<v1::Event> events;
    events::Journal::Page page;
    do {
      page = journal_.Read(page.next, 100'000, {});
      for (const auto& shared : page.events) {
        if (shared->vm() == vm) events.push_back(*shared);
      }
    } while (page.more);
    return events;
  }
  std::vector<v1::Conversion> Conversions(const std::string& vm = "vm0") {
    std::vector<v1::Conversion> conversions;
    for (const v1::Event& event : Events(vm)) {
      if (event.has_conversion()) conversions.push_back(event.conversion());
    }
    return conversions;
  }
  template <typename Condition>
  static bool Eventually(const Condition& condition) {
    for (int i = 0; i < 30'000 && !condition(); ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return condition();
  }

  events::Journal journal_{1 << 17};
  std::vector<std::unique_ptr<DeskVm>> vms_;
  TaskLanes lanes_;
  TaskThread clock_;
};

inline ConversionPolicy Orchestrated(absl::Duration timeout = absl::Seconds(30)) {
  ConversionPolicy policy;
  policy.mode = PolicyMode::kOrchestrator;
  policy.decision_timeout = timeout;
  return policy;
}

}  // namespace twinroot::host

#endif  // TWINROOT_TESTS_DAEMON_HOST_DESK_FIXTURE_H_
