// The version of this build, as `hvd --version`, GetHost and twinroot_build_info say it.
#ifndef TWINROOT_DAEMON_VERSION_H_
#define TWINROOT_DAEMON_VERSION_H_

namespace twinroot {

inline constexpr char kVersion[] = "0.1.0";

}  // namespace twinroot

#endif  // TWINROOT_DAEMON_VERSION_H_
