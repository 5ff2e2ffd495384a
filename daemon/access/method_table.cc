#include "daemon/access/method_table.h"

#include <algorithm>

namespace twinroot::access {
namespace {

constexpr Role kAny = Role::kNone;
constexpr Role kViewer = Role::kViewer;
constexpr Role kOperator = Role::kOperator;
constexpr Role kAdmin = Role::kAdmin;
constexpr Audited kDenials = Audited::kDenials;
constexpr Audited kAlways = Audited::kAlways;

constexpr MethodRule kRules[] = {
    // Tell nothing about VMs, and load balancers and tools ask them first.
    {"grpc.health.v1.Health/Check", kAny, kDenials},
    {"grpc.health.v1.Health/Watch", kAny, kDenials},
    {"grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", kAny, kDenials},

    {"twinroot.v1.HostService/GetHost", kViewer, kDenials},
    // Every VM's faults wait while its tables are walked.
    {"twinroot.v1.HostService/Audit", kAdmin, kAlways},
    {"twinroot.v1.HostService/GetMetrics", kViewer, kDenials},
    // Nobody's VMs find room here any more.
    {"twinroot.v1.HostService/Drain", kAdmin, kAlways},

    {"twinroot.v1.VmService/UploadImage", kOperator, kAlways},
    {"twinroot.v1.VmService/CreateVm", kOperator, kAlways},
    {"twinroot.v1.VmService/GetVm", kViewer, kDenials},
    {"twinroot.v1.VmService/ListVms", kViewer, kDenials},
    {"twinroot.v1.VmService/UpdateVm", kOperator, kAlways},
    {"twinroot.v1.VmService/StartVm", kOperator, kAlways},
    {"twinroot.v1.VmService/PauseVm", kOperator, kAlways},
    {"twinroot.v1.VmService/ResumeVm", kOperator, kAlways},
    {"twinroot.v1.VmService/StopVm", kOperator, kAlways},
    {"twinroot.v1.VmService/DeleteVm", kOperator, kAlways},
    {"twinroot.v1.VmService/WaitVm", kViewer, kDenials},
    // What a guest prints may be its secrets.
    {"twinroot.v1.VmService/StreamConsole", kOperator, kAlways},
    {"twinroot.v1.VmService/WriteConsole", kOperator, kAlways},

    {"twinroot.v1.MemoryService/SetMemoryAttributes", kOperator, kAlways},
    {"twinroot.v1.MemoryService/GetMemoryAttributes", kViewer, kDenials},
    {"twinroot.v1.MemoryService/Translate", kViewer, kDenials},
    // Shared memory only, and still it is the guest's.
    {"twinroot.v1.MemoryService/ReadGuestMemory", kOperator, kAlways},
    {"twinroot.v1.MemoryService/WriteGuestMemory", kOperator, kAlways},
    {"twinroot.v1.MemoryService/RecoverPages", kOperator, kAlways},
    {"twinroot.v1.MemoryService/Prefault", kOperator, kAlways},
    {"twinroot.v1.MemoryService/AddMemslot", kOperator, kAlways},
    {"twinroot.v1.MemoryService/RemoveMemslot", kOperator, kAlways},
    {"twinroot.v1.MemoryService/MoveMemslot", kOperator, kAlways},
    // Host addresses of all that a guest has.
    {"twinroot.v1.MemoryService/DumpTables", kAdmin, kAlways},
    // It forgets what it returns.
    {"twinroot.v1.MemoryService/AgePages", kOperator, kAlways},
    {"twinroot.v1.MemoryService/RecoverNxPages", kOperator, kAlways},
    {"twinroot.v1.MemoryService/GetMemoryStats", kViewer, kDenials},

    {"twinroot.v1.DirtyLogService/EnableDirtyLog", kOperator, kAlways},
    {"twinroot.v1.DirtyLogService/DisableDirtyLog", kOperator, kAlways},
    // A harvest clears what it returns.
    {"twinroot.v1.DirtyLogService/HarvestDirtyLog", kOperator, kAlways},
    {"twinroot.v1.DirtyLogService/ClearDirtyLog", kOperator, kAlways},
    {"twinroot.v1.DirtyLogService/SplitPages", kOperator, kAlways},

    // One that holds guests needs an operator: EventService asks for that itself.
    {"twinroot.v1.EventService/WatchEvents", kViewer, kDenials},
    {"twinroot.v1.EventService/ListEvents", kViewer, kDenials},
    {"twinroot.v1.EventService/ListConversions", kViewer, kDenials},
    {"twinroot.v1.EventService/ResolveConversion", kOperator, kAlways},
};

}  // namespace

std::span<const MethodRule> MethodRules() { return kRules; }

const MethodRule* FindMethodRule(std::string_view method) {
  if (!method.empty() && method.front() == '/') method.remove_prefix(1);
  const auto* found = std::find_if(std::begin(kRules), std::end(kRules),
                                   [&](const MethodRule& rule) { return rule.method == method; });
  return found == std::end(kRules) ? nullptr : found;
}

}  // namespace twinroot::access
