// The guest that executes an access program (daemon/vcpu/program/op.h) with real instructions, so
// that one program runs on `sim` and on KVM. The daemon embeds it and places the program behind it.
//
// It lives in [1 MiB, 2 MiB) and on the stacks: everything else is the program's. Each vCPU runs
// its own part; the barrier counts the vCPUs that have a program and have not ended.
#include "daemon/vcpu/kvm/guest_lib/twinroot_guest.h"
#include "daemon/vcpu/program/op.h"

namespace {

using namespace twinroot::guest;
using namespace twinroot::program;

static_assert(kAddressBits == kSharedVirtualBit, "an address and the shared alias do not meet");

constinit SpinBarrier barrier;

class Interpreter {
 public:
  Interpreter(const BlobHeader& blob, uint32_t vcpu)
      : blob_(reinterpret_cast<const char*>(&blob)), vcpu_(vcpu) {
    const uint32_t* offsets = reinterpret_cast<const uint32_t*>(blob_ + sizeof blob);
    for (uint32_t i = 0; i < blob.vcpus; ++i) members_ += offsets[i] != 0;
    if (vcpu < blob.vcpus && offsets[vcpu] != 0) {
      ops_ = reinterpret_cast<const Op*>(blob_ + offsets[vcpu]);
    }
  }

  bool has_program() const { return ops_ != nullptr; }

  void Run() {
    for (uint32_t pc = 0; ops_[pc].code != kOpEnd; pc = Step(pc)) {
    }
    barrier.Leave(members_);
  }

 private:
  struct Loop {
    uint64_t iteration;
    uint64_t count;
  };

  uint64_t iteration() const { return depth_ > 0 ? loops_[depth_ - 1].iteration : 0; }

  // The GPA of this iteration.
  uint64_t Gpa(const Op& op) const { return op.gpa + iteration() * op.stride; }

  // Where the frame is mapped.
  uint64_t Address(const Op& op) const {
    const uint64_t gpa = Gpa(op);
    if (gpa >> kAddressBits != 0) Crash();
    return (op.flags & kFlagShared) != 0 ? SharedAddress(gpa) : PrivateAddress(gpa);
  }

  static uint64_t Load(uint64_t address, uint8_t size) {
    switch (size) {
      case 1:
        return *reinterpret_cast<const volatile uint8_t*>(address);
      case 2:
        return *reinterpret_cast<const volatile uint16_t*>(address);
      case 4:
        return *reinterpret_cast<const volatile uint32_t*>(address);
      default:
        return *reinterpret_cast<const volatile uint64_t*>(address);
    }
  }

  static void Store(uint64_t address, uint8_t size, uint64_t value) {
    switch (size) {
      case 1:
        *reinterpret_cast<volatile uint8_t*>(address) = static_cast<uint8_t>(value);
        return;
      case 2:
        *reinterpret_cast<volatile uint16_t*>(address) = static_cast<uint16_t>(value);
        return;
      case 4:
        *reinterpret_cast<volatile uint32_t*>(address) = static_cast<uint32_t>(value);
        return;
      default:
        *reinterpret_cast<volatile uint64_t*>(address) = value;
        return;
    }
  }

  // Any byte but a near return stops the VM as a guest exception, rather than run astray.
  static void Fetch(uint64_t address) {
    constexpr uint8_t kNearReturn = 0xC3;
    if (Load(address, 1) != kNearReturn) Crash();
    asm volatile("call *%0" : : "r"(address) : "memory");
  }

  void Expect(const Op& op) const {
    if (last_ == op.value) return;
    Line()
        .Text("vcpu ")
        .Dec(vcpu_)
        .Text(" step ")
        .Dec(op.step)
        .Text(": expected ")
        .Hex(op.value)
        .Text(", got ")
        .Hex(last_)
        .End();
    Exit(1);
  }

  // Executes the operation at `pc`; the result is the next one.
  uint32_t Step(uint32_t pc) {
    const Op& op = ops_[pc];
    switch (op.code) {
      case kOpRead:
        last_ = Load(Address(op), op.size);
        if ((op.flags & kFlagExpect) != 0) Expect(op);
        break;
      case kOpWrite:
        Store(Address(op), op.size, op.value + iteration() * op.value_stride);
        break;
      case kOpFetch:
        Fetch(Address(op));
        break;
      case kOpMapGpa:
        last_ = static_cast<uint64_t>(MapGpa(Gpa(op), op.value, op.attributes));
        break;
      case kOpLoopBegin:
        if (op.value == 0) return op.target + 1;
        if (depth_ == kMaxLoopDepth) Crash();
        loops_[depth_++] = {0, op.value};
        break;
      case kOpLoopEnd:
        if (depth_ == 0) Crash();
        if (++loops_[depth_ - 1].iteration < loops_[depth_ - 1].count) return op.target + 1;
        --depth_;
        break;
      case kOpExpect:
        Expect(op);
        break;
      case kOpPrint:
        Print(blob_ + op.gpa, op.value);
        break;
      case kOpExit:
        Exit(static_cast<uint8_t>(op.value));
      case kOpBarrier:
        barrier.Wait(members_);
        break;
      default:
        Crash();
    }
    return pc + 1;
  }

  const char* blob_;
  uint32_t vcpu_;
  uint32_t members_ = 0;
  const Op* ops_ = nullptr;
  uint64_t last_ = 0;
  int depth_ = 0;
  Loop loops_[kMaxLoopDepth];
};

}  // namespace

extern "C" void GuestMain(const BootInfo* boot, uint64_t vcpu) {
  CheckBootInfo(*boot);
  const auto* blob = reinterpret_cast<const BlobHeader*>(boot->program_gpa);
  if (blob == nullptr || boot->program_bytes < sizeof *blob || blob->magic != kBlobMagic ||
      blob->size > boot->program_bytes) {
    Print("interpreter: no access program\n");
    Exit(2);
  }
  Interpreter interpreter(*blob, static_cast<uint32_t>(vcpu));
  if (interpreter.has_program()) interpreter.Run();
}
