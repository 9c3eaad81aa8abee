// Softmax cross-entropy of one row in FP64, and how far the sums of the operations may be from it.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "tests/support/compare.h"

namespace qstep::test {

struct CrossEntropyReference {
  double loss;
  double lse;
  std::vector<double> gradient;
};

inline CrossEntropyReference cross_entropy_reference(const std::vector<double>& x, size_t target) {
  double max = -std::numeric_limits<double>::infinity(), sum = 0;
  for (const double v : x) max = std::max(max, v);
  for (const double v : x) sum += std::exp(v - max);
  CrossEntropyReference r{std::log(sum) + max - x[target], std::log(sum) + max, {}};
  for (const double v : x) r.gradient.push_back(std::exp(v - max) / sum);
  r.gradient[target] -= 1;
  return r;
}

// Relative error of a sum of exponentials, all positive: x - max and exp (one ulp) for logits at
// most 2 range apart, the running sums of a block and its folds, and two roundings a block for
// rescaling and adding.
inline double softmax_sum_error(int64_t columns, double range) {
  constexpr int64_t kBlock = 2048;
  const double blocks = static_cast<double>((columns + kBlock - 1) / kBlock);
  const double in_block = static_cast<double>(std::min(columns, kBlock)) / 64 + 8;
  return (2 * range + 2 + in_block + 3 * blocks) * kF32Roundoff;
}

}  // namespace qstep::test
