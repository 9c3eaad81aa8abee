#include "trainer/quantizers/self_test.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <chrono>
#include <cmath>

#include "data/content_hash.h"
#include "ops/quantize/forward_source.h"
#include "ops/quantize/quantize_scalar.h"
#include "precision/philox.h"
#include "trainer/model/linear_operands.h"

namespace qstep::trainer {

using ops::Bf16;
using ops::Dtype;
using ops::EncodedTensor;
using ops::Orientation;
using ops::QuantizedTensor;
using ops::Tensor;
using precision::OperandSlot;
using precision::OperandTable;
using precision::QuantSpec;
using precision::Recipe;
using precision::Source;

std::string describe(const SelfTestCase& test) {
  QuantSpec spec = test.spec;
  spec.source = Source::kHighPrecision;
  std::string text = precision::describe(spec);
  if (test.spec.source == Source::kForward) text += " of " + precision::describe(test.rowwise);
  if (test.together) text += " beside " + precision::describe(test.rowwise);
  return text;
}

std::vector<SelfTestCase> self_test_cases(const Recipe& recipe) {
  // Overrides and switches replace operands one by one, so every combination may come up.
  const auto specs_of = [&](OperandSlot slot) {
    std::vector<QuantSpec> specs{recipe.operands[slot]};
    const auto add = [&](const auto& list) {
      for (const auto& change : list) {
        if (change.given[static_cast<size_t>(slot)]) specs.push_back(change.operands[slot]);
      }
    };
    add(recipe.overrides);
    add(recipe.switches);
    std::erase_if(specs, [](const QuantSpec& spec) { return !spec.quantized(); });
    return specs;
  };
  std::vector<SelfTestCase> cases;
  const auto add = [&](const SelfTestCase& test) {
    if (std::find(cases.begin(), cases.end(), test) == cases.end()) cases.push_back(test);
  };
  for (const TensorOperands& tensor : kOperandsOf) {
    const std::vector<QuantSpec> rows = specs_of(tensor.row), columns = specs_of(tensor.column);
    for (const QuantSpec& row : rows) add({row, Orientation::kRowwise});
    for (const QuantSpec& column : columns) {
      QuantSpec plain = column;
      plain.source = Source::kHighPrecision;
      add({plain, Orientation::kColumnwise});
      for (const QuantSpec& row : rows) {
        add({column, Orientation::kColumnwise, row, column.source != Source::kForward});
      }
    }
  }
  return cases;
}

// ---- inputs ---------------------------------------------------------------------------------

std::vector<float> self_test_source() {
  constexpr uint64_t kSeed = 0x51E5D0F5E1F7E575ull;
  std::vector<float> x(static_cast<size_t>(kSelfTestRows * kSelfTestCols));
  for (int64_t r = 0; r < kSelfTestRows; ++r) {
    for (int64_t c = 0; c < kSelfTestCols; ++c) {
      const auto i = static_cast<uint32_t>(r * kSelfTestCols + c);
      const auto words = precision::philox4x32(kSeed, {{i, 0, 0, 0}});
      const auto tile = precision::philox4x32(
          kSeed, {{static_cast<uint32_t>(r / 16), static_cast<uint32_t>(c / 16), 1, 0}});
      // 1.m 2^-e, e of the element geometric, of its tile of 16x16 uniform below 16.
      const int exponent =
          std::countl_zero(words.w[1] | 0x00FFFFFFu) + static_cast<int>(tile.w[0] % 16);
      const float magnitude =
          std::ldexp(1.0f + static_cast<float>(words.w[0] % 128) / 128.0f, -exponent);
      float& v = x[i];
      v = (words.w[2] & 1u) != 0 ? -magnitude : magnitude;
      const bool in_tile_0 = r < 16;
      if (c >= 256 && c < 384) v = c < 320 ? 0.0f : -0.0f;          // a block of 128x128 as well
      if (in_tile_0 && c >= 16 && c < 32) v = 1.75f;                // equal values
      if (in_tile_0 && c >= 32 && c < 48) v = std::ldexp(v, -125);  // some subnormal
      if (in_tile_0 && c >= 48 && c < 64) v = static_cast<float>(c - 48) * 0.25f;  // ties of E2M1
    }
  }
  x[5 * kSelfTestCols + 77] = -320.0f;  // the amax of the tensor
  for (float& v : x) v = precision::to_float(precision::to_bf16(v));
  return x;
}

ops::QuantRandom self_test_random() {
  return quant_random(0x0123456789ABCDEFull, /*step=*/1000, /*micro_batch=*/3, /*module=*/0x25,
                      LinearTensor::kDy);
}

std::string self_test_checksum(const EncodedTensor& e) {
  data::ContentHash hash;
  hash.add(e.codes.data(), e.codes.size());
  hash.add(e.block_scales.data(), e.block_scales.size());
  hash.add(e.tile_scales.data(), e.tile_scales.size() * sizeof(float));
  hash.add(&e.scale, sizeof e.scale);
  return hash.hex();
}

namespace {

struct TestSource {
  TestSource() {
    for (const float v : self_test_source()) values.push_back(precision::to_bf16(v));
    tensor = ops::view(std::span(values), kSelfTestRows, kSelfTestCols);
  }
  std::vector<Bf16> values;
  Tensor tensor;
};

// An operand and its memory.
struct TestOperand {
  TestOperand(const QuantSpec& spec, Orientation orientation) {
    ops::Arena measure;
    ops::lay_out_quantized(measure, "self-test", spec, orientation, kSelfTestRows, kSelfTestCols);
    memory = ops::allocate_host(measure.peak_bytes());
    ops::Arena place(memory);
    q = ops::lay_out_quantized(place, "self-test", spec, orientation, kSelfTestRows, kSelfTestCols);
  }
  ops::Buffer memory;
  QuantizedTensor q;
};

// As a run lays out both operands of a tensor (linear_operands.cpp): the column one has no values
// of its own where it is the transpose.
void share_values(const TestOperand& row, TestOperand& column) {
  if (precision::transposable(row.q.spec, column.q.spec)) column.q.values = row.q.values;
}

// "" or the first element in which two tensors differ.
template <class T>
std::string first_difference(const Tensor& expected, const Tensor& found, std::string_view what) {
  using Bits = std::conditional_t<sizeof(T) == 2, uint16_t, uint32_t>;
  int64_t n_differ = 0;
  std::string first;
  for (int64_t r = 0; r < expected.rows; ++r) {
    for (int64_t c = 0; c < expected.cols; ++c) {
      const T a = expected.as<T>()[r * expected.ld + c], b = found.as<T>()[r * found.ld + c];
      const auto a_bits = std::bit_cast<Bits>(a), b_bits = std::bit_cast<Bits>(b);
      if (a_bits == b_bits || n_differ++ > 0) continue;
      first = fmt::format("{} [{}, {}]: expected {} (0x{:0{}X}), found {} (0x{:0{}X})", what, r, c,
                          precision::to_float(a), a_bits, 2 * sizeof(T), precision::to_float(b),
                          b_bits, 2 * sizeof(T));
    }
  }
  if (n_differ <= 1) return first;
  return fmt::format("{}; {} of {} differ", first, n_differ, expected.size());
}

std::string first_difference(const QuantizedTensor& expected, const QuantizedTensor& found) {
  if (expected.scale) {
    std::string text = first_difference<float>(expected.scale, found.scale, "scale of the tensor");
    if (!text.empty()) return text;
  }
  if (expected.tile_scales) {
    std::string text =
        first_difference<float>(expected.tile_scales, found.tile_scales, "scale of the tile at");
    if (!text.empty()) return text;
  }
  return first_difference<Bf16>(expected.values, found.values, "decoded element");
}

const GoldenChecksum* find(std::span<const GoldenChecksum> golden, const SelfTestCase& test) {
  if (test.spec.source == Source::kForward || test.together) return nullptr;
  const std::string text = describe(test);
  for (const GoldenChecksum& line : golden) {
    if (line.spec == text && line.orientation == test.orientation) return &line;
  }
  return nullptr;
}

SelfTestResult compare(const SelfTestCase& test, const TestSource& source,
                       const QuantizeFunction& quantize, std::span<const GoldenChecksum> golden) {
  SelfTestResult result{.elements = source.tensor.size(), .golden = false, .ms = 0, .failure = {}};
  const bool forward = test.spec.source == Source::kForward;
  const bool rowwise = test.orientation == Orientation::kRowwise;
  float delayed_scale = kSelfTestDelayedScale;
  ops::QuantCall call;
  call.random = self_test_random();
  call.delayed_scale = ops::matrix(&delayed_scale, Dtype::kF32, 1, 1);

  TestOperand found(test.spec, test.orientation);
  const TestOperand expected(test.spec, test.orientation);
  EncodedTensor encoded;
  if (forward) {
    const TestOperand found_row(test.rowwise, Orientation::kRowwise);
    const TestOperand expected_row(test.rowwise, Orientation::kRowwise);
    share_values(found_row, found);
    quantize(found_row.q, found.q, source.tensor, call);
    ops::quantize_scalar(expected_row.q, source.tensor, call);
    ops::ForwardSource from = ops::forward_source(expected_row.q, test.spec);
    encoded = ops::quantize_scalar(
        expected.q, ops::view(std::span(from.values), kSelfTestRows, kSelfTestCols), call);
    if (expected.q.scale) *expected.q.scale.as<float>() *= from.factor;
  } else if (test.together) {
    const TestOperand found_row(test.rowwise, Orientation::kRowwise);
    const TestOperand expected_row(test.rowwise, Orientation::kRowwise);
    share_values(found_row, found);
    quantize(found_row.q, found.q, source.tensor, call);
    ops::quantize_scalar(expected_row.q, source.tensor, call);
    encoded = ops::quantize_scalar(expected.q, source.tensor, call);
    result.failure = first_difference(expected_row.q, found_row.q);
    if (!result.failure.empty()) result.failure = "rowwise " + result.failure;
    if (result.failure.empty()) result.failure = first_difference(expected.q, found.q);
    return result;
  } else {
    quantize(rowwise ? found.q : QuantizedTensor{}, rowwise ? QuantizedTensor{} : found.q,
             source.tensor, call);
    encoded = ops::quantize_scalar(expected.q, source.tensor, call);
  }
  result.failure = first_difference(expected.q, found.q);
  if (const GoldenChecksum* line = find(golden, test); line != nullptr) {
    result.golden = true;
    const std::string checksum = self_test_checksum(encoded);
    if (result.failure.empty() && checksum != line->xxh3_128) {
      result.failure = fmt::format("XXH3-128 of its codes and scales: expected {}, found {}",
                                   line->xxh3_128, checksum);
    }
  }
  return result;
}

SelfTestResult timed(const SelfTestCase& test, const TestSource& source,
                     const QuantizeFunction& quantize, std::span<const GoldenChecksum> golden) {
  const auto start = std::chrono::steady_clock::now();
  SelfTestResult result = compare(test, source, quantize, golden);
  result.ms =
      std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
  return result;
}

}  // namespace

SelfTestResult run_self_test(const SelfTestCase& test, const QuantizeFunction& quantize,
                             std::span<const GoldenChecksum> golden) {
  return timed(test, TestSource(), quantize, golden);
}

std::string refusal(const SelfTestCase& test, const SelfTestResult& result) {
  return fmt::format(
      "self-test: the {} quantizer {} computes other numbers here than it must: {}. Training would "
      "go wrong without a word. Look at all with qstep selftest; build anew for this processor "
      "(qstep doctor says for which this binary is) without -ffast-math or flush to zero, or use "
      "another machine: this one may be broken",
      test.orientation == Orientation::kRowwise ? "rowwise" : "columnwise", describe(test),
      result.failure);
}

void require_self_test(const Recipe& recipe, const QuantizeFunction& quantize) {
  const std::vector<SelfTestCase> cases = self_test_cases(recipe);
  if (cases.empty()) return;
  const TestSource source;
  for (const SelfTestCase& test : cases) {
    const SelfTestResult result = timed(test, source, quantize, golden_checksums());
    if (!result.failure.empty()) {
      throw ops::Error(ops::ExitCode::kSelfTest, refusal(test, result));
    }
  }
}

}  // namespace qstep::trainer
