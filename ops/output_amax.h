// The amax of an operation's output, found while the output is made (ops/ops.h): the largest bits
// of a magnitude, NaN above all numbers.
#pragma once

#include "ops/group.h"
#include "ops/raise.h"
#include "ops/tensor.h"
#include "precision/lanes.h"

namespace qstep::ops {

inline void check_output_amax(const Tensor& amax, const char* what) {
  if (!amax) return;
  expect_vector(amax, 1, what);
  expect_dtype(amax, Dtype::kI32, what);
}
// Null: not wanted.
inline uint32_t* amax_bits(const Tensor& amax) {
  return amax ? reinterpret_cast<uint32_t*>(amax.as<int32_t>()) : nullptr;
}

namespace device {

struct ClearBits {
  uint32_t* bits;
  QSTEP_HD void operator()(int64_t) const { *bits = 0; }
};

// Ahead of the kernel that raises it.
template <class Launch>
uint32_t* start_amax(const Launch& launch, const Tensor& amax, const char* what) {
  check_output_amax(amax, what);
  uint32_t* const bits = amax_bits(amax);
  if (bits != nullptr) launch.each(1, ClearBits{bits});
  return bits;
}

// Of the group's elements that lie in the row. They are not rounded yet: that keeps the order.
template <class T>
QSTEP_HD_INLINE uint32_t largest_bits(const Row<T>& row, int64_t g, const Group& x) {
  const int64_t count = row.count(g);
  uint32_t largest = 0;
  QSTEP_UNROLL(8)
  for (int i = 0; i < kGroup; ++i) {
    const uint32_t a = precision::bits(x.v[i]) & 0x7FFFFFFFu;
    largest = precision::max_bits(largest, i < count ? a : 0u);
  }
  return largest;
}

// f(g) for the groups g in [0, n) of a team: it stores elements of type T, and gives the
// largest_bits of them. *amax, unless it is null, is raised to the largest, as it is stored.
template <class T, class Team, class F>
QSTEP_HD_INLINE void each_with_amax(const Team& team, int64_t n, uint32_t* amax, const F& f) {
  if (amax == nullptr) {
    team.each(n, [&](int64_t g) { f(g); });
    return;
  }
  const uint32_t largest = team.reduce(
      n, uint32_t{0}, [&](uint32_t& m, int64_t g) { m = precision::max_bits(m, f(g)); },
      [](uint32_t a, uint32_t b) { return precision::max_bits(a, b); });
  if (!team.leader()) return;
  T stored;
  put(stored, precision::from_bits(largest));
  raise(amax, precision::bits(precision::to_float(stored)) & 0x7FFFFFFFu);
}

}  // namespace device
}  // namespace qstep::ops
