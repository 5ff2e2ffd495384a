// What a caller may do, in steps: a role may do all that the ones before it may.
#ifndef TWINROOT_DAEMON_ACCESS_ROLE_H_
#define TWINROOT_DAEMON_ACCESS_ROLE_H_

namespace twinroot::access {

enum class Role {
  kNone,      // nothing but health and reflection
  kViewer,    // look: VMs, attributes, statistics, events
  kOperator,  // run VMs and change their memory; see what guests say and share
  kAdmin,     // what weighs on the whole host
};

constexpr const char* NameOf(Role role) {
  switch (role) {
    case Role::kNone:
      return "none";
    case Role::kViewer:
      return "viewer";
    case Role::kOperator:
      return "operator";
    case Role::kAdmin:
      return "admin";
  }
  return "none";
}

}  // namespace twinroot::access

#endif  // TWINROOT_DAEMON_ACCESS_ROLE_H_
