// The one way to use all threads: the pool of OpenMP, which oneDNN shares.
#pragma once

#include <omp.h>

#include <algorithm>
#include <cstdint>

namespace qstep::ops {

// f(i) for i in [0, n), contiguous ranges per thread. f must write only what belongs to i, so that
// the result does not depend on the number of threads, and must not throw.
template <class F>
inline void parallel_for(int64_t n, F&& f) {
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < n; ++i) f(i);
}

// The same with work handed out one by one: for items of unequal length.
template <class F>
inline void parallel_for_dynamic(int64_t n, F&& f) {
#pragma omp parallel for schedule(dynamic, 1)
  for (int64_t i = 0; i < n; ++i) f(i);
}

// f(first, n) for the blocks [first, first + n) into which [0, size) falls, the last one shorter.
template <class F>
inline void parallel_blocks(int64_t size, int64_t block, F&& f) {
  parallel_for((size + block - 1) / block,
               [&](int64_t i) { f(i * block, std::min(block, size - i * block)); });
}

inline int64_t max_threads() { return omp_get_max_threads(); }
inline int64_t this_thread() { return omp_get_thread_num(); }

}  // namespace qstep::ops
