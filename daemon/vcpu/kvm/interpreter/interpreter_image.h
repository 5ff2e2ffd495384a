// The interpreter guest as a value in the daemon: the bytes of an ELF image. Thread-safe; the bytes
// live as long as the process.
#ifndef TWINROOT_DAEMON_VCPU_KVM_INTERPRETER_INTERPRETER_IMAGE_H_
#define TWINROOT_DAEMON_VCPU_KVM_INTERPRETER_INTERPRETER_IMAGE_H_

#include <string_view>

namespace twinroot::kvm {

std::string_view InterpreterImage();

}  // namespace twinroot::kvm

#endif  // TWINROOT_DAEMON_VCPU_KVM_INTERPRETER_INTERPRETER_IMAGE_H_
