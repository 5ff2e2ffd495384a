#include "tests/mmu/shadow/paged_machine.h"

#include <cstring>
#include <stdexcept>

#include "tests/mmu/vmx/ept_manual.h"

namespace twinroot::mmu {
namespace {

constexpr int kMaxphyaddr = 40;

vmx::manual::Request EptRequest(const manual::Request& request) {
  return {request.kind == manual::Kind::kRead    ? vmx::manual::Kind::kRead
          : request.kind == manual::Kind::kWrite ? vmx::manual::Kind::kWrite
                                                 : vmx::manual::Kind::kFetch};
}
EptPointer EptpOf(const GuestRegisters& registers) {
  return EptPointer(registers.cr3 | 6 | 3 << 3 | (registers.ept_flags ? 0x40 : 0));
}

uint64_t MoveBytes(GuestWords& memory, uint64_t gpa, const Poke& poke) {
  if (poke.request.kind != manual::Kind::kWrite) return memory.Load(gpa, poke.bytes);
  memory.Store(gpa, poke.value, poke.bytes);
  return poke.value;
}

}  // namespace

Seen PlainMachine::Access(const GuestRegisters& registers, Poke poke) {
  uint64_t gpa = poke.address & 0xFFFF'FFFF;
  if (registers.nested) poke.request.user = true;
  if (registers.ept) {
    if (std::optional<Seen> end = WalkEpt(registers, poke, gpa)) return *end;
  } else if (registers.paging) {
    const manual::State& state = registers.state;
    const bool is_32bit = state.mode == manual::Mode::k32;
    const bool narrow = is_32bit || state.mode == manual::Mode::kPae;
    const uint64_t address = narrow ? poke.address & 0xFFFF'FFFF : poke.address;
    uint64_t table = registers.cr3 & ~uint64_t{0xFFF};
    if (state.mode == manual::Mode::kPae) {
      const uint64_t pdpte = registers.pdptes[address >> 30 & 3].raw();
      if (!(pdpte & 1)) {
        return {Seen::Kind::kPageFault, 0, manual::ErrorOf(poke.request, state), 0};
      }
      table = pdpte & 0x000F'FFFF'FFFF'F000;
    }
    const int bytes = is_32bit ? 4 : 8;
    std::vector<uint64_t> slots;
    std::vector<uint64_t> entries;
    for (int level = state.mode == manual::Mode::k5   ? 5
                     : state.mode == manual::Mode::k4 ? 4
                                                      : 2;
         ; --level) {
      const uint64_t index =
          address >> manual::ShiftOf(level, state.mode) & (is_32bit ? 1023 : 511);
      const uint64_t slot = table + index * static_cast<uint64_t>(bytes);
      if (!memory.Holds(Gpa(slot), bytes)) return {Seen::Kind::kTableMissing, 0, 0, 0};
      slots.push_back(slot);
      entries.push_back(memory.Load(slot, bytes));
      const uint64_t entry = entries.back();
      if (!(entry & 1) || manual::HasReserved(entry, level, state) ||
          manual::MapsPage(entry, level, state)) {
        break;
      }
      table = entry & 0x000F'FFFF'FFFF'F000;
    }
    const manual::Expected expected = manual::Walk(entries, state, poke.request);
    if (expected.fault) return {Seen::Kind::kPageFault, 0, expected.error, 0};
    // The same entry may stand on the way twice: flags are added, not written over.
    for (size_t i = 0; i < slots.size(); ++i) {
      memory.Store(slots[i], memory.Load(slots[i], bytes) | (expected.afterwards[i] & 0x60), bytes);
    }
    gpa =
        expected.page + (address & (manual::Bit(manual::ShiftOf(expected.level, state.mode)) - 1));
  }
  if (gpa >= bytes_) return {Seen::Kind::kNoMemory, 0, 0, gpa};
  return {Seen::Kind::kDone, MoveBytes(memory, gpa, poke), 0, gpa};
}

std::optional<Seen> PlainMachine::WalkEpt(const GuestRegisters& registers, const Poke& poke,
                                          uint64_t& gpa) {
  std::vector<uint64_t> slots;
  std::vector<uint64_t> entries;
  uint64_t table = registers.cr3;
  for (int level = 4;; --level) {
    const uint64_t slot = table + (poke.address >> (12 + 9 * (level - 1)) & 511) * 8;
    if (!memory.Holds(Gpa(slot), 8)) return Seen{Seen::Kind::kTableMissing, 0, 0, 0};
    slots.push_back(slot);
    entries.push_back(memory.Load(slot));
    const uint64_t entry = entries.back();
    if (!vmx::manual::Present(entry, {}) || vmx::manual::Misconfigured(entry, level, {}) ||
        vmx::manual::MapsPage(entry, level)) {
      break;
    }
    table = entry & 0x000F'FFFF'FFFF'F000;
  }
  const vmx::manual::Expected expected =
      vmx::manual::Walk(entries, 4, {}, EptRequest(poke.request), registers.ept_flags);
  if (expected.verdict == vmx::manual::Verdict::kMisconfiguration) {
    return Seen{Seen::Kind::kMisconfiguration, 0, static_cast<uint32_t>(expected.level), 0};
  }
  if (expected.verdict == vmx::manual::Verdict::kViolation) {
    return Seen{Seen::Kind::kPageFault, 0, static_cast<uint32_t>(expected.qualification), 0};
  }
  for (size_t i = 0; i < slots.size(); ++i) {
    memory.Store(slots[i], memory.Load(slots[i]) | (expected.afterwards[i] & 0x300));
  }
  const uint64_t offset = (uint64_t{1} << (12 + 9 * (expected.level - 1))) - 1;
  gpa = (entries.back() & 0x000F'FFFF'FFFF'F000) + (poke.address & offset);
  return std::nullopt;
}

ShadowMachine::ShadowMachine(size_t frames, Level root_level, ShadowFormat format,
                             size_t table_pages, size_t most_pages)
    : memory(frames),
      frames_(frames),
      pool_memory_(table_pages),
      pool(kPool, pool_memory_.get(), table_pages),
      tables({.format = format, .root_level = root_level, .most_pages = most_pages},
             {&pool, &change_, this, this}),
      mapper(tables, memory, *this, {.page_1g = true, .pse36 = true, .maxphyaddr = kMaxphyaddr}) {
  for (size_t i = 0; i < 2; ++i) {
    roots_[i] = std::make_unique<ShadowRoots>(tables);
    Reload(i);
  }
}

Ia32Paging ShadowMachine::PagingOf(size_t vcpu) const {
  const GuestRegisters& registers = registers_[vcpu];
  const ControlRegisters control = RegistersOf(registers.state, registers.cr3);
  const GuestCpuFeatures features{.page_1g = true, .pse36 = true, .maxphyaddr = kMaxphyaddr};
  return registers.nested ? Ia32Paging::Nested(control, features)
                          : Ia32Paging(control, features, registers.pdptes);
}

EptPaging ShadowMachine::EptOf(size_t vcpu) const {
  return EptPaging(EptpOf(registers_[vcpu]), {}, 52);
}

GuestShape ShadowMachine::ShapeOf(size_t vcpu) const {
  const GuestRegisters& registers = registers_[vcpu];
  if (registers.ept) return GuestShape::Of(EptOf(vcpu));
  return registers.paging ? GuestShape::Of(PagingOf(vcpu), registers.nested)
                          : GuestShape::Unpaged();
}

GuestWalkOutcome ShadowMachine::WalkGuestTables(size_t vcpu, const Poke& poke) {
  const LinearAccess access = AccessOf(poke.address, poke.request);
  const GuestRegisters& registers = registers_[vcpu];
  if (registers.ept) {
    return WalkGuest(EptOf(vcpu), memory, NestedAccess{Gpa(poke.address), access.needed});
  }
  if (registers.paging) return WalkGuest(PagingOf(vcpu), memory, access);
  GuestTranslation walk;
  walk.gpa = UnpagedAddress(poke.address);
  walk.level = Level::k1G;
  walk.rights = GuestRights::All();
  walk.dirty = true;
  return walk;
}

void ShadowMachine::Reload(size_t vcpu) {
  const GuestRegisters& registers = registers_[vcpu];
  PreloadedTables preload(pool);
  if (!pool.Preload(1, preload).ok()) throw std::runtime_error("no table for a root");
  const ShadowRoots::Request request{ShapeOf(vcpu), Gpa(registers.cr3), registers.pdptes};
  const auto loaded = roots_[vcpu]->Load(turn_, request, preload);
  if (!loaded.ok()) throw std::runtime_error(std::string(loaded.status().message()));
}

bool ShadowMachine::Load(size_t vcpu, GuestRegisters registers) {
  if (registers.paging && !registers.ept && registers.state.mode == manual::Mode::kPae) {
    const LoadPdptesOutcome pdptes = LoadPdptes(memory, registers.cr3, kMaxphyaddr);
    if (!std::holds_alternative<Pdptes>(pdptes)) return false;
    registers.pdptes = std::get<Pdptes>(pdptes);
  }
  registers_[vcpu] = registers;
  tlbs_[vcpu].clear();
  mapper.SyncAll(turn_);
  Reload(vcpu);
  return true;
}

void ShadowMachine::Invalidate(size_t vcpu, uint64_t address) {
  std::erase_if(tlbs_[vcpu], [&](const auto& cached) {
    return std::get<0>(cached.first) == address >> kPageShift;
  });
  mapper.SyncAll(turn_);
}

uint64_t ShadowMachine::RawWord(uint64_t hpa) const {
  uint64_t word;
  std::memcpy(&word, pool_memory_.get() + (hpa - kPool.value), sizeof(word));
  return word;
}

std::optional<uint64_t> ShadowMachine::WalkShadowEpt(size_t vcpu, uint64_t address,
                                                     const manual::Request& request) {
  const int levels = static_cast<int>(tables.config().root_level);
  std::vector<uint64_t> entries;
  uint64_t table = roots_[vcpu]->current()->table.hpa.value;
  for (int level = levels;; --level) {
    const uint64_t entry = RawWord(table + (address >> (12 + 9 * (level - 1)) & 511) * 8);
    entries.push_back(entry);
    if (!vmx::manual::Present(entry, {}) || vmx::manual::MapsPage(entry, level)) break;
    table = entry & 0x000F'FFFF'FFFF'F000;
  }
  const vmx::manual::Expected expected =
      vmx::manual::Walk(entries, levels, {}, EptRequest(request), true);
  if (expected.verdict == vmx::manual::Verdict::kMisconfiguration) {
    throw std::runtime_error("a misconfigured shadow");
  }
  if (expected.verdict == vmx::manual::Verdict::kViolation) return std::nullopt;
  const uint64_t offset = (uint64_t{1} << (12 + 9 * (expected.level - 1))) - 1;
  return (entries.back() & 0x000F'FFFF'FFFF'F000) + (address & offset);
}

std::optional<uint64_t> ShadowMachine::WalkShadow(size_t vcpu, uint64_t address,
                                                  const manual::Request& request) {
  if (tables.config().format == ShadowFormat::kEpt) return WalkShadowEpt(vcpu, address, request);
  const Level root_level = tables.config().root_level;
  const GuestRegisters& registers = registers_[vcpu];
  manual::State state;
  state.mode = root_level == Level::k1G     ? manual::Mode::kPae
               : root_level == Level::k256T ? manual::Mode::k5
                                            : manual::Mode::k4;
  state.wp = state.nxe = state.pse = true;
  state.smep = registers.paging && !registers.nested && registers.state.smep;
  state.smap = registers.paging && !registers.nested && registers.state.smap;
  uint64_t table = roots_[vcpu]->current()->table.hpa.value;
  int level = static_cast<int>(root_level);
  if (root_level == Level::k1G) {
    const uint64_t pdpte = RawWord(table + (address >> 30 & 3) * 8);
    if (table >> 32 != 0 || (pdpte & 0x1E6) || pdpte >> 52) throw std::runtime_error("a bad PDPTE");
    if (!(pdpte & 1)) return std::nullopt;
    table = pdpte & 0x000F'FFFF'FFFF'F000;
    level = 2;
  }
  std::vector<uint64_t> entries;
  for (;; --level) {
    const uint64_t entry =
        RawWord(table + (address >> manual::ShiftOf(level, state.mode) & 511) * 8);
    entries.push_back(entry);
    if (!(entry & 1) || manual::MapsPage(entry, level, state)) break;
    table = entry & 0x000F'FFFF'FFFF'F000;
  }
  const manual::Expected expected = manual::Walk(entries, state, request);
  // A shadow never has a reserved bit.
  if (expected.fault && expected.error & 8) throw std::runtime_error("a reserved bit in a shadow");
  if (expected.fault) return std::nullopt;
  return expected.page + (address & (manual::Bit(manual::ShiftOf(expected.level, state.mode)) - 1));
}

Seen ShadowMachine::Access(size_t vcpu, const Poke& poke) {
  const GuestRegisters& registers = registers_[vcpu];
  const bool narrow =
      !registers.ept && (!registers.paging || registers.state.mode == manual::Mode::k32 ||
                         registers.state.mode == manual::Mode::kPae);
  Poke at = poke;
  if (narrow) at.address &= 0xFFFF'FFFF;
  at.request.user = registers.nested || (registers.paging && at.request.user);
  for (int tries = 0; tries < 100; ++tries) {
    const auto key = std::make_tuple(at.address >> kPageShift, at.request.user, at.request.implicit,
                                     at.request.ac, static_cast<int>(at.request.kind));
    std::optional<uint64_t> hpa;
    if (const auto cached = tlbs_[vcpu].find(key); cached != tlbs_[vcpu].end()) {
      hpa = cached->second + (at.address & kPageOffsetMask);
    } else {
      hpa = WalkShadow(vcpu, at.address, at.request);
      if (hpa) tlbs_[vcpu][key] = *hpa & ~kPageOffsetMask;
    }
    if (hpa) {
      const uint64_t gpa = *hpa - kMemory;
      return {Seen::Kind::kDone, MoveBytes(memory, gpa, at), 0, gpa};
    }
    ++faults;
    if (const std::optional<Seen> seen = Fault(vcpu, at)) return *seen;
  }
  throw std::runtime_error("a hundred faults for one access");
}

std::optional<Seen> ShadowMachine::Fault(size_t vcpu, const Poke& poke) {
  const LinearAccess access = AccessOf(poke.address, poke.request);
  const GuestWalkOutcome outcome = WalkGuestTables(vcpu, poke);
  if (const auto* fault = std::get_if<GuestPageFault>(&outcome)) {
    return Seen{Seen::Kind::kPageFault, 0, fault->error_code, 0};
  }
  if (const auto* exit = std::get_if<NestedEptViolation>(&outcome)) {
    return Seen{Seen::Kind::kPageFault, 0, static_cast<uint32_t>(exit->qualification.raw()), 0};
  }
  if (const auto* exit = std::get_if<NestedEptMisconfiguration>(&outcome)) {
    return Seen{Seen::Kind::kMisconfiguration, 0, static_cast<uint32_t>(exit->level), 0};
  }
  if (std::holds_alternative<GuestTableMissing>(outcome)) {
    return Seen{Seen::Kind::kTableMissing, 0, 0, 0};
  }
  const auto& walk = std::get<GuestTranslation>(outcome);
  PreloadedTables preload(pool);
  if (!pool.Preload(kDeepestShadow, preload).ok()) throw std::runtime_error("no tables");
  switch (mapper.Map(turn_, *roots_[vcpu]->current(), ShapeOf(vcpu), walk, poke.address,
                     access.needed, preload)) {
    case ShadowOutcome::kMapped:
    case ShadowOutcome::kSpurious:
    case ShadowOutcome::kRetry:
      return std::nullopt;
    case ShadowOutcome::kReloadRoot:
      Reload(vcpu);
      return std::nullopt;
    case ShadowOutcome::kEmulate: {
      ++emulated;
      const uint64_t gpa = walk.gpa.value;
      memory.Store(gpa, poke.value, poke.bytes);
      mapper.GuestWrote(turn_, Gpa(gpa), static_cast<uint64_t>(poke.bytes));
      return Seen{Seen::Kind::kDone, poke.value, 0, gpa};
    }
    case ShadowOutcome::kNoMemory:
      return Seen{Seen::Kind::kNoMemory, 0, 0, walk.gpa.value};
    case ShadowOutcome::kNeedTables:
    case ShadowOutcome::kNoRoom:
      throw std::runtime_error("no room for a shadow");
  }
  return std::nullopt;
}

std::optional<std::string> ShadowMachine::Audit() {
  if (!bugs.empty()) return bugs.front();
  return AuditShadow(turn_, tables);
}

}  // namespace twinroot::mmu
