// All metrics of the daemon and the HTTP endpoint that Prometheus scrapes.
//
// Thread-safe. Order of life: create (it becomes the journal's observer), Expose, Watch,
// StopServing or the destructor, which come before the registry's end.
#ifndef TWINROOT_DAEMON_OBS_METRICS_H_
#define TWINROOT_DAEMON_OBS_METRICS_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "daemon/events/journal.h"
#include "daemon/host/exit_meter.h"
#include "daemon/host/vm_registry.h"
#include "grpcpp/support/server_interceptor.h"

namespace twinroot::obs {

class Metrics {
 public:
  // Before the journal's first event; the journal outlives this object. So many VMs have series of
  // their own, further ones are added up in vm="_other".
  Metrics(events::Journal* journal, const std::string& version, uint32_t max_vm_series);
  ~Metrics();

  // Serves /metrics on host:port; port 0 takes a free one. kUnavailable: it cannot be bound.
  absl::Status Expose(const std::string& address);
  // What a scrape would get now.
  std::string Text() const;
  // host:port that is really served; empty before Expose.
  std::string address() const;

  // Where a registry's VMs count their exits; as long as this object.
  host::ExitMeter* exits();
  // From now on scrapes show the registry's VMs.
  void Watch(const host::VmRegistry* registry);

  std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface> MakeCallInterceptor();

  // Counts a line of the audit log that could not be written. Not to be called after our end.
  std::function<void()> AuditFailureCounter();

  // Counts a gap that a caller was told of, which stands for so many events. As long as this
  // object.
  std::function<void(uint64_t events)> GapCounter();
  // Shows whether the host takes no new VMs. As long as this object.
  std::function<void(bool draining)> DrainingGauge();
  // How many VMs the host takes; 0 before.
  void SetMaxVms(uint32_t max_vms);

  // No scrape is under way, and none follows.
  void StopServing();

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace twinroot::obs

#endif  // TWINROOT_DAEMON_OBS_METRICS_H_
