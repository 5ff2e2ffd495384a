// What happened to a VM's memory, said as events. Pure; thread-safe.
#ifndef TWINROOT_DAEMON_HOST_MEMORY_EVENTS_H_
#define TWINROOT_DAEMON_HOST_MEMORY_EVENTS_H_

#include <optional>
#include <string>

#include "daemon/vcpu/machine.h"
#include "mmu/vm/guest_address_space.h"
#include "twinroot/v1/event.pb.h"

namespace twinroot::host {

// `kind`: what the change made of the range, if it had a say in that.
v1::Event AttributesEvent(const std::string& vm, mmu::GfnRange range,
                          std::optional<mmu::MemoryKind> kind, mmu::Access denied);
v1::Event FaultEvent(const std::string& vm, vcpu::VcpuIndex vcpu, mmu::Gpa gpa,
                     mmu::MemoryKind alias, v1::MemoryFault::Reason reason);
// nullopt: nothing was split, or became large.
std::optional<v1::Event> SplitEvent(const std::string& vm, const mmu::SplitResult& split,
                                    v1::PageSizeCause cause);
std::optional<v1::Event> CollapseEvent(const std::string& vm, const mmu::RecoverResult& recovered,
                                       v1::PageSizeCause cause);
v1::Event DirtyLogOnEvent(const std::string& vm, const mmu::DirtyLogOptions& options);
v1::Event DirtyLogOffEvent(const std::string& vm);

}  // namespace twinroot::host

#endif  // TWINROOT_DAEMON_HOST_MEMORY_EVENTS_H_
