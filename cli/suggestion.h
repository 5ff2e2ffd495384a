// What somebody may have meant to type. Pure function.
#ifndef TWINROOT_CLI_SUGGESTION_H_
#define TWINROOT_CLI_SUGGESTION_H_

#include <string>
#include <string_view>
#include <vector>

namespace twinroot::cli {

// The word that differs least (inserted, left out, other or swapped letters), if it differs little
// for its length; else empty. Upper and lower case are the same.
std::string NearestTo(std::string_view typed, const std::vector<std::string>& words);

}  // namespace twinroot::cli

#endif  // TWINROOT_CLI_SUGGESTION_H_
