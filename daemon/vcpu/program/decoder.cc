#include "daemon/vcpu/program/decoder.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace twinroot::program {
namespace {

absl::Status Broken(const std::string& what) {
  return absl::InvalidArgumentError(
      absl::StrCat("not a compiled access program: ", what, "; compile it again"));
}

bool IsSize(uint8_t size) { return size == 1 || size == 2 || size == 4 || size == 8; }

// Checks one operation and, at the end of a loop, that it belongs to the innermost open one.
absl::Status CheckOp(const std::vector<Op>& ops, size_t index, std::vector<size_t>& open_loops,
                     size_t blob_bytes) {
  const Op& op = ops[index];
  const std::string at = absl::StrCat("operation ", index);
  switch (op.code) {
    case kOpEnd:
      return open_loops.empty() ? absl::OkStatus() : Broken(absl::StrCat(at, " ends in a loop"));
    case kOpRead:
    case kOpWrite:
      return IsSize(op.size) ? absl::OkStatus() : Broken(absl::StrCat(at, " has a wrong size"));
    case kOpLoopBegin:
      if (open_loops.size() == kMaxLoopDepth) return Broken(absl::StrCat(at, " nests too deep"));
      open_loops.push_back(index);
      return absl::OkStatus();
    case kOpLoopEnd:
      if (open_loops.empty() || op.target != open_loops.back() ||
          ops[open_loops.back()].target != index) {
        return Broken(absl::StrCat(at, " closes no loop"));
      }
      open_loops.pop_back();
      return absl::OkStatus();
    case kOpPrint:
      return op.gpa <= blob_bytes && op.value <= blob_bytes - op.gpa
                 ? absl::OkStatus()
                 : Broken(absl::StrCat(at, " has its text outside"));
    case kOpMove:
      return op.size <= static_cast<uint8_t>(Register::kEflagsAc)
                 ? absl::OkStatus()
                 : Broken(absl::StrCat(at, " names no register"));
    case kOpFetch:
    case kOpInvalidate:
    case kOpPrintLast:
    case kOpMapGpa:
    case kOpExpect:
    case kOpExit:
    case kOpBarrier:
      return absl::OkStatus();
    default:
      return Broken(absl::StrCat(at, " has the unknown code ", op.code));
  }
}

absl::StatusOr<std::vector<Op>> DecodeVcpu(const std::string& blob, size_t offset) {
  std::vector<Op> ops;
  std::vector<size_t> open_loops;
  do {
    if (offset % alignof(Op) != 0 || offset > blob.size() || blob.size() - offset < sizeof(Op)) {
      return Broken(absl::StrCat("operation ", ops.size(), " lies outside"));
    }
    Op op;
    std::memcpy(&op, blob.data() + offset, sizeof(op));
    offset += sizeof(op);
    ops.push_back(op);
    if (absl::Status status = CheckOp(ops, ops.size() - 1, open_loops, blob.size()); !status.ok()) {
      return status;
    }
  } while (ops.back().code != kOpEnd);
  return ops;
}

}  // namespace

bool NeedsSim(const DecodedProgram& program) {
  return std::any_of(program.ops.begin(), program.ops.end(), [](const std::vector<Op>& ops) {
    return std::any_of(ops.begin(), ops.end(), [](const Op& op) {
      return op.code >= kOpMove || (op.flags & kFlagCatch) != 0;
    });
  });
}

absl::StatusOr<DecodedProgram> Decode(std::string blob, uint32_t vcpus) {
  BlobHeader header;
  if (blob.size() < sizeof(header)) return Broken("it is too short");
  std::memcpy(&header, blob.data(), sizeof(header));
  if (header.magic != kBlobMagic) return Broken("the magic number is wrong");
  if (header.size != blob.size()) return Broken("it was cut or lengthened");
  if (header.vcpus != vcpus) {
    return Broken(absl::StrCat("it is for ", header.vcpus, " vCPUs, the VM has ", vcpus));
  }
  if ((blob.size() - sizeof(header)) / sizeof(uint32_t) < vcpus) return Broken("it is too short");
  DecodedProgram program;
  for (uint32_t vcpu = 0; vcpu < vcpus; ++vcpu) {
    uint32_t offset;
    std::memcpy(&offset, blob.data() + sizeof(header) + vcpu * sizeof(offset), sizeof(offset));
    if (offset == 0) {
      program.ops.emplace_back();
      continue;
    }
    absl::StatusOr<std::vector<Op>> ops = DecodeVcpu(blob, offset);
    if (!ops.ok()) return ops.status();
    program.ops.push_back(*std::move(ops));
  }
  program.blob = std::move(blob);
  return program;
}

}  // namespace twinroot::program
