#include "trainer/step/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace qstep::trainer {

namespace {

// Position of `step` between `first` (0) and `last` (1).
double position(int64_t step, int64_t first, int64_t last) {
  if (last <= first) return step >= last ? 1.0 : 0.0;
  return std::clamp(static_cast<double>(step - first) / static_cast<double>(last - first), 0.0,
                    1.0);
}

}  // namespace

// std::lerp is exact at both ends and monotonic in between.
double learning_rate(const OptimizerConfig& c, int64_t step, int64_t steps) {
  if (step < c.warmup_steps) {
    return c.lr * static_cast<double>(step + 1) / static_cast<double>(c.warmup_steps);
  }
  const int64_t last = steps - 1;
  // The step at which the rate is lr for the last time before it falls.
  const int64_t top = std::max<int64_t>(c.warmup_steps - 1, 0);
  switch (c.schedule) {
    case Schedule::kConstant:
      return c.lr;
    case Schedule::kLinear:
      return std::lerp(c.lr, c.min_lr, position(step, top, last));
    case Schedule::kCosine: {
      const double u = position(step, top, last);
      return std::lerp(c.min_lr, c.lr, (1.0 + std::cos(std::numbers::pi * u)) / 2.0);
    }
    case Schedule::kWsd: {
      const auto decay =
          static_cast<int64_t>(std::llround(c.decay_fraction * static_cast<double>(steps)));
      const int64_t begin = std::max(top, last - decay);
      return std::lerp(c.lr, c.min_lr, position(step, begin, last));
    }
  }
  return c.lr;
}

}  // namespace qstep::trainer
