#include "tests/support/quant_reference.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace qstep::test::reference {

using precision::AmaxScope;
using precision::FourOverSix;
using precision::Headroom;
using precision::QuantFormat;
using precision::Rounding;
using precision::Signs;

namespace {

bool is_fp8(const QuantSpec& spec) {
  return spec.format == QuantFormat::kFp8E4m3 || spec.format == QuantFormat::kFp8E5m2;
}

uint32_t direction_bit(Orientation orientation) {
  return orientation == Orientation::kColumnwise ? 1u : 0u;
}

std::vector<float> oriented(const std::vector<float>& x, int64_t rows, int64_t cols,
                            Orientation orientation) {
  if (orientation == Orientation::kRowwise) return x;
  std::vector<float> transpose(x.size());
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < cols; ++c) {
      transpose[static_cast<size_t>(c * rows + r)] = x[static_cast<size_t>(r * cols + c)];
    }
  }
  return transpose;
}

// The leading [rows, k] of a matrix [.., from_k], zeros where it has none.
std::vector<float> resized(const std::vector<float>& matrix, int64_t from_k, int64_t rows,
                           int64_t k) {
  std::vector<float> result(static_cast<size_t>(rows * k), 0.0f);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < std::min(k, from_k); ++c) {
      const auto i = static_cast<size_t>(r * from_k + c);
      if (i < matrix.size()) result[static_cast<size_t>(r * k + c)] = matrix[i];
    }
  }
  return result;
}

// Elements along k that depend on each other: those of a block, a transform, an outer group.
int64_t dependent_elements(const QuantSpec& spec) {
  const int64_t outer_group = spec.amax == AmaxScope::kGroup128 ? 128 : 1;
  return std::max({outer_group, int64_t{spec.block.k}, int64_t{spec.hadamard}});
}

int64_t round_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

// Those that lie behind the tensor, where a transform or an outer group is longer than a block.
void drop_blocks_of_zeros(Quantized& q) {
  const int64_t kept = round_up(q.k, q.spec.block.k) / q.spec.block.k;
  std::vector<BlockScale> blocks;
  for (int64_t r = 0; r < q.scale_rows; ++r) {
    const auto first = q.blocks.begin() + static_cast<std::ptrdiff_t>(r * q.scale_k);
    blocks.insert(blocks.end(), first, first + static_cast<std::ptrdiff_t>(kept));
  }
  q.blocks = std::move(blocks);
  q.scale_k = kept;
}

void scale_blocks(Quantized& q, int64_t k, Orientation orientation, const Options& options) {
  if (is_fp8(q.spec)) return scale_fp8(q, options);
  if (q.spec.format != QuantFormat::kNvfp4) return scale_mx(q);
  if (q.spec.rounding == Rounding::kMsEden) return scale_ms_eden(q, k, orientation, options);
  if (q.spec.amax == AmaxScope::kGroup128) return scale_outer_groups(q);
  if (q.spec.four_over_six != FourOverSix::kNone) return scale_four_over_six(q, orientation);
  scale_nvfp4(q);
}

// What is rounded: the element on the scale of the format. Numerics 7.10 takes three quarters as
// 3 v / 2^(e + 2).
float scaled(float v, const BlockScale& block, const QuantSpec& spec) {
  if (spec.rounding == Rounding::kMsEden) return v / block.factor;
  const bool is_mx = spec.format != QuantFormat::kNvfp4 && !is_fp8(spec);
  if (is_mx && spec.headroom == Headroom::kThreeQuarters) return (3.0f * v) * block.factor;
  return v * block.factor;
}

// The element whose byte the model of the GPU's instruction gives element kk of a row: of four, the
// second and the third get each other's.
uint64_t neighbour_of_hardware(uint64_t element, size_t kk) {
  if (kk % 4 == 1) return element + 1;
  if (kk % 4 == 2) return element - 1;
  return element;
}

}  // namespace

const Format& element_format(const QuantSpec& spec) {
  switch (spec.format) {
    case QuantFormat::kMxfp8E4m3:
    case QuantFormat::kFp8E4m3:
      return e4m3();
    case QuantFormat::kMxfp8E5m2:
    case QuantFormat::kFp8E5m2:
      return e5m2();
    default:
      return e2m1();
  }
}

bool has_tensor_factor(const QuantSpec& spec) {
  if (spec.amax == AmaxScope::kRow || spec.amax == AmaxScope::kGroup128) return false;
  if (is_fp8(spec)) return spec.block.whole_tensor();
  return spec.format == QuantFormat::kNvfp4 || spec.headroom == Headroom::kThreeQuarters;
}

