// The configuration file: YAML, read into a Config.
//
// Thread-safe functions. Every mistake is told with its place and what is allowed there, all of
// them at once: "/etc/twinroot/hvd.yaml:3:10: backend: \"xen\" is none of auto, kvm, sim".
#ifndef TWINROOT_DAEMON_CONFIG_FILE_H_
#define TWINROOT_DAEMON_CONFIG_FILE_H_

#include <string>
#include <vector>

#include "daemon/config.h"

namespace twinroot {

// "" if `address` is HOST:PORT (or "off" where that may be), else what is wrong with it.
enum class Off { kAllowed, kRefused };
std::string CheckAddress(const std::string& address, Off off);

// A message of one line, whatever somebody has written into the words that it repeats: control
// characters become \xNN.
std::string OneLine(const std::string& message);

// Sets what `text` says; what it does not say stays. The mistakes, or none; with one, `config` is
// not to be used. `path` is for the messages. `credentials` is the folder of the files that `text`
// calls credential:NAME (systemd's LoadCredential=), or "": there is none.
std::vector<std::string> ReadConfigText(const std::string& text, const std::string& path,
                                        Config* config, const std::string& credentials = "");

}  // namespace twinroot

#endif  // TWINROOT_DAEMON_CONFIG_FILE_H_
