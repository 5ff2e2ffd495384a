#include "daemon/config_file.h"

#include <algorithm>
#include <functional>
#include <limits>
#include <map>
#include <set>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "yaml-cpp/yaml.h"

namespace twinroot {
namespace {

using access::Role;

constexpr char kCredential[] = "credential:";
constexpr uint32_t kMaxPort = 65535;
constexpr mode_t kAnybody = 0777;
constexpr mode_t kOwner = 0600;
constexpr uint32_t kMiB = uint32_t{1} << 20;

template <typename T>
using Words = std::vector<std::pair<std::string, T>>;

class Reader {
 public:
  using Field = std::function<void(const YAML::Node&)>;
  using Fields = std::vector<std::pair<std::string, Field>>;

  Reader(std::string path, std::string credentials)
      : path_(std::move(path)), credentials_(std::move(credentials)) {}

  std::vector<std::string> mistakes() && { return std::move(mistakes_); }

  void Mistake(const YAML::Mark& mark, const std::string& what) {
    mistakes_.push_back(
        absl::StrCat(path_, ":", mark.line + 1, ":", mark.column + 1, ": ", OneLine(what)));
  }

  // A map with these keys, each at most once. `name` is its own key, "" at the top.
  void Map(const YAML::Node& node, const std::string& name, const Fields& fields) {
    if (!node.IsMap()) {
      Mistake(node.Mark(), absl::StrCat(name.empty() ? "the file" : name,
                                        " must be a map with the keys ", KeysOf(fields)));
      return;
    }
    std::set<std::string> seen;
    for (const auto& item : node) {
      const std::string key = item.first.IsScalar() ? item.first.Scalar() : "";
      const auto field = std::find_if(fields.begin(), fields.end(),
                                      [&](const auto& known) { return known.first == key; });
      if (field == fields.end()) {
        Mistake(item.first.Mark(), absl::StrCat("unknown key \"", key, "\": allowed ",
                                                name.empty() ? "" : absl::StrCat("in ", name, " "),
                                                "are ", KeysOf(fields)));
      } else if (!seen.insert(key).second) {
        Mistake(item.first.Mark(), absl::StrCat("\"", key, "\" stands here a second time"));
      } else {
        field->second(item.second);
      }
    }
  }

  // Each element of a list.
  void List(const YAML::Node& node, const std::string& name, const Field& element) {
    if (!node.IsSequence()) {
      Mistake(node.Mark(), absl::StrCat(name, " must be a list"));
      return;
    }
    for (const auto& item : node) element(item);
  }

  // One value; `take` says what is wrong with it, or "".
  Field Value(const std::string& name, std::function<std::string(const std::string&)> take) {
    return [=, this](const YAML::Node& node) {
      if (!node.IsScalar() || node.Scalar().empty()) {
        Mistake(node.Mark(), absl::StrCat(name, " must be one value"));
        return;
      }
      const std::string wrong = take(node.Scalar());
      if (!wrong.empty()) Mistake(node.Mark(), absl::StrCat(name, ": ", wrong));
    };
  }

  Field Text(const std::string& name, std::string* value) {
    return Value(name, [=](const std::string& given) {
      *value = given;
      return "";
    });
  }

  Field Path(const std::string& name, std::string* value) {
    return Value(name, [=](const std::string& given) {
      *value = given;
      return given.front() == '/' ? ""
                                  : absl::StrCat("\"", given, "\" is no path that begins with /");
    });
  }

  // A path, or credential:NAME, which becomes one.
  Field Secret(const std::string& name, std::string* value) {
    return Value(name, [=, this](const std::string& given) {
      if (given.front() == '/') {
        *value = given;
        return std::string();
      }
      const std::string file =
          given.starts_with(kCredential) ? given.substr(sizeof(kCredential) - 1) : "";
      if (file.empty() || file == "." || file == ".." || file.find('/') != std::string::npos) {
        return absl::StrCat("\"", given, "\" is neither a path that begins with / nor ",
                            kCredential, "NAME");
      }
      if (credentials_.empty()) {
        return absl::StrCat(
            "\"", given,
            "\" is known to a service with LoadCredential= alone: by hand, while it "
            "runs, set CREDENTIALS_DIRECTORY=/run/credentials/hvd.service");
      }
      *value = absl::StrCat(credentials_, "/", file);
      return std::string();
    });
  }

  Field Number(const std::string& name, uint32_t least, uint32_t most, uint32_t* value) {
    return Value(name, [=](const std::string& given) {
      uint64_t number = 0;
      if (!std::all_of(given.begin(), given.end(), ::isdigit) ||
          !absl::SimpleAtoi(given, &number) || number < least || number > most) {
        return absl::StrCat("\"", given, "\" is no number from ", least, " to ", most);
      }
      *value = static_cast<uint32_t>(number);
      return std::string();
    });
  }