float amax_of(const std::vector<float>& values) {
  float amax = 0;
  for (const float v : values) {
    if (std::fabs(v) > amax) amax = std::fabs(v);
  }
  return amax;
}

const BlockScale& Quantized::block_of(int64_t row, int64_t kk) const {
  const int64_t br = spec.block.whole_tensor() ? 0 : row / spec.block.rows;
  const int64_t bk = spec.block.whole_tensor() ? 0 : kk / spec.block.k;
  const int64_t per_row = spec.amax == AmaxScope::kRow && spec.block.whole_tensor() ? row : br;
  return blocks[static_cast<size_t>(per_row * scale_k + bk)];
}

float Quantized::tile_scale_of(int64_t row, int64_t kk) const {
  if (tile_scales.empty()) return 1.0f;
  if (spec.amax == AmaxScope::kRow) return tile_scales[static_cast<size_t>(row)];
  // Per 1x128, or per block of fp8.
  const int64_t tile_rows = spec.amax == AmaxScope::kGroup128 ? 1 : spec.block.rows;
  const int64_t per_row = (k + 127) / 128;
  return tile_scales[static_cast<size_t>(row / tile_rows * per_row + kk / 128)];
}

double Quantized::dequantized(int64_t row, int64_t kk) const {
  return static_cast<double>(values[index(row, kk)]) * static_cast<double>(scale) /
         static_cast<double>(denominator) * static_cast<double>(tile_scale_of(row, kk));
}

float Quantized::dequantized_fp32(int64_t row, int64_t kk) const {
  const float factor = tile_scales.empty() ? scale * (1.0f / denominator) : tile_scale_of(row, kk);
  return values[index(row, kk)] * factor;
}

std::vector<float> block_elements(const Quantized& q, int64_t block_row, int64_t block_k) {
  const precision::BlockShape shape = q.spec.block;
  std::vector<float> elements;
  for (int64_t r = block_row * shape.rows; r < std::min(q.rows, (block_row + 1) * shape.rows);
       ++r) {
    for (int64_t c = block_k * shape.k; c < std::min(q.k, (block_k + 1) * shape.k); ++c) {
      elements.push_back(q.source[q.index(r, c)]);
    }
  }
  return elements;
}

float row_amax(const Quantized& q, int64_t row, int64_t first_k, int64_t n_k) {
  const auto first = q.source.begin() + static_cast<std::ptrdiff_t>(q.index(row, first_k));
  return amax_of(std::vector<float>(first, first + static_cast<std::ptrdiff_t>(n_k)));
}

Quantized quantize(const std::vector<float>& x, int64_t rows, int64_t cols, const QuantSpec& spec,
                   Orientation orientation, const Options& options) {
  Quantized q;
  q.spec = spec;
  const bool rowwise = orientation == Orientation::kRowwise;
  const int64_t n = rowwise ? rows : cols, k = rowwise ? cols : rows;
  // Choice: blocks, groups and transforms that the tensor does not fill are filled with zeros.
  q.rows = round_up(n, std::max(spec.block.rows, 1));
  q.k = round_up(k, dependent_elements(spec));
  q.source = resized(oriented(x, rows, cols, orientation), k, q.rows, q.k);
  if (spec.hadamard != 0) {
    const std::vector<bool> negative = hadamard_signs(spec, orientation, options.random);
    for (size_t i = 0; i < q.source.size(); i += static_cast<size_t>(spec.hadamard)) {
      hadamard(&q.source[i], spec.hadamard, negative);
    }
  }
  scale_blocks(q, k, orientation, options);
  q.source = resized(q.source, q.k, n, k);
  q.rows = n;
  q.k = k;
  if (!spec.block.whole_tensor()) drop_blocks_of_zeros(q);

  const Format& format = element_format(spec);
  const uint32_t direction = direction_bit(orientation);
  q.scaled.resize(q.source.size());
  q.codes.resize(q.source.size());
  q.values.resize(q.source.size());
#pragma omp parallel for
  for (int64_t r = 0; r < q.rows; ++r) {
    for (int64_t c = 0; c < q.k; ++c) {
      const size_t i = q.index(r, c);
      const BlockScale& block = q.block_of(r, c);
      q.scaled[i] = scaled(q.source[i], block, spec);
      if (spec.rounding == Rounding::kStochastic) {
        uint64_t element = options.random.micro_batch * q.source.size() + i;
        if (options.random.rounder == precision::StochasticRounder::kHardware) {
          element = neighbour_of_hardware(element, i % static_cast<size_t>(q.k));
        }
        q.codes[i] =
            stochastic(format, q.scaled[i], element_byte(options.random, direction, element));
      } else {
        q.codes[i] = nearest(format, q.scaled[i]);
      }
      q.values[i] = bf16(value(format, q.codes[i]) * block.decoded);
    }
  }
  return q;
}

