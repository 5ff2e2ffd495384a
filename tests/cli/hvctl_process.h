// The real hvctl binary as a child process of a test.
// Not thread-safe; one object is one run. The child is killed if the test forgets it.
#ifndef TWINROOT_TESTS_CLI_HVCTL_PROCESS_H_
#define TWINROOT_TESTS_CLI_HVCTL_PROCESS_H_

#include <sys/types.h>

#include <string>
#include <vector>

namespace twinroot::cli {

struct Finished {
  int exit_code = -1;  // 128 + the signal if one killed it
  std::string out;
  std::string err;
};

enum class Terminal { kNone, kAll };

struct HvctlOptions {
  std::vector<std::string> arguments;
  // NAME=value, added to a small environment without HVCTL_ENDPOINT.
  std::vector<std::string> environment;
  // With kAll one terminal is stdin, stdout and stderr, and what it shows arrives as `out`.
  Terminal terminal = Terminal::kNone;
  // Words before the binary, for example setpriv and its flags.
  std::vector<std::string> prefix;
  // Tests run in their runfiles.
  std::string binary = "cli/hvctl";
};

class HvctlProcess {
 public:
  explicit HvctlProcess(const HvctlOptions& options);
  ~HvctlProcess();
  HvctlProcess(const HvctlProcess&) = delete;
  HvctlProcess& operator=(const HvctlProcess&) = delete;

  // Reads stdout until it holds `text`; false if it ends or ten seconds pass before.
  bool SeesOutput(const std::string& text);
  void Type(const std::string& text);  // needs a terminal
  void Signal(int number);
  void CloseOutput();
  // Reads the rest and waits for the end.
  Finished Wait();

 private:
  void Pump(int timeout_ms);

  pid_t pid_ = -1;
  int out_fd_ = -1;
  int err_fd_ = -1;
  std::string out_;
  std::string err_;
};

// One whole run against the daemon at `socket`.
Finished Hvctl(const std::string& socket, std::vector<std::string> arguments);

}  // namespace twinroot::cli

#endif  // TWINROOT_TESTS_CLI_HVCTL_PROCESS_H_
