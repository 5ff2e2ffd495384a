// The picture of `hvctl top`: a headline, a table of VMs, as many columns and rows as there is room
// for. Pure functions.
#ifndef TWINROOT_CLI_RENDER_TOP_SCREEN_H_
#define TWINROOT_CLI_RENDER_TOP_SCREEN_H_

#include <string>
#include <vector>

#include "cli/render/event_line.h"
#include "cli/render/table.h"
#include "cli/vm_rates.h"

namespace twinroot::cli {

enum class TopOrder { kConversions, kFaults, kSplits, kDirty, kShared, kMemory, kName };

struct TopVm {
  std::string name;
  std::string state;
  std::string backend;
  std::string policy;
  double memory_bytes = 0;
  bool counted = false;  // whether `rates` are known
  VmCounts rates;
};

struct TopPicture {
  std::string clock;  // "14:03:07"
  std::vector<TopVm> vms;
  TopOrder order = TopOrder::kConversions;
};

struct TopSize {
  size_t columns = 80;
  size_t rows = 24;  // 0: as many as there are
};

// Largest first, names in their order; VMs that are equal go by name.
void SortTop(TopOrder order, std::vector<TopVm>* vms);

// Sorts. No line is longer than the size says, there are no more lines than it has rows, and each
// ends with a newline. The column that it is ordered by is bold, VMs that do not run are faint.
std::string RenderTop(TopPicture picture, TopSize size, Header header, Colors colors);

// A rate in at most five characters: "0", "0.3", "12", "3.4k", "120k".
std::string FormatRate(double rate);

}  // namespace twinroot::cli

#endif  // TWINROOT_CLI_RENDER_TOP_SCREEN_H_
