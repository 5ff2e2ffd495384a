#include "tests/schedules/small_vm.h"

#include <cstdio>

#include "mmu/tables/epoch.h"

namespace twinroot::mmu {

VmScenario::VmScenario(Start start, std::vector<Program> programs)
    : start_(std::move(start)), programs_(std::move(programs)), name_(start_.name) {
  static const bool started = (schedules::StartThreads([] { EpochThread::Index(); }), true);
  (void)started;
  for (size_t t = 0; t < programs_.size(); ++t) {
    said_.emplace_back(programs_[t].size());
    name_ += t == 0 ? " (" : " | ";
    schedules::Thread thread;
    for (size_t i = 0; i < programs_[t].size(); ++i) {
      name_ += (i == 0 ? "" : ", ") + programs_[t][i].name;
      thread.push_back(
          [this, t, i] { said_[t][i] = programs_[t][i].run(*vm_, static_cast<uint32_t>(t)); });
    }
    threads_.push_back(std::move(thread));
  }
  name_ += ")";
}

void VmScenario::Begin() {
  vm_ = std::make_unique<SmallVm>(start_.options, programs_.size());
  vm_->vm.t().log.Mute();
  start_.set_up(*vm_);
}

// No TLB gives what the tables do not: the operations that took it have returned.
std::string VmScenario::CheckTlbs() {
  GuestAddressSpace& space = vm_->space();
  for (uint32_t vcpu = 0; vcpu < programs_.size(); ++vcpu) {
    vmx::Vcpu& processor = vm_->vm.vcpu(vcpu);
    for (const uint64_t page : kPages) {
      for (const uint64_t gfn : {page, kElsewhere + page}) {
        for (const MemoryKind kind : kAllKinds) {
          const Gpa gpa = space.layout().GpaOf(Gfn(gfn), kind);
          for (const Access access : {Access::Read(), Access::Write(), Access::Fetch()}) {
            const vmx::AccessOutcome made = access.write()   ? processor.Write(gpa, 8, 77)
                                            : access.fetch() ? processor.Fetch(gpa)
                                                             : processor.Read(gpa, 8);
            if (!std::holds_alternative<vmx::AccessDone>(made)) continue;
            const auto walk = space.Translate(Gpa(gfn << kPageShift), kind);
            if (walk.ok() && walk->mapped && walk->access.Includes(access)) continue;
            return "vCPU " + std::to_string(vcpu) + " may still " +
                   (access.write()   ? "write"
                    : access.fetch() ? "fetch"
                                     : "read") +
                   " " + NameOf(kind) + " page " + std::to_string(gfn) + ", by its TLB alone";
          }
        }
      }
    }
  }
  return "";
}

schedules::Scenario::End VmScenario::Finish() {
  End end;
  GuestAddressSpace& space = vm_->space();
  FakePageSource& pages = vm_->vm.t().pages;
  if (const absl::Status audit = space.Audit(); !audit.ok()) {
    end.broken = "the audit: " + std::string(audit.message());
  } else if (!space.bugged().empty()) {
    end.broken = "the VM is bugged: " + space.bugged();
  } else if (vm_->asked_too_late) {
    end.broken = "a page was asked for after its slot was removed";
  } else if (vm_->zapped && !vm_->given && vm_->vm.t().IsMapped(kPages[0], MemoryKind::kPrivate)) {
    end.broken = "a page is mapped that was zapped and that nobody gave again";
  }
  // Whoever follows the dirty log has all of the memory after a last harvest.
  if (vm_->copies && end.broken.empty()) {
    const auto dirty = space.HarvestDirty(Frames(0, kSlotFrames));
    for (size_t i = 0; i < std::size(kPages) && dirty.ok(); ++i) {
      const uint64_t now = pages.Mark(Gfn(kPages[i]), MemoryKind::kPrivate);
      if (!(dirty->words[0] >> kPages[i] & 1) && vm_->copy[i] != now) {
        end.broken = "a write of page " + std::to_string(kPages[i]) + " is in no harvest";
      }
    }
  }
  for (const auto& said : said_) end.state.insert(end.state.end(), said.begin(), said.end());
  for (const AttributeRun& run : space.GetMemoryAttributes()) {
    end.state.push_back(run.range.first.value << 8 | static_cast<uint64_t>(run.kind) << 4 |
                        (run.denied.write() ? 1u : 0u));
  }
  end.state.push_back(space.dirty_log_enabled());
  for (const uint64_t page : kPages) {
    for (const MemoryKind kind : kAllKinds) end.state.push_back(pages.Mark(Gfn(page), kind));
  }
  if (end.broken.empty()) end.broken = CheckTlbs();
  vm_.reset();
  return end;
}

std::string VmScenario::TextOf(const std::vector<uint64_t>& state) const {
  std::string text;
  for (const uint64_t word : state) {
    char hex[32];
    std::snprintf(hex, sizeof(hex), "%s%llx", text.empty() ? "" : " ",
                  static_cast<unsigned long long>(word));
    text += word == kRefused ? " refused" : word == kBroken ? " broken" : hex;
  }
  return text;
}

}  // namespace twinroot::mmu
