// A VM of a few pages that threads work on: its operations, and what is to be true of it after
// them. Each thread has a vCPU of its number, whose TLB keeps what nobody flushed.
//
// The state that an order of the operations must give is what they said, attributes and bytes.
// Which leaves stand is no part of it: they are a cache of those, and the audit compares each.
#ifndef TWINROOT_TESTS_SCHEDULES_SMALL_VM_H_
#define TWINROOT_TESTS_SCHEDULES_SMALL_VM_H_

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tests/fakes/processor_vm.h"
#include "tests/schedules/explorer.h"

namespace twinroot::mmu {

// 2M of a slot, of which some pages are looked at.
inline constexpr uint64_t kSlotFrames = FramesPerEntry(Level::k2M);
inline constexpr uint64_t kPages[] = {5, 6, 7};
// Where a slot may move to.
inline constexpr uint64_t kElsewhere = 4 * kSlotFrames;

struct SmallVm {
  SmallVm(const TestSpaceOptions& options, size_t the_vcpus)
      : vcpus(the_vcpus), vm(options, the_vcpus) {}

  GuestAddressSpace& space() { return vm.space(); }

  const size_t vcpus;
  ProcessorVm vm;
  // A copy of the memory, as somebody makes it who goes by the dirty log.
  uint64_t copy[std::size(kPages)] = {};
  bool copies = false;
  // The slot was removed: nobody may ask for its pages any more.
  std::atomic<bool> dropped{false};
  bool asked_too_late = false;
  // The first of kPages was zapped; no fault has given it again.
  bool zapped = false;
  bool given = true;
};

// What an operation says of itself; part of the end state, so that it fits the order too.
using Said = uint64_t;
inline constexpr Said kRefused = ~uint64_t{0};  // a memory fault exit
inline constexpr Said kBroken = ~uint64_t{1};   // anything else than a guest may see

struct Operation {
  std::string name;
  std::function<Said(SmallVm&, uint32_t vcpu)> run;
};

inline Said SaidOf(const absl::Status& status) { return static_cast<Said>(status.code()); }

inline Operation Touch(const std::string& name, uint64_t gfn, MemoryKind kind, Access access,
                       uint64_t value = 0) {
  return {name, [=](SmallVm& at, uint32_t vcpu) -> Said {
            const auto outcome = at.vm.Touch(vcpu, Gfn(gfn), kind, access, value + vcpu);
            if (const auto* done = std::get_if<ProcessorVm::Done>(&outcome)) return done->value;
            return std::holds_alternative<ProcessorVm::Refused>(outcome) ? kRefused : kBroken;
          }};
}

// Of `set up; threads`.
class VmScenario : public schedules::Scenario {
 public:
  struct Start {
    std::string name;
    TestSpaceOptions options;
    std::function<void(SmallVm&)> set_up;
  };
  using Program = std::vector<Operation>;

  VmScenario(Start start, std::vector<Program> programs);

  std::string name() const override { return name_; }
  void Begin() override;
  const std::vector<schedules::Thread>& threads() const override { return threads_; }
  End Finish() override;
  std::string TextOf(const std::vector<uint64_t>& state) const override;

 private:
  std::string CheckTlbs();

  const Start start_;
  const std::vector<Program> programs_;
  std::string name_;
  std::vector<std::vector<Said>> said_;
  std::vector<schedules::Thread> threads_;
  std::unique_ptr<SmallVm> vm_;
};

}  // namespace twinroot::mmu

#endif  // TWINROOT_TESTS_SCHEDULES_SMALL_VM_H_
