// The manual of hvctl as man(7) source, made from its command tree. Pure functions.
#ifndef TWINROOT_CLI_RENDER_MANUAL_H_
#define TWINROOT_CLI_RENDER_MANUAL_H_

#include <string>
#include <vector>

#include "cli/command_tree.h"

namespace twinroot::cli {

// The nouns, which have pages of their own: hvctl-vm(1) ...
std::vector<std::string> ManualNouns(const CommandEntry& root);

// hvctl(1), or with a noun its page.
std::string ManualPage(const CommandEntry& root, const std::string& version);
std::string ManualPageOf(const CommandEntry& noun, const std::string& version);

}  // namespace twinroot::cli

#endif  // TWINROOT_CLI_RENDER_MANUAL_H_
