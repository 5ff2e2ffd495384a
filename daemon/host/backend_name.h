// A backend as people write it, in options and in logs.
#ifndef TWINROOT_DAEMON_HOST_BACKEND_NAME_H_
#define TWINROOT_DAEMON_HOST_BACKEND_NAME_H_

#include "daemon/host/vm.h"

namespace twinroot::host {

constexpr const char* NameOf(BackendKind backend) {
  switch (backend) {
    case BackendKind::kAuto:
      return "auto";
    case BackendKind::kKvm:
      return "kvm";
    case BackendKind::kSim:
      return "sim";
    case BackendKind::kKvmNative:
      return "kvm-native";
  }
  return "unknown";
}

}  // namespace twinroot::host

#endif  // TWINROOT_DAEMON_HOST_BACKEND_NAME_H_
