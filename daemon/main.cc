// hvd: the daemon.
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <variant>
#include <vector>

#include "daemon/config.h"
#include "daemon/daemon.h"
#include "daemon/host/vm_registry.h"

int main(int argc, char** argv) {
  twinroot::Environment environment;
  environment.root = geteuid() == 0;
  environment.variable = [](const char* name) {
    const char* value = std::getenv(name);
    return std::string(value == nullptr ? "" : value);
  };
  const auto parsed = twinroot::ParseConfig({argv + 1, argv + argc}, environment);
  if (const auto* exit = std::get_if<twinroot::Exit>(&parsed)) {
    std::fputs(exit->output.c_str(), stdout);
    std::fputs(exit->error.c_str(), stderr);
    return exit->code;
  }
  return twinroot::RunDaemon(std::get<twinroot::Config>(parsed), twinroot::host::MakeVmRegistry);
}
