#include "tests/ops/quantize_testing.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

namespace qstep::test {

using precision::AmaxScope;
using precision::BlockShape;
using precision::FourOverSix;
using precision::Headroom;
using precision::QuantFormat;
using precision::Rounding;
using precision::ScaleRule;
using precision::Signs;

namespace {

constexpr int64_t kTile = 16;

// What a tile holds.
enum class Pattern : uint8_t { kRandom, kZero, kNegativeZero, kEqual, kOutlier };

struct Tile {
  Pattern pattern;
  int exponent;
  float constant;
};

// SplitMix64: millions of draws per test.
class Draws {
 public:
  explicit Draws(uint64_t seed) : state_(seed) {}
  uint64_t bits() {
    uint64_t z = (state_ += 0x9E3779B97F4A7C15ull);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    return z ^ (z >> 31);
  }
  int64_t integer(int64_t low, int64_t high) {
    return low + static_cast<int64_t>(bits() % static_cast<uint64_t>(high - low + 1));
  }
  // In (-1, 1), small ones oftener.
  float number() {
    const double u = static_cast<double>(bits() >> 11) * 0x1p-52 - 1.0;
    return static_cast<float>(u * std::fabs(u));
  }

 private:
  uint64_t state_;
};

int lowest_exponent(Data data) {
  switch (data) {
    case Data::kWide:
    case Data::kHuge:
      return -70;
    case Data::kSubnormal:
      return -12;
    default:
      return -6;
  }
}

int tensor_exponent(Data data, Draws& draws) {
  if (data == Data::kHuge) return 128;
  if (data == Data::kSubnormal) return static_cast<int>(draws.integer(-140, -124));
  return static_cast<int>(draws.integer(-90, 90));
}

Tile draw_tile(Data data, Draws& draws) {
  const auto kind = draws.integer(0, 31);
  const Pattern pattern = data == Data::kZero
                              ? (kind % 2 == 0 ? Pattern::kZero : Pattern::kNegativeZero)
                          : kind == 0 ? Pattern::kZero
                          : kind == 1 ? Pattern::kNegativeZero
                          : kind == 2 ? Pattern::kEqual
                          : kind <= 4 ? Pattern::kOutlier
                                      : Pattern::kRandom;
  return {pattern, static_cast<int>(draws.integer(lowest_exponent(data), 0)), draws.number()};
}

float draw(const Tile& tile, int exponent, Draws& draws) {
  switch (tile.pattern) {
    case Pattern::kZero:
      return 0.0f;
    case Pattern::kNegativeZero:
      return -0.0f;
    case Pattern::kEqual:
      return std::ldexp(tile.constant, exponent + tile.exponent);
    case Pattern::kOutlier:
      return std::ldexp(draws.number(),
                        exponent + tile.exponent - (draws.integer(0, 255) == 0 ? 0 : 9));
    case Pattern::kRandom:
      break;
  }
  if (draws.integer(0, 63) == 0) return draws.integer(0, 1) == 0 ? 0.0f : -0.0f;
  return std::ldexp(draws.number(), exponent + tile.exponent);
}

// Elements of a block whose scale is s (a value of E4M3, or halfway between two): multiples of s/8
// up to 6 s, under an amax that makes the factor of the tensor a power of two. For fp8 and MX: the
// same numbers are values of E4M3 and numbers halfway between them.
float draw_tie(const Tile& tile, Draws& draws) {
  const auto significand = static_cast<float>(16 + std::bit_cast<uint32_t>(tile.constant) % 16);
  const float s = std::ldexp(significand, tile.exponent);
  return s * static_cast<float>(draws.integer(-48, 48)) / 8.0f;
}

float to_dtype(float x, Dtype dtype) {
  if (dtype == Dtype::kF32) return x;
  const float rounded = reference::bf16(x);
  return std::isinf(rounded) && std::isfinite(x) ? std::copysign(0x1.FEp127f, x) : rounded;
}

void sprinkle(Values& values, Data data, Draws& draws) {
  const float inf = std::numeric_limits<float>::infinity();
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (float& v : values) {
    if (draws.integer(0, 299) != 0) continue;
    v = std::copysign(data == Data::kNans ? nan : inf, v);
  }
}

}  // namespace

std::string name(Data data) {
  static const char* const kNames[] = {"narrow",    "wide", "ties",       "huge",
                                       "subnormal", "zero", "infinities", "nans"};
  return kNames[static_cast<size_t>(data)];
}

Values quant_data(Data data, int64_t rows, int64_t cols, Dtype dtype, uint64_t seed) {
  Draws draws(seed);
  const int exponent = tensor_exponent(data, draws);
  const int64_t tiles_per_row = (cols + kTile - 1) / kTile;
  std::vector<Tile> tiles;
  Values values;
  for (int64_t r = 0; r < rows; ++r) {
    if (r % kTile == 0) {
      tiles.clear();
      for (int64_t t = 0; t < tiles_per_row; ++t) tiles.push_back(draw_tile(data, draws));
    }
    for (int64_t c = 0; c < cols; ++c) {
      const Tile& tile = tiles[static_cast<size_t>(c / kTile)];
      const float v = data == Data::kTies ? draw_tie(tile, draws) : draw(tile, exponent, draws);
      values.push_back(to_dtype(v, dtype));
    }
  }
  // 6 * 448 times the power of two of the largest scale.
  if (data == Data::kTies && !values.empty()) values[0] = 2688.0f * 0.125f;
  if (data == Data::kInfinities || data == Data::kNans) sprinkle(values, data, draws);
  return values;
}

Guarded source_of(const Values& x, int64_t rows, int64_t cols, Dtype dtype, int64_t gap) {
  Guarded source(dtype, rows, cols, gap);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < cols; ++c) {
      source.set(r, c, static_cast<double>(x[static_cast<size_t>(r * cols + c)]));
    }
  }
  return source;
}

