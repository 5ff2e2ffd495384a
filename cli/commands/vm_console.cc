// hvctl vm console: what a guest says; with --interactive it is a terminal of an operating system.
#include <poll.h>
#include <sys/eventfd.h>
#include <termios.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <memory>
#include <optional>
#include <string>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "cli/commands/command.h"
#include "cli/render/visible.h"

namespace twinroot::cli {
namespace {

constexpr char kLeave = 0x1d;  // Ctrl-]
constexpr size_t kMaxTyped = 4096;
constexpr absl::Duration kPatience = absl::Milliseconds(100);

struct Arguments {
  std::string name;
  bool follow = false;
  bool interactive = false;
};

// Standard input gives every key as it is typed, as long as this lives; nothing if it is no
// terminal.
class RawTerminal {
 public:
  RawTerminal() {
    if (!isatty(STDIN_FILENO) || tcgetattr(STDIN_FILENO, &before_) != 0) return;
    termios raw = before_;
    cfmakeraw(&raw);
    changed_ = tcsetattr(STDIN_FILENO, TCSADRAIN, &raw) == 0;
  }
  ~RawTerminal() {
    if (changed_) tcsetattr(STDIN_FILENO, TCSADRAIN, &before_);
  }
  RawTerminal(const RawTerminal&) = delete;
  RawTerminal& operator=(const RawTerminal&) = delete;

  bool changed() const { return changed_; }

 private:
  termios before_;
  bool changed_ = false;
};

// Types standard input on the guest's serial port, in a thread of its own, until its end, Ctrl-] on
// a terminal, or the end of this object.
class Typist {
 public:
  // `leave` is called when there is no use in going on.
  Typist(Client* client, std::string name, bool terminal, std::function<void()> leave)
      : client_(*client),
        name_(std::move(name)),
        terminal_(terminal),
        leave_(std::move(leave)),
        end_(eventfd(0, EFD_CLOEXEC)),
        thread_([this] { Run(); }) {}
  ~Typist() {
    const uint64_t one = 1;
    (void)!write(end_, &one, sizeof one);
    thread_.join();
    close(end_);
  }

  // Ctrl-] was typed. After that, or when it failed, the thread is done.
  bool left() const { return left_; }
  // Why it gave up; after `leave`.
  const std::optional<grpc::Status>& failure() const { return failure_; }

 private:
  void Run() {
    char bytes[kMaxTyped];
    while (true) {
      pollfd sources[] = {{STDIN_FILENO, POLLIN, 0}, {end_, POLLIN, 0}};
      if (poll(sources, 2, -1) < 0) {
        if (errno == EINTR) continue;
        return;
      }
      if (sources[1].revents != 0) return;
      const ssize_t count = read(STDIN_FILENO, bytes, sizeof bytes);
      if (count < 0 && errno == EINTR) continue;
      if (count <= 0) return;  // what the guest says is still worth following
      std::string typed(bytes, static_cast<size_t>(count));
      CutAtLeave(typed);
      if (!Send(typed) || left_) {
        if (left_ || failure_.has_value()) leave_();
        return;
      }
    }
  }

  // Ctrl-] and what follows is no input.
  void CutAtLeave(std::string& typed) {
    const size_t leave = terminal_ ? typed.find(kLeave) : std::string::npos;
    if (leave == std::string::npos) return;
    left_ = true;
    typed.resize(leave);
  }

  // While the guest reads nothing; false: nobody waits for it any more. Of what a person types
  // meanwhile only Ctrl-] counts, a file waits.
  bool WaitForRoom() {
    pollfd sources[] = {{end_, POLLIN, 0}, {terminal_ ? STDIN_FILENO : -1, POLLIN, 0}};
    if (poll(sources, 2, static_cast<int>(absl::ToInt64Milliseconds(kPatience))) <= 0) return true;
    if (sources[0].revents != 0) return false;
    char bytes[kMaxTyped];
    const ssize_t count = read(STDIN_FILENO, bytes, sizeof bytes);
    if (count < 0 && errno == EINTR) return true;
    if (count <= 0) return false;
    std::string typed(bytes, static_cast<size_t>(count));
    CutAtLeave(typed);
    return !left_;
  }

