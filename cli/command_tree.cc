#include "cli/command_tree.h"

#include <algorithm>

#include "absl/strings/str_split.h"

namespace twinroot::cli {
namespace {

OptionEntry ReadOption(const CLI::Option& option) {
  OptionEntry entry;
  for (const std::string& name : option.get_snames()) entry.names.push_back("-" + name);
  for (const std::string& name : option.get_lnames()) entry.names.push_back("--" + name);
  entry.positional = option.get_positional();
  if (entry.positional) entry.names.push_back(option.get_name(/*positional=*/true));
  if (option.get_items_expected_max() != 0) {
    entry.value = option.get_type_name();
    if (entry.positional && entry.value.empty()) entry.value = entry.names.front();
  }
  entry.description = option.get_description();
  entry.required = option.get_required();
  entry.repeats = option.get_items_expected_max() > 1;
  entry.common = option.get_group() == kCommonGroup;
  return entry;
}

}  // namespace

std::vector<std::string> OptionEntry::Choices() const {
  std::vector<std::string> words = absl::StrSplit(value, '|');
  const bool free = words.size() < 2 || std::any_of(words.begin(), words.end(), [](const auto& w) {
                      return w.find_first_of("ABCDEFGHIJKLMNOPQRSTUVWXYZ.") != std::string::npos;
                    });
  return free ? std::vector<std::string>() : words;
}

const CommandEntry* CommandEntry::Find(const std::string& command) const {
  const auto found = std::find_if(commands.begin(), commands.end(),
                                  [&](const CommandEntry& c) { return c.name == command; });
  return found == commands.end() ? nullptr : &*found;
}

CommandEntry ReadTree(const CLI::App& app) {
  CommandEntry entry{app.get_name(), app.get_description(), app.get_footer(), {}, {}};
  const auto shown = [](const auto* part) { return !part->get_group().empty(); };
  for (const CLI::Option* option : app.get_options(shown)) {
    entry.options.push_back(ReadOption(*option));
  }
  for (const CLI::App* command : app.get_subcommands(shown)) {
    entry.commands.push_back(ReadTree(*command));
  }
  return entry;
}

}  // namespace twinroot::cli
