#include "daemon/vcpu/kvm/interpreter/interpreter_image.h"

namespace twinroot::kvm {
namespace {

constexpr unsigned char kBytes[] = {
#include "daemon/vcpu/kvm/interpreter/interpreter.elf.inc"
};

}  // namespace

std::string_view InterpreterImage() {
  return {reinterpret_cast<const char*>(kBytes), sizeof kBytes};
}

}  // namespace twinroot::kvm
