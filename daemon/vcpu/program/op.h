// A compiled access program: fixed-size operations that `sim` executes and that the interpreter
// guest (daemon/vcpu/kvm/interpreter) executes on KVM. Little-endian, position independent; the
// guest includes this file, so it needs nothing but <stdint.h>.
#ifndef TWINROOT_DAEMON_VCPU_PROGRAM_OP_H_
#define TWINROOT_DAEMON_VCPU_PROGRAM_OP_H_

#include <stdint.h>

namespace twinroot::program {

enum OpCode : uint8_t {
  kOpEnd = 0,        // the vCPU ends
  kOpRead = 1,       // last = *(gpa + i * stride), `size` bytes; with kFlagExpect check == value
  kOpWrite = 2,      // *(gpa + i * stride) = value + i * value_stride
  kOpFetch = 3,      // execute the `ret` at gpa + i * stride
  kOpMapGpa = 4,     // last = MapGPA(gpa + i * stride, value pages, `attributes`), retries followed
  kOpLoopBegin = 5,  // value = iterations (0: skip past `target`); opens a loop with i = 0
  kOpLoopEnd = 6,    // ++i; if i < iterations go to target + 1, else close the loop
  kOpExpect = 7,     // last == value, else the VM ends with code 1
  kOpPrint = 8,      // `value` bytes of text at blob offset `gpa` go to the console
  kOpExit = 9,       // the VM ends with code value
  kOpBarrier = 10,   // wait for every vCPU that has a program and has not ended
  // Of sim alone.
  kOpMove = 11,        // `value` into the register `size`
  kOpInvalidate = 12,  // forget translations; what was written into page tables counts
  kOpPrintLast = 13,   // the last result, "0xHEX\n", goes to the console
};
// What kOpMove moves to.
enum class Register : uint8_t { kCr0, kCr3, kCr4, kEfer, kPkru, kCpl, kEflagsAc };

enum OpFlag : uint8_t {
  kFlagShared = 1,  // through the shared alias
  kFlagExpect = 2,  // read: compare with `value`
  kFlagCatch = 4,   // a page fault does not end the VM: last = kCaughtFault + error code
};

inline constexpr uint64_t kCaughtFault = uint64_t{1} << 32;
inline constexpr int kMaxLoopDepth = 4;

// Width of an address that an access can name: beyond it lies the guest's shared alias. An access
// beyond stops the VM as a guest exception does. MapGPA takes any number.
inline constexpr int kAddressBits = 46;

// i is the iteration of the innermost open loop, 0 outside of one.
struct Op {
  uint8_t code;
  uint8_t flags;
  uint8_t size;        // 1, 2, 4, 8; kOpMove: a Register
  uint8_t attributes;  // of MapGPA, bits as in RDX
  uint32_t target;     // loops: index of the matching operation
  uint64_t gpa;
  uint64_t value;
  uint64_t stride;
  uint64_t value_stride;
  uint32_t step;  // number of the source step, for messages; 1 is the first
  uint32_t reserved;
};
static_assert(sizeof(Op) == 48, "the guest and the daemon share this layout");

// A blob begins with this; then `vcpus` offsets (uint32_t each, of the first Op of that vCPU; 0
// for a vCPU without a program), then operations and texts. Offsets are bytes from the blob's
// beginning; operations are 8-byte aligned.
struct BlobHeader {
  uint64_t magic;  // kBlobMagic
  uint32_t size;   // of the whole blob
  uint32_t vcpus;
};
inline constexpr uint64_t kBlobMagic = 0x31474F5250525754;  // "TWRPROG1"
static_assert(sizeof(BlobHeader) == 16, "the guest and the daemon share this layout");

// What a failed check says on the console, on both backends, before exit code 1:
//   "vcpu V step N: expected 0xHEX, got 0xHEX\n"   (lower case, no leading zeros)

}  // namespace twinroot::program

#endif  // TWINROOT_DAEMON_VCPU_PROGRAM_OP_H_
