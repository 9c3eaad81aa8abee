// One row of `add`; the fused residual norms and the embedding use it too, which is why they give
// the same bits.
#pragma once

#include <cstdint>

#include "ops/simd/simd.h"

namespace qstep::ops::cpu {

template <class T>
inline void add_row(T* y, const T* a, const T* b, int64_t n) {
  for_each_group(n, [&](int64_t i, int64_t lanes) {
    store_n(y + i, load_n(a + i, lanes) + load_n(b + i, lanes), lanes);
  });
}

}  // namespace qstep::ops::cpu
