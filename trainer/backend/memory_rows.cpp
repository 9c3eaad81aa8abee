#include "trainer/backend/memory_rows.h"

#include <algorithm>
#include <numeric>

namespace qstep::trainer {

std::vector<MemoryRow> memory_rows(const ops::Arena& arena) {
  std::vector<MemoryRow> rows;
  for (const auto& [owner, bytes] : arena.bytes_by_owner()) rows.push_back({owner, bytes});
  return joined_rows(std::move(rows), {});
}

std::vector<MemoryRow> joined_rows(std::vector<MemoryRow> rows, std::span<const MemoryRow> more) {
  rows.insert(rows.end(), more.begin(), more.end());
  std::stable_sort(rows.begin(), rows.end(),
                   [](const MemoryRow& a, const MemoryRow& b) { return a.bytes > b.bytes; });
  return rows;
}

int64_t total_bytes(std::span<const MemoryRow> rows) {
  return std::accumulate(rows.begin(), rows.end(), int64_t{0},
                         [](int64_t sum, const MemoryRow& row) { return sum + row.bytes; });
}

}  // namespace qstep::trainer
