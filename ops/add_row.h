// One row of `add`; the fused residual norms and the embedding use it too, which is why they give
// the same bits. y may be any of the addends.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "ops/simd/simd.h"

namespace qstep::ops::cpu {

template <class T, size_t kAddends>
inline void add_rows(T* y, const std::array<const T*, kAddends>& x, int64_t n) {
  for_each_group(n, [&](int64_t i, int64_t lanes) {
    auto sum = load_n(x.back() + i, lanes);
    for (size_t k = kAddends - 1; k-- > 0;) sum = load_n(x[k] + i, lanes) + sum;
    store_n(y + i, sum, lanes);
  });
}
template <class T>
inline void add_row(T* y, const T* a, const T* b, int64_t n) {
  add_rows(y, std::array{a, b}, n);
}

}  // namespace qstep::ops::cpu
