// JSON as YAML in blocks, its keys in their order. A text that YAML would read as something else (a
// number, true, null) stays in quotes, so both say the same. Pure function.
#ifndef TWINROOT_CLI_RENDER_YAML_H_
#define TWINROOT_CLI_RENDER_YAML_H_

#include <string>

namespace twinroot::cli {

// `json` is one value that hvctl has made; the result ends with a newline.
std::string JsonToYaml(const std::string& json);

}  // namespace twinroot::cli

#endif  // TWINROOT_CLI_RENDER_YAML_H_
