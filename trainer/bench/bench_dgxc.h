// The protocol of NVIDIA's DGX Cloud benchmarks (step_time_report.md 9.2), for comparison with the
// figures that vendors publish: 50 steps on synthetic data, the mean of steps 35 to 44.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "parallel/comm.h"
#include "trainer/config/config.h"

namespace qstep::trainer {

// Steps are counted from 1, and both ends belong to the ten: the protocol does not say, and logs of
// Megatron, which it averages, count from 1.
inline constexpr int64_t kDgxcSteps = 50, kDgxcFirst = 35, kDgxcLast = 44;

// Of those ten, of the times of all 50 steps.
double dgxc_mean(std::span<const double> step_ms);

struct DgxcResult {
  std::vector<double> step_ms;  // of each of the 50, of the slowest rank
  double s_per_iteration = 0;
  // Of a rank; what stands for a GPU.
  double tokens_per_s = 0, causal_flops_per_s = 0, full_flops_per_s = 0;
};

// All ranks together; the same result on each.
DgxcResult bench_dgxc(const Config& config, parallel::Comm& world);

}  // namespace qstep::trainer
