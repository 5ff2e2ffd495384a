// Turns an AccessProgram into the operations of op.h. Pure; thread-safe.
#ifndef TWINROOT_DAEMON_VCPU_PROGRAM_COMPILER_H_
#define TWINROOT_DAEMON_VCPU_PROGRAM_COMPILER_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "twinroot/v1/program.pb.h"

namespace twinroot::program {

inline constexpr size_t kMaxBlobBytes = 512 * 1024;

// The blob (see op.h). kInvalidArgument names the vCPU and the step ("vcpu 1 step 3: ...") for
// anything that program.proto forbids: bad sizes, misaligned addresses, reserved areas, loops
// nested too deep, more programs than vCPUs, a blob over kMaxBlobBytes. Steps are numbered
// depth-first from 1 for each vCPU. A step is refused for a reserved area when any of its
// iterations would touch [0, 2 MiB) or the top vcpus * 64 KiB of low memory.
absl::StatusOr<std::string> Compile(const v1::AccessProgram& program, uint32_t vcpus,
                                    uint64_t memory_bytes);

}  // namespace twinroot::program

#endif  // TWINROOT_DAEMON_VCPU_PROGRAM_COMPILER_H_
