// Random operations on guest memory, as plain values that can be printed, replayed and left out.
#ifndef TWINROOT_TESTS_PROPERTIES_ENGINE_OPERATIONS_H_
#define TWINROOT_TESTS_PROPERTIES_ENGINE_OPERATIONS_H_

#include <algorithm>
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
  enum class Type : uint8_t {
    kRead,
    kWrite,
    kFetch,
    kConvert,
    kZap,
    kPunchHole,
    kSplit,
    kRecover,
  } type = Type::kRead;
  bool execute_only = false;  // an access through the execute-only alias
  int vcpu = 0;
  uint64_t value = 0;
  AttributeChange change;  // its kind and first range serve the other types too

  bool is_access() const { return type <= Type::kFetch; }
  MemoryKind kind() const { return *change.kind; }
  GfnRange range() const { return change.ranges.front(); }

  std::string Text() const {
    static constexpr const char* kNames[] = {"read", "write", "fetch", "convert",
                                             "zap",  "punch", "split", "recover"};
    std::ostringstream text;
    text << kNames[static_cast<int>(type)] << (execute_only ? " execute-only" : "") << " vcpu "
         << vcpu << (kind() == MemoryKind::kPrivate ? " private" : " shared");
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

// Where random ranges begin and how long they are.
class RandomRanges {
 public:
  RandomRanges(std::mt19937_64& random, uint64_t frames)
      : random_(random), frames_(frames), gib_(frames > 2 * kGib) {
    if (!gib_) {
      for (uint64_t border = 0; border <= frames; border += 512) borders_.push_back(border);
    } else {
      borders_ = {0, 512, kGib - 512, kGib, kGib + 512, 2 * kGib, frames / 512 * 512};
    }
  }

  uint64_t Pick(uint64_t n) { return random_() % n; }

  // Mostly near the borders of large pages, sometimes anywhere, rarely wrong.
  GfnRange Range() {
    static constexpr uint64_t kSmall[] = {1, 1, 1, 2, 3, 17, 511, 512, 513, 1024};
    static constexpr uint64_t kLarge[] = {1, 1, 2, 512, 513, 511, 8192, kGib - 1, kGib, kGib + 1};
    const uint64_t count = Pick(200) == 0 ? 0 : (gib_ ? kLarge : kSmall)[Pick(10)];
    const uint64_t border = borders_[Pick(borders_.size())];
    const uint64_t first =
        Pick(gib_ ? 20 : 3) == 0 ? Pick(frames_) : border + Pick(5) - (border > 0 ? 2 : 0);
    if (Pick(50) == 0) return {Gfn(first), count};
    const uint64_t inside = std::min(first, frames_ - 1);
    return {Gfn(inside), std::min(count, frames_ - inside)};
  }

 private:
  static constexpr uint64_t kGib = FramesPerEntry(Level::k1G);
  std::mt19937_64& random_;
  const uint64_t frames_;
  const bool gib_;
  std::vector<uint64_t> borders_;
};

// `execute_only`: the VM has such an alias.
inline std::vector<Operation> RandomOperations(std::mt19937_64& random, size_t count,
                                               uint64_t frames, bool execute_only = false) {
  RandomRanges ranges(random, frames);
  std::vector<Operation> operations(count);
  for (Operation& op : operations) {
    const uint64_t dice = ranges.Pick(100);
    op.type = dice < 34   ? Operation::Type::kRead
              : dice < 70 ? Operation::Type::kWrite
              : dice < 78 ? Operation::Type::kFetch
              : dice < 91 ? Operation::Type::kConvert
              : dice < 94 ? Operation::Type::kZap
              : dice < 96 ? Operation::Type::kPunchHole
              : dice < 98 ? Operation::Type::kSplit
                          : Operation::Type::kRecover;
    op.execute_only = execute_only && ranges.Pick(op.type == Operation::Type::kFetch ? 2 : 10) == 0;
    op.vcpu = static_cast<int>(ranges.Pick(2));
    op.value = random() | 1;
    op.change.kind = static_cast<MemoryKind>(ranges.Pick(2));
    op.change.content = ranges.Pick(3) == 0 ? Content::kPreserve : Content::kDestroy;
    op.change.requester = static_cast<Requester>(ranges.Pick(2));
    op.change.ranges.push_back(ranges.Range());
    if (op.type == Operation::Type::kConvert) {
      while (ranges.Pick(3) == 0) op.change.ranges.push_back(ranges.Range());
    } else if (op.is_access()) {
      op.change.ranges[0] = {Gfn(op.range().first.value % frames), 1};
    }
  }
  return operations;
}

// A difference, or nullopt. Must give the same for the same operations.
using RunOperations = std::function<std::optional<std::string>(const std::vector<Operation>&)>;

// Leaves out what is not needed for a difference, in ever smaller pieces.
inline std::vector<Operation> Shrink(std::vector<Operation> operations, const RunOperations& run) {
  for (size_t piece = operations.size() / 2; piece > 0; piece /= 2) {
    for (size_t at = 0; at + piece <= operations.size();) {
      std::vector<Operation> fewer = operations;
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
inline std::string Explain(const std::vector<Operation>& operations, const RunOperations& run) {
  const std::vector<Operation> fewest = Shrink(operations, run);
  std::ostringstream text;
  text << run(fewest).value_or("(no difference)") << "\nafter " << fewest.size()
       << " operations:\n";
  for (const Operation& op : fewest) text << "  " << op.Text() << "\n";
  return text.str();
}

// TWINROOT_TEST_SEED replays a run; else every run is another.
inline uint64_t TestSeed() {
  const char* seed = std::getenv("TWINROOT_TEST_SEED");
  return seed != nullptr ? std::strtoull(seed, nullptr, 0) : std::random_device()();
}

// TWINROOT_TEST_OPERATIONS asks for another number of operations, over all arrangements.
inline uint64_t TestOperations(uint64_t usual) {
  const char* operations = std::getenv("TWINROOT_TEST_OPERATIONS");
  return operations != nullptr ? std::strtoull(operations, nullptr, 0) : usual;
}

}  // namespace twinroot::mmu

#endif  // TWINROOT_TESTS_PROPERTIES_ENGINE_OPERATIONS_H_
