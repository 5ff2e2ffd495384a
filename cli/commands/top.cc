// hvctl top: what VMs do each second. Two calls a refresh, however many VMs there are.
#include <google/protobuf/struct.pb.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <memory>
#include <thread>

#include "absl/time/clock.h"
#include "cli/commands/command.h"
#include "cli/render/top_screen.h"
#include "cli/short_names.h"

namespace twinroot::cli {
namespace {

using Clock = std::chrono::steady_clock;

struct Arguments {
  absl::Duration interval = absl::Seconds(1);
  uint32_t count = 0;  // 0: until it is left
  bool once = false;
  TopOrder order = TopOrder::kConversions;
};

constexpr std::chrono::milliseconds kFirstLook{300};
constexpr std::pair<char, TopOrder> kKeys[] = {
    {'c', TopOrder::kConversions}, {'f', TopOrder::kFaults}, {'s', TopOrder::kSplits},
    {'d', TopOrder::kDirty},       {'h', TopOrder::kShared}, {'m', TopOrder::kMemory},
    {'n', TopOrder::kName}};
constexpr char kHelp[] =
    "q leaves; order by c f s d h m n: CONV FAULTS SPLITS DIRTY SHARED MEMORY NAME";

// The terminal's second page, without a cursor, its keys read one by one; all as before at the end,
// also of a command that is killed.
class FullScreen {
 public:
  FullScreen() {
    if (tcgetattr(STDIN_FILENO, &before_) == 0) {
      termios raw = before_;
      raw.c_lflag &= ~static_cast<tcflag_t>(ICANON | ECHO);
      keys_ = tcsetattr(STDIN_FILENO, TCSADRAIN, &raw) == 0;
    }
    for (const int number : {SIGINT, SIGTERM, SIGHUP}) std::signal(number, Leave);
    Say("\033[?1049h\033[?25l");
  }
  ~FullScreen() { Restore(); }
  FullScreen(const FullScreen&) = delete;
  FullScreen& operator=(const FullScreen&) = delete;

  // The key that is hit within `patience`; 0 if none is.
  char Key(std::chrono::milliseconds patience) const {
    pollfd source{keys_ ? STDIN_FILENO : -1, POLLIN, 0};
    char key = 0;
    if (poll(&source, 1, static_cast<int>(patience.count())) <= 0) return 0;
    return read(STDIN_FILENO, &key, 1) == 1 ? key : 'q';  // a terminal that is gone
  }

 private:
  // Functions that a signal's handler may call.
  static void Say(std::string_view bytes) {
    (void)!write(STDOUT_FILENO, bytes.data(), bytes.size());
  }
  static void Restore() {
    Say("\033[?25h\033[?1049l");
    if (keys_) tcsetattr(STDIN_FILENO, TCSADRAIN, &before_);
  }
  static void Leave(int number) {
    Restore();
    _exit(number == SIGINT ? kInterrupted : 128 + number);
  }

  inline static termios before_;
  inline static bool keys_ = false;
};

class Sampler {
 public:
  explicit Sampler(Session* session) : client_(session->client()) {}

  // The first has no rates.
  TopPicture Take(TopOrder order) {
    TopPicture picture;
    picture.order = order;
    picture.clock = absl::FormatTime("%H:%M:%S", absl::Now(), absl::LocalTimeZone());
    const auto metrics = client_.Call<v1::GetMetricsResponse>(
        "cannot show what vms do",
        [&](grpc::ClientContext* context, v1::GetMetricsResponse* answer) {
          return client_.host().GetMetrics(context, v1::GetMetricsRequest(), answer);
        });
    const Clock::time_point now = Clock::now();
    std::map<std::string, VmCounts> counts = ReadVmCounts(metrics.text());
    const double seconds = std::chrono::duration<double>(now - when_).count();
    const v1::ListVmsResponse vms = ListVms(client_, "cannot show what vms do");
    for (const v1::Vm& vm : vms.vms()) {
      TopVm row;
      row.name = BareName(vm);
      row.state = ShortName(vm.state());
      row.backend = ShortName(vm.backend());
      row.policy = ShortName(vm.conversion_policy().mode());
      row.memory_bytes = static_cast<double>(vm.memory_bytes());
      const auto counted = counts.find(row.name);
      if (counted != counts.end() && when_ != Clock::time_point()) {
        row.counted = true;
        // A VM that was not there has counted since then, too.
        row.rates = RatesOf(before_[row.name], counted->second, seconds);
      }
      picture.vms.push_back(std::move(row));
    }
    before_ = std::move(counts);
    when_ = now;
    return picture;
  }

