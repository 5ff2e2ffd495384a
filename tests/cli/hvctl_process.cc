#include "tests/cli/hvctl_process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <stdexcept>

namespace twinroot::cli {
namespace {

constexpr std::chrono::seconds kPatience{10};

std::vector<char*> Pointers(const std::vector<std::string>& words) {
  std::vector<char*> pointers;
  for (const std::string& word : words) pointers.push_back(const_cast<char*>(word.c_str()));
  pointers.push_back(nullptr);
  return pointers;
}

struct Pipe {
  Pipe() {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) throw std::runtime_error("pipe2");
    read_end = ends[0];
    write_end = ends[1];
  }
  int read_end;
  int write_end;
};

// False at the end of the file. A terminal whose other side is closed reads EIO.
bool ReadSome(int fd, std::string* text) {
  char buffer[4096];
  const ssize_t got = read(fd, buffer, sizeof(buffer));
  if (got > 0) text->append(buffer, static_cast<size_t>(got));
  return got > 0;
}

}  // namespace

HvctlProcess::HvctlProcess(const HvctlOptions& options) {
  std::vector<std::string> words = options.prefix;
  words.push_back(options.binary);
  words.insert(words.end(), options.arguments.begin(), options.arguments.end());
  std::vector<std::string> environment = {"PATH=/usr/bin:/bin:/usr/sbin:/sbin", "TZ=UTC",
                                          "TERM=xterm"};
  // What the sanitizers of an instrumented binary read.
  for (const char* name : {"ASAN_OPTIONS", "TSAN_OPTIONS", "UBSAN_OPTIONS"}) {
    if (getenv(name) != nullptr) environment.push_back(std::string(name) + "=" + getenv(name));
  }
  environment.insert(environment.end(), options.environment.begin(), options.environment.end());

  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  std::vector<int> child_ends;
  if (options.terminal == Terminal::kAll) {
    out_fd_ = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    grantpt(out_fd_);
    unlockpt(out_fd_);
    const char* name = ptsname(out_fd_);
    // Held open here too: without a holder the terminal would hang up before the child opens it.
    child_ends.push_back(open(name, O_RDWR | O_NOCTTY | O_CLOEXEC));
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSID);
    for (int fd = 0; fd <= 2; ++fd) posix_spawn_file_actions_addopen(&actions, fd, name, O_RDWR, 0);
  } else {
    const Pipe out;
    const Pipe err;
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&actions, out.write_end, 1);
    posix_spawn_file_actions_adddup2(&actions, err.write_end, 2);
    out_fd_ = out.read_end;
    err_fd_ = err.read_end;
    child_ends = {out.write_end, err.write_end};
  }
  const int error = posix_spawnp(&pid_, words[0].c_str(), &actions, &attributes,
                                 Pointers(words).data(), Pointers(environment).data());
  posix_spawn_file_actions_destroy(&actions);
  posix_spawnattr_destroy(&attributes);
  for (const int fd : child_ends) close(fd);
  if (error != 0) throw std::runtime_error("cannot run " + words[0]);
}

HvctlProcess::~HvctlProcess() {
  if (pid_ > 0) {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  if (out_fd_ >= 0) close(out_fd_);
  if (err_fd_ >= 0) close(err_fd_);
}

void HvctlProcess::Pump(int timeout_ms) {
  pollfd fds[2] = {{out_fd_, POLLIN, 0}, {err_fd_, POLLIN, 0}};
  if (poll(fds, 2, timeout_ms) <= 0) return;
  if (fds[0].revents != 0 && !ReadSome(out_fd_, &out_)) {
    close(out_fd_);
    out_fd_ = -1;
  }
  if (fds[1].revents != 0 && !ReadSome(err_fd_, &err_)) {
    close(err_fd_);
    err_fd_ = -1;
  }
}

bool HvctlProcess::SeesOutput(const std::string& text) {
  const auto until = std::chrono::steady_clock::now() + kPatience;
  while (out_.find(text) == std::string::npos) {
    if (out_fd_ < 0 || std::chrono::steady_clock::now() > until) return false;
    Pump(/*timeout_ms=*/50);
  }
  return true;
}

void HvctlProcess::Type(const std::string& text) {
  if (write(out_fd_, text.data(), text.size()) != static_cast<ssize_t>(text.size())) {
    throw std::runtime_error("cannot type");
  }
}

void HvctlProcess::Signal(int number) { kill(pid_, number); }

void HvctlProcess::CloseOutput() {
  close(out_fd_);
  out_fd_ = -1;
}

Finished HvctlProcess::Wait() {
  while (out_fd_ >= 0 || err_fd_ >= 0) Pump(/*timeout_ms=*/-1);
  int status = 0;
  waitpid(pid_, &status, 0);
  pid_ = -1;
  return {WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status), out_, err_};
}

Finished Hvctl(const std::string& socket, std::vector<std::string> arguments) {
  HvctlOptions options;
  options.arguments = std::move(arguments);
  options.environment = {"HVCTL_ENDPOINT=" + socket};
  return HvctlProcess(options).Wait();
}

}  // namespace twinroot::cli
