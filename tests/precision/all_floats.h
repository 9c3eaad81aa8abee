// Looks at every one of the 2^32 floats, quickly.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>

namespace qstep::test {

inline constexpr int64_t kNone = -1;
inline constexpr uint32_t kInfinityBits = 0x7F800000u, kSignBit = 0x80000000u;

// A pattern in [first, last) that `accepts` rejects, or kNone. Whole blocks without a branch, so
// that the loop vectorises.
template <class F>
int64_t find_rejected(uint64_t first, uint64_t last, F&& accepts) {
  constexpr uint64_t kBlock = 0x10000;
  const auto n_blocks = static_cast<int64_t>((last - first + kBlock - 1) / kBlock);
  int64_t bad_block = kNone;
#pragma omp parallel for reduction(max : bad_block)
  for (int64_t block = 0; block < n_blocks; ++block) {
    const uint64_t begin = first + static_cast<uint64_t>(block) * kBlock;
    const auto n = static_cast<uint32_t>(std::min(kBlock, last - begin));
    const auto from = static_cast<uint32_t>(begin);
    uint32_t n_rejected = 0;
    for (uint32_t i = 0; i < n; ++i) n_rejected += accepts(from + i) ? 0 : 1;
    if (n_rejected > 0) bad_block = std::max(bad_block, block);
  }
  if (bad_block == kNone) return kNone;
  auto pattern = static_cast<uint32_t>(first + static_cast<uint64_t>(bad_block) * kBlock);
  while (accepts(pattern)) ++pattern;
  return pattern;
}

template <class F>
int64_t find_rejected(F&& accepts) {
  return find_rejected(0, uint64_t{1} << 32, accepts);
}

// code_of goes up with x: f(first, beyond, code) for each interval of bit patterns on which it is
// constant, from 0 to infinity, found by bisection.
template <class Reference, class F>
void for_each_interval(Reference&& code_of, F&& f) {
  uint32_t first = 0;
  while (first <= kInfinityBits) {
    const auto code = code_of(std::bit_cast<float>(first));
    uint32_t same = first, beyond = kInfinityBits + 1;  // code_of(same) = code, or beyond the last
    while (beyond - same > 1) {
      const uint32_t middle = same + (beyond - same) / 2;
      (code_of(std::bit_cast<float>(middle)) == code ? same : beyond) = middle;
    }
    f(first, beyond, code);
    first = beyond;
  }
}

}  // namespace qstep::test
