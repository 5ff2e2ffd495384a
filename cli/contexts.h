// Daemons by name: the file $XDG_CONFIG_HOME/twinroot/hvctl.yaml (else under ~/.config), which
// `hvctl context` writes and people may.
//
//   current: lab
//   contexts:
//     lab: {endpoint: "10.0.0.7:7443", ca: /etc/lab/ca.pem, cert: me.pem, key: me.key}
//
// Relative paths of PEM files and sockets are made absolute when they are set. Not thread-safe.
#ifndef TWINROOT_CLI_CONTEXTS_H_
#define TWINROOT_CLI_CONTEXTS_H_

#include <map>
#include <string>

namespace twinroot::cli {

struct Context {
  std::string endpoint;
  std::string ca;
  std::string cert;
  std::string key;
};

struct Contexts {
  std::map<std::string, Context> all;
  std::string current;  // empty: none

  // Throws Failure{kUsage} with the other names if there is none of this name.
  const Context& Get(const std::string& name) const;
};

// Empty where neither XDG_CONFIG_HOME nor HOME is set.
std::string ContextsPath();
// No file is no context. Throws Failure{kUsage} with line and column for what cannot be read.
Contexts LoadContexts();
// Replaces the file as a whole; makes its folder. Throws Failure.
void SaveContexts(const Contexts& contexts);

}  // namespace twinroot::cli

#endif  // TWINROOT_CLI_CONTEXTS_H_
