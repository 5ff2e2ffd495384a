#include "daemon/vcpu/program/compiler.h"

#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "daemon/vcpu/program/decoder.h"
#include "daemon/vcpu/program/op.h"
#include "gmock/gmock.h"
#include "google/protobuf/text_format.h"
#include "gtest/gtest.h"

namespace twinroot::program {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::StartsWith;

constexpr uint64_t kMiB = uint64_t{1} << 20;
constexpr uint64_t kMemory = 64 * kMiB;

v1::AccessProgram Parse(const std::string& text) {
  v1::AccessProgram program;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &program)) << text;
  return program;
}

// Compiles for one vCPU with these steps and reads it back.
std::vector<Op> MustCompile(const std::string& steps) {
  const absl::StatusOr<std::string> blob = Compile(Parse("vcpus { " + steps + " }"), 1, kMemory);
  EXPECT_TRUE(blob.ok()) << blob.status();
  if (!blob.ok()) return {};
  const absl::StatusOr<DecodedProgram> decoded = Decode(*blob, 1);
  EXPECT_TRUE(decoded.ok()) << decoded.status();
  return decoded.ok() ? decoded->ops[0] : std::vector<Op>();
}

// A plain interpreter of loops: (gpa, value) of every access, in order. Not the code of `sim`.
struct Touch {
  uint64_t gpa, value;
  friend bool operator==(const Touch&, const Touch&) = default;
};
std::vector<Touch> Execute(const std::vector<Op>& ops) {
  std::vector<Touch> touches;
  std::vector<std::pair<uint64_t, uint64_t>> loops;  // i, iterations
  for (size_t at = 0; ops[at].code != kOpEnd;) {
    const Op& op = ops[at++];
    const uint64_t i = loops.empty() ? 0 : loops.back().first;
    if (op.code == kOpLoopBegin) {
      if (op.value == 0) {
        at = op.target + 1;
      } else {
        loops.emplace_back(0, op.value);
      }
    } else if (op.code == kOpLoopEnd) {
      if (++loops.back().first < loops.back().second) {
        at = op.target + 1;
      } else {
        loops.pop_back();
      }
    } else {
      touches.push_back({op.gpa + i * op.stride, op.value + i * op.value_stride});
    }
  }
  return touches;
}

TEST(CompilerTest, EveryStepBecomesItsOperationWithDefaultsFilledIn) {
  const std::vector<Op> ops = MustCompile(R"(
      steps { read { gpa: 0x400000 } }
      steps { read { gpa: 0x400004 size: 4 alias: MEMORY_KIND_SHARED expect: 0 } }
      steps { write { gpa: 0x400001 size: 1 value: 0x1FF alias: MEMORY_KIND_PRIVATE } }
      steps { fetch { gpa: 0x400003 } }
      steps { map_gpa { gpa: 0x401000 pages: 3 kind: MEMORY_KIND_PRIVATE preserve: true } }
      steps { map_gpa { gpa: 0x401000 pages: 3 kind: MEMORY_KIND_SHARED } }
      steps { expect { value: 7 } }
      steps { print { text: "hi" } }
      steps { exit { code: 255 } }
      steps { barrier {} })");
  ASSERT_EQ(ops.size(), 11u);
  EXPECT_EQ(ops[0].code, kOpRead);
  EXPECT_EQ(ops[0].size, 8);
  EXPECT_EQ(ops[0].flags, 0);
  EXPECT_EQ(ops[0].gpa, 0x400000u);
  EXPECT_EQ(ops[1].size, 4);
  EXPECT_EQ(ops[1].flags, kFlagShared | kFlagExpect);
  EXPECT_EQ(ops[1].value, 0u);
  EXPECT_EQ(ops[2].code, kOpWrite);
  EXPECT_EQ(ops[2].flags, 0);
  EXPECT_EQ(ops[2].value, 0x1FFu);
  EXPECT_EQ(ops[3].code, kOpFetch);
  EXPECT_EQ(ops[4].code, kOpMapGpa);
  EXPECT_EQ(ops[4].attributes, 0x30);
  EXPECT_EQ(ops[4].value, 3u);
  EXPECT_EQ(ops[5].attributes, 0x00);
  EXPECT_EQ(ops[6].code, kOpExpect);
  EXPECT_EQ(ops[7].code, kOpPrint);
  EXPECT_EQ(ops[7].value, 2u);
  EXPECT_EQ(ops[8].code, kOpExit);
  EXPECT_EQ(ops[8].value, 255u);
  EXPECT_EQ(ops[9].code, kOpBarrier);
  EXPECT_EQ(ops[10].code, kOpEnd);
  for (uint32_t i = 0; i < 10; ++i) EXPECT_EQ(ops[i].step, i + 1);
}

