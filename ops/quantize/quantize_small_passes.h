// The passes of a quantize call on a GPU that touch few numbers, and the one that decodes an
// operand to quantize it anew. Function objects over elements or thread blocks
// (ops/quantize/quantize_passes.h).
#pragma once

#include "ops/quantize/quantize_factors.h"
#include "ops/quantize/quantize_unit_counts.h"

namespace qstep::ops::device {

// The factors of each side, and the scale that is stored.
struct SetFactors {
  struct One {
    precision::UnitPlan plan;
    const uint32_t* amax = nullptr;        // bits; null: none
    const float* delayed_scale = nullptr;  // null: none
    TensorFactors* factors = nullptr;
    float* stored[2] = {};  // null: none
  };
  One sides[2] = {};

  QSTEP_HD void operator()(int64_t i) const {
    const One& side = sides[i];
    const float amax = side.amax == nullptr ? 0.0f : precision::from_bits(*side.amax);
    const float delayed = side.delayed_scale == nullptr ? 1.0f : *side.delayed_scale;
    const TensorFactors factors = tensor_factors(side.plan, amax, delayed);
    *side.factors = factors;
    for (float* const stored : side.stored) {
      if (stored != nullptr) *stored = factors.stored;
    }
  }
};

// A factor of the whole tensor that passes from the rowwise operand into the columnwise one.
struct ForwardFactor {
  const float* scale = nullptr;  // null: none
  float denominator = 1;

  QSTEP_HD float value() const { return scale == nullptr ? 1.0f : *scale / denominator; }
};
struct PassFactor {
  ForwardFactor factor;
  float* scale;
  QSTEP_HD void operator()(int64_t) const { *scale *= factor.value(); }
};

// What the rowwise operand stands for, in BF16: decoded values times their factors.
struct ForwardValues {
  const Bf16* values;
  int64_t values_ld;
  Bf16* to;
  int64_t to_ld, cols;
  ForwardFactor tensor;
  const float* tile_scales;  // null: none
  int64_t tile_scales_ld, tile_rows, tile_k;

  QSTEP_HD void operator()(int64_t i) const {
    const int64_t r = i / cols, c = i % cols;
    const float factor = tile_scales == nullptr
                             ? *tensor.scale * (1.0f / tensor.denominator)
                             : tile_scales[r / tile_rows * tile_scales_ld + c / tile_k];
    to[r * to_ld + c] = precision::to_bf16(precision::to_float(values[r * values_ld + c]) * factor);
  }
};

// The counts of a side's thread blocks, in the order of the blocks for each thread, then of the
// threads.
struct SumCounts {
  static constexpr int kThreads = 128, kBlocksPerSm = 1;

  const UnitCounts* counts = nullptr;
  int64_t n = 0;
  const TensorFactors* factors = nullptr;
  float denominator = 1;
  bool has_scale = false;
  ForwardFactor forward = {};
  QuantStats* out = nullptr;

  int64_t blocks() const { return 1; }
  int shared_bytes() const { return kThreads * static_cast<int>(sizeof(QuantStats)); }

  template <class Team>
  QSTEP_HD void operator()(const Team& team, char* shared, int64_t) const {
    auto* const sums = reinterpret_cast<QuantStats*>(shared);
    team.each(kThreads, [&](int64_t thread) {
      QuantStats sum;
      for (int64_t i = thread; i < n; i += kThreads) add(sum, stats_of(counts[i]));
      sums[thread] = sum;
    });
    team.sync();
    team.each(1, [&](int64_t) {
      QuantStats sum;
      for (int i = 0; i < kThreads; ++i) add(sum, sums[i]);
      sum.scale = has_scale ? static_cast<double>(factors->stored / denominator) : 1.0;
      scale_stats(sum, static_cast<double>(forward.value()));
      *out = sum;
    });
  }
};

}  // namespace qstep::ops::device
