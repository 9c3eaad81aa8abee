// Products of codes on the host: what the key of a plan, the codes and the scales say to a library
// that does what NVIDIA documents of cuBLASLt, against the product of decoded values.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>

#include "ops/gemm/gemm_plan_key.h"
#include "tests/ops/code_side.h"

namespace qstep::test {
namespace {

using ops::CodeProduct;
using ops::ColumnMajor;
using ops::GemmBias;
using ops::GemmElement;
using ops::GemmFactor;
using ops::native_form;
using ops::NativeForm;
using ops::Operand;
using ops::ScaleMode;
using precision::AmaxScope;
using precision::ElementFormat;
using precision::QuantFormat;

// One factor of the product, in the library's words: element (inner, outer) of a column-major
// matrix whose columns run along k, and its scale.
struct LibraryMatrix {
  ColumnMajor shape;
  GemmElement element;
  ScaleMode scales;
  const uint8_t* codes;
  const void* scale_data;

  double code(int64_t inner, int64_t outer) const {
    const int64_t at = outer * shape.ld + inner;
    switch (element) {
      case GemmElement::kE2m1:
        return precision::decode<ElementFormat::kE2m1>(
            static_cast<uint8_t>(codes[at / 2] >> (at % 2 * 4) & 0xF));
      case GemmElement::kE5m2:
        return precision::decode<ElementFormat::kE5m2>(codes[at]);
      default:
        return precision::decode<ElementFormat::kE4m3>(codes[at]);
    }
  }
  // The scaling modes, one after another.
  double scale(int64_t inner, int64_t outer) const {
    const auto* const floats = static_cast<const float*>(scale_data);
    const int64_t k = shape.rows, L = (k + 127) / 128;
    switch (scales) {
      case ScaleMode::kTensor:
        return floats[0];
      case ScaleMode::kRow:
        return floats[outer];
      case ScaleMode::kVec128:  // M-major, M x L, M a multiple of 4
        return floats[inner / 128 * shape.cols + outer];
      case ScaleMode::kBlock128:
        return floats[outer / 128 * ((L + 3) / 4 * 4) + inner / 128];
      case ScaleMode::kVec16:
        return precision::decode<ElementFormat::kE4m3>(tiled(inner / 16, outer, k / 16));
      case ScaleMode::kVec32:
        return std::ldexp(1.0, int{tiled(inner / 32, outer, k / 32)} - 127);
      case ScaleMode::kNone:
        break;
    }
    return 1;
  }
  uint8_t tiled(int64_t sf_inner, int64_t sf_outer, int64_t n_inner) const {
    const int64_t sf_inner_dim = (n_inner + 3) / 4 * 4, outer = sf_outer % 128;
    const int64_t tile = (sf_inner / 4 * 4 + sf_outer / 128 * 128 * sf_inner_dim / 128) * 128;
    return static_cast<const uint8_t*>(
        scale_data)[tile + outer % 32 * 16 + outer / 32 * 4 + sf_inner % 4];
  }
};

// What alpha holds, and what the library is left with.
double alpha(const Operand& x) {
  return library_has_scale(x) || x.scale == nullptr
             ? 1.0
             : double{*x.scale} / double{x.scale_denominator};
}

TEST(GemmCodes, TheLibraryComputesTheProductOfDecodedValues) {
  const QuantSpec fp8 = default_spec(QuantFormat::kFp8E4m3);
  const QuantSpec e5m2 = default_spec(QuantFormat::kFp8E5m2);
  const QuantSpec mxfp8 = default_spec(QuantFormat::kMxfp8E4m3);
  const QuantSpec mxfp4 = default_spec(QuantFormat::kMxfp4);
  QuantSpec rows = fp8, tiles = with_block(fp8, {1, 128});
  rows.amax = AmaxScope::kRow;
  tiles.scale = precision::ScaleRule::kFp32;
  const QuantSpec squares = with_block(fp8, {128, 128});
  const QuantSpec weights = with_block(nvfp4(), {16, 16});
  QuantSpec turned = nvfp4();
  turned.hadamard = 16;
  turned.rounding = precision::Rounding::kStochastic;
  const std::tuple<QuantSpec, Orientation, QuantSpec, Orientation> pairs[] = {
      {fp8, Orientation::kRowwise, fp8, Orientation::kRowwise},
      {e5m2, Orientation::kColumnwise, fp8, Orientation::kColumnwise},
      {rows, Orientation::kRowwise, rows, Orientation::kRowwise},
      {tiles, Orientation::kRowwise, squares, Orientation::kRowwise},
      {tiles, Orientation::kRowwise, squares, Orientation::kColumnwise},
      {tiles, Orientation::kColumnwise, tiles, Orientation::kColumnwise},
      {mxfp8, Orientation::kRowwise, with_block(mxfp8, {32, 32}), Orientation::kColumnwise},
      {mxfp4, Orientation::kColumnwise, mxfp4, Orientation::kRowwise},
      {nvfp4(), Orientation::kRowwise, weights, Orientation::kRowwise},
      {nvfp4(), Orientation::kRowwise, weights, Orientation::kColumnwise},
      {turned, Orientation::kColumnwise, turned, Orientation::kColumnwise}};
  uint64_t seed = 1;
  for (const auto& [a_spec, a_orientation, b_spec, b_orientation] : pairs) {
    const bool whole = !is_fp8_format(a_spec.format);
    for (const auto& [m, n, k] : {std::array<int64_t, 3>{32, 160, 288},
                                  std::array<int64_t, 3>{136, 48, whole ? 96 : 203}}) {
      const CodeSide a(a_spec, a_orientation, m, k, seed++), b(b_spec, b_orientation, n, k, seed++);
      const Guarded d(Dtype::kF32, m, n, 3);
      const Operand left = b.operand(), right = a.operand();
      const auto key = code_plan_key(d.tensor(), right, left, false, {}, GemmFactor::kHost);
      ASSERT_TRUE(key.of_codes());
      ASSERT_TRUE(key.left.transposed && !key.right.transposed);
      ASSERT_EQ(key.left.rows, key.right.rows);
      ASSERT_EQ((ColumnMajor{n, m, n + 3, false}), key.out);
      const LibraryMatrix lt_a{key.left, key.left_element, key.left_scales, left.codes,
                               scales_of(left)};
      const LibraryMatrix lt_b{key.right, key.right_element, key.right_scales, right.codes,
                               scales_of(right)};
      for (int64_t i = 0; i < m; i += 5) {
        for (int64_t j = 0; j < n; j += 3) {
          double found = 0, expected = 0, size = 0;
          for (int64_t l = 0; l < key.left.rows; ++l) {
            found += lt_a.code(l, j) * lt_a.scale(l, j) * lt_b.code(l, i) * lt_b.scale(l, i);
          }
          for (int64_t l = 0; l < k; ++l) {
            const double term = a.decoded(i, l) * b.decoded(j, l);
            expected += term;
            size += std::abs(term);
          }
          found *= alpha(left) * alpha(right);
          ASSERT_NEAR(expected, found, size * 1e-12)
              << describe(a_spec) << " x " << describe(b_spec) << " at " << i << ", " << j;
        }
      }
    }
  }
}

TEST(GemmCodes, KeysOfOtherPlansDiffer) {
  const NativeForm fp8 = native_form(default_spec(QuantFormat::kFp8E4m3));
  const NativeForm mxfp8 = native_form(default_spec(QuantFormat::kMxfp8E4m3));
  const Guarded d(Dtype::kF32, 16, 32), narrow(Dtype::kBf16, 16, 32), bias(Dtype::kBf16, 1, 32),
      wide_bias(Dtype::kF32, 1, 32), codes(Dtype::kU8, 32, 64);
  const auto key = [&](const Tensor& out, NativeForm form, const Tensor& with, GemmFactor factor) {
    Operand a{.rows = 16, .k = 64}, b{.rows = 32, .k = 64};
    a.form = b.form = form;
    a.codes = b.codes = codes.tensor().as<uint8_t>();
    return code_plan_key(out, a, b, false, with, factor);
  };
  const auto plain = key(d, fp8, {}, GemmFactor::kHost);
  EXPECT_EQ(plain, key(d, fp8, {}, GemmFactor::kHost));
  EXPECT_NE(plain, key(d, mxfp8, {}, GemmFactor::kHost));
  EXPECT_NE(plain, key(narrow, fp8, {}, GemmFactor::kHost));
  EXPECT_NE(plain, key(d, fp8, {}, GemmFactor::kDevice));
  // BF16 is the one type of a bias, FP32 d included.
  EXPECT_EQ(GemmBias::kInProduct, key(d, fp8, bias, GemmFactor::kHost).bias);
  EXPECT_EQ(Dtype::kBf16, key(d, fp8, bias, GemmFactor::kHost).bias_type);
  EXPECT_EQ(GemmBias::kInProduct, key(narrow, fp8, bias, GemmFactor::kHost).bias);
  EXPECT_EQ(GemmBias::kNo, key(d, fp8, wide_bias, GemmFactor::kHost).bias);
  // The question ahead of any memory is that of the call.
  auto asked =
      code_plan_key(CodeProduct{.a = fp8, .b = fp8, .m = 16, .n = 32, .k = 64, .out = Dtype::kF32},
                    32, GemmFactor::kHost);
  asked.left_alignment = plain.left_alignment;
  asked.right_alignment = plain.right_alignment;
  asked.out_alignment = plain.out_alignment;
  EXPECT_EQ(plain, asked);
}

TEST(GemmCodes, WhatNoLibraryHasIsNotAsked) {
  const QuantSpec fp8 = default_spec(QuantFormat::kFp8E4m3);
  const auto product = [](const QuantSpec& a, const QuantSpec& b, int64_t m, int64_t n) {
    return CodeProduct{
        .a = native_form(a), .b = native_form(b), .m = m, .n = n, .k = 80, .out = Dtype::kBf16};
  };
  const QuantSpec tiles = with_block(fp8, {1, 128}), squares = with_block(fp8, {128, 128});
  EXPECT_TRUE(documented(product(fp8, fp8, 1, 1)));
  EXPECT_FALSE(documented(product(fp8, {}, 128, 128)));
  EXPECT_FALSE(documented(product({}, fp8, 128, 128)));
  QuantSpec outer = nvfp4();
  outer.amax = AmaxScope::kRow;
  EXPECT_FALSE(documented(product(outer, nvfp4(), 128, 128)));
  EXPECT_TRUE(documented(product(tiles, squares, 8, 4)));
  EXPECT_FALSE(documented(product(tiles, squares, 4, 4)));
  EXPECT_FALSE(documented(product(tiles, squares, 8, 2)));
  // Rows of different lengths: 80 and 96 with what is added.
  EXPECT_FALSE(documented(product(fp8, default_spec(QuantFormat::kMxfp8E4m3), 128, 128)));
}

}  // namespace
}  // namespace qstep::test
