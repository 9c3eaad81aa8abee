// A product d[m,n] (+)= alpha a[m,k] b[n,k]^T as a library of column-major matrices sees it: what
// is row-major here is its own transpose there, so that the library computes d^T = b a^T. And what
// decides which of its kernels run: the key of a plan.
#pragma once

#include <algorithm>
#include <bit>
#include <compare>
#include <cstdint>

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

struct GemmPlanKey {
  ColumnMajor left, right, out;
  Dtype in = Dtype::kF32, out_type = Dtype::kF32;
  GemmBias bias = GemmBias::kNo;
  GemmFactor factor = GemmFactor::kHost;
  bool accumulate = false;
  uint32_t left_alignment = 0, right_alignment = 0, out_alignment = 0;
  auto operator<=>(const GemmPlanKey&) const = default;
};

// The library adds a bias of d's type alone.
inline GemmPlanKey gemm_plan_key(const Tensor& d, const Operand& a, const Operand& b,
                                 bool accumulate, const Tensor& bias, GemmFactor factor) {
  return {.left = left_factor(b),
          .right = right_factor(a),
          .out = product(d),
          .in = a.dtype,
          .out_type = d.dtype,
          .bias = bias && bias.dtype == d.dtype ? GemmBias::kInProduct : GemmBias::kNo,
          .factor = factor,
          .accumulate = accumulate,
          .left_alignment = alignment(b.data),
          .right_alignment = alignment(a.data),
          .out_alignment = alignment(d.data)};
}

}  // namespace qstep::ops