  bool Send(const std::string& typed) {
    if (typed.empty()) return true;
    do {
      grpc::ClientContext context;
      Client::SetDeadline(&context);
      v1::WriteConsoleRequest request;
      request.set_name(VmResource(name_));
      request.set_data(typed);
      v1::WriteConsoleResponse response;
      const grpc::Status status = client_.vm().WriteConsole(&context, request, &response);
      if (status.ok()) return true;
      const std::string reason = ReasonOf(status);
      if (reason == "WRONG_STATE") return false;  // it has stopped; the stream tells
      if (reason != "CONSOLE_INPUT_FULL") {
        failure_ = status;
        return false;
      }
    } while (WaitForRoom());
    return false;
  }

  Client& client_;
  const std::string name_;
  const bool terminal_;
  const std::function<void()> leave_;
  const int end_;
  std::atomic<bool> left_{false};
  std::optional<grpc::Status> failure_;
  std::thread thread_;
};

void CheckRuns(Session& session, const std::string& name) {
  const v1::Vm::State state = GetVm(session, name, absl::StrCat("cannot get vm ", name)).state();
  if (state == v1::Vm::STATE_RUNNING || state == v1::Vm::STATE_PAUSED) return;
  throw Failure{kConflict, absl::StrCat("vm ", name, " does not run: nobody reads what you type"),
                state == v1::Vm::STATE_DEFINED ? absl::StrCat("`hvctl vm start ", name, "` first")
                                               : "leave --interactive out to see what it said"};
}

int Console(Session& session, const Arguments& arguments) {
  if (arguments.interactive) CheckRuns(session, arguments.name);
  v1::StreamConsoleRequest request;
  request.set_name(VmResource(arguments.name));
  const bool follow = arguments.follow || arguments.interactive;
  request.set_mode(follow ? v1::StreamConsoleRequest::MODE_FOLLOW
                          : v1::StreamConsoleRequest::MODE_SNAPSHOT);
  grpc::ClientContext context;
  if (!follow) Client::SetDeadline(&context);
  const auto reader = session.client().vm().StreamConsole(&context, request);
  std::optional<RawTerminal> terminal;
  std::optional<Typist> typist;
  if (arguments.interactive) {
    terminal.emplace();
    if (terminal->changed()) session.out().Write("Ctrl-] leaves; the guest goes on\r\n");
    session.out().Flush();
    typist.emplace(&session.client(), arguments.name, terminal->changed(),
                   [&context] { context.TryCancel(); });
  }
  // A terminal of the guest's own obeys it; otherwise nobody's terminal does.
  const bool escape = session.out().terminal() && !arguments.interactive;
  VisibleText visible;
  v1::StreamConsoleResponse chunk;
  while (reader->Read(&chunk)) {
    if (session.structured()) {
      session.StreamObject(chunk);
    } else {
      session.out().Write(escape ? visible.Add(chunk.data()) : chunk.data());
    }
    session.out().Flush();
  }
  if (escape) session.out().Write(visible.Finish());
  const grpc::Status end = reader->Finish();
  const std::string what = absl::StrCat("cannot read the console of vm ", arguments.name);
  if (typist.has_value() && end.error_code() == grpc::StatusCode::CANCELLED) {
    if (typist->left()) return kOk;
    if (typist->failure().has_value()) {
      session.client().Check(absl::StrCat("cannot type on the console of vm ", arguments.name),
                             *typist->failure());
    }
  }
  session.client().Check(what, end);
  return kOk;
}

}  // namespace

void AddVmConsole(CLI::App* vm, Invocation* invocation) {
  const auto arguments = std::make_shared<Arguments>();
  CLI::App* verb = AddVerb(vm, "console", "What a guest has said so far", invocation,
                           [arguments](Session& session) { return Console(session, *arguments); });
  AddVmName(verb, &arguments->name);
  verb->add_flag("-f,--follow", arguments->follow, "Go on until the VM stops");
  verb->add_flag("-i,--interactive", arguments->interactive,
                 "Be its terminal: follow it, and type what comes on standard input (an operating "
                 "system's serial console; Ctrl-] leaves)");
  verb->parse_complete_callback([arguments, invocation] {
    if (arguments->interactive && invocation->options.format == Format::kJson) {
      throw CLI::ValidationError("--interactive", "cannot be shown as JSON; use --follow");
    }
  });
}

}  // namespace twinroot::cli
