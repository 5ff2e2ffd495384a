#include "tests/load/process.h"

#include <fstream>
#include <string>

#include "tests/load/client.h"

namespace twinroot::load {

Process LookAt(int pid) {
  std::ifstream status("/proc/" + std::to_string(pid) + "/status");
  Process process;
  std::string word;
  while (status >> word) {
    if (word == "RssAnon:" && status >> process.memory) process.memory *= 1024;
    if (word == "Threads:") status >> process.threads;
  }
  Must(process.memory > 0 && process.threads > 0,
       "process " + std::to_string(pid) + " has ended, or is not ours to look at");
  return process;
}

}  // namespace twinroot::load
