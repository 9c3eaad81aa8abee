// What the tests of the quantizers share: inputs of every magnitude, the memory of one orientation
// between sentinels, comparison with the reference bit for bit.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "ops/ops.h"
#include "ops/quantize/quantize.h"
#include "tests/support/compare.h"
#include "tests/support/quant_reference.h"

namespace qstep::test {

using ops::Orientation;
using precision::QuantSpec;
using Values = std::vector<float>;

inline QuantSpec nvfp4() { return default_spec(precision::QuantFormat::kNvfp4); }
inline QuantSpec with_block(QuantSpec spec, precision::BlockShape block) {
  spec.block = block;
  return spec;
}

// Each 16x16 tile has its own magnitude, below that of the tensor; tiles of zeros, of -0, of equal
// values and with a single large one are mixed in.
enum class Data : uint8_t {
  kNarrow,      // tiles within 2^-6 of the tensor's amax
  kWide,        // within 2^-70: scales that underflow
  kTies,        // halfway between two codes, block scales halfway too
  kHuge,        // up to the largest numbers
  kSubnormal,   // down to the smallest
  kZero,        // +0 and -0 alone
  kInfinities,  // kNarrow with some of them
  kNans,
};
inline constexpr Data kFiniteData[] = {Data::kNarrow, Data::kWide,      Data::kTies,
                                       Data::kHuge,   Data::kSubnormal, Data::kZero};
inline constexpr Data kAllData[] = {Data::kNarrow,    Data::kWide, Data::kTies,       Data::kHuge,
                                    Data::kSubnormal, Data::kZero, Data::kInfinities, Data::kNans};
std::string name(Data data);

// [rows, cols], numbers of the type.
Values quant_data(Data data, int64_t rows, int64_t cols, Dtype dtype, uint64_t seed);

// A source with gaps between its rows.
Guarded source_of(const Values& x, int64_t rows, int64_t cols, Dtype dtype, int64_t gap = 0);

// One orientation laid out for a source [rows, cols]; `gap` between the rows of its values.
struct QuantSide {
  QuantSide(const QuantSpec& spec, Orientation orientation, int64_t rows, int64_t cols,
            int64_t gap = 0);

  ops::QuantizedTensor q;
  Guarded values, scale, tile_scales;  // the last two empty where there are none

  std::vector<std::byte> bits() const { return bits_of(values, scale, tile_scales); }
  // In the orientation of the source.
  float value(int64_t row, int64_t col) const { return static_cast<float>(values.at(row, col)); }
};

// Random bits of tests that do not care which.
inline constexpr ops::QuantRandom kRandom{.seed = 0x5EED0123456789ABull,
                                          .step = 7,
                                          .micro_batch = 3,
                                          .module = 0xA5,
                                          .slot = 2,
                                          .gemm_row = 1,
                                          .gemm_column = 2};

struct Shape {
  int64_t rows, cols;
};

// One source, and the call that quantizes it.
struct QuantInput {
  QuantInput(Data data, Shape s, Dtype type, uint64_t seed, int64_t gap = 0)
      : QuantInput(quant_data(data, s.rows, s.cols, type, seed), s, type, gap) {
    what = name(data) + " " + what;
  }
  QuantInput(Values numbers, Shape s, Dtype type, int64_t gap = 0);

  reference::Options options() const {
    return {.random = call.random, .dtype = dtype, .delayed_scale = 0.75f};
  }
  reference::Quantized expected(const QuantSpec& spec, Orientation orientation) const {
    return reference::quantize(x, shape.rows, shape.cols, spec, orientation, options());
  }
  QuantSide side(const QuantSpec& spec, Orientation orientation, int64_t gap = 0) const {
    return QuantSide(spec, orientation, shape.rows, shape.cols, gap);
  }

  Shape shape;
  Dtype dtype;
  Values x;
  Guarded tensor, delayed_scale;
  ops::QuantCall call;
  std::string what;
};

// The columnwise operand with Source::kForward, and what it is quantized from. What numerics leaves
// open: with a factor for the whole tensor on both sides the decoded values without it are the
// source (they are exact in BF16) and `factor` goes into the factor of the column; otherwise the
// values are rounded to BF16 with their factor, and `factor` is 1.
struct ForwardColumn {
  Values source;
  reference::Quantized column;
  float factor = 1.0f;
};
ForwardColumn expected_of_forward(const reference::Quantized& row, const QuantSpec& column_spec,
                                  const QuantInput& in);

class Quantizer {
 public:
  void operator()(const ops::QuantizedTensor& rowwise, const ops::QuantizedTensor& columnwise,
                  const QuantInput& in) {
    ops::cpu::quantize(rowwise, columnwise, in.tensor, in.call, workspace_);
  }

 private:
  ops::Workspace workspace_;
};

// Every value, scale and tile scale; the sentinels too. Reports the first difference.
void expect_reference(const reference::Quantized& expected, const QuantSide& found,
                      const std::string& what);
// Every code, block scale, tile scale and scale.
void expect_reference(const reference::Quantized& expected, const ops::EncodedTensor& found,
                      const std::string& what);

// Every spec that precision::problems accepts, of high-precision sources.
std::vector<QuantSpec> all_quant_specs();

}  // namespace qstep::test
