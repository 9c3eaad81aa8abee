// Normally distributed numbers for simulated measurements.
#pragma once

#include <cmath>
#include <numbers>

#include "tests/support/compare.h"

namespace qstep::trainer::testing {

// Mean 0, standard deviation 1 (Box and Muller 1958).
inline double normal(test::Random& random) {
  const double radius = std::sqrt(-2 * std::log(1 - random.uniform(0, 1)));
  return radius * std::cos(2 * std::numbers::pi * random.uniform(0, 1));
}

}  // namespace qstep::trainer::testing
