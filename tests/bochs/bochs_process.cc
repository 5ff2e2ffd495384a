#include "tests/bochs/bochs_process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/substitute.h"

namespace twinroot::bochs {
namespace {

constexpr const char* kBochs = "/usr/bin/bochs";
constexpr const char* kBios = "/usr/share/bochs/BIOS-bochs-latest";
constexpr const char* kVgaBios = "/usr/share/bochs/VGABIOS-lgpl-latest";
constexpr std::chrono::seconds kPatience(120);

// No device that listens or plays; the machine has a processor, memory and a disk.
constexpr const char* kSettings = R"(display_library: term
memory: guest=$0, host=512
romimage: file=$1
vgaromimage: file=$2
cpu: model=$8, count=1, ips=20000000, reset_on_triple_fault=0
clock: sync=none
boot: disk
ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14
ata0-master: type=disk, path="$3", mode=flat, cylinders=$4, heads=$5, spt=$6
port_e9_hack: enabled=1
magic_break: enabled=1
log: $7
panic: action=fatal
error: action=report
info: action=ignore
debug: action=ignore
)";
// Its debugger: go on; and when the machine has stopped, leave.
constexpr const char* kDebuggerCommands = "c\nq\n";

void WriteFile(const std::string& path, const std::string& text) { std::ofstream(path) << text; }
std::string ReadFile(const std::string& path) {
  std::ifstream file(path);
  return std::string((std::istreambuf_iterator<char>(file)), {});
}
std::string EndOf(const std::string& text) {
  constexpr size_t kMost = 4000;
  return text.size() > kMost ? text.substr(text.size() - kMost) : text;
}

}  // namespace

BochsProcess::BochsProcess(const std::string& parent) : folder_(parent + "/bochs-XXXXXX") {
  if (mkdtemp(folder_.data()) == nullptr) std::abort();
}
BochsProcess::~BochsProcess() {
  std::error_code ignored;
  std::filesystem::remove_all(folder_, ignored);  // with disk.img.lock, which a killed run leaves
}

absl::StatusOr<std::string> BochsProcess::Run(int memory_mib, const std::string& model,
                                              uint64_t heads, uint64_t sectors_per_track) const {
  for (const char* needed : {kBochs, kBios, kVgaBios}) {
    if (access(needed, R_OK) != 0) {
      return absl::NotFoundError(absl::StrCat(
          needed,
          " is missing: third_party/debian/packages.txt names the packages that tests need"));
    }
  }
  const std::string log = folder_ + "/log";
  const uint64_t cylinders = std::filesystem::file_size(disk()) / 512 / heads / sectors_per_track;
  // It runs in the folder and is told bare names: a long path overruns a buffer of its own.
  WriteFile(folder_ + "/bochsrc",
            absl::Substitute(kSettings, memory_mib, kBios, kVgaBios, "disk.img", cylinders, heads,
                             sectors_per_track, "log", model));
  WriteFile(folder_ + "/rc", kDebuggerCommands);

  // Its display is a terminal, so it gets one.
  const int terminal = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
  if (terminal < 0 || grantpt(terminal) != 0 || unlockpt(terminal) != 0) {
    return absl::UnavailableError(absl::StrCat("no terminal: ", std::strerror(errno)));
  }
  // Open before there is a child: a terminal that nobody has open yet looks like one that was left.
  const int side = open(ptsname(terminal), O_RDWR | O_NOCTTY | O_CLOEXEC);
  const pid_t child = fork();
  if (child < 0) return absl::UnavailableError(absl::StrCat("fork: ", std::strerror(errno)));
  if (child == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);  // a test that is killed leaves nothing running
    setsid();
    for (int fd = 0; fd < 3; ++fd) dup2(side, fd);
    setenv("TERM", "vt100", 1);
    if (chdir(folder_.c_str()) != 0) _exit(127);
    execl(kBochs, kBochs, "-q", "-f", "bochsrc", "-rc", "rc", nullptr);
    _exit(127);
  }
  close(side);
  std::string said;
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  bool late = false;
  for (;;) {
    pollfd ready{terminal, POLLIN, 0};
    poll(&ready, 1, 1000);
    if (ready.revents != 0) {
      char bytes[4096];
      const ssize_t got = read(terminal, bytes, sizeof(bytes));
      if (got <= 0) break;  // it closed its side
      said.append(bytes, static_cast<size_t>(got));
    }
    if (std::chrono::steady_clock::now() > deadline) {
      late = true;
      break;
    }
  }
  if (late) kill(child, SIGKILL);
  int status = 0;
  waitpid(child, &status, 0);
  close(terminal);
  const std::string all = absl::StrCat(EndOf(said), "\n", EndOf(ReadFile(log)));
  if (late) return absl::DeadlineExceededError(absl::StrCat("Bochs did not end:\n", all));
  return all;
}

}  // namespace twinroot::bochs
