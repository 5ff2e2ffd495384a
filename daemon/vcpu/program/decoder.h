// Reads a blob of op.h back: what `sim` executes. Plain values; thread-safe once made.
#ifndef TWINROOT_DAEMON_VCPU_PROGRAM_DECODER_H_
#define TWINROOT_DAEMON_VCPU_PROGRAM_DECODER_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "daemon/vcpu/program/op.h"

namespace twinroot::program {

struct DecodedProgram {
  // By vCPU; empty: no program. Otherwise the last operation is the only kOpEnd, every loop is
  // closed by its own kOpLoopEnd, and loops nest at most kMaxLoopDepth deep.
  std::vector<std::vector<Op>> ops;
  std::string blob;  // texts lie in it, inside its bounds
};

// kInvalidArgument: not a blob for `vcpus` vCPUs; says where it breaks the format.
absl::StatusOr<DecodedProgram> Decode(std::string blob, uint32_t vcpus);

// It has steps that the interpreter of kvm does not know: guest paging.
bool NeedsSim(const DecodedProgram& program);

}  // namespace twinroot::program

#endif  // TWINROOT_DAEMON_VCPU_PROGRAM_DECODER_H_
