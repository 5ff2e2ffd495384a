// The SVG of map_picture.h: rows of cells from the top, alike neighbours in one rectangle, the key
// below. Drawn on white of its own, so that it reads the same on every page.
#include <algorithm>
#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "cli/quantity.h"
#include "cli/render/map_picture.h"
#include "cli/render/visible.h"

namespace twinroot::cli {
namespace {

constexpr size_t kInLine = 128;
constexpr size_t kMostRows = 48;
constexpr int kCellWidth = 7;
constexpr int kCellHeight = 14;
constexpr int kLeft = 130;
constexpr int kTop = 56;
constexpr int kMargin = 20;
constexpr int kKeyLine = 24;
constexpr int kSwatch = 16;

struct Style {
  const char* name;  // the class in the file
  const char* fill;
  const char* text;
};
// Blue is private and orange shared; the darker, the larger the pages.
constexpr Style kPrivateLarge = {"P", "#1d4f91", "private, large pages"};
constexpr Style kPrivateSmall = {"p", "#79a9dd", "private, 4KiB pages"};
constexpr Style kPrivateBare = {"n", "#dfeaf6", "private, not mapped"};
constexpr Style kSharedLarge = {"S", "#b85400", "shared, large pages"};
constexpr Style kSharedSmall = {"s", "#f5a24b", "shared, 4KiB pages"};
constexpr Style kSharedBare = {"m", "#fce6cd", "shared, not mapped"};
constexpr Style kBoth = {"x", "#8e5ba6", "both kinds in one cell"};
constexpr Style kStyles[] = {kPrivateLarge, kPrivateSmall, kPrivateBare, kSharedLarge,
                             kSharedSmall,  kSharedBare,   kBoth};
constexpr char kWritten[] = "#d0021b";

const Style& StyleOf(const MapCell& cell) {
  if (cell.is_private && cell.is_shared) return kBoth;
  if (cell.small || !cell.known) return cell.is_shared ? kSharedSmall : kPrivateSmall;
  if (cell.large) return cell.is_shared ? kSharedLarge : kPrivateLarge;
  return cell.is_shared ? kSharedBare : kPrivateBare;
}

std::string Escaped(const std::string& text) {
  return absl::StrReplaceAll(VisibleLine(text),
                             {{"&", "&amp;"}, {"<", "&lt;"}, {">", "&gt;"}, {"\"", "&quot;"}});
}

std::string TextAt(int x, int y, const std::string& text, const char* attributes = "") {
  return absl::StrFormat("<text x=\"%d\" y=\"%d\"%s>%s</text>\n", x, y, attributes, Escaped(text));
}

// What a row shows of `cells`; empty where there is no memory.
std::string Row(const std::vector<MapCell>& cells, size_t at, uint64_t address, uint64_t cell,
                int y) {
  std::string out;
  const size_t end = std::min(at + kInLine, cells.size());
  for (size_t i = at; i < end;) {
    size_t next = i + 1;
    while (next < end && cells[next] == cells[i]) ++next;
    if (cells[i].memory()) {
      const Style& style = StyleOf(cells[i]);
      const int x = kLeft + static_cast<int>(i - at) * kCellWidth;
      const int width = static_cast<int>(next - i) * kCellWidth;
      absl::StrAppend(
          &out, absl::StrFormat("<rect class=\"%s\" x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\">",
                                style.name, x, y, width, kCellHeight - 1));
      absl::StrAppend(&out, "<title>", FormatAddress(address + (i - at) * cell), " +",
                      FormatSize((next - i) * cell), ": ", style.text,
                      cells[i].written ? ", written" : "", "</title></rect>\n");
      if (cells[i].written) {
        absl::StrAppend(&out, absl::StrFormat("<rect class=\"w\" x=\"%d\" y=\"%d\" width=\"%d\" "
                                              "height=\"4\"/>\n",
                                              x, y + kCellHeight - 5, width));
      }
    }
    i = next;
  }
  return out;
}

std::string Swatch(int x, int y, const char* name, const std::string& text) {
  return absl::StrCat(
      absl::StrFormat("<rect class=\"%s\" x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\"/>\n", name,
                      x, y, kSwatch, name[0] == 'w' ? 4 : kSwatch - 4),
      TextAt(x + kSwatch + 8, y + 10, text));
}

// Two columns of kinds, then what concerns both.
std::string Key(const MapPicture& picture, int* y) {
  const MapTotals totals = TotalsOf(picture.runs);
  constexpr int kColumn = 330;
  std::string out;
  const auto pair = [&](const Style& style, uint64_t bytes, int column) {
    absl::StrAppend(&out, Swatch(kLeft + column * kColumn, *y, style.name,
                                 absl::StrCat(style.text, ": ", FormatRoughSize(bytes))));
  };
  const MapTotals::Kind& of_private = totals.private_memory;
  const MapTotals::Kind& of_shared = totals.shared_memory;
  if (picture.tables_known) {
    pair(kPrivateLarge, of_private.large, 0);
    pair(kSharedLarge, of_shared.large, 1);
    *y += kKeyLine;
    pair(kPrivateSmall, of_private.small, 0);
    pair(kSharedSmall, of_shared.small, 1);
    *y += kKeyLine;
    pair(kPrivateBare, of_private.not_mapped, 0);
    pair(kSharedBare, of_shared.not_mapped, 1);
  } else {
    absl::StrAppend(
        &out, Swatch(kLeft, *y, "p", absl::StrCat("private: ", FormatRoughSize(of_private.all))),
        Swatch(kLeft + kColumn, *y, "s", absl::StrCat("shared: ", FormatRoughSize(of_shared.all))));
  }
  *y += kKeyLine;
  absl::StrAppend(&out, Swatch(kLeft, *y, kBoth.name, kBoth.text));
  if (picture.writes_known) {
    absl::StrAppend(
        &out,
        Swatch(kLeft + kColumn, *y, "w",
               absl::StrCat("written: ", FormatRoughSize(of_private.written + of_shared.written))));
  }
  *y += kKeyLine;
  for (const std::string& note : picture.notes) {
    absl::StrAppend(&out, TextAt(kLeft, *y + 10, note));
    *y += kKeyLine;
  }
  return out;
}

}  // namespace

std::string RenderMapSvg(const MapPicture& picture) {
  const uint64_t end = picture.runs.back().gpa + picture.runs.back().size;
  const uint64_t first = picture.runs.front().gpa;
  const uint64_t cell =
      picture.cell != 0 ? picture.cell : CellSize(end - first, kInLine * kMostRows);
  const uint64_t begin = first / (cell * kInLine) * (cell * kInLine);
  const std::vector<MapCell> cells = CellsOf(picture.runs, begin, cell);

  std::string rows;
  int y = kTop;
  bool gap = false;
  for (size_t at = 0; at < cells.size(); at += kInLine) {
    const uint64_t address = begin + at * cell;
    const std::string row = Row(cells, at, address, cell, y);
    if (row.empty() && gap) continue;
    gap = row.empty();
    absl::StrAppend(&rows,
                    gap ? TextAt(kLeft, y + kCellHeight - 3, "no memory")
                        : TextAt(kLeft - 10, y + kCellHeight - 3, FormatAddress(address),
                                 " text-anchor=\"end\""),
                    row);
    y += kCellHeight;
  }
  y += kKeyLine;
  const std::string key = Key(picture, &y);
  const int width = kLeft + static_cast<int>(kInLine) * kCellWidth + kMargin;
  const int height = y + kMargin;

  std::string style = "text{font:12px ui-monospace,monospace;fill:#222}";
  for (const Style& s : kStyles) absl::StrAppend(&style, ".", s.name, "{fill:", s.fill, "}");
  absl::StrAppend(&style, ".w{fill:", kWritten, "}");
  return absl::StrCat(
      absl::StrFormat("<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" "
                      "viewBox=\"0 0 %d %d\">\n",
                      width, height, width, height),
      "<style>", style, "</style>\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n",
      TextAt(kMargin, 30,
             absl::StrCat("Memory of vm ", picture.vm, ": a row is ", FormatSize(cell * kInLine),
                          ", a cell ", FormatSize(cell)),
             " style=\"font-size:16px;font-weight:bold\""),
      rows, key, "</svg>\n");
}

}  // namespace twinroot::cli
