// The options that make a VM's share of processor time, for the verbs that set one. Not
// thread-safe.
#ifndef TWINROOT_CLI_COMMANDS_CPU_SHARE_FLAGS_H_
#define TWINROOT_CLI_COMMANDS_CPU_SHARE_FLAGS_H_

#include <CLI/CLI.hpp>
#include <cstdint>
#include <string>
#include <vector>

#include "twinroot/v1/vm.pb.h"

namespace twinroot::cli {

class CpuShareFlags {
 public:
  // Adds them to `verb`, which fills this object when it is parsed; both must outlive the parse.
  void AddTo(CLI::App* verb);

  void WriteTo(v1::Placement* placement) const;
  // The fields of the placement that were given, as field masks name them.
  std::vector<std::string> fields() const;

 private:
  const CLI::App* verb_ = nullptr;
  uint32_t weight_ = 0;
  double max_cpus_ = 0;
};

// "1.5 CPUs at most, weight 200"; "" without a share.
std::string DescribeCpuShare(const v1::Placement& placement);

}  // namespace twinroot::cli

#endif  // TWINROOT_CLI_COMMANDS_CPU_SHARE_FLAGS_H_