  template <typename T>
  Field Choice(const std::string& name, const Words<T>& words, T* value) {
    return Value(name, [=](const std::string& given) {
      std::string list;
      for (const auto& [word, meaning] : words) {
        absl::StrAppend(&list, list.empty() ? "" : ", ", word);
        if (word != given) continue;
        *value = meaning;
        return std::string();
      }
      return absl::StrCat("\"", given, "\" is none of ", list);
    });
  }

 private:
  static std::string KeysOf(const Fields& fields) {
    return absl::StrJoin(fields, ", ",
                         [](std::string* out, const auto& field) { out->append(field.first); });
  }

  const std::string path_;
  const std::string credentials_;
  std::vector<std::string> mistakes_;
};

std::string TakeMode(const std::string& given, mode_t* mode) {
  uint32_t bits = 0;
  for (const char digit : given) {
    if (digit < '0' || digit > '7' || bits > kAnybody) return "a mode has octal digits: \"0660\"";
    bits = bits * 8 + static_cast<uint32_t>(digit - '0');
  }
  if (bits > kAnybody || (bits & kOwner) != kOwner) {
    return absl::StrCat("\"", given, "\" is none of \"0600\" to \"0777\" that the owner may use");
  }
  *mode = bits;
  return "";
}

// spiffe://example.org/ops, or a prefix spiffe://example.org/*.
std::string TakeUri(const std::string& given, std::vector<std::string>* uris) {
  const size_t star = given.find('*');
  if (given.find("://") == std::string::npos ||
      (star != std::string::npos && !(star + 1 == given.size() && given[star - 1] == '/')) ||
      given.ends_with("://*")) {
    return absl::StrCat("\"", given, "\" is neither a URI nor a prefix that ends with /*");
  }
  uris->push_back(given);
  return "";
}

std::string TakeId(const std::string& kind, const std::string& name, std::optional<uint32_t> id,
                   std::vector<uint32_t>* ids) {
  if (!id.has_value()) return absl::StrCat("this host has no ", kind, " \"", name, "\"");
  ids->push_back(*id);
  return "";
}

void ReadGrant(Reader& reader, const YAML::Node& node, std::vector<access::Grant>* grants) {
  access::Grant grant;
  const auto list = [&](const std::string& name, auto take) {
    return Reader::Field([&reader, name, take](const YAML::Node& values) {
      reader.List(values, name, reader.Value(name, take));
    });
  };
  reader.Map(
      node, "roles",
      {{"role",
        reader.Choice<Role>(
            "role",
            {{"viewer", Role::kViewer}, {"operator", Role::kOperator}, {"admin", Role::kAdmin}},
            &grant.role)},
       {"users", list("users",
                      [&](const std::string& name) {
                        return TakeId("user", name, access::FindUser(name), &grant.uids);
                      })},
       {"groups", list("groups",
                       [&](const std::string& name) {
                         return TakeId("group", name, access::FindGroup(name), &grant.gids);
                       })},
       {"uris", list("uris", [&](const std::string& uri) { return TakeUri(uri, &grant.uris); })}});
  if (node.IsMap() && !node["role"]) {
    reader.Mistake(node.Mark(), "role is missing: one of viewer, operator, admin");
  }
  grants->push_back(std::move(grant));
}

Tcp ReadTcp(Reader& reader, const YAML::Node& node) {
  Tcp tcp;
  reader.Map(node, "tcp",
             {{"address", reader.Value("tcp.address",
                                       [&](const std::string& given) {
                                         tcp.address = given;
                                         return CheckAddress(given, Off::kRefused);
                                       })},
              {"certificate", reader.Secret("tcp.certificate", &tcp.files.certificate)},
              {"key", reader.Secret("tcp.key", &tcp.files.key)},
              {"client_ca", reader.Secret("tcp.client_ca", &tcp.files.client_ca)},
              {"client_crl", reader.Secret("tcp.client_crl", &tcp.files.client_crl)},
              {"refresh_seconds",
               reader.Number("tcp.refresh_seconds", 1, 86400, &tcp.files.refresh_seconds)}});
  if (!node.IsMap()) return tcp;
  for (const char* key : {"address", "certificate", "key", "client_ca"}) {
    if (!node[key]) {
      reader.Mistake(node.Mark(),
                     absl::StrCat("tcp.", key, " is missing: TCP is served with mutual TLS only"));
    }
  }
  return tcp;
}

void ReadLimits(Reader& reader, const YAML::Node& node, access::Limits* limits) {
  constexpr uint32_t kMany = 1'000'000;
  reader.Map(
      node, "limits",
      {{"calls_per_principal",
        reader.Number("limits.calls_per_principal", 1, kMany, &limits->calls_per_principal)},
       {"connections_per_principal", reader.Number("limits.connections_per_principal", 1, kMany,
                                                   &limits->connections_per_principal)},
       {"streams_per_connection",
        reader.Number("limits.streams_per_connection", 1, kMany, &limits->streams_per_connection)},
       // A chunk of an image has up to 1 MiB, and its message a little more.
       {"message_bytes",
        reader.Number("limits.message_bytes", 2 * kMiB, 1024 * kMiB, &limits->message_bytes)}});
}

void ReadJournal(Reader& reader, const YAML::Node& node, JournalLimits* journal) {
  constexpr uint32_t kBillion = 1'000'000'000;
  reader.Map(
      node, "journal",
      {{"max_events", reader.Number("journal.max_events", 1000, kBillion, &journal->max_events)},
       {"max_age_hours",
        reader.Number("journal.max_age_hours", 1, 24 * 3660, &journal->max_age_hours)},
       {"max_mebibytes",
        reader.Number("journal.max_mebibytes", 1, uint32_t{1} << 24, &journal->max_mebibytes)}});
}

void ReadTop(Reader& reader, const YAML::Node& top, Config* config) {
  reader.Map(
      top, "",
      {{"socket", reader.Path("socket", &config->socket)},
       {"socket_mode", reader.Value("socket_mode",
                                    [&](const std::string& given) {
                                      return TakeMode(given, &config->socket_mode);
                                    })},
       {"socket_group", reader.Value("socket_group",
                                     [&](const std::string& name) {
                                       config->socket_gid = access::FindGroup(name);
                                       return config->socket_gid.has_value()
                                                  ? ""
                                                  : absl::StrCat("this host has no group \"", name,
                                                                 "\"");
                                     })},
       {"state_dir", reader.Path("state_dir", &config->state_dir)},
       {"metrics_address", reader.Value("metrics_address",
                                        [&](const std::string& given) {
                                          config->metrics_address = given;
                                          return CheckAddress(given, Off::kAllowed);
                                        })},
       {"max_vm_series", reader.Number("max_vm_series", 0, 1'000'000, &config->max_vm_series)},
       {"backend", reader.Choice<host::BackendKind>("backend",
                                                    {{"auto", host::BackendKind::kAuto},
                                                     {"kvm", host::BackendKind::kKvm},
                                                     {"kvm-native", host::BackendKind::kKvmNative},
                                                     {"sim", host::BackendKind::kSim}},
                                                    &config->backend)},
       {"cpu_groups",
        reader.Choice<bool>("cpu_groups", {{"auto", true}, {"off", false}}, &config->cpu_groups)},
       {"log_level", reader.Choice<LogLevel>("log_level",
                                             {{"debug", LogLevel::kDebug},
                                              {"info", LogLevel::kInfo},
                                              {"warning", LogLevel::kWarning},
                                              {"error", LogLevel::kError}},
                                             &config->log_level)},
       {"allow_core_dumps",
        reader.Choice<bool>("allow_core_dumps", {{"true", true}, {"false", false}},
                            &config->allow_core_dumps)},
       {"roles",
        [&](const YAML::Node& node) {
          config->rules.grants.clear();
          reader.List(node, "roles", [&](const YAML::Node& grant) {
            ReadGrant(reader, grant, &config->rules.grants);
          });
        }},
       {"tcp", [&](const YAML::Node& node) { config->tcp = ReadTcp(reader, node); }},
       {"audit",
        [&](const YAML::Node& node) {
          reader.Map(node, "audit",
                     {{"path", reader.Value("audit.path", [&](const std::string& given) {
                         config->audit_path = given;
                         return given == "off" || given.front() == '/'
                                    ? ""
                                    : absl::StrCat(
                                          "\"", given,
                                          "\" is neither off nor a path that begins with /");
                       })}});
        }},
       {"limits", [&](const YAML::Node& node) { ReadLimits(reader, node, &config->rules.limits); }},
       {"journal", [&](const YAML::Node& node) { ReadJournal(reader, node, &config->journal); }}});
}

}  // namespace

std::string OneLine(const std::string& message) {
  std::string line;
  for (const char c : message) {
    if (absl::ascii_iscntrl(static_cast<unsigned char>(c))) {
      absl::StrAppend(&line, "\\x", absl::Hex(c, absl::kZeroPad2));
    } else {
      line += c;
    }
  }
  return line;
}

std::string CheckAddress(const std::string& address, Off off) {
  if (off == Off::kAllowed && address == "off") return "";
  const size_t colon = address.rfind(':');
  uint32_t port = 0;
  if (colon == std::string::npos || colon == 0 || colon + 1 == address.size() ||
      !std::all_of(address.begin() + static_cast<std::ptrdiff_t>(colon) + 1, address.end(),
                   ::isdigit) ||
      !absl::SimpleAtoi(address.substr(colon + 1), &port) || port > kMaxPort) {
    return absl::StrCat("\"", address,
                        "\" is not HOST:PORT (127.0.0.1:9464; port 0 takes a free one)",
                        off == Off::kAllowed ? " or off" : "");
  }
  return "";
}

std::vector<std::string> ReadConfigText(const std::string& text, const std::string& path,
                                        Config* config, const std::string& credentials) {
  Reader reader(path, credentials);
  try {
    const YAML::Node top = YAML::Load(text);
    // A file of comments alone says nothing, which is no mistake.
    if (!top.IsNull()) ReadTop(reader, top, config);
  } catch (const YAML::Exception& error) {
    reader.Mistake(error.mark, error.msg);
  }
  return std::move(reader).mistakes();
}

}  // namespace twinroot
