#include "tests/bench/engine_attributes.h"

#include "mmu/vm/attribute_map.h"
#include "tests/bench/clock.h"

namespace twinroot::bench {

struct EngineAttributes::Parts {
  mmu::Mutex turn_mutex;
  mmu::AttributeMap map{mmu::Gfn(uint64_t{1} << 34)};
};

EngineAttributes::EngineAttributes() : parts_(std::make_unique<Parts>()) {}
EngineAttributes::~EngineAttributes() = default;

void EngineAttributes::Set(mmu::GfnRange range, mmu::MemoryKind kind) {
  const mmu::MemoryAttributes attributes{kind, mmu::Access::None()};
  const mmu::Turn turn(parts_->turn_mutex);
  Require(parts_->map.Prepare(turn, range, attributes).ok(), "room for attributes");
  parts_->map.Set(turn, range, attributes);
  parts_->map.Collapse(turn, range);
}

uint64_t EngineAttributes::AreShared(const Frames& frames) const {
  return HowMany(frames, [&](mmu::Gfn gfn) {
    const mmu::EpochGuard guard;
    return parts_->map.Get(guard, gfn).kind == mmu::MemoryKind::kShared;
  });
}

}  // namespace twinroot::bench
