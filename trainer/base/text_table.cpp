#include "trainer/base/text_table.h"

#include <fmt/format.h>

#include <algorithm>

namespace qstep::trainer {

std::string aligned(const Table& table) {
  std::vector<size_t> widths;
  for (const std::string& cell : table.head) widths.push_back(cell.size());
  for (const Cells& row : table.rows) {
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  std::string text;
  const auto line = [&](const Cells& cells) {
    std::string out;
    for (size_t i = 0; i < cells.size(); ++i) {
      const bool left = i < 2 || i + 1 == cells.size();
      out += left ? fmt::format("  {:<{}}", cells[i], widths[i])
                  : fmt::format("  {:>{}}", cells[i], widths[i]);
    }
    out.erase(out.find_last_not_of(' ') + 1);
    text += out + "\n";
  };
  line(table.head);
  for (const Cells& row : table.rows) line(row);
  return text;
}

std::string markdown(const Table& table) {
  const auto line = [](const Cells& cells) {
    return fmt::format("| {} |\n", fmt::join(cells, " | "));
  };
  std::string text = line(table.head) + "|";
  for (size_t i = 0; i < table.head.size(); ++i) text += "---|";
  text += "\n";
  for (const Cells& row : table.rows) text += line(row);
  return text;
}

}  // namespace qstep::trainer
