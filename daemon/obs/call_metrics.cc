#include "daemon/obs/call_metrics.h"

#include <chrono>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "daemon/obs/family.h"

namespace twinroot::obs {

namespace experimental = grpc::experimental;

namespace {

const prometheus::Histogram::BucketBoundaries kLatencySeconds = {
    100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 100e-3, 1, 10};

}  // namespace

// One for each call. A method that no service has gets none, so the labels are bounded.
class CallMetrics::Interceptor final : public experimental::Interceptor {
 public:
  // What lasts as long as the client wants has no latency.
  Interceptor(CallMetrics* metrics, std::string method, bool unary)
      : metrics_(metrics), method_(std::move(method)), unary_(unary) {
    metrics_->started_->Add({{"method", method_}}).Increment();
  }

  void Intercept(experimental::InterceptorBatchMethods* batch) override {
    if (batch->QueryInterceptionHookPoint(experimental::InterceptionHookPoints::PRE_SEND_STATUS)) {
      const auto code = static_cast<absl::StatusCode>(batch->GetSendStatus().error_code());
      const prometheus::Labels labels = {{"method", method_},
                                         {"code", absl::StatusCodeToString(code)}};
      metrics_->handled_->Add(labels).Increment();
      if (unary_) {
        const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin_;
        metrics_->latency_->Add(labels, kLatencySeconds).Observe(took.count());
      }
    }
    batch->Proceed();
  }

 private:
  CallMetrics* const metrics_;
  const std::string method_;
  const bool unary_;
  const std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
};

class CallMetrics::Factory final : public experimental::ServerInterceptorFactoryInterface {
 public:
  explicit Factory(CallMetrics* metrics) : metrics_(metrics) {}

  experimental::Interceptor* CreateServerInterceptor(experimental::ServerRpcInfo* info) override {
    // "/twinroot.v1.VmService/GetVm" without the slash in front.
    return new Interceptor(metrics_, std::string(info->method()).substr(1),
                           info->type() == experimental::ServerRpcInfo::Type::UNARY);
  }

 private:
  CallMetrics* const metrics_;
};

CallMetrics::CallMetrics(prometheus::Registry* registry)
    : started_(&BuilderOf<prometheus::Counter>(kCallsStarted).Register(*registry)),
      handled_(&BuilderOf<prometheus::Counter>(kCallsHandled).Register(*registry)),
      latency_(&BuilderOf<prometheus::Histogram>(kCallLatency).Register(*registry)) {}

std::unique_ptr<experimental::ServerInterceptorFactoryInterface>
CallMetrics::MakeInterceptorFactory() {
  return std::make_unique<Factory>(this);
}

}  // namespace twinroot::obs
