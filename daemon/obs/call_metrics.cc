#include "daemon/obs/call_metrics.h"

#include <string>
#include <utility>

#include "absl/status/status.h"

namespace twinroot::obs {

namespace experimental = grpc::experimental;

// One for each call. A method that no service has gets none, so the labels are bounded.
class CallMetrics::Interceptor final : public experimental::Interceptor {
 public:
  Interceptor(CallMetrics* metrics, std::string method)
      : metrics_(metrics), method_(std::move(method)) {
    metrics_->started_->Add({{"method", method_}}).Increment();
  }

  void Intercept(experimental::InterceptorBatchMethods* batch) override {
    if (batch->QueryInterceptionHookPoint(experimental::InterceptionHookPoints::PRE_SEND_STATUS)) {
      const auto code = static_cast<absl::StatusCode>(batch->GetSendStatus().error_code());
      metrics_->handled_->Add({{"method", method_}, {"code", absl::StatusCodeToString(code)}})
          .Increment();
    }
    batch->Proceed();
  }

 private:
  CallMetrics* const metrics_;
  const std::string method_;
};

class CallMetrics::Factory final : public experimental::ServerInterceptorFactoryInterface {
 public:
  explicit Factory(CallMetrics* metrics) : metrics_(metrics) {}

  experimental::Interceptor* CreateServerInterceptor(experimental::ServerRpcInfo* info) override {
    // "/twinroot.v1.VmService/GetVm" without the slash in front.
    return new Interceptor(metrics_, std::string(info->method()).substr(1));
  }

 private:
  CallMetrics* const metrics_;
};

CallMetrics::CallMetrics(prometheus::Registry* registry)
    : started_(&prometheus::BuildCounter()
                    .Name("twinroot_grpc_started_total")
                    .Help("gRPC calls that began.")
                    .Register(*registry)),
      handled_(&prometheus::BuildCounter()
                    .Name("twinroot_grpc_handled_total")
                    .Help("gRPC calls that ended, by code.")
                    .Register(*registry)) {}

std::unique_ptr<experimental::ServerInterceptorFactoryInterface>
CallMetrics::MakeInterceptorFactory() {
  return std::make_unique<Factory>(this);
}

}  // namespace twinroot::obs
