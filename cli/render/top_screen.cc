#include "cli/render/top_screen.h"

#include <algorithm>
#include <cmath>
#include <functional>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "cli/quantity.h"
#include "cli/render/visible.h"

namespace twinroot::cli {
namespace {

constexpr size_t kGap = 2;
constexpr char kBold[] = "\033[1m";
constexpr char kFaint[] = "\033[2m";
constexpr char kPlain[] = "\033[0m";

struct TopColumn {
  const char* title;
  size_t width;
  Align align;
  TopOrder order;  // kName: nothing is ordered by it, but for NAME
  std::string (*text)(const TopVm&);
};

std::string Rate(const TopVm& vm, double VmCounts::*rate) {
  return vm.counted ? FormatRate(vm.rates.*rate) : "-";
}
std::string Bytes(const TopVm& vm, double VmCounts::*bytes) {
  return vm.counted ? FormatRoughSize(static_cast<uint64_t>(vm.rates.*bytes)) : "-";
}

// In the order in which they find room; the name stands before them and takes what is left.
constexpr TopColumn kColumns[] = {
    {"CONV/S", 6, Align::kRight, TopOrder::kConversions,
     [](const TopVm& vm) { return Rate(vm, &VmCounts::conversions); }},
    {"FAULTS/S", 8, Align::kRight, TopOrder::kFaults,
     [](const TopVm& vm) { return Rate(vm, &VmCounts::faults); }},
    {"STATE", 7, Align::kLeft, TopOrder::kName, [](const TopVm& vm) { return vm.state; }},
    {"SPLITS/S", 8, Align::kRight, TopOrder::kSplits,
     [](const TopVm& vm) { return Rate(vm, &VmCounts::splits); }},
    {"DIRTY/S", 9, Align::kRight, TopOrder::kDirty,
     [](const TopVm& vm) { return Bytes(vm, &VmCounts::dirty_bytes); }},
    {"SHARED", 9, Align::kRight, TopOrder::kShared,
     [](const TopVm& vm) { return Bytes(vm, &VmCounts::shared_bytes); }},
    {"MEMORY", 9, Align::kRight, TopOrder::kMemory,
     [](const TopVm& vm) { return FormatRoughSize(static_cast<uint64_t>(vm.memory_bytes)); }},
    {"WAITING", 7, Align::kRight, TopOrder::kName,
     [](const TopVm& vm) { return Rate(vm, &VmCounts::waiting); }},
    {"ALLOCATED", 9, Align::kRight, TopOrder::kName,
     [](const TopVm& vm) { return Bytes(vm, &VmCounts::allocated_bytes); }},
    {"BACKEND", 10, Align::kLeft, TopOrder::kName, [](const TopVm& vm) { return vm.backend; }},
    {"POLICY", 12, Align::kLeft, TopOrder::kName, [](const TopVm& vm) { return vm.policy; }},
};
constexpr size_t kLeastName = 8;
constexpr size_t kRoomForName = 20;  // before columns
constexpr size_t kMostName = 63;     // as long as a name may be

double ValueOf(const TopVm& vm, TopOrder order) {
  switch (order) {
    case TopOrder::kConversions:
      return vm.rates.conversions;
    case TopOrder::kFaults:
      return vm.rates.faults;
    case TopOrder::kSplits:
      return vm.rates.splits;
    case TopOrder::kDirty:
      return vm.rates.dirty_bytes;
    case TopOrder::kShared:
      return vm.rates.shared_bytes;
    case TopOrder::kMemory:
      return vm.memory_bytes;
    case TopOrder::kName:
      return 0;
  }
  return 0;
}

// Exactly `width` characters; what is cut ends with '+'. Texts here are ASCII.
std::string Fit(const std::string& text, size_t width, Align align) {
  if (text.size() > width) return width == 0 ? "" : text.substr(0, width - 1) + "+";
  const std::string padding(width - text.size(), ' ');
  return align == Align::kRight ? padding + text : text + padding;
}

std::string Cut(const std::string& text, size_t width) {
  return text.size() <= width ? text : Fit(text, width, Align::kLeft);
}

std::string Headline(const TopPicture& picture) {
  VmCounts sum;
  size_t run = 0;
  for (const TopVm& vm : picture.vms) {
    run += vm.state == "RUNNING";
    sum.conversions += vm.rates.conversions;
    sum.faults += vm.rates.faults;
    sum.waiting += vm.rates.waiting;
  }
  return absl::StrCat(picture.clock, "  ", picture.vms.size(),
                      picture.vms.size() == 1 ? " VM, " : " VMs, ", run, " running; ",
                      FormatRate(sum.conversions), " conversions/s, ", FormatRate(sum.faults),
                      " faults/s, ", FormatRate(sum.waiting), " waiting");
}

// How many of kColumns find room beside a name of `name` characters.
size_t ColumnsBeside(size_t name, size_t width) {
  size_t used = name;
  size_t count = 0;
  for (const TopColumn& column : kColumns) {
    used += kGap + column.width;
    if (used > width) break;
    ++count;
  }
  return count;
}

}  // namespace

void SortTop(TopOrder order, std::vector<TopVm>* vms) {
  std::sort(vms->begin(), vms->end(), [order](const TopVm& a, const TopVm& b) {
    const double left = ValueOf(a, order);
    const double right = ValueOf(b, order);
    return left != right ? left > right : a.name < b.name;
  });
}

std::string FormatRate(double rate) {
  if (rate < 0.05) return "0";
  if (rate < 10 && rate != std::floor(rate)) return absl::StrFormat("%.1f", rate);
  if (rate < 9999.5) return absl::StrFormat("%.0f", rate);
  if (rate < 999'500) return absl::StrFormat("%.0fk", rate / 1e3);
  return absl::StrFormat("%.0fM", rate / 1e6);
}

std::string RenderTop(TopPicture picture, TopSize size, Header header, Colors colors) {
  SortTop(picture.order, &picture.vms);
  const bool colored = colors == Colors::kOn;
  const size_t width = std::max<size_t>(size.columns, 1);
  size_t name_width = kLeastName;
  for (TopVm& vm : picture.vms) {
    vm.name = VisibleLine(vm.name);
    name_width = std::min(std::max(name_width, vm.name.size()), kMostName);
  }
  // Very long names give way to columns.
  const size_t columns = ColumnsBeside(std::min(name_width, kRoomForName), width);
  size_t taken = 0;
  for (size_t i = 0; i < columns; ++i) taken += kGap + kColumns[i].width;
  name_width = std::min(name_width, width - std::min(taken, width));

  std::vector<std::string> lines;
  if (header == Header::kPrint) {
    lines.push_back(Cut(Headline(picture), width));
    const auto title = [&](const char* text, size_t room, Align align, bool ordered) {
      const std::string fitted = Fit(text, room, align);
      return ordered && colored ? kBold + fitted + kPlain : fitted;
    };
    std::string titles = title("NAME", name_width, Align::kLeft, picture.order == TopOrder::kName);
    for (size_t i = 0; i < columns; ++i) {
      const TopColumn& column = kColumns[i];
      const bool ordered = column.order == picture.order && picture.order != TopOrder::kName;
      titles += std::string(kGap, ' ') + title(column.title, column.width, column.align, ordered);
    }
    titles.erase(titles.find_last_not_of(' ') + 1);
    lines.push_back(titles);
  }
  for (const TopVm& vm : picture.vms) {
    std::string line = Fit(vm.name, name_width, Align::kLeft);
    for (size_t i = 0; i < columns; ++i) {
      line +=
          std::string(kGap, ' ') + Fit(kColumns[i].text(vm), kColumns[i].width, kColumns[i].align);
    }
    line.erase(line.find_last_not_of(' ') + 1);
    lines.push_back(colored && vm.state != "RUNNING" ? kFaint + line + kPlain : line);
  }
  if (size.rows != 0 && lines.size() > size.rows) {
    const size_t hidden = lines.size() - size.rows + 1;
    lines.resize(size.rows - 1);
    lines.push_back(Cut(absl::StrCat("... ", hidden, " more"), width));
  }
  std::string out;
  for (const std::string& line : lines) absl::StrAppend(&out, line, "\n");
  return out;
}

}  // namespace twinroot::cli
