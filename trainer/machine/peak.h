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

// Each figure is the best of several repetitions with all threads of the OpenMP pool: others on the
// machine can only make it slower. About five times seconds_each; products are of 2048^3, or
// smaller where one of them would take more than half of seconds_each.
PeakRates measure_peak(double seconds_each);
// The same for the start of a run, under half a second on an idle machine: the triad's arrays are
// smaller, together still several times the cache.
PeakRates measure_peak_briefly();

// The better of each figure, of two measurements with equally many threads.
PeakRates best_of(const PeakRates& a, const PeakRates& b);

}  // namespace qstep::trainer
