#include "cli/render/map_picture.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "cli/quantity.h"
#include "cli/render/visible.h"

namespace twinroot::cli {
namespace {

constexpr size_t kMostRows = 16;
constexpr size_t kGutter = 2;

char CharacterOf(const MapCell& cell) {
  if (!cell.memory()) return ' ';
  if (cell.is_private && cell.is_shared) return cell.written ? '#' : 'x';
  if (cell.written) return cell.is_shared ? '+' : '*';
  if (cell.small || !cell.known) return cell.is_shared ? 's' : 'p';
  if (cell.large) return cell.is_shared ? 'S' : 'P';
  return cell.is_shared ? '-' : '.';
}

// Blue and yellow are told apart by nearly all eyes; what was written is reversed.
const char* ColorOf(char c) {
  switch (c) {
    case 'P':
      return "\033[1;34m";
    case 'p':
      return "\033[34m";
    case '*':
      return "\033[7;34m";
    case 'S':
      return "\033[1;33m";
    case 's':
      return "\033[33m";
    case '+':
      return "\033[7;33m";
    case 'x':
      return "\033[35m";
    case '#':
      return "\033[7;35m";
    case '.':
    case '-':
      return "\033[2m";
    default:
      return "";
  }
}

std::string Painted(const std::string& text, Colors colors) {
  if (colors == Colors::kOff) return text;
  std::string out;
  const char* now = "";
  for (const char c : text) {
    const char* color = ColorOf(c);
    if (std::string_view(color) != now) {
      absl::StrAppend(&out, *now == '\0' ? "" : "\033[0m", color);
      now = color;
    }
    out += c;
  }
  return out + (*now == '\0' ? "" : "\033[0m");
}

// Cells of a line: a power of two, so that lines begin at round addresses.
size_t CellsInLine(size_t width, size_t gutter) {
  size_t cells = 8;
  while (cells * 2 + gutter <= width) cells *= 2;
  return cells;
}

// The key: what the characters mean, and how much there is of each. Columns are aligned without the
// colours.
std::string KeyLine(const std::string& kind, const MapTotals::Kind& total, std::string_view signs,
                    const MapPicture& picture, Colors colors) {
  std::string line = absl::StrFormat("%-8s%-10s", kind, FormatRoughSize(total.all));
  const auto add = [&](char sign, uint64_t bytes) {
    absl::StrAppend(&line, Painted(std::string(1, sign), colors), " ",
                    absl::StrFormat("%-12s", FormatRoughSize(bytes)));
  };
  if (!picture.tables_known) {
    absl::StrAppend(&line, Painted(std::string(1, signs[1]), colors));
  } else {
    add(signs[0], total.large);
    add(signs[1], total.small);
    add(signs[2], total.not_mapped);
    if (picture.writes_known) add(signs[3], total.written);
  }
  line.erase(line.find_last_not_of(' ') + 1);
  return line + "\n";
}

std::string Key(const MapPicture& picture, bool mixed, Colors colors) {
  const MapTotals totals = TotalsOf(picture.runs);
  std::string out =
      picture.tables_known
          ? absl::StrFormat("%-8s%-10s%-14s%-14s%-14s%s", "", "ALL", "LARGE PAGES", "4KIB PAGES",
                            "NOT MAPPED", picture.writes_known ? "WRITTEN" : "")
          : "        ALL";
  out.erase(out.find_last_not_of(' ') + 1);
  absl::StrAppend(&out, "\n", KeyLine("private", totals.private_memory, "Pp.*", picture, colors),
                  KeyLine("shared", totals.shared_memory, "Ss-+", picture, colors));
  if (mixed) {
    absl::StrAppend(&out, "both in one character: ", Painted("x", colors),
                    picture.writes_known ? ", written in part: " + Painted("#", colors) : "", "\n");
  }
  return out;
}

}  // namespace

std::string RenderMap(const MapPicture& picture, size_t width, Colors colors) {
  const uint64_t end = picture.runs.back().gpa + picture.runs.back().size;
  const size_t digits = FormatAddress(end - 1).size();
  const size_t in_line = CellsInLine(width, digits + kGutter);
  const uint64_t first = picture.runs.front().gpa;
  const uint64_t cell =
      picture.cell != 0 ? picture.cell : CellSize(end - first, in_line * kMostRows);
  // Lines begin where an address has the fewest digits.
  const uint64_t begin = first / (cell * in_line) * (cell * in_line);
  const std::vector<MapCell> cells = CellsOf(picture.runs, begin, cell);

  std::string out =
      absl::StrCat("vm ", VisibleLine(picture.vm), ", a character is ", FormatSize(cell), "\n");
  const bool long_picture = cells.size() > in_line * kMostRows;
  const std::string margin(digits + kGutter, ' ');
  std::string before = "none";
  bool left_out = false;
  for (size_t at = 0; at < cells.size(); at += in_line) {
    std::string line;
    for (size_t i = at; i < std::min(at + in_line, cells.size()); ++i)
      line += CharacterOf(cells[i]);
    line.erase(line.find_last_not_of(' ') + 1);
    // Lines without memory are told once; of a long picture, equal ones too.
    if (line == before && (line.empty() || long_picture)) {
      if (!left_out && !line.empty()) absl::StrAppend(&out, margin, "...\n");
      left_out = true;
      continue;
    }
    before = line;
    left_out = false;
    const std::string address =
        absl::StrFormat("%*s  ", static_cast<int>(digits), FormatAddress(begin + at * cell));
    absl::StrAppend(&out, line.empty() ? margin + "no memory" : address + Painted(line, colors),
                    "\n");
  }
  const bool mixed = std::any_of(cells.begin(), cells.end(), [](const MapCell& piece) {
    return piece.is_private && piece.is_shared;
  });
  absl::StrAppend(&out, "\n", Key(picture, mixed, colors));
  for (const std::string& note : picture.notes) absl::StrAppend(&out, note, "\n");
  return out;
}

}  // namespace twinroot::cli