 private:
  Client& client_;
  std::map<std::string, VmCounts> before_;
  Clock::time_point when_;
};

TopSize TerminalSize() {
  winsize size{};
  if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0 || size.ws_row == 0) {
    return {};
  }
  return {size.ws_col, size.ws_row};
}

// Bytes are decimal strings, as in all JSON of hvctl.
std::string Decimal(double bytes) { return std::to_string(static_cast<uint64_t>(bytes)); }

google::protobuf::Struct ToStruct(TopPicture picture) {
  SortTop(picture.order, &picture.vms);
  google::protobuf::Struct message;
  auto* vms = (*message.mutable_fields())["vms"].mutable_list_value();
  for (const TopVm& vm : picture.vms) {
    auto& fields = *vms->add_values()->mutable_struct_value()->mutable_fields();
    fields["name"].set_string_value(vm.name);
    fields["state"].set_string_value(vm.state);
    if (!vm.counted) continue;
    fields["conversionsPerSecond"].set_number_value(vm.rates.conversions);
    fields["faultsPerSecond"].set_number_value(vm.rates.faults);
    fields["splitsPerSecond"].set_number_value(vm.rates.splits);
    fields["dirtyBytesPerSecond"].set_number_value(vm.rates.dirty_bytes);
    fields["sharedBytes"].set_string_value(Decimal(vm.rates.shared_bytes));
    fields["allocatedBytes"].set_string_value(Decimal(vm.rates.allocated_bytes));
    fields["waitingConversions"].set_number_value(vm.rates.waiting);
  }
  return message;
}

// For scripts: one table after the other, of any length.
int Print(Session& session, const Arguments& arguments) {
  Sampler sampler(&session);
  sampler.Take(arguments.order);
  const uint32_t count = arguments.once ? 1 : arguments.count;
  const Header header = session.options().no_headers ? Header::kOmit : Header::kPrint;
  TopSize size = session.out().terminal() ? TerminalSize() : TopSize{};
  if (!session.out().terminal()) size.columns = 200;
  size.rows = 0;
  for (uint32_t i = 0; count == 0 || i < count; ++i) {
    std::this_thread::sleep_for(absl::ToChronoNanoseconds(arguments.interval));
    const Colors colors = session.out().colors() ? Colors::kOn : Colors::kOff;
    const TopPicture picture = sampler.Take(arguments.order);
    if (session.structured()) {
      session.StreamObject(ToStruct(picture));
    } else {
      session.out().Write((i == 0 ? "" : "\n") + RenderTop(picture, size, header, colors));
    }
    session.out().Flush();
  }
  return kOk;
}

int Show(Session& session, const Arguments& arguments) {
  const Colors colors = session.out().colors() ? Colors::kOn : Colors::kOff;
  Sampler sampler(&session);
  TopPicture picture = sampler.Take(arguments.order);
  const FullScreen screen;
  TopOrder order = arguments.order;
  // The first rates come soon, but not of so short a time that they mean nothing.
  const auto interval = absl::ToChronoNanoseconds(arguments.interval);
  Clock::time_point next = Clock::now() + std::min<Clock::duration>(interval, kFirstLook);
  while (true) {
    TopSize size = TerminalSize();
    const bool help = size.rows > 8;
    size.rows -= help ? 2 : 0;
    picture.order = order;
    // The last line has no newline: it would scroll the first one away.
    std::string text = RenderTop(picture, size, Header::kPrint, colors);
    text.pop_back();
    std::string drawn = "\033[H";
    for (const char c : text) drawn += c == '\n' ? std::string("\033[K\n") : std::string(1, c);
    drawn += "\033[K\033[J";
    if (help) {
      drawn += "\033[" + std::to_string(size.rows + 2) + ";1H" +
               std::string(kHelp).substr(0, size.columns);
    }
    session.out().Write(drawn);
    session.out().Flush();
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(next - Clock::now());
    const char key = screen.Key(std::max(left, std::chrono::milliseconds(0)));
    if (key == 'q' || key == 'Q') return kOk;
    for (const auto& [letter, wanted] : kKeys) {
      if (letter == key) order = wanted;
    }
    if (Clock::now() < next) continue;
    next = Clock::now() + interval;
    picture = sampler.Take(order);
  }
}

}  // namespace

void AddTopCommand(CLI::App* root, Invocation* invocation) {
  const auto arguments = std::make_shared<Arguments>();
  CLI::App* verb = AddVerb(
      root, "top", "What VMs do each second: conversions, faults, splits, dirty memory", invocation,
      [arguments](Session& session) {
        const bool screen = session.out().terminal() && isatty(STDIN_FILENO) == 1 &&
                            !session.structured() && !arguments->once && arguments->count == 0;
        return screen ? Show(session, *arguments) : Print(session, *arguments);
      });
  AddDuration(verb, "--interval", &arguments->interval, "Between two looks (1s)");
  AddChoice<TopOrder>(verb, "--sort", &arguments->order,
                      {{"conversions", TopOrder::kConversions},
                       {"faults", TopOrder::kFaults},
                       {"splits", TopOrder::kSplits},
                       {"dirty", TopOrder::kDirty},
                       {"shared", TopOrder::kShared},
                       {"memory", TopOrder::kMemory},
                       {"name", TopOrder::kName}},
                      "What comes first (conversions)");
  CLI::Option* once = verb->add_flag("--once", arguments->once,
                                     "Print one table and end; the rates are of one interval");
  verb->add_option_function<uint32_t>(
          "-n,--count",
          [arguments](const uint32_t& count) {
            if (count == 0)
              throw CLI::ValidationError("--count", "0 tables are none: give 1 or more");
            arguments->count = count;
          },
          "Print so many tables and end")
      ->type_name("N")
      ->excludes(once);
}

}  // namespace twinroot::cli
