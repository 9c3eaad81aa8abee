// Looks at every one of the 2^32 floats, quickly.
#pragma once

#include <algorithm>
#include <cstdint>

namespace qstep::test {

inline constexpr int64_t kNone = -1;

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

}  // namespace qstep::test
