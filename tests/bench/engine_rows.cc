// The rows of the engine's table.
#include "tests/bench/row.h"

namespace twinroot::bench {

const char kProgram[] = "engine";

std::string WhyNotHere() { return ""; }

void AddAllRows(Rows& rows) {
  AddMapRows(rows);
  AddUnmapRows(rows);
  AddFaultRows(rows);
  AddThreadRows(rows);
  AddAttributeRows(rows);
  AddConversionRows(rows);
  AddDirtyLogRows(rows);
  AddSplitRows(rows);
  AddSizeRows(rows);
}

}  // namespace twinroot::bench
