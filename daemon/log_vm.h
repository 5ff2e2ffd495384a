// Lines of the log about one VM: "vm NAME: ...", with the name and the reason as fields where the
// log has fields (journald's TWINROOT_VM and TWINROOT_REASON). Thread-safe.
#ifndef TWINROOT_DAEMON_LOG_VM_H_
#define TWINROOT_DAEMON_LOG_VM_H_

#include <string>
#include <string_view>
#include <utility>

#include "spdlog/spdlog.h"

namespace twinroot {

// What a line is about. The words outlive the line.
struct LogSubject {
  LogSubject(const std::string& vm) : vm(vm) {}
  LogSubject(const std::string& vm, std::string_view reason) : vm(vm), reason(reason) {}
  std::string_view vm;
  std::string_view reason;  // one of daemon/reasons.h, or why a VM stopped

  // Of the line that this thread writes, or null: how a sink hears of it.
  static inline thread_local const LogSubject* current = nullptr;
};

// Nobody's memory or registers: names, numbers and reasons only.
template <typename... Args>
void LogVm(spdlog::level::level_enum level, const LogSubject& about,
           fmt::format_string<Args...> format, Args&&... args) {
  if (!spdlog::should_log(level)) return;
  LogSubject::current = &about;
  spdlog::log(level, "vm {}: {}", about.vm, fmt::format(format, std::forward<Args>(args)...));
  LogSubject::current = nullptr;
}

}  // namespace twinroot

#endif  // TWINROOT_DAEMON_LOG_VM_H_
