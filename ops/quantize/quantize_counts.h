// What the ledger wants to know of the elements that a quantizer works on, counted while they are
// in registers. Sums are FP64: squares of gradients lie far below FP32's smallest number.
#pragma once

#include "ops/quantized_tensor.h"
#include "ops/simd/simd_lanes.h"

namespace qstep::ops {
inline namespace QSTEP_SIMD_BODY {

// Sixteen sums of squares, each exact but for the rounding of the sum.
class SquareSums {
 public:
  void add(F32x16 x) {
#if QSTEP_AVX512
    const __m512d a = _mm512_cvtps_pd(_mm512_castps512_ps256(x.v));
    const __m512d b = _mm512_cvtps_pd(_mm512_extractf32x8_ps(x.v, 1));
    low_ = _mm512_fmadd_pd(a, a, low_);
    high_ = _mm512_fmadd_pd(b, b, high_);
#else
    alignas(64) float lane[kLanes];
    store(lane, x);
#pragma omp simd
    for (int64_t i = 0; i < kLanes; ++i) {  // the product of two FP32 numbers is an FP64 number
      sum_[i] += static_cast<double>(lane[i]) * static_cast<double>(lane[i]);
    }
#endif
  }
  double total() const {
    alignas(64) double lane[kLanes];
#if QSTEP_AVX512
    _mm512_store_pd(lane, low_);
    _mm512_store_pd(lane + kLanes / 2, high_);
#else
    std::copy(sum_, sum_ + kLanes, lane);
#endif
    double sum = 0;
    for (const double x : lane) sum += x;
    return sum;
  }

 private:
#if QSTEP_AVX512
  __m512d low_ = _mm512_setzero_pd(), high_ = _mm512_setzero_pd();
#else
  alignas(64) double sum_[kLanes] = {};
#endif
};

class ElementCounts {
 public:
  // limit: what lies beyond it is clipped, not rounded.
  explicit ElementCounts(float limit) : limit_(broadcast(limit)) {}

  // n vectors of the source, as they were read.
  void source(const F32x16* v, int n) {
    const U32x16 infinity = broadcast_bits(kInfinity);
    U32x16 largest = broadcast_bits(0);
    for (int i = 0; i < n; ++i) largest = max_bits(largest, bits(magnitude(v[i])));
    if (count(less_bits(largest, infinity)) == kLanes) return;
    int finite = 0;  // apart from this object, in which v might lie as far as a compiler knows
    for (int i = 0; i < n; ++i) finite += count(less_bits(bits(magnitude(v[i])), infinity));
    non_finite_ += n * kLanes - finite;
  }
  // n vectors in which every lane has one block: before, multiplied by enc, and as decoded, where
  // one stands for `factor`.
  void quantized(const F32x16* v, const F32x16* decoded, int n, F32x16 enc, F32x16 factor) {
    const F32x16 zero = broadcast(0.0f), one = broadcast(1.0f);
    const F32x16 infinity = from_bits(broadcast_bits(kInfinity));
    // In registers: as far as a compiler knows, v might lie in this object.
    const F32x16 limit = limit_;
    F32x16 amax = amax_;
    SquareSums squared = squared_, squared_error = squared_error_;
    int saturated = 0, underflowed = 0;
    for (int i = 0; i < n; ++i) {
      const F32x16 size = magnitude(v[i]);
      amax = max(select(less(size, infinity), size, zero), amax);
      saturated += count(less(limit, magnitude(v[i] * enc)));
      underflowed += count(equal(select(less(zero, size), decoded[i], one), zero));
      squared.add(v[i]);
      squared_error.add(v[i] - decoded[i] * factor);
    }
    amax_ = amax;
    squared_ = squared;
    squared_error_ = squared_error;
    saturated_ += saturated;
    underflowed_ += underflowed;
  }
  // The scales of the blocks in the first `lanes` lanes.
  void scales(F32x16 scale, int lanes) {
    const F32x16 zero = broadcast(0.0f), one = broadcast(1.0f);
    zero_scales_ += count(equal(keep_first(select(equal(scale, zero), one, zero), lanes), one));
    blocks_ += lanes;
  }
  void elements(int64_t n) { elements_ += n; }

  void add_to(QuantStats& s) const {
    s.elements += static_cast<double>(elements_);
    s.amax = std::max(s.amax, static_cast<double>(reduce_max(amax_)));
    s.underflowed += static_cast<double>(underflowed_);
    s.saturated += static_cast<double>(saturated_);
    s.non_finite += static_cast<double>(non_finite_);
    s.blocks += static_cast<double>(blocks_);
    s.zero_scales += static_cast<double>(zero_scales_);
    s.squared += squared_.total();
    s.squared_error += squared_error_.total();
  }

 private:
  static constexpr uint32_t kInfinity = 0x7F800000u;

  F32x16 limit_;
  F32x16 amax_ = broadcast(0.0f);
  SquareSums squared_, squared_error_;
  int64_t elements_ = 0, underflowed_ = 0, saturated_ = 0, non_finite_ = 0;
  int64_t blocks_ = 0, zero_scales_ = 0;
};

}  // namespace QSTEP_SIMD_BODY
}  // namespace qstep::ops
