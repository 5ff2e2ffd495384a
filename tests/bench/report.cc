#include "tests/bench/report.h"

#include <cmath>
#include <optional>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace twinroot::bench {
namespace {

constexpr char kLine[] = "%-28s %-8s %11s %11s %7s  %-13s %-9s %-5s %s\n";

// Three figures or so; a nanosecond and a minute in one column.
std::string Number(double value) {
  if (value >= 1000) return absl::StrFormat("%.0f", value);
  return absl::StrFormat(value >= 100 ? "%.1f" : "%.2f", value);
}

const char* Word(Verdict verdict) {
  switch (verdict) {
    case Verdict::kOk:
      return "ok";
    case Verdict::kOver:
      return "over";
    case Verdict::kNone:
      break;
  }
  return "-";
}

// The middle half of the rounds: of their ratios, or of the values in a row without a floor.
std::string Spread(const Result& result) {
  const Summary& of = result.round_ratios ? *result.round_ratios : result.measured;
  return Number(of.low_quartile) + ".." + Number(of.high_quartile);
}

std::string JsonNumber(double value) {
  return std::isfinite(value) ? absl::StrFormat("%.9g", value) : "null";
}
std::string JsonString(const std::string& text) {
  std::string quoted = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') quoted += '\\';
    quoted += c;
  }
  return quoted + "\"";
}
std::string JsonOf(const std::optional<Summary>& summary) {
  if (!summary) return "null";
  return absl::StrCat("{\"best\": ", JsonNumber(summary->best),
                      ", \"low_quartile\": ", JsonNumber(summary->low_quartile),
                      ", \"median\": ", JsonNumber(summary->median),
                      ", \"high_quartile\": ", JsonNumber(summary->high_quartile), "}");
}

}  // namespace

std::string Word(const Target& target) {
  switch (target.of) {
    case Target::Of::kRatio:
      return absl::StrFormat("<= %gx", target.limit);
    case Target::Of::kValue:
      return absl::StrFormat("<= %g", target.limit);
    case Target::Of::kReport:
      break;
  }
  return "-";
}

std::string TableHead() {
  return absl::StrFormat(kLine, "row", "unit", "measured", "floor", "ratio", "spread", "target", "",
                         "");
}

std::string TableLine(const Result& result) {
  return absl::StrFormat(kLine, result.name, result.unit, Number(result.measured.best),
                         result.floor ? Number(result.floor->best) : "-",
                         result.ratio ? Number(*result.ratio) : "-", Spread(result),
                         Word(result.target), Word(result.verdict), result.note);
}

std::string Json(const RunFacts& facts, const std::vector<Result>& results) {
  std::string text = absl::StrCat(
      "{\n  \"optimized\": ", facts.optimized ? "true" : "false",
      ",\n  \"quick\": ", facts.effort == Effort::kQuick ? "true" : "false",
      ",\n  \"overlapped\": ", facts.pace == Pace::kOverlapped ? "true" : "false",
      ",\n  \"rounds\": ", facts.rounds,
      ",\n  \"processors\": ", std::thread::hardware_concurrency(), ",\n  \"rows\": [");
  const char* separator = "\n";
  for (const Result& result : results) {
    absl::StrAppend(&text, separator, "    {\"name\": ", JsonString(result.name),
                    ", \"unit\": ", JsonString(result.unit),
                    ", \"measured\": ", JsonOf(result.measured),
                    ", \"floor\": ", JsonOf(result.floor),
                    ", \"ratio\": ", result.ratio ? JsonNumber(*result.ratio) : "null",
                    ", \"round_ratios\": ", JsonOf(result.round_ratios),
                    ", \"target\": ", JsonString(Word(result.target)),
                    ", \"verdict\": ", JsonString(Word(result.verdict)),
                    ", \"note\": ", JsonString(result.note), "}");
    separator = ",\n";
  }
  return text + "\n  ]\n}\n";
}

}  // namespace twinroot::bench
