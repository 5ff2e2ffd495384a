#include "daemon/host/memslot_desk.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "daemon/reasons.h"
#include "daemon/status_reason.h"

namespace twinroot::host {
namespace {

using mmu::Gfn;
using mmu::GfnRange;
using mmu::kPageShift;

// A fault that is served is over in far less; one that waits for a decision may stay for minutes.
constexpr absl::Duration kPatience = absl::Seconds(1);
constexpr absl::Duration kBetween = absl::Milliseconds(2);

// What the engine says of a memslot, with the reason that its code means here.
absl::Status About(absl::Status status) {
  if (absl::IsNotFound(status)) return WithReason(std::move(status), reason::kNoSuchMemslot);
  if (absl::IsAlreadyExists(status)) return WithReason(std::move(status), reason::kMemslotExists);
  return status;
}

}  // namespace

MemslotDesk::MemslotDesk(std::string vm, mmu::GuestAddressSpace* engine, vcpu::Machine* machine,
                         memory::GuestRam* ram, memory::PhysicalMap* physical_map,
                         memory::HpaSpace* hpa_space, std::function<void(std::string)> fatal)
    : vm_(std::move(vm)),
      engine_(engine),
      machine_(machine),
      ram_(ram),
      physical_map_(physical_map),
      hpa_space_(hpa_space),
      fatal_(std::move(fatal)) {}

absl::Status MemslotDesk::CheckAdded(Gfn first) const {
  if (ram_->Added(first) != nullptr) return absl::OkStatus();
  return WithReason(
      absl::NotFoundError(absl::StrCat("no memslot that was added to VM ", vm_, " begins at 0x",
                                       absl::Hex(first.value << kPageShift),
                                       "; the memory it was made with stays")),
      reason::kNoSuchMemslot, {{"vm", vm_}});
}

absl::Status MemslotDesk::CheckAdd(GfnRange range) {
  std::lock_guard turn(turn_);
  if (absl::Status status = CheckRoom(range); !status.ok()) return status;
  return About(ram_->CheckAdd(range));
}

absl::Status MemslotDesk::CheckRoom(GfnRange range) const {
  const uint64_t bytes = range.count << kPageShift;
  if (ram_->added_slots() >= kMaxAdded || bytes > ram_->bytes() - ram_->added_bytes()) {
    return WithReason(
        absl::ResourceExhaustedError(absl::StrCat(
            "VM ", vm_, " may be given at most ", kMaxAdded, " memslots and ", ram_->bytes(),
            " bytes, of which it has ", ram_->added_bytes(), ": remove some, or add less")),
        reason::kTooMuchMemory, {{"vm", vm_}});
  }
  return CheckPlace(range);
}

absl::Status MemslotDesk::CheckPlace(GfnRange range) const {
  if (machine_->devices().Overlaps(range)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "memory at 0x", absl::Hex(range.first.value << kPageShift), " + 0x",
        absl::Hex(range.count << kPageShift),
        " would lie where the VM's devices are, from 0xfec00000 to 4 GiB: choose another place"));
  }
  if (range.first >= engine_->layout().gfn_limit() || range.end() > engine_->layout().gfn_limit()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "memory at 0x", absl::Hex(range.first.value << kPageShift), " + 0x",
        absl::Hex(range.count << kPageShift), " would reach beyond what this VM can address"));
  }
  return absl::OkStatus();
}

absl::Status MemslotDesk::Add(GfnRange range) {
  return Still([&]() -> absl::Status {
    if (absl::Status status = CheckRoom(range); !status.ok()) return status;
    const auto slot = ram_->Add(range, hpa_space_);
    if (!slot.ok()) return About(slot.status());
    for (const mmu::MemoryKind kind : mmu::kAllKinds) {
      const memory::Backing& pages = (*slot)->pages(kind);
      physical_map_->Add(pages.hpa(), pages.data(), pages.size());
    }
    absl::Status status = machine_->AddMemory(range);
    if (status.ok()) {
      // Last: from here on vCPUs find it.
      status = About(engine_->AddMemslot((*slot)->memslot()));
      if (!status.ok()) machine_->RemoveMemory(range);
    }
    if (!status.ok()) Forget(range.first);
    return status;
  });
}

absl::Status MemslotDesk::Remove(Gfn first) {
  return Still([&]() -> absl::Status {
    if (absl::Status status = CheckAdded(first); !status.ok()) return status;
    const GfnRange range = ram_->Added(first)->range;
    if (absl::Status status = engine_->RemoveMemslot(first); !status.ok()) return About(status);
    machine_->RemoveMemory(range);
    Forget(first);
    return absl::OkStatus();
  });
}

absl::Status MemslotDesk::Move(Gfn first, Gfn new_first) {
  return Still([&]() -> absl::Status {
    if (absl::Status status = CheckAdded(first); !status.ok()) return status;
    const GfnRange range = ram_->Added(first)->range;
    const GfnRange moved = {new_first, range.count};
    if (absl::Status status = CheckPlace(moved); !status.ok()) return status;
    if (absl::Status status = engine_->MoveMemslot(first, new_first); !status.ok()) {
      return About(status);
    }
    absl::Status status = machine_->MoveMemory(range, new_first);
    // What just stood there finds room there again.
    if (!status.ok() && (!engine_->MoveMemslot(new_first, first).ok() ||
                         !machine_->MoveMemory(moved, first).ok())) {
      fatal_("the host neither moves memory nor takes it back to where it was");
    }
    return status;
  });
}

absl::Status MemslotDesk::Still(absl::FunctionRef<absl::Status()> change) {
  const absl::Time deadline = absl::Now() + kPatience;
  for (;;) {
    absl::Status status;
    {
      std::lock_guard turn(turn_);
      status = machine_->Still(change);
    }
    if (!absl::IsUnavailable(status)) return status;
    if (absl::Now() >= deadline) {
      return WithReason(std::move(status), reason::kVcpuWaits, {{"vm", vm_}});
    }
    absl::SleepFor(kBetween);
  }
}

void MemslotDesk::Forget(Gfn first) {
  const memory::RamSlot* slot = ram_->Added(first);
  for (const mmu::MemoryKind kind : mmu::kAllKinds) physical_map_->Remove(slot->pages(kind).hpa());
  ram_->Remove(first);
}

}  // namespace twinroot::host
