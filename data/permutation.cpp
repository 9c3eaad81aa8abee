#include "data/permutation.h"

#include <algorithm>
#include <bit>

namespace qstep::data {

Permutation::Permutation(uint64_t n, uint64_t seed, uint64_t epoch) : n_(n) {
  const int bits = n > 1 ? std::bit_width(n - 1) : 1;
  half_bits_ = std::min(32, (bits + 1) / 2);
  half_mask_ = (uint64_t{1} << half_bits_) - 1;
  uint64_t key = mix64(mix64(seed) ^ epoch);
  for (uint64_t& round_key : keys_) round_key = key = mix64(key);
}

uint64_t Permutation::operator()(uint64_t position) const {
  uint64_t x = position;
  do {
    uint64_t left = x >> half_bits_;
    uint64_t right = x & half_mask_;
    for (const uint64_t key : keys_) {
      const uint64_t next = left ^ (mix64(right ^ key) & half_mask_);
      left = right;
      right = next;
    }
    x = left << half_bits_ | right;
  } while (x >= n_);
  return x;
}

}  // namespace qstep::data
