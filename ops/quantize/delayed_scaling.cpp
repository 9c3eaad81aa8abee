#include "ops/quantize/delayed_scaling.h"

#include <cmath>
#include <cstring>

#include "ops/parallel_for.h"

namespace qstep::ops::cpu {

namespace {

// The newest amax enters h[0, n); returns the largest of those that count.
float roll(float* h, int64_t n, float newest) {
  std::memmove(h, h + 1, static_cast<size_t>(n - 1) * sizeof(float));
  h[n - 1] = newest;
  float largest = 0;
  for (int64_t i = 0; i < n; ++i) {
    if (h[i] > largest) largest = h[i];
  }
  h[0] = 0;
  return largest;
}

}  // namespace

void update_delayed_scales(const Tensor& history, const Tensor& scale, const Tensor& amax,
                           const Tensor& fp8_max, const Tensor& factor,
                           const precision::DelayedScaling& delayed) {
  check_update_delayed_scales(history, scale, amax, fp8_max, factor);
  float* const h = history.as<float>();
  float* const s = scale.as<float>();
  float* const newest = amax.as<float>();
  const float* const largest_code = fp8_max.as<float>();
  const bool skipped = std::isnan(*factor.as<float>());
  const float margin = std::ldexp(1.0f, static_cast<int>(-delayed.margin));
  parallel_for(history.rows, [&](int64_t t) {
    if (skipped) {
      newest[t] = 0;
      return;
    }
    float used = 0;
    if (newest[t] != 0.0f) {
      used = roll(h + t * history.ld, history.cols, newest[t]);
      if (delayed.algo == precision::DelayedAlgo::kMostRecent) used = newest[t];
    }
    s[t] = delayed_scale(s[t], used, largest_code[t] * margin);
    newest[t] = 0;
  });
}

}  // namespace qstep::ops::cpu
