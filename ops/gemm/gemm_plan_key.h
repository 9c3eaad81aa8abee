// A product d[m,n] (+)= alpha a[m,k] b[n,k]^T as a library of column-major matrices sees it: what
// is row-major here is its own transpose there, so that the library computes d^T = b a^T. And what
// decides which of its kernels run: the key of a plan, of decoded values or of codes.
#pragma once

#include <algorithm>
#include <bit>
#include <compare>
#include <cstdint>
#include <string_view>

#include "ops/operand.h"

namespace qstep::ops {

// Column-major, columns `ld` elements apart; the product reads it transposed or as it is.
struct ColumnMajor {
  int64_t rows = 0, cols = 0, ld = 0;
  bool transposed = false;
  auto operator<=>(const ColumnMajor&) const = default;
};

// d^T [n,m] = left [n,k] right [k,m].
inline ColumnMajor left_factor(const Operand& b) {
  // Rows that are contiguous along k are columns of a matrix [k,n], to be turned.
  if (b.major == Major::kK) return {b.k, b.rows, b.ld, true};
  return {b.rows, b.k, b.ld, false};
}
inline ColumnMajor right_factor(const Operand& a) {
  if (a.major == Major::kK) return {a.k, a.rows, a.ld, false};
  return {a.rows, a.k, a.ld, true};
}
inline ColumnMajor product(const Tensor& d) { return {d.cols, d.rows, d.ld, false}; }

// The largest power of two, at most 256, that divides an address: kernels with wide accesses
// need 16.
inline uint32_t alignment(const void* p) {
  const auto address = reinterpret_cast<uintptr_t>(p);
  return address == 0 ? 256u : std::min(256u, 1u << std::countr_zero(address | 256u));
}

enum class GemmBias : uint8_t { kNo, kInProduct };
// Where alpha and beta are read from: of quantized operands the factor is on the device.
enum class GemmFactor : uint8_t { kHost, kDevice };

// What a factor of the product consists of.
enum class GemmElement : uint8_t { kF32, kBf16, kE4m3, kE5m2, kE2m1 };
constexpr GemmElement gemm_element(Dtype dtype) {
  return dtype == Dtype::kF32 ? GemmElement::kF32 : GemmElement::kBf16;
}
constexpr GemmElement gemm_element(precision::ElementFormat format) {
  return format == precision::ElementFormat::kE4m3   ? GemmElement::kE4m3
         : format == precision::ElementFormat::kE5m2 ? GemmElement::kE5m2
                                                     : GemmElement::kE2m1;
}
constexpr std::string_view name(GemmElement element) {
  constexpr std::string_view kNames[] = {"fp32", "bf16", "e4m3", "e5m2", "e2m1"};
  return kNames[static_cast<size_t>(element)];
}

struct GemmPlanKey {
  ColumnMajor left, right, out;
  GemmElement left_element = GemmElement::kF32, right_element = GemmElement::kF32;
  ScaleMode left_scales = ScaleMode::kNone, right_scales = ScaleMode::kNone;
  Dtype out_type = Dtype::kF32;
  GemmBias bias = GemmBias::kNo;
  Dtype bias_type = Dtype::kF32;  // of one in the product
  GemmFactor factor = GemmFactor::kHost;
  bool accumulate = false;
  uint32_t left_alignment = 0, right_alignment = 0, out_alignment = 0;
  auto operator<=>(const GemmPlanKey&) const = default;

  bool of_codes() const { return left_scales != ScaleMode::kNone; }
};

// Of decoded values. The library adds a bias of d's type alone.
inline GemmPlanKey gemm_plan_key(const Tensor& d, const Operand& a, const Operand& b,
                                 bool accumulate, const Tensor& bias, GemmFactor factor) {
  return {.left = left_factor(b),
          .right = right_factor(a),
          .out = product(d),
          .left_element = gemm_element(b.dtype),
          .right_element = gemm_element(a.dtype),
          .out_type = d.dtype,
          .bias = bias && bias.dtype == d.dtype ? GemmBias::kInProduct : GemmBias::kNo,
          .bias_type = d.dtype,
          .factor = factor,
          .accumulate = accumulate,
          .left_alignment = alignment(b.data),
          .right_alignment = alignment(a.data),
          .out_alignment = alignment(d.data)};
}

// ---- products of codes (ops/native_form.h) ------------------------------------------------------

// What no library has, by its documentation ("128-element 1D and 128x128 2D Block Scaling"; that 1D
// blocks want 8 rows and not 4 was observed by Transformer Engine, common/gemm/cublaslt_gemm.cu):
// all else is its own to say.
inline bool documented(const CodeProduct& p) {
  const auto rows_fit = [](NativeForm form, int64_t rows) {
    return (form.scales != ScaleMode::kVec128 || rows % 8 == 0) &&
           (form.scales != ScaleMode::kBlock128 || rows % 4 == 0);
  };
  return p.a && p.b && rows_fit(p.a, p.m) && rows_fit(p.b, p.n) &&
         padded_k(p.a, p.k) == padded_k(p.b, p.k);
}

// The scale of an operand that the library multiplies by itself; others of a whole operand go into
// alpha.
inline bool library_has_scale(const Operand& x) { return x.form.scales == ScaleMode::kTensor; }
inline const void* scales_of(const Operand& x) {
  return library_has_scale(x) ? x.scale : x.block_scales;
}

// Rows that are contiguous along k on both sides ("TN"), with what is added to k. A narrow product
// takes a bias in BF16, whatever the type of d.
inline GemmPlanKey code_plan_key(const CodeProduct& p, int64_t out_ld, GemmFactor factor) {
  const auto side = [&](NativeForm form, int64_t rows, bool transposed) {
    const int64_t k = padded_k(form, p.k);
    return ColumnMajor{k, rows, k, transposed};
  };
  return {.left = side(p.b, p.n, true),
          .right = side(p.a, p.m, false),
          .out = {p.n, p.m, out_ld, false},
          .left_element = gemm_element(p.b.element),
          .right_element = gemm_element(p.a.element),
          .left_scales = p.b.scales,
          .right_scales = p.a.scales,
          .out_type = p.out,
          .factor = factor,
          .left_alignment = 256,
          .right_alignment = 256,
          .out_alignment = 256};
}
inline GemmPlanKey code_plan_key(const Tensor& d, const Operand& a, const Operand& b,
                                 bool accumulate, const Tensor& bias, GemmFactor factor) {
  GemmPlanKey key = code_plan_key(
      {.a = a.form, .b = b.form, .m = a.rows, .n = b.rows, .k = a.k, .out = d.dtype}, d.ld, factor);
  key.accumulate = accumulate;
  if (bias && bias.dtype == Dtype::kBf16) {
    key.bias = GemmBias::kInProduct;
    key.bias_type = bias.dtype;
  }
  key.left_alignment = alignment(b.codes);
  key.right_alignment = alignment(a.codes);
  key.out_alignment = alignment(d.data);
  return key;
}

}  // namespace qstep::ops
