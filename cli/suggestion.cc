#include "cli/suggestion.h"

#include <algorithm>

#include "absl/strings/ascii.h"

namespace twinroot::cli {
namespace {

// Letters to insert, leave out, replace or swap with their neighbour (optimal string alignment).
size_t Distance(std::string_view a, std::string_view b) {
  std::vector<std::vector<size_t>> cost(a.size() + 1, std::vector<size_t>(b.size() + 1));
  for (size_t i = 0; i <= a.size(); ++i) {
    for (size_t j = 0; j <= b.size(); ++j) {
      if (i == 0 || j == 0) {
        cost[i][j] = i + j;
        continue;
      }
      const size_t other = a[i - 1] == b[j - 1] ? 0 : 1;
      cost[i][j] = std::min({cost[i - 1][j] + 1, cost[i][j - 1] + 1, cost[i - 1][j - 1] + other});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        cost[i][j] = std::min(cost[i][j], cost[i - 2][j - 2] + 1);
      }
    }
  }
  return cost[a.size()][b.size()];
}

}  // namespace

std::string NearestTo(std::string_view typed, const std::vector<std::string>& words) {
  // What is longer than any name is no typo of one.
  constexpr size_t kLongest = 64;
  if (typed.empty() || typed.size() > kLongest) return "";
  const std::string given = absl::AsciiStrToLower({typed.data(), typed.size()});
  std::string nearest;
  size_t least = 1 + (typed.size() + 1) / 4;
  for (const std::string& word : words) {
    const size_t distance = Distance(given, absl::AsciiStrToLower(word));
    if (distance > least || (distance == least && !nearest.empty())) continue;
    // A word of which nothing is left is not meant.
    if (distance >= std::min(typed.size(), word.size())) continue;
    least = distance;
    nearest = word;
  }
  return nearest;
}

}  // namespace twinroot::cli
