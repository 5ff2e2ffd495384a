// A machine in Bochs 2.7 (Debian's package; README.md): what it is to do is collected, then it
// boots once, does all of it, and ends.
//
// Below kFirstFree its memory is its kernel's. One thread.
#ifndef TWINROOT_TESTS_BOCHS_BOCHS_MACHINE_H_
#define TWINROOT_TESTS_BOCHS_BOCHS_MACHINE_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "tests/bochs/protocol.h"

namespace twinroot::bochs {

using PageWords = std::array<uint64_t, 512>;

// What every processor of Bochs 2.7 has.
inline constexpr int kBochsMaxphyaddr = 40;

class BochsMachine {
 public:
  static constexpr uint64_t kFirstFree = uint64_t{1} << 20;

  // It boots the longer the more memory it has: half a second with 128 MiB, four with 3 GiB.
  // `model`: one of `bochs --help cpu`.
  explicit BochsMachine(int memory_mib, std::string model = "corei7_skylake_x")
      : memory_mib_(memory_mib), model_(std::move(model)) {}

  // In this order. Pages lie in memory, from kFirstFree on.
  void Load(uint64_t hpa, const PageWords& content);
  // The index of its result.
  size_t Run(const Probe& probe);
  // The index of the page in what Boot returns: its content when this was reached.
  size_t Dump(uint64_t hpa);

  struct Report {
    std::vector<ProbeResult> results;
    std::vector<PageWords> pages;
  };
  // Once. An error says what Bochs, or the machine's kernel, had to say.
  absl::StatusOr<Report> Boot();

 private:
  void Append(CommandType type, uint64_t word, uint64_t most);
  void Flush();
  absl::Status WriteDisk(const std::string& path);
  absl::StatusOr<Report> ReadReport(const std::string& path) const;

  const int memory_mib_;
  const std::string model_;
  // The command that is being collected, and what follows it.
  Command command_;
  std::vector<uint64_t> payload_;
  std::vector<uint64_t> stream_;
  // Results in their order: how many of which command.
  std::vector<std::pair<CommandType, uint64_t>> answers_;
  size_t probes_ = 0, dumps_ = 0;
};

}  // namespace twinroot::bochs

#endif  // TWINROOT_TESTS_BOCHS_BOCHS_MACHINE_H_
