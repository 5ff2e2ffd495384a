#include "daemon/vcpu/program/decoder.h"

#include <cstring>
#include <functional>

#include "daemon/vcpu/program/compiler.h"
#include "gmock/gmock.h"
#include "google/protobuf/text_format.h"
#include "gtest/gtest.h"

namespace twinroot::program {
namespace {

using ::testing::HasSubstr;

std::string Blob() {
  v1::AccessProgram program;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(
      R"(vcpus { steps { loop { count: 2 steps { read { gpa: 0x400000 } } } }
                 steps { print { text: "text" } } })",
      &program));
  return *Compile(program, 2, uint64_t{64} << 20);
}

// Operations of vCPU 0: loop begin, read, loop end, print, end.
void Change(std::string& blob, size_t index, const std::function<void(Op&)>& change) {
  uint32_t offset;
  std::memcpy(&offset, blob.data() + sizeof(BlobHeader), sizeof(offset));
  Op op;
  std::memcpy(&op, blob.data() + offset + index * sizeof(Op), sizeof(op));
  change(op);
  std::memcpy(blob.data() + offset + index * sizeof(Op), &op, sizeof(op));
}

struct BrokenCase {
  const char* says;
  std::function<void(std::string&)> breaks;
};

TEST(DecoderTest, RefusesEveryBrokenBlobAndSaysWhere) {
  ASSERT_TRUE(Decode(Blob(), 2).ok());
  const BrokenCase cases[] = {
      {"too short", [](std::string& b) { b.resize(8); }},
      {"magic", [](std::string& b) { b[0] ^= 1; }},
      {"cut or lengthened", [](std::string& b) { b.pop_back(); }},
      {"cut or lengthened", [](std::string& b) { b += "x"; }},
      {"for 3 vCPUs", [](std::string& b) { b[12] = 3; }},
      {"operation 0 lies outside", [](std::string& b) { b[16] = 1; }},
      {"operation 0 lies outside", [](std::string& b) { b[18] = 0x7F; }},
      {"operation 1 has a wrong size",
       [](std::string& b) { Change(b, 1, [](Op& op) { op.size = 3; }); }},
      {"operation 1 has the unknown code 99",
       [](std::string& b) { Change(b, 1, [](Op& op) { op.code = 99; }); }},
      {"operation 1 ends in a loop",
       [](std::string& b) { Change(b, 1, [](Op& op) { op.code = kOpEnd; }); }},
      {"operation 2 closes no loop",
       [](std::string& b) { Change(b, 0, [](Op& op) { op.target = 3; }); }},
      {"operation 2 closes no loop",
       [](std::string& b) { Change(b, 2, [](Op& op) { op.target = 1; }); }},
      {"operation 2 closes no loop",
       [](std::string& b) { Change(b, 0, [](Op& op) { op.code = kOpBarrier; }); }},
      {"operation 3 has its text outside",
       [](std::string& b) { Change(b, 3, [](Op& op) { ++op.value; }); }},
      {"operation 3 has its text outside",
       [](std::string& b) { Change(b, 3, [](Op& op) { op.gpa = ~uint64_t{0}; }); }},
      {"lies outside", [](std::string& b) { Change(b, 4, [](Op& op) { op.code = kOpBarrier; }); }},
  };
  for (const BrokenCase& c : cases) {
    std::string blob = Blob();
    c.breaks(blob);
    const absl::Status status = Decode(blob, 2).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << c.says;
    EXPECT_THAT(std::string(status.message()), HasSubstr(c.says));
  }
}

}  // namespace
}  // namespace twinroot::program
