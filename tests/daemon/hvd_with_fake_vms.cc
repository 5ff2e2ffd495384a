// hvd as it is, but for its VMs, which are fakes: what the tests of the daemon's life run. A VM
// "demo" runs from the beginning. With HVD_FAKE_DRAIN_HANGS set, stopping the VMs never ends.
#include <sys/prctl.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "daemon/config.h"
#include "daemon/daemon.h"
#include "tests/daemon/fakes/fake_vm_registry.h"

namespace {

class HangingRegistry final : public twinroot::fakes::FakeVmRegistry {
 public:
  using FakeVmRegistry::FakeVmRegistry;
  void Shutdown() override {
    std::fputs("hanging\n", stderr);
    for (;;) pause();
  }
};

}  // namespace

int main(int argc, char** argv) {
  using twinroot::host::BackendKind;
  // No variable, and no file but the one that is named.
  const auto parse = [arguments = std::vector<std::string>(argv + 1, argv + argc)] {
    return twinroot::ParseConfig(arguments, {false, [](const char*) { return std::string(); }});
  };
  const auto parsed = parse();
  if (const auto* exit = std::get_if<twinroot::Exit>(&parsed)) {
    std::fputs(exit->output.c_str(), stdout);
    std::fputs(exit->error.c_str(), stderr);
    return exit->code;
  }
  return twinroot::RunDaemon(
      std::get<twinroot::Config>(parsed), parse,
      [](const twinroot::host::RegistryOptions& options, twinroot::events::Journal* journal)
          -> absl::StatusOr<std::unique_ptr<twinroot::host::VmRegistry>> {
        if (options.default_backend == BackendKind::kKvm) {
          return absl::FailedPreconditionError("kvm does not work here");
        }
        std::fprintf(stderr, "dumpable %d\n", prctl(PR_GET_DUMPABLE));
        std::unique_ptr<twinroot::fakes::FakeVmRegistry> registry;
        if (std::getenv("HVD_FAKE_DRAIN_HANGS") != nullptr) {
          registry = std::make_unique<HangingRegistry>(journal);
        } else {
          registry = std::make_unique<twinroot::fakes::FakeVmRegistry>(journal);
        }
        twinroot::host::VmSpec spec;
        spec.name = "demo";
        spec.memory_bytes = uint64_t{2} << 20;
        auto vm = registry->Create(std::move(spec));
        if (!vm.ok()) return vm.status();
        if (absl::Status status = (*vm)->Start(); !status.ok()) return status;
        return registry;
      });
}
