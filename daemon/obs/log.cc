#include "daemon/obs/log.h"

#include <cstdlib>

#include "spdlog/sinks/stdout_color_sinks.h"
#include "spdlog/spdlog.h"

namespace twinroot::obs {

void InitLog() {
  auto logger = spdlog::get("hvd");
  if (!logger) logger = spdlog::stderr_color_mt("hvd");
  // journald has the time of its own.
  const bool journald = std::getenv("JOURNAL_STREAM") != nullptr;
  logger->set_pattern(journald ? "%l: %v" : "%Y-%m-%dT%H:%M:%S.%e %^%l%$ %v");
  logger->flush_on(spdlog::level::info);
  spdlog::set_default_logger(std::move(logger));
}

}  // namespace twinroot::obs