QuantInput::QuantInput(Values numbers, Shape s, Dtype type, int64_t gap)
    : shape(s),
      dtype(type),
      x(std::move(numbers)),
      tensor(source_of(x, s.rows, s.cols, type, gap)),
      delayed_scale(Dtype::kF32, 1, 1),
      what(fmt::format("{} [{}, {}] gap {}", ops::name(type), s.rows, s.cols, gap)) {
  delayed_scale.set(0, 0, 0.75);
  call.random = kRandom;
  call.delayed_scale = delayed_scale;
}

ForwardColumn expected_of_forward(const reference::Quantized& row, const QuantSpec& column_spec,
                                  const QuantInput& in) {
  reference::Options options = in.options();
  options.dtype = Dtype::kBf16;
  ForwardColumn forward{.source = row.values, .column = {}};
  if (reference::has_tensor_factor(row.spec) && reference::has_tensor_factor(column_spec)) {
    forward.factor = row.scale / row.denominator;
  } else {
    forward.source = reference::forward_values(row);
    for (float& v : forward.source) v = reference::bf16(v);
  }
  forward.column = reference::quantize(forward.source, in.shape.rows, in.shape.cols, column_spec,
                                       Orientation::kColumnwise, options);
  return forward;
}

QuantSide::QuantSide(const QuantSpec& spec, Orientation orientation, int64_t rows, int64_t cols,
                     int64_t gap)
    : values(Dtype::kBf16, 0, 0), scale(Dtype::kF32, 0, 0), tile_scales(Dtype::kF32, 0, 0) {
  ops::Arena measuring;
  q = ops::lay_out_quantized(measuring, "test", spec, orientation, rows, cols);
  const bool has_scale = reference::has_tensor_factor(spec),
             has_tiles = ops::scale_tile(spec).rows > 0;
  values = Guarded(Dtype::kBf16, rows, cols, gap);
  q.values = values;
  if (has_scale) {
    scale = Guarded(Dtype::kF32, 1, 1);
    q.scale = scale;
  }
  if (has_tiles) {
    tile_scales = Guarded(Dtype::kF32, q.tile_scales.rows, q.tile_scales.cols);
    q.tile_scales = tile_scales;
  }
}

namespace {

uint32_t bits(float x) { return std::bit_cast<uint32_t>(x); }

void expect_floats(const Values& expected, const Values& found, const std::string& what) {
  ASSERT_EQ(expected.size(), found.size()) << what;
  for (size_t i = 0; i < expected.size(); ++i) {
    const bool both_nan = std::isnan(expected[i]) && std::isnan(found[i]);
    if (both_nan || bits(expected[i]) == bits(found[i])) continue;
    ADD_FAILURE() << fmt::format("{} [{}]: expected {} ({:08X}), found {} ({:08X})", what, i,
                                 expected[i], bits(expected[i]), found[i], bits(found[i]));
    return;
  }
}

Values floats_of(const Guarded& g) {
  Values values;
  for (const double v : g.values()) values.push_back(static_cast<float>(v));
  return values;
}

// The element's own story, for a message.
std::string story(const reference::Quantized& e, int64_t row, int64_t k) {
  const size_t i = e.index(row, k);
  const reference::BlockScale& block = e.block_of(row, k);
  return fmt::format("source {} ({:08X}), scale {:02X}, factor {} ({:08X}), rounded {} -> {:02X}",
                     e.source[i], bits(e.source[i]), block.code, block.factor, bits(block.factor),
                     e.scaled[i], e.codes[i]);
}

}  // namespace

