// The random bits of quantization: Philox4x32-10 on counters, so that neither tiling, threads,
// sharding, recomputation nor resume can change them (numerics 4.3). Only seed and step need
// saving.
//
//   key     = seed
//   counter = (low32(e / 16), high32(e / 16), stream, step)      e: element index, in block order
//   stream  = purpose << 28 | direction << 27 | slot << 24 | module
#pragma once

#include "precision/lanes.h"
#include "precision/philox.h"

namespace qstep::precision {

enum class RandomPurpose : uint32_t { kElements = 0, kScales = 1, kSigns = 2 };

QSTEP_HD inline uint32_t random_stream(RandomPurpose purpose, uint32_t direction, uint32_t slot,
                                       uint32_t module) {
  return static_cast<uint32_t>(purpose) << 28 | direction << 27 | slot << 24 | module;
}

// The words w0..w3 of one call, one call per lane.
template <class F>
struct RandomWords {
  BitsOf<F> w[4];
};

// philox4x32 with lanes: kCalls calls side by side, each round of one being a chain of operations
// that wait for each other. words[i] holds (block_low, block_high) in w[0] and w[1], and becomes
// the words of counter (block_low, block_high, stream, step).
template <int kCalls, class F>
QSTEP_HD_INLINE void random_words(uint64_t seed, RandomWords<F>* words, uint32_t stream,
                                  uint32_t step) {
  using U = BitsOf<F>;
  uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
  const U m0 = all_bits<F>(0xD2511F53u), m1 = all_bits<F>(0xCD9E8D57u);
  QSTEP_UNROLL(4)
  for (int i = 0; i < kCalls; ++i) {
    words[i].w[2] = all_bits<F>(stream);
    words[i].w[3] = all_bits<F>(step);
  }
  for (int round = 0; round < 10; ++round) {
    QSTEP_UNROLL(4)
    for (int i = 0; i < kCalls; ++i) {
      U* const c = words[i].w;
      const U n0 = multiply_high(m1, c[2]) ^ c[1] ^ all_bits<F>(k0);
      const U n2 = multiply_high(m0, c[0]) ^ c[3] ^ all_bits<F>(k1);
      c[1] = multiply_low(m1, c[2]);
      c[3] = multiply_low(m0, c[0]);
      c[0] = n0;
      c[2] = n2;
    }
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
}

template <class F>
QSTEP_HD inline RandomWords<F> random_words(uint64_t seed, BitsOf<F> block_low,
                                            BitsOf<F> block_high, uint32_t stream, uint32_t step) {
  RandomWords<F> words[1];
  words[0].w[0] = block_low;
  words[0].w[1] = block_high;
  random_words<1>(seed, words, stream, step);
  return words[0];
}

// Element i of the block's sixteen: byte i of the sixteen, 0 .. 255.
template <class F>
QSTEP_HD inline BitsOf<F> random_byte(const RandomWords<F>& words, int i) {
  return shift_right(words.w[i / 4], 8 * (i % 4)) & all_bits<F>(0xFFu);
}

// That byte times 2^-9: the fraction of half a binade that stochastic rounding to E2M1 adds. Made
// from bits, 1/2 + byte 2^-9, which needs one shift and no conversion.
template <class F>
QSTEP_HD inline F random_fraction(const RandomWords<F>& words, int i) {
  const int at = 15 - 8 * (i % 4);  // moves the byte to bit 15
  const auto word = words.w[i / 4];
  const auto moved = at >= 0 ? shift_left(word, at) : shift_right(word, -at);
  const F above_half = from_bits((moved & all_bits<F>(0x007F8000u)) | all_bits<F>(0x3F000000u));
  return above_half - all<F>(0.5f);
}

// Bit j of a set of 128 signs (set = minus), for the Hadamard transform of one GEMM's operands.
struct SignBits {
  uint32_t w[4];
  QSTEP_HD bool minus(int j) const { return (w[j / 32] >> (j % 32)) & 1u; }
};

// The vector that every layer and step of Transformer Engine uses, repeated.
QSTEP_HD inline SignBits fixed_signs() {
  return {{0xD7E8D7E8u, 0xD7E8D7E8u, 0xD7E8D7E8u, 0xD7E8D7E8u}};
}
// step 0 for signs that are drawn once per layer.
QSTEP_HD inline SignBits drawn_signs(uint64_t seed, uint32_t gemm, uint32_t module, uint32_t step) {
  const PhiloxWords words =
      philox4x32(seed, {{0, 0, random_stream(RandomPurpose::kSigns, 0, gemm, module), step}});
  return {{words.w[0], words.w[1], words.w[2], words.w[3]}};
}

}  // namespace qstep::precision
