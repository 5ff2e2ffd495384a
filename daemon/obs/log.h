// The daemon's log: spdlog to journald, where stderr leads there, else to stderr. Names, numbers
// and reasons only; never guest data. Call once, before the first thread.
#ifndef TWINROOT_DAEMON_OBS_LOG_H_
#define TWINROOT_DAEMON_OBS_LOG_H_

namespace twinroot::obs {

void InitLog();

}  // namespace twinroot::obs

#endif  // TWINROOT_DAEMON_OBS_LOG_H_
