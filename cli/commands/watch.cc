// --watch of the verbs that show what is.
#include <chrono>
#include <thread>

#include "cli/commands/command.h"

namespace twinroot::cli {
namespace {

constexpr std::chrono::seconds kInterval{1};
constexpr char kHomeAndClear[] = "\033[H\033[J";

}  // namespace

int Watch(Session& session, const Runner& run) {
  std::string shown;
  bool first = true;
  while (true) {
    const std::string now = session.out().Capture([&] { run(session); });
    if (first || now != shown) {
      const bool table = !session.structured();
      const char* between = table && session.out().terminal() ? kHomeAndClear
                            : table && !first                 ? "\n"
                                                              : "";
      session.out().Write(between + now);
      session.out().Flush();
    }
    shown = now;
    first = false;
    std::this_thread::sleep_for(kInterval);
  }
}

}  // namespace twinroot::cli