void expect_reference(const reference::Quantized& expected, const QuantSide& found,
                      const std::string& what) {
  found.values.expect_guards_intact(what + " values");
  found.scale.expect_guards_intact(what + " scale");
  found.tile_scales.expect_guards_intact(what + " tile scales");
  if (found.q.scale) {
    expect_floats({expected.scale}, floats_of(found.scale), what + " scale");
    expect_floats({expected.denominator}, {ops::scale_denominator(found.q.spec)},
                  what + " denominator");
  }
  expect_floats(expected.tile_scales, floats_of(found.tile_scales), what + " tile scales");

  const bool rowwise = found.q.orientation == Orientation::kRowwise;
  const auto* const values = static_cast<const uint16_t*>(found.values.tensor().data);
  const int64_t ld = found.values.tensor().ld;
  int64_t n_wrong = 0;
  std::string first;
  for (int64_t row = 0; row < expected.rows; ++row) {
    for (int64_t k = 0; k < expected.k; ++k) {
      const uint32_t wanted = bits(expected.values[expected.index(row, k)]) >> 16;
      const uint32_t is = values[rowwise ? row * ld + k : k * ld + row];
      if (wanted == is || n_wrong++ > 0) continue;
      first = fmt::format("row {} k {}: expected {:04X}, found {:04X}; {}", row, k, wanted, is,
                          story(expected, row, k));
    }
  }
  if (n_wrong > 0) {
    ADD_FAILURE() << fmt::format("{} values: {} of {} differ, first at {}", what, n_wrong,
                                 expected.values.size(), first);
  }
}

void expect_reference(const reference::Quantized& expected, const ops::EncodedTensor& found,
                      const std::string& what) {
  ASSERT_EQ(expected.rows, found.rows) << what;
  ASSERT_EQ(expected.k, found.k) << what;
  expect_floats({expected.scale}, {found.scale}, what + " encoded scale");
  expect_floats(expected.tile_scales, found.tile_scales, what + " encoded tile scales");
  const QuantFormat format = expected.spec.format;
  if (format != QuantFormat::kFp8E4m3 && format != QuantFormat::kFp8E5m2) {
    ASSERT_EQ(expected.scale_rows, found.scale_rows) << what;
    ASSERT_EQ(expected.scale_k, found.scale_k) << what;
    ASSERT_EQ(expected.blocks.size(), found.block_scales.size()) << what;
    for (size_t b = 0; b < expected.blocks.size(); ++b) {
      if (expected.blocks[b].code == found.block_scales[b]) continue;
      ADD_FAILURE() << fmt::format("{} block scale {}: expected {:02X}, found {:02X}", what, b,
                                   expected.blocks[b].code, found.block_scales[b]);
      return;
    }
  }
  ASSERT_EQ(expected.codes.size(), found.codes.size()) << what;
  for (int64_t row = 0; row < expected.rows; ++row) {
    for (int64_t k = 0; k < expected.k; ++k) {
      const size_t i = expected.index(row, k);
      if (expected.codes[i] == found.codes[i]) continue;
      // Under a scale that is NaN every code stands for NaN.
      if (std::isnan(expected.block_of(row, k).decoded)) continue;
      ADD_FAILURE() << fmt::format("{} code at row {} k {}: expected {:02X}, found {:02X}; {}",
                                   what, row, k, expected.codes[i], found.codes[i],
                                   story(expected, row, k));
      return;
    }
  }
}

namespace {

template <class Names, class F>
void for_each_value(const Names& names, F&& f) {
  for (const auto& [text, value] : names) f(value);
}

}  // namespace

std::vector<QuantSpec> all_quant_specs() {
  std::vector<QuantSpec> specs;
  QuantSpec s;
  const auto keep = [&] {
    if (s.quantized() && precision::problems(s).empty()) specs.push_back(s);
  };
  const auto with_options = [&] {
    for_each_value(precision::kRoundingNames, [&](Rounding rounding) {
      s.rounding = rounding;
      for_each_value(precision::kFourOverSixNames, [&](FourOverSix rule) {
        s.four_over_six = rule;
        for_each_value(precision::kHeadroomNames, [&](Headroom headroom) {
          s.headroom = headroom;
          for_each_value(precision::kAmaxScopeNames, [&](AmaxScope amax) {
            s.amax = amax;
            for (const int e4m3_max : {448, 256}) {
              s.e4m3_max = e4m3_max;
              keep();
            }
          });
        });
      });
    });
  };
  for_each_value(precision::kQuantFormatNames, [&](QuantFormat format) {
    s.format = format;
    for_each_value(precision::kBlockNames, [&](BlockShape block) {
      s.block = block;
      for_each_value(precision::kScaleRuleNames, [&](ScaleRule scale) {
        s.scale = scale;
        for_each_value(precision::kSignsNames, [&](Signs signs) {
          s.signs = signs;
          for (const int hadamard : {0, 16, 32, 64, 128}) {
            s.hadamard = hadamard;
            with_options();
          }
        });
      });
    });
  });
  return specs;
}

}  // namespace qstep::test
