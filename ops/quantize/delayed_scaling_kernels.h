// Delayed scaling (ops/quantize/delayed_scaling.h) for the CUDA backend: a team per tensor, the
// bits of the CPU's.
#pragma once

#include <cmath>

#include "ops/quantize/delayed_scaling.h"
#include "ops/team.h"

namespace qstep::ops::device {

struct UpdateDelayedScale {
  float *history, *scale, *amax;
  const float *fp8_max, *factor;
  float* before;  // [n, L]: the histories as they were
  int64_t ld, n_steps;
  float margin;  // 2^-margin
  bool most_recent;

  template <class Team>
  QSTEP_HD void operator()(const Team& team, float*, int64_t t) const {
    if (precision::is_nan(*factor)) {
      if (team.leader()) amax[t] = 0;
      return;
    }
    const float newest = amax[t];
    float used = 0;
    if (newest != 0.0f) {
      float* const h = history + t * ld;
      float* const old = before + t * n_steps;
      team.each(n_steps, [&](int64_t i) { old[i] = h[i]; });
      used = larger(newest, team.max(n_steps - 1, [&](int64_t i) { return h[i + 1]; }));
      if (used < 0.0f) used = 0.0f;
      team.each(n_steps, [&](int64_t i) {
        h[i] = i == 0 ? 0.0f : i == n_steps - 1 ? newest : old[i + 1];
      });
      if (most_recent) used = newest;
    }
    if (team.leader()) {
      scale[t] = delayed_scale(scale[t], used, fp8_max[t] * margin);
      amax[t] = 0;
    }
  }
};

template <class Launch>
void update_delayed_scales(const Launch& launch, const Tensor& history, const Tensor& scale,
                           const Tensor& amax, const Tensor& fp8_max, const Tensor& factor,
                           const precision::DelayedScaling& delayed) {
  check_update_delayed_scales(history, scale, amax, fp8_max, factor);
  launch.teams(history.rows, team_size(history.cols, 4, 256), 0,
               UpdateDelayedScale{history.as<float>(), scale.as<float>(), amax.as<float>(),
                                  fp8_max.as<float>(), factor.as<float>(),
                                  launch.template scratch<float>(history.size()), history.ld,
                                  history.cols, std::ldexp(1.0f, static_cast<int>(-delayed.margin)),
                                  delayed.algo == precision::DelayedAlgo::kMostRecent});
}

}  // namespace qstep::ops::device