TEST(CompilerTest, LoopsTouchTheAddressesThatTheirStridesSay) {
  EXPECT_THAT(Execute(MustCompile(R"(steps { loop { count: 3 steps {
                write { gpa: 0x400000 stride: 0x1000 value: 5 value_stride: 2 } } } })")),
              ElementsAre(Touch{0x400000, 5}, Touch{0x401000, 7}, Touch{0x402000, 9}));
  // A stride of -4096 goes down.
  EXPECT_THAT(Execute(MustCompile(R"(steps { loop { count: 2 steps {
                read { gpa: 0x402000 stride: 0xFFFFFFFFFFFFF000 } } } })")),
              ElementsAre(Touch{0x402000, 0}, Touch{0x401000, 0}));
  // Outside of a loop the stride does nothing.
  EXPECT_THAT(Execute(MustCompile("steps { read { gpa: 0x400000 stride: 0x1000 } }")),
              ElementsAre(Touch{0x400000, 0}));
}

TEST(CompilerTest, NestedLoopsUseTheInnermostIterationAndEmptyOnesAreSkipped) {
  const std::vector<Op> ops = MustCompile(R"(
      steps { loop { count: 2
        steps { read { gpa: 0x400000 stride: 0x8 } }
        steps { loop { count: 2 steps { read { gpa: 0x500000 stride: 0x8 } } } }
        steps { loop { count: 0 steps { read { gpa: 0x700000 } } } }
        steps { read { gpa: 0x600000 stride: 0x8 } }
      } }
      steps { read { gpa: 0x800000 stride: 8 } })");
  EXPECT_THAT(Execute(ops),
              ElementsAre(Touch{0x400000, 0}, Touch{0x500000, 0}, Touch{0x500008, 0},
                          Touch{0x600000, 0}, Touch{0x400008, 0}, Touch{0x500000, 0},
                          Touch{0x500008, 0}, Touch{0x600008, 0}, Touch{0x800000, 0}));
  // Depth-first numbers: the outer loop is 1, its last step 7, the step behind it 8.
  EXPECT_EQ(ops.front().step, 1u);
  EXPECT_EQ(ops[ops.size() - 2].step, 8u);
}

TEST(CompilerTest, BlobHasOneOffsetForEachVcpuAndTextsInsideIt) {
  const absl::StatusOr<std::string> blob =
      Compile(Parse(R"(vcpus { steps { print { text: "first" } } steps { print { text: "" } } }
               vcpus { steps { print { text: "second" } } })"),
              3, kMemory);
  ASSERT_TRUE(blob.ok()) << blob.status();
  BlobHeader header;
  std::memcpy(&header, blob->data(), sizeof(header));
  EXPECT_EQ(header.magic, kBlobMagic);
  EXPECT_EQ(header.size, blob->size());
  EXPECT_EQ(header.vcpus, 3u);
  uint32_t offsets[3];
  std::memcpy(offsets, blob->data() + sizeof(header), sizeof(offsets));
  EXPECT_EQ(offsets[0] % 8, 0u);
  EXPECT_EQ(offsets[1], offsets[0] + 3 * sizeof(Op));
  EXPECT_EQ(offsets[2], 0u);
  const absl::StatusOr<DecodedProgram> decoded = Decode(*blob, 3);
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  const auto text = [&](const Op& op) { return decoded->blob.substr(op.gpa, op.value); };
  EXPECT_EQ(text(decoded->ops[0][0]), "first");
  EXPECT_EQ(text(decoded->ops[0][1]), "");
  EXPECT_EQ(text(decoded->ops[1][0]), "second");
  EXPECT_THAT(decoded->ops[2], IsEmpty());
}

struct RefusalCase {
  const char* what;
  const char* program;
  const char* begins;    // of the message
  const char* contains;  // the reason
};

