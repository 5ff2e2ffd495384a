#include "cli/completion.h"

#include <algorithm>
#include <set>

#include "absl/strings/match.h"

namespace twinroot::cli {
namespace {

// A command line as far as it is typed.
class Line {
 public:
  explicit Line(const CommandEntry& root) : command_(&root) {}

  void Take(const std::string& word) {
    if (open_ != nullptr) {
      Give(*open_, word);
      open_ = nullptr;
    } else if (word == "--" && !only_positionals_) {
      only_positionals_ = true;
    } else if (word.size() > 1 && word[0] == '-' && !only_positionals_) {
      TakeOption(word);
    } else if (const CommandEntry* next = command_->Find(word); next != nullptr) {
      path_ += (path_.empty() ? "" : " ") + word;
      command_ = next;
    } else {
      ++positionals_;
    }
  }

  const CommandEntry& command() const { return *command_; }
  // "vm create".
  const std::string& path() const { return path_; }
  // The option whose value comes next.
  const OptionEntry* open() const { return open_; }
  bool only_positionals() const { return only_positionals_; }
  const GivenOptions& given() const { return given_; }

  const OptionEntry* Option(const std::string& name) const {
    for (const OptionEntry& option : command_->options) {
      if (!option.positional && Has(option, name)) return &option;
    }
    return nullptr;
  }
  // Which a word that is no option would be.
  const OptionEntry* Positional() const {
    size_t at = 0;
    for (const OptionEntry& option : command_->options) {
      if (option.positional && (at++ == positionals_ || option.repeats)) return &option;
    }
    return nullptr;
  }
  bool MayFollow(const OptionEntry& option) const {
    return !option.positional && (option.repeats || used_.count(&option) == 0);
  }

 private:
  static bool Has(const OptionEntry& option, const std::string& name) {
    return std::find(option.names.begin(), option.names.end(), name) != option.names.end();
  }

  void TakeOption(const std::string& word) {
    const size_t equals = word.find('=');
    const OptionEntry* option = Option(word.substr(0, equals));
    if (option == nullptr) return;
    used_.insert(option);
    if (option->value.empty()) return;
    if (equals == std::string::npos) {
      open_ = option;
    } else {
      Give(*option, word.substr(equals + 1));
    }
  }

  void Give(const OptionEntry& option, const std::string& value) {
    for (const std::string& name : option.names) {
      if (option.common && absl::StartsWith(name, "--")) given_[name] = value;
    }
  }

  const CommandEntry* command_;
  std::string path_;
  const OptionEntry* open_ = nullptr;
  std::set<const OptionEntry*> used_;
  GivenOptions given_;
  size_t positionals_ = 0;
  bool only_positionals_ = false;
};

class Collector {
 public:
  Collector(const Line& line, const std::string& typed, const Names& names)
      : line_(line), typed_(typed), names_(names) {}

  // `before` stands in the word already: "--output=".
  void AddValues(const OptionEntry& option, const std::string& before) {
    const std::vector<std::string> choices = option.Choices();
    for (const std::string& word : choices) Add(before + word, "");
    if (!choices.empty()) return;
    for (const Candidate& name : names_(option.value, line_.given())) {
      Add(before + name.word, name.description);
    }
    result_.files =
        absl::StrContains(option.value, "FILE") || absl::StrContains(option.value, "PATH");
  }

  void AddOptions() {
    for (const OptionEntry& option : line_.command().options) {
      if (!line_.MayFollow(option)) continue;
      // One name is enough to choose from: the long one.
      Add(option.names.back(), option.description);
    }
  }

  void Add(const std::string& word, const std::string& description) {
    if (absl::StartsWith(word, typed_)) result_.candidates.push_back({word, description});
  }

  Completion result() && { return std::move(result_); }

 private:
  const Line& line_;
  const std::string& typed_;
  const Names& names_;
  Completion result_;
};

}  // namespace

Completion Complete(const CommandEntry& root, const std::vector<std::string>& words,
                    const Names& names) {
  Line line(root);
  for (size_t i = 0; i + 1 < words.size(); ++i) line.Take(words[i]);
  const std::string typed = words.empty() ? "" : words.back();
  Collector collector(line, typed, names);
  const size_t equals = typed.find('=');
  if (line.open() != nullptr) {
    collector.AddValues(*line.open(), "");
  } else if (!line.only_positionals() && absl::StartsWith(typed, "-")) {
    const OptionEntry* option =
        equals == std::string::npos ? nullptr : line.Option(typed.substr(0, equals));
    if (option != nullptr) {
      collector.AddValues(*option, typed.substr(0, equals + 1));
    } else {
      collector.AddOptions();
    }
  } else {
    for (const CommandEntry& command : line.command().commands) {
      collector.Add(command.name, command.description);
    }
    const OptionEntry* positional = line.Positional();
    // The names of VMs that there are help nobody who makes another.
    if (positional != nullptr && line.path() != "vm create") collector.AddValues(*positional, "");
  }
  return std::move(collector).result();
}

}  // namespace twinroot::cli
