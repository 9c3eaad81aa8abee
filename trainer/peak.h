// What this machine can do at best, measured: the denominators of every utilisation.
#pragma once

#include <cstdint>
#include <string>

namespace qstep::trainer {

struct PeakRates {
  // Fused multiply-adds on registers, all threads; a multiply-add is two. 0 where this build has no
  // native BF16 dot product.
  double bf16_register_flops_per_s = 0;
  double fp32_register_flops_per_s = 0;
  // The CPU backend's product of large square matrices; 0 where it has none of the type.
  double bf16_gemm_flops_per_s = 0;
  double fp32_gemm_flops_per_s = 0;
  int64_t gemm_size = 0;  // m = n = k
  // a[i] = b[i] + s c[i], 12 bytes a turn as in STREAM (McCalpin 1995), arrays of triad_array_bytes
  // each.
  double triad_bytes_per_s = 0;
  int64_t triad_array_bytes = 0;
  int64_t n_threads = 0;

  // The peak: the larger of the two. On a processor whose matrix tiles the register loop does not
  // use, and on one without native BF16, that is the product's rate.
  double bf16_flops_per_s() const;
  double fp32_flops_per_s() const;
};

// About five times seconds_each of all threads of the OpenMP pool. Each figure is the best of
// several repetitions: others on the machine can only make it slower.
PeakRates measure_peak(double seconds_each);

}  // namespace qstep::trainer
