// Rounding with random bits: unbiased, and the same bits whenever it is asked again, but others for
// whatever differs.
//
// Statistical tests state their confidence as a number of standard deviations: 5, which a correct
// quantizer exceeds with probability 6e-7, and with literal seeds always or never.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>

#include "tests/ops/quantize_testing.h"

namespace qstep::test {
namespace {

using precision::QuantFormat;
using precision::Rounding;
using precision::Signs;

constexpr double kDeviations = 5;

QuantSpec stochastic(QuantFormat format) {
  QuantSpec spec = default_spec(format);
  spec.rounding = Rounding::kStochastic;
  return spec;
}

// Sums of what should be zero on average, and of its variance.
struct Sum {
  double value = 0, variance = 0, n = 0;
  void add(double difference, double variance_of_one) {
    value += difference;
    variance += variance_of_one;
    n += 1;
  }
  double deviations() const { return value / std::sqrt(variance); }
};

// The codes of one operand in the order of the source.
std::vector<uint8_t> codes_of(const QuantSpec& spec, Orientation orientation,
                              const QuantInput& in) {
  QuantSide side = in.side(spec, orientation);
  const ops::EncodedTensor e = ops::cpu::quantize_encoded(side.q, in.tensor, in.call);
  if (orientation == Orientation::kRowwise) return e.codes;
  std::vector<uint8_t> codes(e.codes.size());
  for (int64_t r = 0; r < e.rows; ++r) {
    for (int64_t k = 0; k < e.k; ++k) {
      codes[static_cast<size_t>(k * e.rows + r)] = e.codes[static_cast<size_t>(r * e.k + k)];
    }
  }
  return codes;
}

// ---- the mean -------------------------------------------------------------------------------

// Numerics 4.2: with 8 random bits a fraction f of a step goes up with probability
// floor(256 f) / 256, so that magnitudes are low by step / 512 on average. Both is tested: the
// probability per element, and that the mean over many numbers is low by so much, no more, no less.
TEST(QuantizeStochastic, IsUnbiasedButForTheResolutionOfEightBits) {
  Sum against_probability, against_value;
  double steps = 0;
  for (const QuantFormat format : {QuantFormat::kNvfp4, QuantFormat::kMxfp4}) {
    for (uint32_t draw = 0; draw < 50; ++draw) {
      const Shape shape{128, 512};
      Random random(100 + draw);
      Values x;
      for (int64_t i = 0; i < shape.rows * shape.cols; ++i) {
        x.push_back(static_cast<float>(random.uniform(-1, 1)));
      }
      QuantInput in(x, shape, Dtype::kF32);
      in.call.random.step = draw;
      const QuantSpec spec = stochastic(format);
      const reference::Quantized expected = in.expected(spec, Orientation::kRowwise);
      const std::vector<uint8_t> codes = codes_of(spec, Orientation::kRowwise, in);
      const reference::Format& table = reference::e2m1();
      for (size_t i = 0; i < codes.size(); ++i) {
        const double u = std::fabs(static_cast<double>(expected.scaled[i]));
        if (u >= 6) continue;  // saturated
        const uint8_t below = reference::toward_zero(table, static_cast<float>(u));
        const auto low = static_cast<double>(reference::value(table, below));
        const double step = static_cast<double>(reference::value(table, below + 1)) - low;
        const double f = (u - low) / step, p = std::floor(256 * f) / 256;
        const auto q = static_cast<double>(reference::value(table, codes[i] & 7u));
        const double variance = step * step * p * (1 - p);
        against_probability.add(q - (low + step * p), variance);
        against_value.add(q - u + step / 512, variance + step * step / (12 * 256.0 * 256.0));
        steps += step;
      }
    }
  }
  EXPECT_LE(std::fabs(against_probability.deviations()), kDeviations);
  EXPECT_LE(std::fabs(against_value.deviations()), kDeviations);
  // So many numbers that nearest rounding, or no correction for the known bias, would show.
  EXPECT_GT(steps / 512 / std::sqrt(against_value.variance), 2 * kDeviations);
}

// MS-EDEN: with u the elements on the scale of their blocks before the correction, <result, u> is
// <u, u> in every rotated group, on average over the rounding of the scales. The same elements
// without a correction have less.
TEST(QuantizeStochastic, MsEdenIsUnbiased) {
  QuantSpec spec = default_spec(QuantFormat::kNvfp4);
  spec.rounding = Rounding::kMsEden;
  spec.hadamard = 128;
  spec.signs = Signs::kPerStep;

  const Shape shape{256, 512};
  Sum corrected, uncorrected;
  Quantizer quantize;
  for (uint32_t step = 0; step < 12; ++step) {
    QuantInput in(Data::kNarrow, shape, Dtype::kBf16, 300 + step);
    in.call.random.step = step;
    QuantSide side = in.side(spec, Orientation::kRowwise);
    quantize(side.q, {}, in);
    const reference::Quantized q = in.expected(spec, Orientation::kRowwise);
    const double s_dec = side.scale.at(0, 0);
    for (int64_t r = 0; r < shape.rows; ++r) {
      for (int64_t group = 0; group < shape.cols; group += spec.hadamard) {
        double squared = 0, projected = 0, nearest = 0;
        for (int64_t k = group; k < group + spec.hadamard; ++k) {
          const auto u = static_cast<double>(q.scaled[q.index(r, k)]);
          const auto before = static_cast<double>(q.block_of(r, k).factor);
          squared += u * u;
          projected += u * side.values.at(r, k) * s_dec / before;
          nearest +=
              u * static_cast<double>(reference::value(reference::e2m1(), q.codes[q.index(r, k)]));
        }
        if (squared == 0) continue;
        // Relative to the group; its own square stands for the variance.
        const double error = projected / squared - 1, error_of_nearest = nearest / squared - 1;
        corrected.add(error, error * error);
        uncorrected.add(error_of_nearest, error_of_nearest * error_of_nearest);
      }
    }
  }
  EXPECT_GT(corrected.n, 10000);
  EXPECT_LE(std::fabs(corrected.deviations()), kDeviations);
  EXPECT_GT(std::fabs(uncorrected.deviations()), kDeviations);
}

// ---- the bits -------------------------------------------------------------------------------

// Every row and column of every 16x16 tile has a 6; all else lies halfway between 2 and 3, so that
// both orientations have the same scales and every other element a toss of a coin.
QuantInput coins(uint64_t micro_batch = 0) {
  const Shape shape{128, 256};
  Values x;
  for (int64_t r = 0; r < shape.rows; ++r) {
    for (int64_t c = 0; c < shape.cols; ++c) x.push_back((r + c) % 16 == 0 ? 6.0f : 2.5f);
  }
  QuantInput in(x, shape, Dtype::kBf16);
  in.call.random.micro_batch = micro_batch;
  return in;
}

// Independent tosses agree in half of the cases.
void expect_independent(const std::vector<uint8_t>& a, const std::vector<uint8_t>& b,
                        const std::string& what) {
  ASSERT_EQ(a.size(), b.size());
  double tosses = 0, agree = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    if (a[i] == 7 || b[i] == 7) continue;
    ++tosses;
    agree += a[i] == b[i] ? 1 : 0;
  }
  EXPECT_GT(tosses, 0.9 * static_cast<double>(a.size()));
  EXPECT_LE(std::fabs(agree - tosses / 2), kDeviations * std::sqrt(tosses / 4)) << what;
}

TEST(QuantizeStochastic, DrawsOtherBitsForWhateverDiffers) {
  const QuantSpec spec = stochastic(QuantFormat::kNvfp4);
  const QuantInput in = coins();
  const std::vector<uint8_t> codes = codes_of(spec, Orientation::kRowwise, in);
  expect_independent(codes, codes_of(spec, Orientation::kColumnwise, in), "direction");
  const auto changed = [&](auto&& change) {
    QuantInput other = coins();
    change(other.call.random);
    return codes_of(spec, Orientation::kRowwise, other);
  };
  expect_independent(codes, changed([](ops::QuantRandom& r) { ++r.seed; }), "seed");
  expect_independent(codes, changed([](ops::QuantRandom& r) { r.seed ^= uint64_t{1} << 40; }),
                     "upper half of the seed");
  expect_independent(codes, changed([](ops::QuantRandom& r) { ++r.step; }), "step");
  expect_independent(codes, changed([](ops::QuantRandom& r) { ++r.module; }), "module");
  expect_independent(codes, changed([](ops::QuantRandom& r) { --r.slot; }), "tensor");
  expect_independent(codes, changed([](ops::QuantRandom& r) { ++r.micro_batch; }), "micro-batch");
}

// Recomputation and resume: nothing but the counters decides.
TEST(QuantizeStochastic, DrawsTheSameBitsAgain) {
  for (const QuantFormat format : {QuantFormat::kNvfp4, QuantFormat::kMxfp4}) {
    const QuantSpec spec = stochastic(format);
    for (const Orientation orientation : {Orientation::kRowwise, Orientation::kColumnwise}) {
      EXPECT_EQ(codes_of(spec, orientation, coins(2)), codes_of(spec, orientation, coins(2)));
    }
  }
}

// Element numbers beyond 2^36 need the upper word of the counter, as late micro-batches of a large
// tensor do; along a ragged line the sixteen bytes of a block lie in two calls.
TEST(QuantizeStochastic, CountsElementsInSixtyFourBits) {
  QuantSpec ms_eden = nvfp4();
  ms_eden.rounding = Rounding::kMsEden;
  ms_eden.hadamard = 32;
  Quantizer quantize;
  for (const QuantSpec& spec :
       {stochastic(QuantFormat::kNvfp4), stochastic(QuantFormat::kMxfp4), ms_eden}) {
    for (const Shape shape : {Shape{64, 128}, Shape{50, 77}, Shape{147, 333}}) {
      for (const uint64_t micro_batch : {uint64_t{1} << 33, (uint64_t{1} << 33) - 1}) {
        QuantInput in(Data::kNarrow, shape, Dtype::kBf16, 72);
        in.call.random.micro_batch = micro_batch;
        for (const Orientation orientation : {Orientation::kRowwise, Orientation::kColumnwise}) {
          const bool rowwise = orientation == Orientation::kRowwise;
          QuantSide side = in.side(spec, orientation);
          quantize(rowwise ? side.q : ops::QuantizedTensor{},
                   rowwise ? ops::QuantizedTensor{} : side.q, in);
          const std::string what =
              fmt::format("{} {} of {}, micro-batch {}", describe(spec),
                          rowwise ? "rowwise" : "columnwise", in.what, micro_batch);
          expect_reference(in.expected(spec, orientation), side, what);
          // The lower word alone would give the bits of an earlier micro-batch.
          QuantSide earlier = in.side(spec, orientation);
          in.call.random.micro_batch = micro_batch % (uint64_t{1} << 33);
          quantize(rowwise ? earlier.q : ops::QuantizedTensor{},
                   rowwise ? ops::QuantizedTensor{} : earlier.q, in);
          in.call.random.micro_batch = micro_batch;
          EXPECT_EQ(side.bits() == earlier.bits(), micro_batch < uint64_t{1} << 33) << what;
        }
      }
    }
  }
}

// The bits belong to the logical element: micro-batch 1 of M rows holds the elements that rows M to
// 2 M of one tensor would.
TEST(QuantizeStochastic, DoesNotDependOnHowTheTensorIsCut) {
  const QuantSpec spec = stochastic(QuantFormat::kNvfp4);
  const QuantInput half = coins(0), second = coins(1);
  Values x = half.x;
  x.insert(x.end(), half.x.begin(), half.x.end());
  QuantInput whole(x, {2 * half.shape.rows, half.shape.cols}, Dtype::kBf16);
  whole.call.random.micro_batch = 0;
  std::vector<uint8_t> parts = codes_of(spec, Orientation::kRowwise, half);
  const std::vector<uint8_t> rest = codes_of(spec, Orientation::kRowwise, second);
  parts.insert(parts.end(), rest.begin(), rest.end());
  EXPECT_EQ(codes_of(spec, Orientation::kRowwise, whole), parts);
}

// Signs: the same for both operands of a GEMM, others for another GEMM or layer; per step or not.
TEST(QuantizeStochastic, SignsBelongToTheGemm) {
  const auto rotated = [](Signs signs, auto&& change) {
    QuantSpec spec = default_spec(QuantFormat::kNvfp4);
    spec.hadamard = 128;
    spec.signs = signs;
    QuantInput in(Data::kNarrow, {128, 256}, Dtype::kBf16, 71);
    change(in.call.random);
    return codes_of(spec, Orientation::kRowwise, in);
  };
  const auto same = [](ops::QuantRandom&) {};
  const auto next_step = [](ops::QuantRandom& r) { ++r.step; };
  for (const Signs signs : {Signs::kPerLayer, Signs::kPerStep}) {
    const std::vector<uint8_t> codes = rotated(signs, same);
    EXPECT_EQ(codes, rotated(signs, [](ops::QuantRandom& r) { r.slot = 0; }));
    EXPECT_EQ(codes, rotated(signs, [](ops::QuantRandom& r) { ++r.micro_batch; }));
    EXPECT_NE(codes, rotated(signs, [](ops::QuantRandom& r) { ++r.gemm_row; }));
    EXPECT_NE(codes, rotated(signs, [](ops::QuantRandom& r) { ++r.module; }));
    EXPECT_NE(codes, rotated(signs, [](ops::QuantRandom& r) { ++r.seed; }));
    EXPECT_EQ(codes == rotated(signs, next_step), signs == Signs::kPerLayer);
  }
  EXPECT_EQ(rotated(Signs::kFixed, same), rotated(Signs::kFixed, [](ops::QuantRandom& r) {
              ++r.module;
              ++r.step;
              ++r.seed;
            }));
}

}  // namespace
}  // namespace qstep::test
