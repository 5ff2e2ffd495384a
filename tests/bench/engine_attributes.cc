#include "tests/bench/engine_attributes.h"

#include "mmu/vm/attribute_map.h"
#include "tests/bench/clock.h"

namespace twinroot::bench {

struct EngineAttributes::Parts {
  mmu::MmuLock lock;
  mmu::AttributeMap map;
};

EngineAttributes::EngineAttributes() : parts_(std::make_unique<Parts>()) {}
EngineAttributes::~EngineAttributes() = default;

void EngineAttributes::Set(mmu::GfnRange range, mmu::MemoryKind kind) {
  Require(parts_->map.Prepare(range).ok(), "room for attributes");
  const mmu::MmuLock::Exclusive lock(parts_->lock);
  parts_->map.Set(lock, range, kind);
}

uint64_t EngineAttributes::AreShared(const Frames& frames) const {
  const mmu::MmuLock::Shared lock(parts_->lock);
  return HowMany(
      frames, [&](mmu::Gfn gfn) { return parts_->map.Get(lock, gfn) == mmu::MemoryKind::kShared; });
}

}  // namespace twinroot::bench
