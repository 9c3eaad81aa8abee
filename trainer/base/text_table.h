// Tables as aligned lines and as Markdown.
#pragma once

#include <string>
#include <vector>

namespace qstep::trainer {

using Cells = std::vector<std::string>;

// A table's columns, and its rows behind them.
struct Table {
  Cells head;
  std::vector<Cells> rows;
};

// The first two columns and the last one to the left, as texts; the others to the right.
std::string aligned(const Table& table);

std::string markdown(const Table& table);

}  // namespace qstep::trainer
