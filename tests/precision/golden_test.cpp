// The golden vectors of numerics' appendix A, from the product and from the tests' own reference,
// held against the output of its Python oracle.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <fstream>
#include <sstream>
#include <string>

#include "ops/quantize/quantize.h"
#include "precision/four_over_six.h"
#include "precision/fp8_scale.h"
#include "precision/hadamard.h"
#include "precision/nvfp4.h"
#include "precision/philox.h"
#include "precision/random_bits.h"
#include "precision/scale_layout.h"
#include "precision/stochastic_rounding.h"
#include "tests/precision/golden_text.h"
#include "tests/support/quant_reference.h"

namespace qstep::test {
namespace {

using precision::QuantSpec;
using Values = std::vector<float>;

class Reference : public GoldenImplementation {
 public:
  GoldenOperand quantize(const Values& x, int64_t rows, int64_t cols, const QuantSpec& spec,
                         const ops::QuantRandom& random) override {
    reference::Options options;
    options.random = random;
    const reference::Quantized q =
        reference::quantize(x, rows, cols, spec, ops::Orientation::kRowwise, options);
    GoldenOperand golden{.scale = q.scale, .block_scales = {}, .codes = q.codes};
    for (const reference::BlockScale& block : q.blocks) golden.block_scales.push_back(block.code);
    return golden;
  }
  Factors nvfp4_factors(float amax) override {
    const reference::Nvfp4Factors f =
        reference::nvfp4_factors(amax, default_spec(precision::QuantFormat::kNvfp4));
    return {f.s_enc, f.s_dec, f.mult};
  }
  float nvfp4_enc(uint8_t block_scale, float s_dec) override {
    return reference::nvfp4_enc(block_scale, s_dec);
  }
  std::array<float, 16> hadamard16(std::array<float, 16> x) override {
    QuantSpec spec;
    spec.hadamard = 16;
    reference::hadamard(x.data(), 16,
                        reference::hadamard_signs(spec, ops::Orientation::kRowwise, {}));
    return x;
  }
  bool maps_to_four(const Values& block, float amax, const QuantSpec& spec) override {
    return reference::four_over_six(block, block.size(), amax, spec).map_to_four;
  }
  float fp8_scale(float amax, bool pow2) override {
    return reference::fp8_scale(amax, reference::e4m3().max(), pow2,
                                std::numeric_limits<float>::max());
  }
  std::array<uint32_t, 4> philox(std::array<uint32_t, 4> counter,
                                 std::array<uint32_t, 2> key) override {
    return reference::philox(counter, key);
  }
  std::array<uint8_t, 16> element_bytes(const ops::QuantRandom& random, uint64_t block) override {
    std::array<uint8_t, 16> bytes;
    for (uint64_t i = 0; i < 16; ++i) {
      bytes[i] = reference::element_byte(random, 0, 16 * block + i);
    }
    return bytes;
  }
  // reshape(R / 128, 4, 32, C / 4, 4).permute(0, 3, 2, 1, 4), element by element.
  int64_t swizzled_offset(int64_t row, int64_t col, int64_t cols) override {
    int64_t offset = 0;
    for (int64_t tile_row = 0;; ++tile_row) {
      for (int64_t tile_col = 0; tile_col < cols / 4; ++tile_col) {
        for (int64_t r = 0; r < 32; ++r) {
          for (int64_t quarter = 0; quarter < 4; ++quarter) {
            for (int64_t c = 0; c < 4; ++c, ++offset) {
              const int64_t at_row = tile_row * 128 + quarter * 32 + r;
              if (at_row == row && tile_col * 4 + c == col) return offset;
            }
          }
        }
      }
    }
  }
  uint8_t stochastic_e2m1(float x, uint8_t r) override {
    return reference::stochastic(reference::e2m1(), x, r);
  }
};

class Product : public GoldenImplementation {
 public:
  GoldenOperand quantize(const Values& x, int64_t rows, int64_t cols, const QuantSpec& spec,
                         const ops::QuantRandom& random) override {
    Values source = x;
    const ops::Tensor tensor = ops::matrix(source.data(), ops::Dtype::kF32, rows, cols);
    ops::Arena measured;
    const auto lay_out = [&](ops::Arena& arena) {
      return ops::lay_out_quantized(arena, "golden", spec, ops::Orientation::kRowwise, rows, cols);
    };
    lay_out(measured);
    const ops::Buffer memory = ops::allocate_host(measured.peak_bytes());
    ops::Arena arena(memory);
    ops::QuantCall call;
    call.random = random;
    const ops::EncodedTensor q = ops::cpu::quantize_encoded(lay_out(arena), tensor, call);
    return {.scale = q.scale, .block_scales = q.block_scales, .codes = q.codes};
  }
  Factors nvfp4_factors(float amax) override {
    const precision::Nvfp4Factors<float> f =
        precision::nvfp4_factors(amax, precision::nvfp4_range(448, false), false);
    return {f.s_enc, f.s_dec, f.block_factor};
  }
  float nvfp4_enc(uint8_t block_scale, float s_dec) override {
    return precision::nvfp4_encode_scale(
        precision::decode<precision::ElementFormat::kE4m3>(block_scale), s_dec);
  }
  std::array<float, 16> hadamard16(std::array<float, 16> x) override {
    precision::hadamard_unscaled<16>(x.data(), precision::fixed_signs());
    for (float& v : x) v = precision::round_to_bf16(v * 0.25f);
    return x;
  }
  bool maps_to_four(const Values& block, float amax, const QuantSpec& spec) override {
    const float range = precision::nvfp4_range(spec.e4m3_max, false);
    const precision::Nvfp4Factors<float> factors = precision::nvfp4_factors(amax, range, false);
    float block_amax = 0;
    for (const float v : block) block_amax = std::max(block_amax, std::fabs(v));
    const auto error = [&](float stretch) {
      const auto scale = precision::four_over_six_scale(block_amax, factors, false, stretch);
      return precision::four_over_six_error<16>(block.data(), scale,
                                                precision::FourOverSixTensor<float>{amax, range},
                                                spec.four_over_six);
    };
    return error(1.5f) < error(1.0f);
  }
  float fp8_scale(float amax, bool pow2) override {
    return precision::fp8_scale(amax, 448.0f, std::numeric_limits<float>::max(), pow2);
  }
  std::array<uint32_t, 4> philox(std::array<uint32_t, 4> counter,
                                 std::array<uint32_t, 2> key) override {
    const uint64_t seed = static_cast<uint64_t>(key[1]) << 32 | key[0];
    const precision::PhiloxWords words =
        precision::philox4x32(seed, {{counter[0], counter[1], counter[2], counter[3]}});
    return std::to_array(words.w);
  }
  std::array<uint8_t, 16> element_bytes(const ops::QuantRandom& random, uint64_t block) override {
    const uint32_t stream = precision::random_stream(precision::RandomPurpose::kElements, 0,
                                                     random.slot, random.module);
    const auto words =
        precision::random_words<float>(random.seed, static_cast<uint32_t>(block),
                                       static_cast<uint32_t>(block >> 32), stream, random.step);
    std::array<uint8_t, 16> bytes;
    for (int i = 0; i < 16; ++i) {
      bytes[static_cast<size_t>(i)] = static_cast<uint8_t>(precision::random_byte(words, i));
    }
    return bytes;
  }
  int64_t swizzled_offset(int64_t row, int64_t col, int64_t cols) override {
    return precision::swizzled_scale_offset(row, col, cols);
  }
  uint8_t stochastic_e2m1(float x, uint8_t r) override {
    return precision::encode<precision::ElementFormat::kE2m1>(
        precision::round_stochastic_e2m1(x, uint32_t{r}));
  }
};

std::string oracle_text() {
  std::ifstream file(QSTEP_GOLDEN_FILE);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

TEST(Golden, TheReferenceGivesTheOraclesText) {
  Reference implementation;
  EXPECT_EQ(golden_text(implementation), oracle_text());
}

TEST(Golden, TheProductGivesTheOraclesText) {
  Product implementation;
  EXPECT_EQ(golden_text(implementation), oracle_text());
}

}  // namespace
}  // namespace qstep::test
