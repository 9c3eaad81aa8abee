// Scales of MX and FP8: numerics 7.2 to 7.5 and 7.10.
#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "tests/support/quant_reference.h"

namespace qstep::test::reference {

using precision::AmaxScope;
using precision::Headroom;
using precision::ScaleRule;

// Choice: floor of an infinite amax is that of the largest float; exponents below -127 are -127.
//
// Headroom of three quarters (7.10): with e = floor(log2 amax) - emax as stored, 3 v / 2^(e + 2) is
// rounded, and stands for v: v = 2^(e + 2) / 3 q = (q 2^e) 4/3. So `values` are q 2^e as without
// headroom, and the factor of the tensor is 4/3 = scale / denominator.
BlockScale mx_scale(float block_amax, const QuantSpec& spec) {
  const Format& format = element_format(spec);
  const int code = spec.scale == ScaleRule::kPow2Floor
                       ? std::max(e8m0_down(block_amax) - format.emax, 0)
                       : e8m0_up(block_amax * (1.0f / format.max()));
  const int shift = spec.headroom == Headroom::kThreeQuarters ? 2 : 0;
  return {static_cast<uint8_t>(code), std::ldexp(1.0f, 127 - code - shift),
          std::ldexp(1.0f, code - 127)};
}

void scale_mx(Quantized& q) {
  q.scale_rows = (q.rows + q.spec.block.rows - 1) / q.spec.block.rows;
  q.scale_k = (q.k + q.spec.block.k - 1) / q.spec.block.k;
  q.blocks.resize(static_cast<size_t>(q.scale_rows * q.scale_k));
  if (q.spec.headroom == Headroom::kThreeQuarters) {
    q.scale = 4;
    q.denominator = 3;
  }
#pragma omp parallel for
  for (int64_t br = 0; br < q.scale_rows; ++br) {
    for (int64_t bk = 0; bk < q.scale_k; ++bk) {
      q.blocks[static_cast<size_t>(br * q.scale_k + bk)] =
          mx_scale(amax_of(block_elements(q, br, bk)), q.spec);
    }
  }
}

float fp8_scale(float amax, float fp8_max, bool pow2, float largest) {
  if (amax == 0 || !std::isfinite(amax)) return 1.0f;
  float scale = fp8_max / amax;
  if (std::isinf(scale)) scale = largest;
  // The power of two at or below.
  return pow2 ? std::bit_cast<float>(std::bit_cast<uint32_t>(scale) & 0xFF800000u) : scale;
}

namespace {

// Numerics 5: here, unlike elsewhere, a NaN makes the amax NaN (and the scale 1).
float nan_or_amax(const std::vector<float>& values) {
  for (const float v : values) {
    if (std::isnan(v)) return v;
  }
  return amax_of(values);
}

}  // namespace

void scale_fp8(Quantized& q, const Options& options) {
  const float fp8_max = element_format(q.spec).max();
  const bool pow2 = q.spec.scale == ScaleRule::kFp32Pow2;
  const float largest = std::numeric_limits<float>::max();
  q.scale_k = 1;

  if (!q.spec.block.whole_tensor()) {  // 7.5
    q.scale_rows = (q.rows + q.spec.block.rows - 1) / q.spec.block.rows;
    q.scale_k = (q.k + q.spec.block.k - 1) / q.spec.block.k;
    // "The maximum of the input dtype" where the scale overflows.
    const float dtype_max =
        options.dtype == ops::Dtype::kBf16 ? std::bit_cast<float>(0x7F7F0000u) : largest;
    for (int64_t br = 0; br < q.scale_rows; ++br) {
      for (int64_t bk = 0; bk < q.scale_k; ++bk) {
        const float scale =
            fp8_scale(nan_or_amax(block_elements(q, br, bk)), fp8_max, pow2, dtype_max);
        // A power of two goes into the decoded values, any other scale beside them.
        q.blocks.push_back({0, scale, pow2 ? 1.0f / scale : 1.0f});
        if (!pow2) q.tile_scales.push_back(1.0f / scale);
      }
    }
  } else if (q.spec.amax == AmaxScope::kRow) {  // Choice: 7.3 with each row as a tensor
    q.scale_rows = q.rows;
    for (int64_t r = 0; r < q.rows; ++r) {
      const auto first = q.source.begin() + static_cast<std::ptrdiff_t>(q.index(r, 0));
      const std::vector<float> row(first, first + static_cast<std::ptrdiff_t>(q.k));
      const float scale = fp8_scale(nan_or_amax(row), fp8_max, pow2, largest);
      q.blocks.push_back({0, scale, 1.0f});
      q.tile_scales.push_back(1.0f / scale);
    }
  } else {
    q.scale_rows = 1;
    const float scale = q.spec.amax == AmaxScope::kDelayed
                            ? options.delayed_scale
                            : fp8_scale(nan_or_amax(q.source), fp8_max, pow2, largest);
    q.blocks.push_back({0, scale, 1.0f});
    q.scale = 1.0f / scale;
  }
}

}  // namespace qstep::test::reference
