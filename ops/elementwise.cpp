#include "ops/elementwise.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "ops/add_row.h"
#include "ops/parallel_for.h"
#include "ops/simd/simd.h"

namespace qstep::ops::cpu {

namespace {

constexpr int64_t kBlock = 16384;  // elements: large against the cost of handing out a block

// f(row, first column, columns) for blocks of at most kBlock elements; contiguous tensors are one
// row.
template <class F>
void for_each_block(int64_t rows, int64_t cols, bool contiguous, F&& f) {
  if (contiguous) {
    parallel_blocks(rows * cols, kBlock, [&](int64_t first, int64_t n) { f(0, first, n); });
    return;
  }
  const int64_t blocks = (cols + kBlock - 1) / kBlock;
  parallel_for(rows * blocks, [&](int64_t i) {
    const int64_t first = i % blocks * kBlock;
    f(i / blocks, first, std::min(kBlock, cols - first));
  });
}

}  // namespace

void zero(const Tensor& x) {
  const int64_t element = size_bytes(x.dtype);
  char* const data = static_cast<char*>(x.data);
  for_each_block(x.rows, x.cols, x.contiguous(), [&](int64_t row, int64_t first, int64_t n) {
    std::memset(data + (row * x.ld + first) * element, 0, static_cast<size_t>(n * element));
  });
}

void cast(const Tensor& y, const Tensor& x) {
  check_cast(y, x);
  dispatch_float(y.dtype, [&](auto y_tag) {
    dispatch_float(x.dtype, [&](auto x_tag) {
      auto* const to = y.as<decltype(y_tag)>();
      const auto* const from = x.as<decltype(x_tag)>();
      for_each_block(x.rows, x.cols, x.contiguous() && y.contiguous(),
                     [&](int64_t row, int64_t first, int64_t n) {
                       auto* const py = to + row * y.ld + first;
                       const auto* const px = from + row * x.ld + first;
                       for_each_group(n, [&](int64_t i, int64_t lanes) {
                         store_n(py + i, load_n(px + i, lanes), lanes);
                       });
                     });
    });
  });
}

void add(const Tensor& y, std::span<const Tensor> x) {
  check_add(y, x);
  const bool flat = y.contiguous() && std::ranges::all_of(x, &Tensor::contiguous);
  dispatch_float(y.dtype, [&](auto tag) {
    using T = decltype(tag);
    dispatch_addends(x.size(), [&]<size_t kAddends>() {
      for_each_block(y.rows, y.cols, flat, [&](int64_t row, int64_t first, int64_t n) {
        std::array<const T*, kAddends> addends;
        for (size_t i = 0; i < kAddends; ++i) addends[i] = x[i].as<T>() + row * x[i].ld + first;
        add_rows(y.as<T>() + row * y.ld + first, addends, n);
      });
    });
  });
}

}  // namespace qstep::ops::cpu
