#include "daemon/vcpu/program/compiler.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "daemon/vcpu/program/op.h"

namespace twinroot::program {
namespace {

using Steps = google::protobuf::RepeatedPtrField<v1::AccessStep>;
// Products of 64-bit counts and strides fit.
using Wide = __int128;

constexpr uint64_t kPageBytes = 4096;
constexpr uint64_t kInterpreterEnd = uint64_t{2} << 20;
constexpr uint64_t kStackBytes = uint64_t{64} << 10;
constexpr uint64_t kLowMemoryEnd = uint64_t{3} << 30;
constexpr uint8_t kAttributePrivate = 1 << 4;
constexpr uint8_t kAttributePreserve = 1 << 5;

struct Area {
  uint64_t begin, end;
  const char* what;
};

// The addresses first, first + stride, ... of `count` iterations, in ascending order.
struct Progression {
  Wide first;
  Wide stride;  // not negative
  Wide count;   // at least 1

  Progression(uint64_t gpa, uint64_t by, uint64_t iterations)
      : first(gpa), stride(static_cast<int64_t>(by)), count(iterations) {
    if (stride < 0) {
      first += (count - 1) * stride;
      stride = -stride;
    }
  }
  Wide last() const { return first + (count - 1) * stride; }

  // The lowest address of which `bytes` bytes overlap the area.
  std::optional<uint64_t> FirstInside(const Area& area, Wide bytes) const {
    const Wide low = static_cast<Wide>(area.begin) - bytes;  // the address is above it
    Wide i = 0;
    if (first <= low) {
      if (stride == 0) return std::nullopt;
      i = (low - first) / stride + 1;
    }
    const Wide at = first + i * stride;
    if (i >= count || at >= static_cast<Wide>(area.end)) return std::nullopt;
    return static_cast<uint64_t>(at);
  }
};

// The innermost loop around a step.
struct LoopContext {
  int depth = 0;
  uint64_t iterations = 1;
  bool runs = true;  // false: some loop around it runs zero times
};

// A text that a print operation needs; its offset is known when everything is placed.
struct Text {
  size_t op;
  const std::string* text;
};

// Compiles the program of one vCPU. Errors carry no vCPU and step yet: `step` tells.
class VcpuCompiler {
 public:
  explicit VcpuCompiler(std::vector<Area> reserved) : reserved_(std::move(reserved)) {}

  absl::Status Compile(const v1::VcpuProgram& program) {
    if (absl::Status status = Add(program.steps(), LoopContext()); !status.ok()) return status;
    Emit(kOpEnd);
    return absl::OkStatus();
  }

  uint32_t step() const { return step_; }
  const std::vector<Op>& ops() const { return ops_; }
  const std::vector<Text>& texts() const { return texts_; }

 private:
  absl::Status Add(const Steps& steps, const LoopContext& loop);
  absl::Status Add(const v1::AccessStep& step, const LoopContext& loop);
  absl::Status AddRead(const v1::ReadStep& read, const LoopContext& loop);
  absl::Status AddWrite(const v1::WriteStep& write, const LoopContext& loop);
  absl::Status AddFetch(const v1::FetchStep& fetch, const LoopContext& loop);
  absl::Status AddMapGpa(const v1::MapGpaStep& map, const LoopContext& loop);
  absl::Status AddLoop(const v1::LoopStep& loop_step, const LoopContext& loop);
  absl::Status AddExit(const v1::ExitStep& exit);
  absl::Status AddMove(const v1::MoveStep& move);

  absl::Status CheckAccess(uint64_t gpa, uint64_t stride, uint64_t size, const LoopContext& loop);
  // What `bytes` bytes at each iteration's address touch.
  absl::Status CheckAddresses(uint64_t gpa, uint64_t stride, uint64_t bytes,
                              const LoopContext& loop);

  // Valid until the next Emit.
  Op& Emit(OpCode code) {
    Op& op = ops_.emplace_back();
    op.code = code;
    op.step = step_;
    return op;
  }

