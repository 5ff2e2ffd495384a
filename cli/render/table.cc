#include "cli/render/table.h"

#include <algorithm>
#include <cassert>

#include "absl/strings/str_cat.h"
#include "cli/render/visible.h"

namespace twinroot::cli {
namespace {

constexpr size_t kGap = 2;

// Characters, not bytes: UTF-8 continuation bytes take no room.
size_t Width(const std::string& text) {
  return std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xc0) != 0x80; });
}

}  // namespace

Table::Table(std::vector<Column> columns) : columns_(std::move(columns)) {}

void Table::AddRow(std::vector<std::string> cells) {
  assert(cells.size() == columns_.size());
  for (std::string& cell : cells) cell = cell.empty() ? "-" : VisibleLine(cell);
  rows_.push_back(std::move(cells));
}

std::string Table::Render(Header header) const {
  std::vector<std::vector<std::string>> lines;
  if (header == Header::kPrint) {
    std::vector<std::string> titles;
    for (const Column& column : columns_) titles.push_back(column.title);
    lines.push_back(std::move(titles));
  }
  lines.insert(lines.end(), rows_.begin(), rows_.end());

  std::vector<size_t> widths(columns_.size(), 0);
  for (const auto& line : lines) {
    for (size_t i = 0; i < line.size(); ++i) widths[i] = std::max(widths[i], Width(line[i]));
  }
  std::string out;
  for (const auto& line : lines) {
    std::string text;
    for (size_t i = 0; i < line.size(); ++i) {
      const std::string padding(widths[i] - Width(line[i]), ' ');
      if (i > 0) text.append(kGap, ' ');
      text += columns_[i].align == Align::kRight ? padding + line[i] : line[i] + padding;
    }
    text.erase(text.find_last_not_of(' ') + 1);
    absl::StrAppend(&out, text, "\n");
  }
  return out;
}

void Sheet::Add(std::string name, std::string value) {
  if (!value.empty()) lines_.emplace_back(std::move(name), VisibleLine(value));
}

std::string Sheet::Render() const {
  size_t width = 0;
  for (const auto& [name, value] : lines_) width = std::max(width, Width(name));
  std::string out;
  for (const auto& [name, value] : lines_) {
    absl::StrAppend(&out, name, ":", std::string(width - Width(name) + kGap, ' '), value, "\n");
  }
  return out;
}

}  // namespace twinroot::cli