TEST(CompilerTest, RefusesWhatTheFormatForbidsAndNamesVcpuAndStep) {
  const RefusalCase cases[] = {
      {"empty step", "vcpus { steps { barrier {} } steps {} }", "vcpu 0 step 2: ", "is empty"},
      {"second vCPU", "vcpus {} vcpus { steps { read { gpa: 0x400000 size: 3 } } }",
       "vcpu 1 step 1: ", "size 3"},
      {"write size", "vcpus { steps { write { gpa: 0x400000 size: 16 } } }",
       "vcpu 0 step 1: ", "size 16"},
      {"read misaligned", "vcpus { steps { read { gpa: 0x400004 } } }",
       "vcpu 0 step 1: ", "0x400004 is not a multiple of the size 8"},
      {"write misaligned", "vcpus { steps { write { gpa: 0x400001 size: 2 } } }",
       "vcpu 0 step 1: ", "0x400001 is not a multiple"},
      {"stride misaligned",
       "vcpus { steps { loop { count: 2 steps { read { gpa: 0x400000 stride: 4 } } } } }",
       "vcpu 0 step 2: ", "stride 0x4"},
      {"unknown alias", "vcpus { steps { read { gpa: 0x400000 alias: 3 } } }",
       "vcpu 0 step 1: ", "alias 3"},
      {"write with unknown alias", "vcpus { steps { write { gpa: 0x400000 alias: 9 } } }",
       "vcpu 0 step 1: ", "alias 9"},
      {"map_gpa without kind", "vcpus { steps { map_gpa { gpa: 0x400000 pages: 1 } } }",
       "vcpu 0 step 1: ", "needs a kind"},
      {"map_gpa of unknown kind", "vcpus { steps { map_gpa { gpa: 0x400000 pages: 1 kind: 7 } } }",
       "vcpu 0 step 1: ", "needs a kind"},
      {"exit code", "vcpus { steps { exit { code: 256 } } }", "vcpu 0 step 1: ", "256"},
      {"loops 5 deep",
       "vcpus { steps { loop { count: 1 steps { loop { count: 1 steps { loop { count: 1 steps { "
       "loop { count: 1 steps { loop { count: 1 } } } } } } } } } } }",
       "vcpu 0 step 5: ", "at most 4 deep"},
      {"interpreter", "vcpus { steps { read { gpa: 0x1FFFF8 } } }",
       "vcpu 0 step 1: ", "8 bytes at 0x1ffff8 touch [0x0, 0x200000)"},
      {"interpreter, shared alias",
       "vcpus { steps { write { gpa: 0 alias: MEMORY_KIND_SHARED } } }",
       "vcpu 0 step 1: ", "the interpreter"},
      {"interpreter, fetch", "vcpus { steps { fetch { gpa: 0x1FFFFF } } }",
       "vcpu 0 step 1: ", "the interpreter"},
      {"interpreter, map_gpa",
       "vcpus { steps { map_gpa { gpa: 0x1FF000 pages: 2 kind: MEMORY_KIND_SHARED } } }",
       "vcpu 0 step 1: ", "the interpreter"},
      {"interpreter, a later iteration",
       "vcpus { steps { loop { count: 3 steps { read { gpa: 0x201000 stride: "
       "0xFFFFFFFFFFFFF000 } } } } }",
       "vcpu 0 step 2: ", "at 0x1ff000 touch"},
      {"stacks of two vCPUs", "vcpus { steps { read { gpa: 0x3FE0000 } } }",
       "vcpu 0 step 1: ", "[0x3fe0000, 0x4000000), the vCPUs' stacks"},
      {"stacks, a later iteration",
       "vcpus { steps { loop { count: 1000 steps { read { gpa: 0x2000000 stride: 0x10000 } } } } }",
       "vcpu 0 step 2: ", "at 0x3fe0000 touch"},
      {"stacks, inside a large map_gpa",
       "vcpus { steps { map_gpa { gpa: 0x200000 pages: 0x100000 kind: MEMORY_KIND_SHARED } } }",
       "vcpu 0 step 1: ", "stacks"},
      {"read wraps",
       "vcpus { steps { loop { count: 3 steps { read { gpa: 0xFFFFFFFFFFFFF000 stride: 0x1000 } "
       "} } } }",
       "vcpu 0 step 2: ", "wraps around"},
      {"map_gpa wraps downwards",
       "vcpus { steps { loop { count: 0xFFFFFFFFFFFFFFFF steps { map_gpa { gpa: 0x400000 pages: 1 "
       "kind: MEMORY_KIND_SHARED stride: 0x8000000000000000 } } } } }",
       "vcpu 0 step 2: ", "wraps around"},
      {"more programs than vCPUs", "vcpus {} vcpus {} vcpus {}",
       "vcpu 2 step 1: ", "has only 2 vCPUs"},
  };
  for (const RefusalCase& c : cases) {
    SCOPED_TRACE(c.what);
    const absl::StatusOr<std::string> blob = Compile(Parse(c.program), 2, kMemory);
    EXPECT_EQ(blob.status().code(), absl::StatusCode::kInvalidArgument);
    const std::string message(blob.status().message());
    EXPECT_THAT(message, StartsWith(c.begins));
    EXPECT_THAT(message, HasSubstr(c.contains));
  }
}

