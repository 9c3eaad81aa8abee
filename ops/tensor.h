// Views of memory. Nothing here owns anything.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "ops/error.h"
#include "precision/bf16.h"

namespace qstep::ops {

using precision::Bf16;

// kU8: bytes that nothing computes with.
enum class Dtype : uint8_t { kF32, kBf16, kI32, kU8 };

template <class T>
struct DtypeOf;
template <>
struct DtypeOf<float> {
  static constexpr Dtype value = Dtype::kF32;
};
template <>
struct DtypeOf<Bf16> {
  static constexpr Dtype value = Dtype::kBf16;
};
template <>
struct DtypeOf<int32_t> {
  static constexpr Dtype value = Dtype::kI32;
};
template <>
struct DtypeOf<uint8_t> {
  static constexpr Dtype value = Dtype::kU8;
};

constexpr int64_t size_bytes(Dtype dtype) {
  return dtype == Dtype::kU8 ? 1 : dtype == Dtype::kBf16 ? 2 : 4;
}

constexpr std::string_view name(Dtype dtype) {
  switch (dtype) {
    case Dtype::kF32:
      return "fp32";
    case Dtype::kBf16:
      return "bf16";
    case Dtype::kI32:
      return "int32";
    case Dtype::kU8:
      return "uint8";
  }
  return "";
}

// A matrix [rows, cols], row-major, rows `ld` elements apart. A vector is one row. Higher ranks are
// written as matrices: [B, T, C] is [N, C] with N = B * T.
struct Tensor {
  void* data = nullptr;
  Dtype dtype = Dtype::kF32;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t ld = 0;  // elements between two rows

  int64_t size() const { return rows * cols; }
  int64_t bytes() const { return size() * size_bytes(dtype); }
  bool contiguous() const { return ld == cols || rows <= 1; }
  explicit operator bool() const { return data != nullptr; }

  // First element, after a check of the type.
  template <class T>
  T* as() const {
    check_equal(name(DtypeOf<T>::value), name(dtype), "tensor type");
    return static_cast<T*>(data);
  }

  // Rows [first, first + n).
  Tensor row_range(int64_t first, int64_t n) const {
    check(first >= 0 && n >= 0 && first + n <= rows, "row range outside the tensor");
    return {static_cast<char*>(data) + first * ld * size_bytes(dtype), dtype, n, cols, ld};
  }
  // Columns [first, first + n): same row stride.
  Tensor col_range(int64_t first, int64_t n) const {
    check(first >= 0 && n >= 0 && first + n <= cols, "column range outside the tensor");
    return {static_cast<char*>(data) + first * size_bytes(dtype), dtype, rows, n, ld};
  }
  // The same contiguous elements as another matrix.
  Tensor reshape(int64_t new_rows, int64_t new_cols) const {
    check(contiguous(), "reshape of a strided view");
    check_equal(size(), new_rows * new_cols, "reshape: element count");
    return {data, dtype, new_rows, new_cols, new_cols};
  }
};

inline Tensor matrix(void* data, Dtype dtype, int64_t rows, int64_t cols) {
  return {data, dtype, rows, cols, cols};
}
template <class T>
Tensor view(std::span<T> values) {
  return {values.data(), DtypeOf<std::remove_const_t<T>>::value, 1,
          static_cast<int64_t>(values.size()), static_cast<int64_t>(values.size())};
}
template <class T>
Tensor view(std::span<T> values, int64_t rows, int64_t cols) {
  check_equal(static_cast<int64_t>(values.size()), rows * cols, "view: element count");
  return {values.data(), DtypeOf<std::remove_const_t<T>>::value, rows, cols, cols};
}

// Throws unless `x` has this type and shape; `what` names op and argument ("rmsnorm: y").
inline void expect_shape(const Tensor& x, int64_t rows, int64_t cols, std::string_view what) {
  check(x.data != nullptr || x.size() == 0, what);
  check_equal(rows, x.rows, what);
  check_equal(cols, x.cols, what);
}
// Throws unless `x` holds `n` contiguous elements: a vector, or a matrix used as one.
inline void expect_vector(const Tensor& x, int64_t n, std::string_view what) {
  check((x.data != nullptr || n == 0) && x.contiguous(), what);
  check_equal(n, x.size(), what);
}
inline void expect_dtype(const Tensor& x, Dtype dtype, std::string_view what) {
  check_equal(name(dtype), name(x.dtype), what);
}

// Calls f with a value of the element type: the one switch from run-time to compile-time types.
template <class F>
decltype(auto) dispatch_float(Dtype dtype, F&& f) {
  check(dtype == Dtype::kF32 || dtype == Dtype::kBf16, "expected a floating-point tensor");
  if (dtype == Dtype::kBf16) return f(Bf16{});
  return f(float{});
}

}  // namespace qstep::ops
