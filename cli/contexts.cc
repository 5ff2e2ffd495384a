#include "cli/contexts.h"

#include <fcntl.h>
#include <unistd.h>
#include <yaml-cpp/yaml.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "cli/failure.h"

namespace twinroot::cli {
namespace {

constexpr char kShape[] =
    "it has `current: NAME` and `contexts:`, each with endpoint, ca, cert and key; `hvctl context "
    "set` writes it";

[[noreturn]] void Refuse(const std::string& path, const YAML::Mark& mark, const std::string& why) {
  throw Failure{kUsage, absl::StrCat(path, ":", mark.line + 1, ":", mark.column + 1, ": ", why),
                kShape};
}

std::string TextOf(const std::string& path, const YAML::Node& node, const std::string& what) {
  if (!node.IsScalar()) Refuse(path, node.Mark(), absl::StrCat(what, " is not a text"));
  return node.Scalar();
}

Context ContextOf(const std::string& path, const YAML::Node& node) {
  Context context;
  const std::map<std::string, std::string*> fields = {{"endpoint", &context.endpoint},
                                                      {"ca", &context.ca},
                                                      {"cert", &context.cert},
                                                      {"key", &context.key}};
  if (!node.IsMap()) Refuse(path, node.Mark(), "a context has endpoint, ca, cert and key");
  for (const auto& member : node) {
    const auto field = fields.find(TextOf(path, member.first, "a key"));
    if (field == fields.end()) {
      Refuse(path, member.first.Mark(),
             absl::StrCat("unknown key \"", member.first.Scalar(), "\" of a context"));
    }
    *field->second = TextOf(path, member.second, field->first);
  }
  return context;
}

Contexts ReadContexts(const std::string& path, const std::string& text) {
  Contexts contexts;
  const YAML::Node root = YAML::Load(text);
  if (root.IsNull()) return contexts;
  if (!root.IsMap()) Refuse(path, root.Mark(), "this is not a file of contexts");
  for (const auto& member : root) {
    const std::string key = TextOf(path, member.first, "a key");
    if (key == "current") {
      contexts.current = TextOf(path, member.second, key);
    } else if (key == "contexts") {
      if (!member.second.IsMap()) Refuse(path, member.second.Mark(), "contexts go by their names");
      for (const auto& context : member.second) {
        contexts.all[TextOf(path, context.first, "a name")] = ContextOf(path, context.second);
      }
    } else {
      Refuse(path, member.first.Mark(), absl::StrCat("unknown key \"", key, "\""));
    }
  }
  return contexts;
}

std::string Text(const Contexts& contexts) {
  YAML::Emitter out;
  out << YAML::BeginMap;
  if (!contexts.current.empty()) out << YAML::Key << "current" << YAML::Value << contexts.current;
  out << YAML::Key << "contexts" << YAML::Value << YAML::BeginMap;
  for (const auto& [name, context] : contexts.all) {
    out << YAML::Key << name << YAML::Value << YAML::BeginMap;
    const std::pair<const char*, const std::string&> fields[] = {{"endpoint", context.endpoint},
                                                                 {"ca", context.ca},
                                                                 {"cert", context.cert},
                                                                 {"key", context.key}};
    for (const auto& [key, value] : fields) {
      if (!value.empty()) out << YAML::Key << key << YAML::Value << YAML::DoubleQuoted << value;
    }
    out << YAML::EndMap;
  }
  out << YAML::EndMap << YAML::EndMap;
  return absl::StrCat("# Written by `hvctl context`; may be edited.\n", std::string(out.c_str()),
                      "\n");
}

}  // namespace

const Context& Contexts::Get(const std::string& name) const {
  const auto found = all.find(name);
  if (found != all.end()) return found->second;
  std::string names;
  for (const auto& [other, ignored] : all)
    absl::StrAppend(&names, names.empty() ? "" : ", ", other);
  throw Failure{kUsage, absl::StrCat("there is no context '", name, "'"),
                names.empty()
                    ? absl::StrCat("`hvctl context set ", name, " --endpoint ...` makes it")
                    : absl::StrCat("there are: ", names)};
}

std::string ContextsPath() {
  const char* config = std::getenv("XDG_CONFIG_HOME");
  if (config != nullptr && *config != '\0') return absl::StrCat(config, "/twinroot/hvctl.yaml");
  const char* home = std::getenv("HOME");
  if (home == nullptr || *home == '\0') return "";
  return absl::StrCat(home, "/.config/twinroot/hvctl.yaml");
}

Contexts LoadContexts() {
  const std::string path = ContextsPath();
  if (path.empty() || access(path.c_str(), F_OK) != 0) return {};
  errno = 0;
  std::ifstream file(path);
  if (!file) {
    throw Failure{kUsage, absl::StrCat("cannot read ", path, ": ", strerror(errno)),
                  "give this user the right to read it, or name a daemon with --endpoint"};
  }
  try {
    return ReadContexts(path, std::string(std::istreambuf_iterator<char>(file), {}));
  } catch (const YAML::Exception& error) {
    Refuse(path, error.mark, error.msg);
  }
}

void SaveContexts(const Contexts& contexts) {
  const std::string path = ContextsPath();
  if (path.empty()) {
    throw Failure{kUsage, "there is no place for contexts: neither XDG_CONFIG_HOME nor HOME is set",
                  "set one of them"};
  }
  const std::string fresh = absl::StrCat(path, ".", getpid());
  std::error_code error;
  std::filesystem::create_directories(std::filesystem::path(path).parent_path(), error);
  errno = 0;
  std::ofstream file(fresh, std::ios::trunc);
  file << Text(contexts);
  file.close();
  if (!file || rename(fresh.c_str(), path.c_str()) != 0) {
    const int why = errno;
    unlink(fresh.c_str());
    throw Failure{kFailure, absl::StrCat("cannot write ", path, ": ", strerror(why)),
                  "is its folder yours, and the disk not full?"};
  }
}

}  // namespace twinroot::cli
