// hvd: the daemon.
#include <cstdio>
#include <string>
#include <variant>
#include <vector>

#include "daemon/config.h"
#include "daemon/daemon.h"
#include "daemon/host/vm_registry.h"

int main(int argc, char** argv) {
  const auto parse = [arguments = std::vector<std::string>(argv + 1, argv + argc)] {
    return twinroot::ParseConfig(arguments, twinroot::ThisEnvironment());
  };
  const auto parsed = parse();
  if (const auto* exit = std::get_if<twinroot::Exit>(&parsed)) {
    std::fputs(exit->output.c_str(), stdout);
    std::fputs(exit->error.c_str(), stderr);
    return exit->code;
  }
  return twinroot::RunDaemon(std::get<twinroot::Config>(parsed), parse,
                             twinroot::host::MakeVmRegistry);
}
