// The stable reason of an error, carried by an absl::Status from the room that knows it up to the
// rpc room, which puts it into google.rpc.ErrorInfo. daemon/reasons.h lists the reasons.
// Pure functions; thread-safe.
#ifndef TWINROOT_DAEMON_STATUS_REASON_H_
#define TWINROOT_DAEMON_STATUS_REASON_H_

#include <map>
#include <string>

#include "absl/status/status.h"

namespace twinroot {

// `status` with a reason ("NO_SUCH_VM": upper snake case) and further facts about it (for ErrorInfo
// metadata: names and numbers, never guest data). An OK status stays as it is. A status that has a
// reason already gets the new one instead.
absl::Status WithReason(absl::Status status, std::string reason,
                        std::map<std::string, std::string> metadata = {});

// The reason, or "" if nobody gave one.
std::string ReasonOf(const absl::Status& status);
std::map<std::string, std::string> MetadataOf(const absl::Status& status);

}  // namespace twinroot

#endif  // TWINROOT_DAEMON_STATUS_REASON_H_
