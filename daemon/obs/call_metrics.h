// Counts gRPC calls as they begin and as their status is sent, by method and code, and how long
// those with one answer took.
// Thread-safe.
#ifndef TWINROOT_DAEMON_OBS_CALL_METRICS_H_
#define TWINROOT_DAEMON_OBS_CALL_METRICS_H_

#include <memory>

#include "grpcpp/support/server_interceptor.h"
#include "prometheus/counter.h"
#include "prometheus/family.h"
#include "prometheus/histogram.h"
#include "prometheus/registry.h"

namespace twinroot::obs {

class CallMetrics {
 public:
  explicit CallMetrics(prometheus::Registry* registry);

  // For one server, which ends before this object does.
  std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface> MakeInterceptorFactory();

 private:
  class Factory;
  class Interceptor;

  prometheus::Family<prometheus::Counter>* const started_;
  prometheus::Family<prometheus::Counter>* const handled_;
  prometheus::Family<prometheus::Histogram>* const latency_;
};

}  // namespace twinroot::obs

#endif  // TWINROOT_DAEMON_OBS_CALL_METRICS_H_
