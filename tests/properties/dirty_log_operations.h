// Random operations on a logged VM, as plain values that can be printed, replayed and left out.
#ifndef TWINROOT_TESTS_PROPERTIES_DIRTY_LOG_OPERATIONS_H_
#define TWINROOT_TESTS_PROPERTIES_DIRTY_LOG_OPERATIONS_H_

#include <algorithm>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "mmu/vm/guest_address_space.h"

namespace twinroot::mmu {

struct LogOperation {
  enum class Type : uint8_t {
    kWrite,
    kRead,
    kFetch,
    kConvert,
    kPunchHole,
    kZap,
    kSplit,
    kRecover,
    kAge,
    kEnable,
    kDisable,
    kHarvest,
    kClear,
  } type = Type::kWrite;
  uint32_t vcpu = 0;
  MemoryKind kind = MemoryKind::kPrivate;
  GfnRange range;
  uint64_t value = 0;

  std::string Text() const {
    static constexpr const char* kNames[] = {"write",   "read",    "fetch",   "convert", "punch",
                                             "zap",     "split",   "recover", "age",     "enable",
                                             "disable", "harvest", "clear"};
    return std::string(kNames[static_cast<int>(type)]) + " vcpu " + std::to_string(vcpu) +
           (kind == MemoryKind::kPrivate ? " private " : " shared ") +
           std::to_string(range.first.value) + "+" + std::to_string(range.count) + " value " +
           std::to_string(value);
  }
};

// So many frames from some frame on, mostly near the borders of large pages.
inline GfnRange RandomRange(std::mt19937_64& random, uint64_t frames) {
  const uint64_t sizes[] = {1, 1, 2, 3, 64, 65, 511, 512, 513, 1024};
  const uint64_t border = random() % (frames / 512 + 1) * 512;
  const uint64_t near = border + random() % 5 - (border > 0 ? 2 : 0);
  const uint64_t first = std::min(random() % 3 == 0 ? random() % frames : near, frames - 1);
  return {Gfn(first), std::min<uint64_t>(sizes[random() % 10], frames - first)};
}

inline std::vector<LogOperation> RandomLogOperations(std::mt19937_64& random, size_t count,
                                                     uint64_t frames) {
  using Type = LogOperation::Type;
  struct Weight {
    Type type;
    unsigned weight;
  };
  static constexpr Weight kWeights[] = {
      {Type::kWrite, 400},    {Type::kRead, 120},  {Type::kFetch, 40},  {Type::kConvert, 40},
      {Type::kPunchHole, 10}, {Type::kZap, 30},    {Type::kSplit, 15},  {Type::kRecover, 15},
      {Type::kAge, 20},       {Type::kEnable, 15}, {Type::kDisable, 5}, {Type::kHarvest, 60},
      {Type::kClear, 40}};
  unsigned sum = 0;
  for (const Weight& weight : kWeights) sum += weight.weight;
  std::vector<LogOperation> operations(count);
  for (LogOperation& op : operations) {
    auto dice = static_cast<unsigned>(random() % sum);
    for (const Weight& weight : kWeights) {
      op.type = weight.type;
      if (dice < weight.weight) break;
      dice -= weight.weight;
    }
    op.vcpu = static_cast<uint32_t>(random() % 2);
    op.kind = static_cast<MemoryKind>(random() % 2);
    op.range = RandomRange(random, frames);
    op.value = random() | 1;
  }
  return operations;
}

}  // namespace twinroot::mmu

#endif  // TWINROOT_TESTS_PROPERTIES_DIRTY_LOG_OPERATIONS_H_
