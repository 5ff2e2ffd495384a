// The picture of a VM's memory, for a terminal and as SVG. Pure functions.
#ifndef TWINROOT_CLI_RENDER_MAP_PICTURE_H_
#define TWINROOT_CLI_RENDER_MAP_PICTURE_H_

#include <string>
#include <vector>

#include "cli/memory_map.h"
#include "cli/render/event_line.h"

namespace twinroot::cli {

struct MapPicture {
  std::string vm;
  std::vector<MapRun> runs;  // at least one
  bool tables_known = false;
  bool writes_known = false;
  // What cannot be shown and why, a sentence each.
  std::vector<std::string> notes;
  uint64_t cell = 0;  // bytes; 0: as fits
};

// A character for each cell, at most `width` characters a line; below it what they mean and how
// much there is of each.
std::string RenderMap(const MapPicture& picture, size_t width, Colors colors);

// A whole file; opened alone it is some 1,000 pixels wide. Hovering shows a run's bounds.
std::string RenderMapSvg(const MapPicture& picture);

}  // namespace twinroot::cli

#endif  // TWINROOT_CLI_RENDER_MAP_PICTURE_H_
