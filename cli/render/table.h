// Aligned columns under one header line, and name-value sheets for single objects. Two spaces
// between columns, no trailing spaces, cells made safe for a terminal. Not thread-safe.
#ifndef TWINROOT_CLI_RENDER_TABLE_H_
#define TWINROOT_CLI_RENDER_TABLE_H_

#include <string>
#include <vector>

namespace twinroot::cli {

enum class Align { kLeft, kRight };

struct Column {
  std::string title;
  Align align = Align::kLeft;
};

enum class Header { kPrint, kOmit };

class Table {
 public:
  explicit Table(std::vector<Column> columns);

  // One cell for each column; an empty one is shown as "-".
  void AddRow(std::vector<std::string> cells);
  std::string Render(Header header) const;

 private:
  const std::vector<Column> columns_;
  std::vector<std::vector<std::string>> rows_;
};

// "name:   value" lines; values begin in one column, empty ones are left out.
class Sheet {
 public:
  void Add(std::string name, std::string value);
  std::string Render() const;

 private:
  std::vector<std::pair<std::string, std::string>> lines_;
};

}  // namespace twinroot::cli

#endif  // TWINROOT_CLI_RENDER_TABLE_H_
