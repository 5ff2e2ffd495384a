#include "daemon/obs/metrics.h"

#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <exception>
#include <iterator>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "daemon/obs/call_metrics.h"
#include "daemon/obs/conversion_metrics.h"
#include "daemon/obs/family.h"
#include "daemon/obs/host_collector.h"
#include "daemon/obs/process_collector.h"
#include "daemon/obs/vm_collector.h"
#include "daemon/obs/vm_labels.h"
#include "prometheus/counter.h"
#include "prometheus/exposer.h"
#include "prometheus/gauge.h"
#include "prometheus/registry.h"
#include "prometheus/text_serializer.h"

namespace twinroot::obs {
namespace {

// From an engine change alone to an orchestrator that thinks.
const prometheus::Histogram::BucketBoundaries kLatencySeconds = {
    10e-6, 25e-6, 50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3,
    10e-3, 25e-3, 50e-3, 100e-3, 250e-3, 1,      5,    30,     300};
constexpr size_t kScrapesAtOnce = 2;

// Connects to host:port and hangs up.
void ConnectOnce(const std::string& address) {
  const size_t colon = address.rfind(':');
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  if (getaddrinfo(address.substr(0, colon).c_str(), address.substr(colon + 1).c_str(), &hints,
                  &found) != 0) {
    return;
  }
  const int fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd >= 0) {
    (void)connect(fd, found->ai_addr, found->ai_addrlen);
    close(fd);
  }
  freeaddrinfo(found);
}

}  // namespace

class Metrics::Impl {
 public:
  Impl(events::Journal* journal, const std::string& version, uint32_t max_vm_series)
      : registry(std::make_shared<prometheus::Registry>()),
        labels(std::make_shared<VmLabels>(max_vm_series)),
        calls(registry.get()),
        host(std::make_shared<HostCollector>(journal, &exits)),
        process(std::make_shared<ProcessCollector>()) {
    BuilderOf<prometheus::Gauge>(kBuildInfo).Register(*registry).Add({{"version", version}}).Set(1);
    audit_failures = &Single<prometheus::Counter>(kAuditFailures);
    gaps = &Single<prometheus::Counter>(kGaps);
    gap_events = &Single<prometheus::Counter>(kGapEvents);
    draining = &Single<prometheus::Gauge>(kDraining);
    max_vms = &Single<prometheus::Gauge>(kMaxVms);
    auto& latency = BuilderOf<prometheus::Histogram>(kConversionLatency).Register(*registry);
    conversions = std::make_shared<ConversionMetrics>(&latency, kLatencySeconds, labels.get());
    // The journal may outlive us: it keeps what it calls.
    journal->SetObserver([conversions = conversions, registry = registry, labels = labels](
                             const v1::Event& event) { conversions->Observe(event); });
  }

  // Of a family that has one series and no label.
  template <typename T>
  T& Single(const Metric& metric) {
    return BuilderOf<T>(metric).Register(*registry).Add({});
  }

  const std::shared_ptr<prometheus::Registry> registry;
  const std::shared_ptr<VmLabels> labels;
  host::ExitMeter exits;
  CallMetrics calls;
  prometheus::Counter* audit_failures = nullptr;
  prometheus::Counter* gaps = nullptr;
  prometheus::Counter* gap_events = nullptr;
  prometheus::Gauge* draining = nullptr;
  prometheus::Gauge* max_vms = nullptr;
  const std::shared_ptr<HostCollector> host;
  const std::shared_ptr<ProcessCollector> process;
  std::shared_ptr<ConversionMetrics> conversions;
  std::shared_ptr<VmCollector> vms;
  std::unique_ptr<prometheus::Exposer> exposer;
  std::string address;
};

Metrics::Metrics(events::Journal* journal, const std::string& version, uint32_t max_vm_series)
    : impl_(std::make_unique<Impl>(journal, version, max_vm_series)) {}

Metrics::~Metrics() { StopServing(); }

absl::Status Metrics::Expose(const std::string& address) {
  try {
    impl_->exposer = std::make_unique<prometheus::Exposer>(address, kScrapesAtOnce);
  } catch (const std::exception&) {
    // What it says names a class of the library, not the cause.
    return absl::UnavailableError(
        absl::StrCat("cannot serve metrics on ", address,
                     ": the port is taken, or the address is not this host's; choose another with "
                     "--metrics-address HOST:PORT (port 0 takes a free one)"));
  }
  impl_->exposer->RegisterCollectable(impl_->registry);
  impl_->exposer->RegisterCollectable(impl_->conversions);
  impl_->exposer->RegisterCollectable(impl_->host);
  impl_->exposer->RegisterCollectable(impl_->process);
  const auto ports = impl_->exposer->GetListeningPorts();
  impl_->address =
      absl::StrCat(address.substr(0, address.rfind(':')), ":", ports.empty() ? 0 : ports.front());
  return absl::OkStatus();
}

std::string Metrics::Text() const {
  std::vector<prometheus::MetricFamily> all = impl_->registry->Collect();
  const auto add = [&all](const prometheus::Collectable* source) {
    if (source == nullptr) return;
    std::vector<prometheus::MetricFamily> more = source->Collect();
    std::move(more.begin(), more.end(), std::back_inserter(all));
  };
  add(impl_->conversions.get());
  add(impl_->host.get());
  add(impl_->process.get());
  add(impl_->vms.get());
  return prometheus::TextSerializer().Serialize(all);
}

host::ExitMeter* Metrics::exits() { return &impl_->exits; }

std::string Metrics::address() const { return impl_->address; }

void Metrics::Watch(const host::VmRegistry* registry) {
  impl_->vms = std::make_shared<VmCollector>(registry, impl_->labels.get());
  if (impl_->exposer) impl_->exposer->RegisterCollectable(impl_->vms);
}

std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface>
Metrics::MakeCallInterceptor() {
  return impl_->calls.MakeInterceptorFactory();
}

std::function<void()> Metrics::AuditFailureCounter() {
  return [counter = impl_->audit_failures] { counter->Increment(); };
}

std::function<void(uint64_t)> Metrics::GapCounter() {
  return [gaps = impl_->gaps, events = impl_->gap_events](uint64_t count) {
    gaps->Increment();
    events->Increment(static_cast<double>(count));
  };
}

std::function<void(bool)> Metrics::DrainingGauge() {
  return [gauge = impl_->draining](bool draining) { gauge->Set(draining ? 1 : 0); };
}

void Metrics::SetMaxVms(uint32_t max_vms) { impl_->max_vms->Set(max_vms); }

void Metrics::StopServing() {
  if (impl_->exposer == nullptr) return;
  // The library's server looks whether it shall stop every two seconds, or when somebody connects.
  std::atomic<bool> stopped = false;
  std::thread caller([&] {
    while (!stopped) {
      ConnectOnce(impl_->address);
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
  });
  impl_->exposer.reset();
  stopped = true;
  caller.join();
}

}  // namespace twinroot::obs