std::vector<float> forward_values(const Quantized& rowwise) {
  std::vector<float> values;
  for (int64_t r = 0; r < rowwise.rows; ++r) {
    for (int64_t c = 0; c < rowwise.k; ++c) values.push_back(rowwise.dequantized_fp32(r, c));
  }
  return values;
}

// ---- Hadamard transform and random bits -----------------------------------------------------

void hadamard(float* group, int size, const std::vector<bool>& negative) {
  for (int i = 0; i < size; ++i) {
    if (negative[static_cast<size_t>(i)]) group[i] = -group[i];
  }
  for (int h = 1; h < size; h *= 2) {
    for (int a = 0; a < size; ++a) {
      if ((a & h) != 0) continue;
      const float sum = group[a] + group[a | h], difference = group[a] - group[a | h];
      group[a] = sum;
      group[a | h] = difference;
    }
  }
  const float normalize = static_cast<float>(1.0 / std::sqrt(static_cast<double>(size)));
  for (int i = 0; i < size; ++i) group[i] = bf16(group[i] * normalize);
}

std::vector<bool> hadamard_signs(const QuantSpec& spec, Orientation orientation,
                                 const ops::QuantRandom& random) {
  std::vector<bool> negative;
  // Transformer Engine's vector; repeated for longer groups.
  constexpr uint32_t kFixed = 0xD7E8;
  const uint32_t gemm = orientation == Orientation::kRowwise ? random.gemm_row : random.gemm_column;
  const uint32_t step = spec.signs == Signs::kPerStep ? random.step : 0;
  const std::array<uint32_t, 4> words =
      philox({0, 0, stream(2, 0, gemm, random.module), step},
             {static_cast<uint32_t>(random.seed), static_cast<uint32_t>(random.seed >> 32)});
  for (int j = 0; j < spec.hadamard; ++j) {
    const uint32_t drawn = words[static_cast<size_t>(j / 32)] >> (j % 32);
    const uint32_t fixed = kFixed >> (j % 16);
    negative.push_back(((spec.signs == Signs::kFixed ? fixed : drawn) & 1u) != 0);
  }
  return negative;
}

std::array<uint32_t, 4> philox(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{0xD2511F53} * counter[0];
    const uint64_t p1 = uint64_t{0xCD9E8D57} * counter[2];
    counter = {static_cast<uint32_t>(p1 >> 32) ^ counter[1] ^ key[0], static_cast<uint32_t>(p1),
               static_cast<uint32_t>(p0 >> 32) ^ counter[3] ^ key[1], static_cast<uint32_t>(p0)};
    key[0] += 0x9E3779B9u;
    key[1] += 0xBB67AE85u;
  }
  return counter;
}

uint32_t stream(uint32_t purpose, uint32_t direction, uint32_t slot, uint32_t module) {
  return purpose << 28 | direction << 27 | slot << 24 | module;
}

namespace {

uint32_t random_word(const ops::QuantRandom& random, uint32_t purpose, uint32_t direction,
                     uint64_t word) {
  const uint64_t call = word / 4;
  const std::array<uint32_t, 4> words =
      philox({static_cast<uint32_t>(call), static_cast<uint32_t>(call >> 32),
              stream(purpose, direction, random.slot, random.module), random.step},
             {static_cast<uint32_t>(random.seed), static_cast<uint32_t>(random.seed >> 32)});
  return words[word % 4];
}

}  // namespace

uint8_t element_byte(const ops::QuantRandom& random, uint32_t direction, uint64_t element) {
  return static_cast<uint8_t>(random_word(random, 0, direction, element / 4) >>
                              (8 * (element % 4)));
}

float scale_uniform(const ops::QuantRandom& random, uint32_t direction, uint64_t block) {
  return static_cast<float>(random_word(random, 1, direction, block) >> 8) * 0x1p-24f;
}

}  // namespace qstep::test::reference
