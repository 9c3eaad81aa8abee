// The golden vectors of numerics' appendix A as text, from one implementation of the formats and
// quantizers: what tests/precision/golden.txt holds line by line.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "ops/quantized_tensor.h"

namespace qstep::test {

// One row of scale blocks and its elements' codes.
struct GoldenOperand {
  float scale = 1;                    // as ops::QuantizedTensor
  std::vector<uint8_t> block_scales;  // along k
  std::vector<uint8_t> codes;         // of all rows
};

class GoldenImplementation {
 public:
  virtual ~GoldenImplementation() = default;

  virtual GoldenOperand quantize(const std::vector<float>& x, int64_t rows, int64_t cols,
                                 const precision::QuantSpec& spec,
                                 const ops::QuantRandom& random) = 0;
  struct Factors {
    float s_enc, s_dec, mult;
  };
  virtual Factors nvfp4_factors(float amax) = 0;
  virtual float nvfp4_enc(uint8_t block_scale, float s_dec) = 0;
  virtual std::array<float, 16> hadamard16(std::array<float, 16> x) = 0;
  virtual bool maps_to_four(const std::vector<float>& block, float amax,
                            const precision::QuantSpec& spec) = 0;
  virtual float fp8_scale(float amax, bool pow2) = 0;
  virtual std::array<uint32_t, 4> philox(std::array<uint32_t, 4> counter,
                                         std::array<uint32_t, 2> key) = 0;
  virtual std::array<uint8_t, 16> element_bytes(const ops::QuantRandom& random, uint64_t block) = 0;
  // Of the block scale (row, col) of a matrix with `cols` columns in a GPU's memory.
  virtual int64_t swizzled_offset(int64_t row, int64_t col, int64_t cols) = 0;
  virtual uint8_t stochastic_e2m1(float x, uint8_t r) = 0;
};

std::string golden_text(GoldenImplementation& implementation);

}  // namespace qstep::test
