// A VM as the machine sees it: notes every call, and answers as the test says. Thread-safe.
#ifndef TWINROOT_TESTS_DAEMON_VCPU_SIM_FAKE_CLIENT_H_
#define TWINROOT_TESTS_DAEMON_VCPU_SIM_FAKE_CLIENT_H_

#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "daemon/vcpu/machine.h"

namespace twinroot::sim {

class FakeClient : public vcpu::MachineClient {
 public:
  struct Notes {
    std::vector<std::pair<vcpu::VcpuIndex, mmu::Fault>> violations;
    std::vector<mmu::Gpa> misconfigurations;
    std::vector<vcpu::MapGpaCall> map_gpa_calls;
    std::string console;
    std::vector<std::pair<vcpu::VcpuIndex, int>> exit_codes;
    std::multiset<vcpu::VcpuIndex> ended;
    std::vector<std::pair<vcpu::StopReason, std::string>> fatal;
    size_t calls = 0;
  };

  // Set before the machine starts. By default a violation stops the vCPU and MapGPA succeeds.
  std::function<vcpu::Verdict(vcpu::VcpuIndex, const mmu::Fault&)> on_violation;
  std::function<std::optional<vcpu::Verdict>(mmu::Gpa)> on_misconfiguration;
  std::function<vcpu::MapGpaVerdict(vcpu::VcpuIndex, const vcpu::MapGpaCall&)> on_map_gpa;

  Notes notes() const {
    std::lock_guard lock(mutex_);
    return notes_;
  }
  // False: it did not come true in good time.
  bool WaitFor(const std::function<bool(const Notes&)>& condition) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::seconds(20), [&] { return condition(notes_); });
  }
  bool WaitForEnd(size_t vcpus = 1) {
    return WaitFor([&](const Notes& n) {
      return n.ended.size() >= vcpus || !n.exit_codes.empty() || !n.fatal.empty();
    });
  }

  vcpu::Verdict OnEptViolation(vcpu::VcpuIndex vcpu, const mmu::Fault& fault) override {
    Note([&](Notes& n) { n.violations.emplace_back(vcpu, fault); });
    return on_violation ? on_violation(vcpu, fault) : vcpu::Verdict::kStop;
  }
  std::optional<vcpu::Verdict> OnEptMisconfiguration(vcpu::VcpuIndex, mmu::Gpa gpa) override {
    Note([&](Notes& n) { n.misconfigurations.push_back(gpa); });
    return on_misconfiguration ? on_misconfiguration(gpa) : std::nullopt;
  }
  vcpu::MapGpaVerdict OnMapGpa(vcpu::VcpuIndex vcpu, const vcpu::MapGpaCall& call) override {
    Note([&](Notes& n) { n.map_gpa_calls.push_back(call); });
    return on_map_gpa ? on_map_gpa(vcpu, call) : vcpu::MapGpaVerdict();
  }
  void OnConsole(std::string_view bytes) override {
    Note([&](Notes& n) { n.console += bytes; });
  }
  void OnExitCode(vcpu::VcpuIndex vcpu, uint8_t code) override {
    Note([&](Notes& n) { n.exit_codes.emplace_back(vcpu, code); });
  }
  void OnVcpuEnded(vcpu::VcpuIndex vcpu) override {
    Note([&](Notes& n) { n.ended.insert(vcpu); });
  }
  void OnFatal(vcpu::StopReason reason, std::string message) override {
    Note([&](Notes& n) { n.fatal.emplace_back(reason, std::move(message)); });
  }

 private:
  void Note(const std::function<void(Notes&)>& change) {
    std::lock_guard lock(mutex_);
    ++notes_.calls;
    change(notes_);
    changed_.notify_all();
  }

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  Notes notes_;
};

}  // namespace twinroot::sim

#endif  // TWINROOT_TESTS_DAEMON_VCPU_SIM_FAKE_CLIENT_H_
