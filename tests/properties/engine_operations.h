// Random operations on guest memory, as plain values that can be printed, replayed and left out.
#ifndef TWINROOT_TESTS_PROPERTIES_ENGINE_OPERATIONS_H_
#define TWINROOT_TESTS_PROPERTIES_ENGINE_OPERATIONS_H_

#include <cstdint>
#include <cstdlib>
#include <functional>
#include <optional>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "mmu/vm/guest_address_space.h"

namespace twinroot::mmu {

struct Operation {
  enum class Type : uint8_t { kRead, kWrite, kConvert, kZap, kPunchHole } type = Type::kRead;
  int vcpu = 0;
  uint64_t value = 0;
  AttributeChange change;  // its kind and first range serve the other types too

  MemoryKind kind() const { return change.kind; }
  GfnRange range() const { return change.ranges.front(); }

  std::string Text() const {
    static constexpr const char* kNames[] = {"read", "write", "convert", "zap", "punch"};
    std::ostringstream text;
    text << kNames[static_cast<int>(type)] << " vcpu " << vcpu
         << (kind() == MemoryKind::kPrivate ? " private" : " shared");
    for (const GfnRange& range : change.ranges) {
      text << " " << range.first.value << "+" << range.count;
    }
    if (type == Type::kWrite) text << " value " << value;
    if (type == Type::kConvert) {
      text << (change.content == Content::kPreserve ? " preserve" : " destroy")
           << (change.requester == Requester::kGuest ? " guest" : " host");
    }
    return text.str();
  }
};

inline std::vector<Operation> RandomOperations(std::mt19937_64& random, size_t count,
                                               uint64_t frames) {
  const auto pick = [&random](uint64_t n) { return random() % n; };
  const auto range = [&]() -> GfnRange {
    // Mostly near the borders of large pages, sometimes anywhere, rarely wrong.
    const uint64_t sizes[] = {1, 1, 1, 2, 3, 17, 511, 512, 513, 1024};
    const uint64_t count = pick(200) == 0 ? 0 : sizes[pick(10)];
    const uint64_t border = pick(frames / 512 + 1) * 512;
    const uint64_t first = pick(3) == 0 ? pick(frames) : border + pick(5) - (border > 0 ? 2 : 0);
    if (pick(50) == 0) return {Gfn(first), count};
    const uint64_t inside = first < frames ? first : frames - 1;
    return {Gfn(inside), count < frames - inside ? count : frames - inside};
  };
  std::vector<Operation> operations(count);
  for (Operation& op : operations) {
    const uint64_t dice = pick(100);
    op.type = dice < 40   ? Operation::Type::kRead
              : dice < 80 ? Operation::Type::kWrite
              : dice < 94 ? Operation::Type::kConvert
              : dice < 97 ? Operation::Type::kZap
                          : Operation::Type::kPunchHole;
    op.vcpu = static_cast<int>(pick(2));
    op.value = random() | 1;
    op.change.kind = static_cast<MemoryKind>(pick(2));
    op.change.content = pick(3) == 0 ? Content::kPreserve : Content::kDestroy;
    op.change.requester = static_cast<Requester>(pick(2));
    op.change.ranges.push_back(range());
    if (op.type == Operation::Type::kConvert) {
      while (pick(3) == 0) op.change.ranges.push_back(range());
    } else if (op.type <= Operation::Type::kWrite) {
      op.change.ranges[0] = {Gfn(op.range().first.value % frames), 1};
    }
  }
  return operations;
}

// A difference, or nullopt. Must give the same for the same operations.
using RunOperations = std::function<std::optional<std::string>(const std::vector<Operation>&)>;

// Leaves out what is not needed for a difference, in ever smaller pieces.
template <typename Op, typename Run>
std::vector<Op> Shrink(std::vector<Op> operations, const Run& run) {
  for (size_t piece = operations.size() / 2; piece > 0; piece /= 2) {
    for (size_t at = 0; at + piece <= operations.size();) {
      std::vector<Op> fewer = operations;
      fewer.erase(fewer.begin() + static_cast<ptrdiff_t>(at),
                  fewer.begin() + static_cast<ptrdiff_t>(at + piece));
      if (run(fewer)) {
        operations = std::move(fewer);
      } else {
        at += piece;
      }
    }
  }
  return operations;
}

// The shortest failing trace found, with its difference; for a person to read.
template <typename Op, typename Run>
std::string Explain(const std::vector<Op>& operations, const Run& run) {
  const std::vector<Op> fewest = Shrink(operations, run);
  std::ostringstream text;
  text << run(fewest).value_or("(no difference)") << "\nafter " << fewest.size()
       << " operations:\n";
  for (const Op& op : fewest) text << "  " << op.Text() << "\n";
  return text.str();
}

// TWINROOT_TEST_SEED replays a run; else every run is another.
inline uint64_t TestSeed() {
  const char* seed = std::getenv("TWINROOT_TEST_SEED");
  return seed != nullptr ? std::strtoull(seed, nullptr, 0) : std::random_device()();
}

}  // namespace twinroot::mmu

#endif  // TWINROOT_TESTS_PROPERTIES_ENGINE_OPERATIONS_H_
