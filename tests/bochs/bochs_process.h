// One run of Bochs, headless, in a folder of its own that goes with it.
#ifndef TWINROOT_TESTS_BOCHS_BOCHS_PROCESS_H_
#define TWINROOT_TESTS_BOCHS_BOCHS_PROCESS_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace twinroot::bochs {

class BochsProcess {
 public:
  // `parent`: where its folder is made.
  explicit BochsProcess(const std::string& parent);
  ~BochsProcess();
  BochsProcess(const BochsProcess&) = delete;
  BochsProcess& operator=(const BochsProcess&) = delete;

  // The disk that it boots from: written before, read after Run.
  std::string disk() const { return folder_ + "/disk.img"; }

  // What it said on its terminal and in its log. kNotFound: there is no Bochs here, or not all of
  // it; kDeadlineExceeded: it did not end, and was ended.
  absl::StatusOr<std::string> Run(int memory_mib, const std::string& model, uint64_t heads,
                                  uint64_t sectors_per_track) const;

 private:
  std::string folder_;
};

}  // namespace twinroot::bochs

#endif  // TWINROOT_TESTS_BOCHS_BOCHS_PROCESS_H_
