// What the tests of GEMMs share.
#pragma once

#include "ops/operand.h"
#include "tests/support/compare.h"

namespace qstep::test {

// An operand [rows, k] that lies in memory as it stands or transposed.
struct Side {
  Side(Dtype dtype, int64_t rows, int64_t k, ops::Major orientation, int64_t gap, Random& random)
      : memory(dtype, orientation == ops::Major::kK ? rows : k,
               orientation == ops::Major::kK ? k : rows, gap),
        major(orientation) {
    memory.fill(random, -1, 1);
  }
  ops::Operand operand() const {
    return major == ops::Major::kK ? ops::rowwise(memory) : ops::columnwise(memory);
  }
  double at(int64_t row, int64_t k) const {
    return major == ops::Major::kK ? memory.at(row, k) : memory.at(k, row);
  }
  void set(int64_t row, int64_t k, double value) {
    major == ops::Major::kK ? memory.set(row, k, value) : memory.set(k, row, value);
  }
  // [rows, k], row by row.
  std::vector<double> values() const {
    const std::vector<double> stored = memory.values();
    if (major == ops::Major::kK) return stored;
    const auto k = static_cast<size_t>(memory.tensor().rows);
    const auto rows = static_cast<size_t>(memory.tensor().cols);
    std::vector<double> turned(stored.size());
    for (size_t i = 0; i < stored.size(); ++i) turned[i % rows * k + i / rows] = stored[i];
    return turned;
  }
  Guarded memory;
  ops::Major major;
};

}  // namespace qstep::test
