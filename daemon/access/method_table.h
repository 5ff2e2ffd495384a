// THE table of who may call what: one row for every method that hvd serves. A method without a row
// is denied to everybody. Constant data; thread-safe.
#ifndef TWINROOT_DAEMON_ACCESS_METHOD_TABLE_H_
#define TWINROOT_DAEMON_ACCESS_METHOD_TABLE_H_

#include <span>
#include <string_view>

#include "daemon/access/role.h"

namespace twinroot::access {

enum class Audited { kDenials, kAlways };

struct MethodRule {
  std::string_view method;  // "twinroot.v1.VmService/GetVm"
  Role role;                // the least one that may call it
  // kAlways: the call changes something, or gives away what a guest wrote.
  Audited audited;
};

std::span<const MethodRule> MethodRules();

// The row of a method, or null. A slash in front is ignored: gRPC writes "/service/method".
const MethodRule* FindMethodRule(std::string_view method);

}  // namespace twinroot::access

#endif  // TWINROOT_DAEMON_ACCESS_METHOD_TABLE_H_
