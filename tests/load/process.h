// What a process costs, from /proc.
#ifndef TWINROOT_TESTS_LOAD_PROCESS_H_
#define TWINROOT_TESTS_LOAD_PROCESS_H_

#include <cstdint>

namespace twinroot::load {

struct Process {
  // Anonymous resident memory, in bytes: not of files and shared memory, which guests' memory is.
  int64_t memory = 0;
  int64_t threads = 0;
};

// Ends the program if there is no such process.
Process LookAt(int pid);

}  // namespace twinroot::load

#endif  // TWINROOT_TESTS_LOAD_PROCESS_H_
