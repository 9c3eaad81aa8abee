// A keyed permutation of [0, n) in constant memory: how samples are shuffled without a list of
// them. Pure function of (n, key): no state, any position in any order.
#pragma once

#include <array>
#include <cstdint>

namespace qstep::data {

// Feistel network over the smallest 2^(2h) >= n, walked along its cycles until the value is below
// n; at most 4 times n values, hence less than 4 steps on average. n >= 1.
class Permutation {
 public:
  Permutation(uint64_t n, uint64_t seed, uint64_t epoch);

  uint64_t size() const { return n_; }
  uint64_t operator()(uint64_t position) const;  // position < n; a bijection onto [0, n)

 private:
  // Four rounds make a pseudo-random permutation (Luby and Rackoff 1988); twice that because the
  // halves of small domains have only a few bits.
  static constexpr int kRounds = 8;

  uint64_t n_;
  int half_bits_;
  uint64_t half_mask_;
  std::array<uint64_t, kRounds> keys_;
};

// Finaliser of SplitMix64: a bijection of 64 bits in which every input bit moves every output bit.
constexpr uint64_t mix64(uint64_t x) {
  x += 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

}  // namespace qstep::data
