// Files that the user names: images, access programs, bytes for shared memory.
// Every failure is Failure{kUsage} that names the file.
#ifndef TWINROOT_CLI_INPUT_FILE_H_
#define TWINROOT_CLI_INPUT_FILE_H_

#include <cstdint>
#include <string>

#include "twinroot/v1/program.pb.h"

namespace twinroot::cli {

// A regular file, open for reading.
class InputFile {
 public:
  InputFile(const std::string& what, const std::string& path);
  ~InputFile();
  InputFile(const InputFile&) = delete;
  InputFile& operator=(const InputFile&) = delete;

  uint64_t size() const { return size_; }
  // The next bytes, at most `max`; empty at the end.
  std::string Read(size_t max);

 private:
  const std::string name_;
  int fd_ = -1;
  uint64_t size_ = 0;
};

// An access program: JSON if the name ends in .json, else textproto. Enum values may be written
// short (SHARED) or in full (MEMORY_KIND_SHARED). Errors say file, line and column.
v1::AccessProgram ReadProgram(const std::string& path);

}  // namespace twinroot::cli

#endif  // TWINROOT_CLI_INPUT_FILE_H_