TEST(CompilerTest, RefusesABlobThatIsTooLarge) {
  v1::AccessProgram many;
  v1::VcpuProgram& vcpu = *many.add_vcpus();
  for (size_t i = 0; i < kMaxBlobBytes / sizeof(Op) + 10; ++i) vcpu.add_steps()->mutable_barrier();
  EXPECT_THAT(std::string(Compile(many, 1, kMemory).status().message()), HasSubstr("larger than"));
  v1::AccessProgram text;
  text.add_vcpus()->add_steps()->mutable_print()->set_text(std::string(kMaxBlobBytes, 'x'));
  const absl::Status status = Compile(text, 1, kMemory).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), StartsWith("vcpu 0 step 1: "));
  text.mutable_vcpus(0)->mutable_steps(0)->mutable_print()->set_text(
      std::string(kMaxBlobBytes - 1024, 'x'));
  EXPECT_TRUE(Compile(text, 1, kMemory).ok());
}

TEST(CompilerTest, TakesWhatOnlyLooksForbidden) {
  const char* programs[] = {
      "",
      "vcpus {}",
      // Outside memory: the step stops the VM, or MapGPA answers -22.
      "vcpus { steps { read { gpa: 0x4000000 } } }",
      "vcpus { steps { write { gpa: 0xFFFFFFFFFFFFFFF8 } } }",
      "vcpus { steps { map_gpa { gpa: 0x400001 pages: 1 kind: MEMORY_KIND_SHARED } } }",
      "vcpus { steps { map_gpa { gpa: 0x400000 kind: MEMORY_KIND_SHARED } } }",
      "vcpus { steps { map_gpa { gpa: 0x100000 kind: MEMORY_KIND_SHARED } } }",
      "vcpus { steps { map_gpa { gpa: 0x400000 pages: 0xFFFFFFFFFFFFFFFF kind: MEMORY_KIND_SHARED "
      "} } }",
      "vcpus { steps { map_gpa { gpa: 0x800000400000 pages: 1 kind: MEMORY_KIND_SHARED } } }",
      // The last bytes before the stacks, the first after the interpreter.
      "vcpus { steps { read { gpa: 0x3FDFFF8 } } steps { read { gpa: 0x200000 } } }",
      // Strides that step over the reserved areas.
      "vcpus { steps { loop { count: 2 steps { read { gpa: 0x3000000 stride: 0x1000000 } } } } }",
      // Never executed.
      "vcpus { steps { loop { steps { loop { count: 2 steps { read { gpa: 0x1000 } } } } } } }",
      // An endless loop is the program's right.
      "vcpus { steps { loop { count: 0xFFFFFFFFFFFFFFFF steps { read { gpa: 0x400000 } } } } }",
      "vcpus { steps { loop { count: 1 steps { loop { count: 1 steps { loop { count: 1 steps { "
      "loop { count: 1 } } } } } } } } }",
      "vcpus { steps { fetch { gpa: 0x400003 } } }",
  };
  for (const char* program : programs) {
    const absl::StatusOr<std::string> blob = Compile(Parse(program), 2, kMemory);
    EXPECT_TRUE(blob.ok()) << program << ": " << blob.status();
  }
}

// Low memory ends at 3 GiB, and so do the stacks, however much memory there is.
TEST(CompilerTest, StacksLieAtTheTopOfLowMemory) {
  const auto compile = [](const std::string& gpa) {
    return Compile(Parse("vcpus { steps { read { gpa: " + gpa + " } } }"), 4, 8192 * kMiB).ok();
  };
  EXPECT_TRUE(compile("0xBFFBFFF8"));
  EXPECT_FALSE(compile("0xBFFC0000"));
  EXPECT_FALSE(compile("0xBFFFFFF8"));
  EXPECT_TRUE(compile("0x13FFFFFF8"));
}

// The closed form against trying every iteration.
TEST(CompilerTest, ReservedAreasAreFoundAsByTryingEveryIteration) {
  const uint64_t low_end = 4 * kMiB, stacks = low_end - 64 * 1024;
  const int64_t strides[] = {0, 8, 0x1000, 0xF000, 0x10000, 0x11000, 0x200000, -8, -0x10000};
  for (const uint64_t gpa :
       {0x1F0000ull, 0x200000ull, 0x3E0000ull, 0x3F0000ull, 0x400000ull, 0x410000ull}) {
    for (const int64_t stride : strides) {
      for (const uint64_t count : {1, 2, 3, 17, 33, 40}) {
        bool touches = false;
        for (uint64_t i = 0; i < count; ++i) {
          const uint64_t at = gpa + i * static_cast<uint64_t>(stride);
          touches |= at < 2 * kMiB || (at >= stacks && at < low_end);
        }
        const std::string program = "vcpus { steps { loop { count: " + std::to_string(count) +
                                    " steps { read { gpa: " + std::to_string(gpa) +
                                    " stride: " + std::to_string(static_cast<uint64_t>(stride)) +
                                    " } } } } }";
        EXPECT_EQ(Compile(Parse(program), 1, low_end).ok(), !touches) << program;
      }
    }
  }
}

}  // namespace
}  // namespace twinroot::program
