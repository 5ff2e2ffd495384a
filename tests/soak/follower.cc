#include "tests/soak/follower.h"

#include <signal.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"

namespace twinroot::soak {
namespace {

bool IsEnd(const v1::Event& event, const std::string& last) {
  return event.vm() == last && event.vm_state().state() == v1::Vm::STATE_STOPPED;
}

// Whole lines only: of the last one a part may be written.
void CutPartialLine(const std::string& file) {
  std::ifstream stream(file, std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
  const size_t end = text.rfind('\n');
  std::filesystem::resize_file(file, end == std::string::npos ? 0 : end + 1);
}

std::string LastLine(const std::string& file) {
  std::ifstream stream(file);
  std::string last;
  for (std::string line; std::getline(stream, line);) last = line;
  return last;
}

}  // namespace

int Follow(const std::string& endpoint, const std::string& file, const std::string& cursor,
           const std::string& last) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);  // a soak that fails takes it along
  Daemon daemon(endpoint);
  std::ofstream out(file, std::ios::app);
  grpc::ClientContext context;
  v1::WatchEventsRequest request;
  request.set_start_cursor(cursor);
  const auto reader = daemon.events->WatchEvents(&context, request);
  for (v1::WatchEventsResponse message; reader->Read(&message);) {
    for (const v1::Event& event : message.events()) {
      if (event.has_bookmark()) continue;
      Must(!event.has_gap(), absl::StrCat("the watcher missed ", event.gap().count(), " events"));
      out << event.cursor() << '\n';
      if (!IsEnd(event, last)) continue;
      context.TryCancel();
      return out.flush() ? 0 : 1;
    }
    out.flush();
  }
  Must(reader->Finish(), "WatchEvents");
  return 1;
}

Follower::Follower(std::string endpoint, std::string file, std::string cursor, std::string last)
    : endpoint_(std::move(endpoint)),
      file_(std::move(file)),
      first_cursor_(std::move(cursor)),
      last_(std::move(last)) {
  std::ofstream made(file_);
  Must(made.is_open(), file_ + " cannot be written");
  Start(first_cursor_);
}

Follower::~Follower() {
  if (process_ < 0) return;
  kill(process_, SIGKILL);
  waitpid(process_, nullptr, 0);
}

void Follower::Start(const std::string& cursor) {
  const std::string words[] = {"soak", "--follow=" + file_, "--endpoint=" + endpoint_,
                               "--cursor=" + cursor, "--last=" + last_};
  std::vector<char*> arguments;
  for (const std::string& word : words) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  Must(posix_spawn(&process_, "/proc/self/exe", nullptr, nullptr, arguments.data(), environ) == 0,
       "the watcher cannot be started");
}

void Follower::KillAndRestart() {
  Must(waitpid(process_, nullptr, WNOHANG) == 0, "the watcher has ended before its time");
  kill(process_, SIGKILL);
  waitpid(process_, nullptr, 0);
  CutPartialLine(file_);
  const std::string cursor = LastLine(file_);
  Start(cursor.empty() ? first_cursor_ : cursor);
  ++restarts_;
}

uint64_t Follower::Finish(Daemon* daemon) {
  int status = 0;
  const auto end = std::chrono::steady_clock::now() + kPatience;
  while (waitpid(process_, &status, WNOHANG) == 0) {
    Must(std::chrono::steady_clock::now() < end, "the watcher was not told of the last event");
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  process_ = -1;
  Must(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the watcher has failed");

  std::ifstream told(file_);
  uint64_t events = 0;
  v1::ListEventsRequest request;
  request.set_start_cursor(first_cursor_);
  for (;;) {
    v1::ListEventsResponse page;
    Must(Call(daemon->events.get(), &v1::EventService::Stub::ListEvents, request, &page),
         "ListEvents");
    for (const v1::Event& event : page.events()) {
      Must(!event.has_gap(), "the list has a gap: the journal keeps fewer events than there were");
      std::string line;
      Must(static_cast<bool>(std::getline(told, line)) && line == event.cursor(),
           absl::StrCat("the watcher was told ", line, " and not ", event.cursor()));
      ++events;
      if (!IsEnd(event, last_)) continue;
      Must(!std::getline(told, line), "the watcher was told more than there was");
      return events;
    }
    Must(page.next_cursor() != page.end_cursor(), "the list has no end");
    request.set_start_cursor(page.next_cursor());
    request.set_end_cursor(page.end_cursor());
  }
}

}  // namespace twinroot::soak
