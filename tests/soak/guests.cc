#include "tests/soak/guests.h"

namespace twinroot::soak {
namespace {

constexpr uint64_t kEver = uint64_t{1} << 40;
constexpr uint32_t kMostConversionsASecond = 10;

uint64_t Below(uint64_t limit, std::mt19937_64& random) { return random() % limit; }

uint64_t PlaceOf(uint64_t bytes, std::mt19937_64& random) {
  return kUsed + Below((kUsedEnd - kUsed - bytes) / kPage + 1, random) * kPage;
}

v1::MemoryKind Kind(std::mt19937_64& random) {
  return Below(2, random) == 0 ? v1::MEMORY_KIND_PRIVATE : v1::MEMORY_KIND_SHARED;
}

void AddStep(v1::LoopStep* loop, bool shadow, std::mt19937_64& random) {
  v1::AccessStep* step = loop->add_steps();
  // On shadow tables there are no aliases: a page is reached as what it is.
  const v1::MemoryKind alias = shadow ? v1::MEMORY_KIND_PRIVATE : Kind(random);
  switch (Below(8, random)) {
    case 0:
    case 1: {
      v1::MapGpaStep* map_gpa = step->mutable_map_gpa();
      const uint64_t pages = Below(3, random) == 0 ? 512 : 1 + Below(64, random);
      map_gpa->set_pages(pages);
      map_gpa->set_gpa(PlaceOf(pages * kPage, random));
      map_gpa->set_kind(Kind(random));
      return;
    }
    case 2: {
      v1::ReadStep* read = step->mutable_read();
      read->set_gpa(PlaceOf(kPage, random));
      read->set_alias(alias);
      return;
    }
    case 3: {
      // Many pages, one after the other, of its own alias.
      v1::LoopStep* writes = step->mutable_loop();
      writes->set_count(1 + Below(64, random));
      v1::WriteStep* write = writes->add_steps()->mutable_write();
      write->set_gpa(PlaceOf(writes->count() * kPage, random));
      write->set_stride(kPage);
      write->set_value_stride(1);
      return;
    }
    default: {
      v1::WriteStep* write = step->mutable_write();
      write->set_gpa(PlaceOf(kPage, random));
      write->set_alias(alias);
      write->set_value(random());
    }
  }
}

// To one page: as private, and where the guest is to rest as shared, too.
void AddWrites(v1::LoopStep* loop, bool busy, std::mt19937_64& random) {
  const uint64_t page = PlaceOf(kPage, random);
  for (const v1::MemoryKind alias : {v1::MEMORY_KIND_PRIVATE, v1::MEMORY_KIND_SHARED}) {
    if (busy && alias == v1::MEMORY_KIND_SHARED) return;
    v1::WriteStep* write = loop->add_steps()->mutable_write();
    write->set_gpa(page);
    write->set_alias(alias);
    write->set_value(random());
  }
}

}  // namespace

v1::Vm RandomVm(v1::Backend backend, Guest guest, std::mt19937_64& random) {
  v1::Vm vm;
  vm.set_backend(backend);
  vm.set_memory_bytes(kMemory);
  const bool busy = guest == Guest::kBusy;
  const bool shadow = busy && backend == v1::BACKEND_SIM && Below(2, random) == 0;
  if (shadow) vm.set_mmu(v1::Vm::MMU_SHADOW);
  if (backend == v1::BACKEND_SIM && Below(3, random) == 0) {
    vm.set_nx_huge_pages(v1::Vm::NX_HUGE_PAGES_ON);
  }
  vm.set_vcpus(busy ? 1 : static_cast<uint32_t>(1 + Below(3, random)));
  for (uint32_t i = 0; i < vm.vcpus(); ++i) {
    v1::LoopStep* loop = vm.mutable_program()->add_vcpus()->add_steps()->mutable_loop();
    loop->set_count(kEver);
    AddWrites(loop, busy, random);
    for (uint64_t steps = 2 + Below(10, random); steps > 0; --steps) AddStep(loop, shadow, random);
  }
  v1::ConversionPolicy* policy = vm.mutable_conversion_policy();
  policy->set_max_conversions_per_second(kMostConversionsASecond);
  policy->mutable_decision_timeout()->set_seconds(30);
  if (Below(3, random) == 0) {
    policy->set_mode(v1::ConversionPolicy::MODE_ORCHESTRATOR);
    policy->set_on_timeout(v1::ConversionPolicy::ON_TIMEOUT_APPLY);
  }
  return vm;
}

}  // namespace twinroot::soak