  const std::vector<Area> reserved_;
  std::vector<Op> ops_;
  std::vector<Text> texts_;
  uint32_t step_ = 0;
};

absl::Status VcpuCompiler::Add(const Steps& steps, const LoopContext& loop) {
  for (const v1::AccessStep& step : steps) {
    ++step_;
    if (ops_.size() * sizeof(Op) > kMaxBlobBytes) {
      return absl::InvalidArgumentError(
          absl::StrCat("the compiled program is larger than ", kMaxBlobBytes, " bytes; use loops"));
    }
    if (absl::Status status = Add(step, loop); !status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status VcpuCompiler::Add(const v1::AccessStep& step, const LoopContext& loop) {
  switch (step.step_case()) {
    case v1::AccessStep::kRead:
      return AddRead(step.read(), loop);
    case v1::AccessStep::kWrite:
      return AddWrite(step.write(), loop);
    case v1::AccessStep::kFetch:
      return AddFetch(step.fetch(), loop);
    case v1::AccessStep::kMapGpa:
      return AddMapGpa(step.map_gpa(), loop);
    case v1::AccessStep::kLoop:
      return AddLoop(step.loop(), loop);
    case v1::AccessStep::kExpect:
      Emit(kOpExpect).value = step.expect().value();
      return absl::OkStatus();
    case v1::AccessStep::kPrint:
      texts_.push_back({ops_.size(), &step.print().text()});
      Emit(kOpPrint).value = step.print().text().size();
      return absl::OkStatus();
    case v1::AccessStep::kExit:
      return AddExit(step.exit());
    case v1::AccessStep::kBarrier:
      Emit(kOpBarrier);
      return absl::OkStatus();
    case v1::AccessStep::kMove:
      return AddMove(step.move());
    case v1::AccessStep::kInvalidate:
      Emit(kOpInvalidate);
      return absl::OkStatus();
    case v1::AccessStep::kPrintResult:
      Emit(kOpPrintLast);
      return absl::OkStatus();
    case v1::AccessStep::STEP_NOT_SET:
      break;
  }
  return absl::InvalidArgumentError(
      "the step is empty; give one of read, write, fetch, map_gpa, loop, expect, print, exit, "
      "barrier, move, invalidate, print_result");
}

absl::StatusOr<uint8_t> SizeOf(uint32_t size) {
  if (size == 0) return 8;
  if (size == 1 || size == 2 || size == 4 || size == 8) return static_cast<uint8_t>(size);
  return absl::InvalidArgumentError(absl::StrCat("size ", size, " is not 1, 2, 4 or 8"));
}

absl::StatusOr<uint8_t> AliasFlagOf(v1::MemoryKind alias) {
  switch (alias) {
    case v1::MEMORY_KIND_UNSPECIFIED:
    case v1::MEMORY_KIND_PRIVATE:
      return 0;
    case v1::MEMORY_KIND_SHARED:
      return kFlagShared;
    default:
      return absl::InvalidArgumentError(absl::StrCat("alias ", static_cast<int>(alias),
                                                     " is unknown; use MEMORY_KIND_PRIVATE or "
                                                     "MEMORY_KIND_SHARED"));
  }
}

absl::Status VcpuCompiler::AddRead(const v1::ReadStep& read, const LoopContext& loop) {
  const absl::StatusOr<uint8_t> size = SizeOf(read.size());
  if (!size.ok()) return size.status();
  const absl::StatusOr<uint8_t> alias = AliasFlagOf(read.alias());
  if (!alias.ok()) return alias.status();
  if (absl::Status s = CheckAccess(read.gpa(), read.stride(), *size, loop); !s.ok()) return s;
  Op& op = Emit(kOpRead);
  op.flags = static_cast<uint8_t>(*alias | (read.has_expect() ? kFlagExpect : 0) |
                                  (read.catch_fault() ? kFlagCatch : 0));
  op.size = *size;
  op.gpa = read.gpa();
  op.value = read.expect();
  op.stride = read.stride();
  return absl::OkStatus();
}

absl::Status VcpuCompiler::AddWrite(const v1::WriteStep& write, const LoopContext& loop) {
  const absl::StatusOr<uint8_t> size = SizeOf(write.size());
  if (!size.ok()) return size.status();
  const absl::StatusOr<uint8_t> alias = AliasFlagOf(write.alias());
  if (!alias.ok()) return alias.status();
  if (absl::Status s = CheckAccess(write.gpa(), write.stride(), *size, loop); !s.ok()) return s;
  Op& op = Emit(kOpWrite);
  op.flags = static_cast<uint8_t>(*alias | (write.catch_fault() ? kFlagCatch : 0));
  op.size = *size;
  op.gpa = write.gpa();
  op.value = write.value();
  op.stride = write.stride();
  op.value_stride = write.value_stride();
  return absl::OkStatus();
}

absl::Status VcpuCompiler::AddFetch(const v1::FetchStep& fetch, const LoopContext& loop) {
  if (absl::Status s = CheckAccess(fetch.gpa(), fetch.stride(), 1, loop); !s.ok()) return s;
  Op& op = Emit(kOpFetch);
  op.flags = fetch.catch_fault() ? kFlagCatch : 0;
  op.size = 1;
  op.gpa = fetch.gpa();
  op.stride = fetch.stride();
  return absl::OkStatus();
}

// What the guest interface answers with -22 (unaligned, empty, outside memory, aliased) is a
// program's right to ask for; only the interpreter's own pages are refused here.
absl::Status VcpuCompiler::AddMapGpa(const v1::MapGpaStep& map, const LoopContext& loop) {
  uint8_t attributes = map.preserve() ? kAttributePreserve : 0;
  switch (map.kind()) {
    case v1::MEMORY_KIND_PRIVATE:
      attributes |= kAttributePrivate;
      break;
    case v1::MEMORY_KIND_SHARED:
      break;
    default:
      return absl::InvalidArgumentError(
          "map_gpa needs a kind: MEMORY_KIND_PRIVATE or MEMORY_KIND_SHARED");
  }
  uint64_t bytes;
  if (__builtin_mul_overflow(map.pages(), kPageBytes, &bytes)) bytes = 0;
  if (absl::Status s = CheckAddresses(map.gpa(), map.stride(), bytes, loop); !s.ok()) return s;
  Op& op = Emit(kOpMapGpa);
  op.attributes = attributes;
  op.gpa = map.gpa();
  op.value = map.pages();
  op.stride = map.stride();
  return absl::OkStatus();
}

absl::Status VcpuCompiler::AddLoop(const v1::LoopStep& loop_step, const LoopContext& loop) {
  if (loop.depth == kMaxLoopDepth) {
    return absl::InvalidArgumentError(
        absl::StrCat("loops nest at most ", kMaxLoopDepth, " deep; take this one apart"));
  }
  const size_t begin = ops_.size();
  const uint32_t step = step_;
  Emit(kOpLoopBegin).value = loop_step.count();
  const LoopContext inner = {loop.depth + 1, loop_step.count(), loop.runs && loop_step.count() > 0};
  if (absl::Status status = Add(loop_step.steps(), inner); !status.ok()) return status;
  ops_[begin].target = static_cast<uint32_t>(ops_.size());
  Op& end = Emit(kOpLoopEnd);
  end.target = static_cast<uint32_t>(begin);
  end.step = step;
  return absl::OkStatus();
}

absl::Status VcpuCompiler::AddExit(const v1::ExitStep& exit) {
  if (exit.code() > 255) {
    return absl::InvalidArgumentError(
        absl::StrCat("exit code ", exit.code(), " is not in 0 to 255"));
  }
  Emit(kOpExit).value = exit.code();
  return absl::OkStatus();
}

absl::Status VcpuCompiler::AddMove(const v1::MoveStep& move) {
  static_assert(static_cast<int>(Register::kEflagsAc) + 1 == v1::MoveStep::REGISTER_EFLAGS_AC);
  if (move.to() == v1::MoveStep::REGISTER_UNSPECIFIED ||
      !v1::MoveStep::Register_IsValid(move.to())) {
    return absl::InvalidArgumentError("a move needs a register that it goes to");
  }
  Op& op = Emit(kOpMove);
  op.size = static_cast<uint8_t>(move.to() - v1::MoveStep::REGISTER_CR0);
  op.value = move.value();
  return absl::OkStatus();
}

absl::Status VcpuCompiler::CheckAccess(uint64_t gpa, uint64_t stride, uint64_t size,
                                       const LoopContext& loop) {
  if (gpa % size != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("address 0x", absl::Hex(gpa), " is not a multiple of the size ", size));
  }
  if (loop.iterations > 1 && stride % size != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("stride 0x", absl::Hex(stride), " is not a multiple of the size ", size));
  }
  return CheckAddresses(gpa, stride, size, loop);
}

absl::Status VcpuCompiler::CheckAddresses(uint64_t gpa, uint64_t stride, uint64_t bytes,
                                          const LoopContext& loop) {
  if (!loop.runs) return absl::OkStatus();
  const Progression addresses(gpa, stride, loop.iterations);
  if (addresses.first < 0 || addresses.last() > static_cast<Wide>(UINT64_MAX)) {
    return absl::InvalidArgumentError("the address wraps around; use a smaller stride or count");
  }
  if (bytes == 0) return absl::OkStatus();
  for (const Area& area : reserved_) {
    if (const std::optional<uint64_t> at = addresses.FirstInside(area, bytes)) {
      return absl::InvalidArgumentError(absl::StrCat(
          "the ", bytes, " bytes at 0x", absl::Hex(*at), " touch [0x", absl::Hex(area.begin),
          ", 0x", absl::Hex(area.end), "), ", area.what, "; use another address"));
    }
  }
  return absl::OkStatus();
}

absl::Status At(size_t vcpu, uint32_t step, const absl::Status& status) {
  return absl::InvalidArgumentError(
      absl::StrCat("vcpu ", vcpu, " step ", step, ": ", std::string(status.message())));
}

size_t AlignUp(size_t bytes) { return (bytes + alignof(Op) - 1) / alignof(Op) * alignof(Op); }

}  // namespace

absl::StatusOr<std::string> Compile(const v1::AccessProgram& program, uint32_t vcpus,
                                    uint64_t memory_bytes) {
  const size_t programs = static_cast<size_t>(program.vcpus_size());
  if (programs > vcpus) {
    return absl::InvalidArgumentError(absl::StrCat("vcpu ", vcpus, " step 1: the VM has only ",
                                                   vcpus, " vCPUs, the program is for ", programs,
                                                   "; give the VM more vCPUs"));
  }
  const uint64_t low_end = std::min(memory_bytes, kLowMemoryEnd);
  const uint64_t stacks = std::min(low_end, vcpus * kStackBytes);
  const std::vector<Area> reserved = {
      {0, kInterpreterEnd, "which belongs to the interpreter"},
      {low_end - stacks, low_end, "the vCPUs' stacks"},
  };

  size_t size = AlignUp(sizeof(BlobHeader) + vcpus * sizeof(uint32_t));
  std::vector<VcpuCompiler> compiled;
  for (size_t vcpu = 0; vcpu < programs; ++vcpu) {
    VcpuCompiler& compiler = compiled.emplace_back(reserved);
    if (absl::Status status = compiler.Compile(program.vcpus(static_cast<int>(vcpu)));
        !status.ok()) {
      return At(vcpu, compiler.step(), status);
    }
    size += compiler.ops().size() * sizeof(Op);
    for (const Text& text : compiler.texts()) size += text.text->size();
    if (size > kMaxBlobBytes) {
      return At(vcpu, compiler.step(),
                absl::InvalidArgumentError(absl::StrCat("the compiled program is larger than ",
                                                        kMaxBlobBytes,
                                                        " bytes; use loops or shorter texts")));
    }
  }

  std::string blob(size, '\0');
  const BlobHeader header = {kBlobMagic, static_cast<uint32_t>(size), vcpus};
  std::memcpy(blob.data(), &header, sizeof(header));
  // Operations of every vCPU first, so that they are aligned; then the texts.
  size_t op_at = AlignUp(sizeof(BlobHeader) + vcpus * sizeof(uint32_t));
  size_t text_at = op_at;
  for (const VcpuCompiler& compiler : compiled) text_at += compiler.ops().size() * sizeof(Op);
  for (size_t vcpu = 0; vcpu < programs; ++vcpu) {
    const uint32_t offset = static_cast<uint32_t>(op_at);
    std::memcpy(blob.data() + sizeof(header) + vcpu * sizeof(offset), &offset, sizeof(offset));
    std::vector<Op> ops = compiled[vcpu].ops();
    for (const Text& text : compiled[vcpu].texts()) {
      ops[text.op].gpa = text_at;
      std::memcpy(blob.data() + text_at, text.text->data(), text.text->size());
      text_at += text.text->size();
    }
    std::memcpy(blob.data() + op_at, ops.data(), ops.size() * sizeof(Op));
    op_at += ops.size() * sizeof(Op);
  }
  return blob;
}

}  // namespace twinroot::program
