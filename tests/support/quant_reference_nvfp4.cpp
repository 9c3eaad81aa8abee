// Scales of NVFP4: numerics 7.6 to 7.9.
#include <algorithm>
#include <cmath>
#include <limits>

#include "tests/support/quant_reference.h"

namespace qstep::test::reference {

using precision::AmaxScope;
using precision::FourOverSix;
using precision::Headroom;
using precision::ScaleRule;

namespace {

constexpr float kLargest = std::numeric_limits<float>::max();

void lay_out(Quantized& q) {
  q.scale_rows = (q.rows + q.spec.block.rows - 1) / q.spec.block.rows;
  q.scale_k = (q.k + q.spec.block.k - 1) / q.spec.block.k;
  q.blocks.resize(static_cast<size_t>(q.scale_rows * q.scale_k));
}

BlockScale encode_by(uint8_t code, float s_dec) {
  return {code, nvfp4_enc(code, s_dec), value(e4m3(), code)};
}

// The amax of whatever shares an outer factor with this row: numerics 7.6 for the whole tensor;
// by row, the same rule with the row as if it were a tensor.
std::vector<float> outer_amaxes(Quantized& q) {
  if (q.spec.amax == AmaxScope::kRow) {
    std::vector<float> amaxes;
    for (int64_t r = 0; r < q.rows; ++r) {
      amaxes.push_back(row_amax(q, r, 0, q.k));
      q.tile_scales.push_back(amaxes.back() * (1.0f / nvfp4_denominator(q.spec)));
    }
    return amaxes;
  }
  q.scale = amax_of(q.source);
  q.denominator = nvfp4_denominator(q.spec);
  return std::vector<float>(static_cast<size_t>(q.rows), q.scale);
}

}  // namespace

float nvfp4_target(const QuantSpec& spec) {
  return spec.headroom == Headroom::kSixteenSeventeenths ? 96.0f / 17.0f : 6.0f;
}

float nvfp4_denominator(const QuantSpec& spec) {
  const float full = 6.0f * static_cast<float>(spec.e4m3_max);
  return spec.headroom == Headroom::kSixteenSeventeenths ? full * (16.0f / 17.0f) : full;
}

Nvfp4Factors nvfp4_factors(float amax, const QuantSpec& spec) {
  float s_enc = std::min(nvfp4_denominator(spec) / amax, kLargest);
  if (amax == 0 || s_enc == 0) s_enc = 1;
  const float inverse_target =
      spec.headroom == Headroom::kSixteenSeventeenths ? 17.0f / 96.0f : 1.0f / 6.0f;
  return {s_enc, 1.0f / s_enc, s_enc * inverse_target};
}

float nvfp4_enc(uint8_t block_scale, float s_dec) {
  return std::min(1.0f / (value(e4m3(), block_scale) * s_dec), kLargest);
}

BlockScale nvfp4_scale(float block_amax, const Nvfp4Factors& factors, const QuantSpec& spec) {
  // Choice: two-rounding differs in the scale alone; the elements' factor is the same.
  const float s = spec.scale == ScaleRule::kE4m3TwoRounding
                      ? block_amax / nvfp4_target(spec) * factors.s_enc
                      : block_amax * factors.mult;
  return encode_by(nearest(e4m3(), std::min(s, kLargest)), factors.s_dec);
}

void scale_nvfp4(Quantized& q) {
  lay_out(q);
  const std::vector<float> amaxes = outer_amaxes(q);
#pragma omp parallel for
  for (int64_t br = 0; br < q.scale_rows; ++br) {
    const float amax = amaxes[static_cast<size_t>(br * q.spec.block.rows)];
    const Nvfp4Factors factors = nvfp4_factors(amax, q.spec);
    for (int64_t bk = 0; bk < q.scale_k; ++bk) {
      const float block_amax = amax_of(block_elements(q, br, bk));
      q.blocks[static_cast<size_t>(br * q.scale_k + bk)] = nvfp4_scale(block_amax, factors, q.spec);
    }
  }
}

// ---- 4/6 ------------------------------------------------------------------------------------

namespace {

float joined(float a, float b, FourOverSix mode) {
  if (mode == FourOverSix::kAbsMax) return b > a ? b : a;
  return a + b;
}

// Errors of nearest rounding, whatever the elements are rounded by afterwards. Choice: deciding by
// the stochastic codes would prefer the draws that lie near, and bias the result.
float four_over_six_error(const std::vector<float>& block, size_t row_length,
                          const BlockScale& scale, float amax, const QuantSpec& spec) {
  std::vector<float> rows;
  for (size_t first = 0; first < block.size(); first += row_length) {
    float error = 0;
    for (size_t i = first; i < first + row_length; ++i) {
      const float q = value(e2m1(), nearest(e2m1(), block[i] * scale.factor));
      const float v = q * scale.decoded * amax / nvfp4_denominator(spec);
      const float d = v - block[i];
      const bool square = spec.four_over_six == FourOverSix::kMse;
      error = joined(error, square ? d * d : std::fabs(d), spec.four_over_six);
    }
    rows.push_back(error);
  }
  for (size_t half = rows.size() / 2; half > 0; half /= 2) {
    for (size_t i = 0; i < half; ++i) {
      rows[i] = joined(rows[i], rows[i + half], spec.four_over_six);
    }
  }
  return rows[0];
}

}  // namespace

FourOverSixChoice four_over_six(const std::vector<float>& block, size_t row_length, float amax,
                                const QuantSpec& spec) {
  const Nvfp4Factors factors = nvfp4_factors(amax, spec);
  const float base = amax_of(block) / nvfp4_target(spec) * factors.s_enc;
  const BlockScale six = encode_by(nearest(e4m3(), std::min(base, 448.0f)), factors.s_dec);
  const BlockScale four = encode_by(nearest(e4m3(), std::min(base * 1.5f, 448.0f)), factors.s_dec);
  const bool take_four = four_over_six_error(block, row_length, four, amax, spec) <
                         four_over_six_error(block, row_length, six, amax, spec);
  return {take_four ? four : six, take_four};
}

namespace {

std::vector<float> transposed_square(const std::vector<float>& block) {
  std::vector<float> turned;
  for (size_t c = 0; c < 16; ++c) {
    for (size_t r = 0; r < 16; ++r) turned.push_back(block[r * 16 + c]);
  }
  return turned;
}

}  // namespace

// Choice: a square block's errors are summed along the rows of the tensor in both orientations, so
// that both decide alike and hold the same codes.
void scale_four_over_six(Quantized& q, Orientation orientation) {
  lay_out(q);
  const bool turned = orientation == Orientation::kColumnwise && q.spec.block.square();
  const std::vector<float> amaxes = outer_amaxes(q);
#pragma omp parallel for
  for (int64_t br = 0; br < q.scale_rows; ++br) {
    const float amax = amaxes[static_cast<size_t>(br * q.spec.block.rows)];
    for (int64_t bk = 0; bk < q.scale_k; ++bk) {
      const std::vector<float> block = block_elements(q, br, bk);
      q.blocks[static_cast<size_t>(br * q.scale_k + bk)] =
          four_over_six(turned ? transposed_square(block) : block,
                        static_cast<size_t>(q.spec.block.k), amax, q.spec)
              .scale;
    }
  }
}

// ---- MS-EDEN --------------------------------------------------------------------------------

void scale_ms_eden(Quantized& q, int64_t k, Orientation orientation, const Options& options) {
  lay_out(q);
  const float val_max = static_cast<float>(6.0 / (17.0 / 16.0 * 0.93));
  // Choice: 1 where the quotient underflows too. An infinity stays, and with it the result.
  float s_dec = amax_of(q.source) / 255.99f / val_max;
  if (s_dec == 0) s_dec = 1;
  q.scale = s_dec;
  const int64_t blocks_per_group = q.spec.hadamard / q.spec.block.k;
  const uint32_t direction = orientation == Orientation::kColumnwise ? 1u : 0u;

#pragma omp parallel for
  for (int64_t r = 0; r < q.rows; ++r) {
    for (int64_t group = 0; group < q.scale_k; group += blocks_per_group) {
      float squares = 0, products = 0;
      for (int64_t b = group; b < group + blocks_per_group; ++b) {
        const std::vector<float> block = block_elements(q, r, b);
        uint8_t s = nearest(e4m3(), amax_of(block) / val_max / s_dec);
        if (s == 0) s = nearest(e4m3(), 1.0f);
        const float divisor = value(e4m3(), s) * s_dec;
        for (const float v : block) {
          const float u = v / divisor;
          squares += u * u;
          products += u * value(e2m1(), nearest(e2m1(), u));
        }
        q.blocks[static_cast<size_t>(r * q.scale_k + b)] = {s, divisor, 0};
      }
      const float correction = products == 0 ? 1.0f : squares / products;
      for (int64_t b = group; b < group + blocks_per_group; ++b) {
        BlockScale& scale = q.blocks[static_cast<size_t>(r * q.scale_k + b)];
        // Choice: where k is no multiple of 16, the number that the block's first element gives.
        const uint64_t row =
            options.random.micro_batch * static_cast<uint64_t>(q.rows) + static_cast<uint64_t>(r);
        const uint64_t logical =
            (row * static_cast<uint64_t>(k) + static_cast<uint64_t>(b * q.spec.block.k)) / 16;
        scale.code =
            stochastic_between_neighbours(e4m3(), value(e4m3(), scale.code) * correction,
                                          scale_uniform(options.random, direction, logical));
        scale.decoded = value(e4m3(), scale.code);
      }
    }
  }
}

// ---- TetraJet-v2 ----------------------------------------------------------------------------

void scale_outer_groups(Quantized& q) {
  lay_out(q);
  constexpr int64_t kGroup = 128;
  const float e4m3_max = static_cast<float>(q.spec.e4m3_max);
  for (int64_t r = 0; r < q.rows; ++r) {
    for (int64_t first = 0; first < q.k; first += kGroup) {
      float os = row_amax(q, r, first, kGroup) / e4m3_max / 6.0f;
      // Choice: 1 where the quotient underflows too. An infinity stays, and with it the result.
      if (os == 0) os = 1;
      q.tile_scales.push_back(os);
      for (int64_t b = first / q.spec.block.k; b < (first + kGroup) / q.spec.block.k; ++b) {
        const float inner_amax = amax_of(block_elements(q, r, b));
        const float target = inner_amax == 0 ? 0x1p-9f : inner_amax / os / 6.0f;
        const uint8_t code = nearest(e4m3(), target);
        const float s = value(e4m3(), code);
        // Choice: at most the largest float, as elsewhere.
        const float enc = code == 0 ? 0.0f : std::min(1.0f / (os * s), kLargest);
        q.blocks[static_cast<size_t>(r * q.scale_k + b)] = {code, enc, s};
      }
    }
  }
}

}  // namespace qstep::test::reference
