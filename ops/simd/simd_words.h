// Blocks of sixteen BF16 numbers as they lie in memory: a register holds two of them, and what is
// one value per block of sixteen blocks (amax, scales, a call of random words) is one lane of
// another. Nothing has to be transposed. AVX-512 alone.
//
// kLaneOf: the lane that stands for a block; the order in which the maxima of blocks come out of
// shuffles within quarters of a register.
#pragma once

#include "ops/simd/simd_lanes.h"

#if QSTEP_AVX512

namespace qstep::ops {
inline namespace QSTEP_SIMD_BODY {

inline constexpr int kStripBlocks = 16;
inline constexpr int kStripColumns = 16 * kStripBlocks;
inline constexpr int kStripWords = kStripBlocks / 2;  // registers of 32 numbers

// Block 4 j + i is in lane 4 i + j; and the other way round.
constexpr int lane_of_block(int block) { return 4 * (block % 4) + block / 4; }

struct U16x32 {
  __m512i v;
};

inline U16x32 load_words(const Bf16* p) { return {_mm512_loadu_si512(p)}; }
inline U16x32 magnitude(U16x32 x) { return {_mm512_and_si512(x.v, _mm512_set1_epi16(0x7FFF))}; }
inline U16x32 max_words(U16x32 a, U16x32 b) { return {_mm512_max_epu16(a.v, b.v)}; }
// Zero where the magnitude is that of a NaN.
inline U16x32 without_nan(U16x32 x) {
  return {_mm512_maskz_mov_epi16(_mm512_cmple_epu16_mask(x.v, _mm512_set1_epi16(0x7F80)), x.v)};
}

// The numbers in even and in odd places: eight of each of the two blocks.
inline F32x16 even_numbers(U16x32 x) { return {_mm512_castsi512_ps(_mm512_slli_epi32(x.v, 16))}; }
inline F32x16 odd_numbers(U16x32 x) {
  const __m512i upper = _mm512_set1_epi32(static_cast<int>(0xFFFF0000u));
  return {_mm512_castsi512_ps(_mm512_and_si512(x.v, upper))};
}
// Back again, of numbers that are BF16 already.
template <bool kStream>
inline void store_numbers(Bf16* p, F32x16 even, F32x16 odd) {
  const __m512i low = _mm512_srli_epi32(_mm512_castps_si512(even.v), 16);
  const __m512i words = _mm512_or_si512(low, _mm512_castps_si512(odd.v));
  auto* const line = reinterpret_cast<__m512i*>(p);
  if constexpr (kStream) {
    _mm512_stream_si512(line, words);
  } else {
    _mm512_storeu_si512(line, words);
  }
}

// The largest of the sixteen words of every block, as the upper half of its lane; words[r] holds
// blocks 2 r and 2 r + 1.
inline U32x16 largest_of_blocks(const U16x32* words) {
  const auto larger = [](__m512i a, __m512i b) { return _mm512_max_epu16(a, b); };
  // The halves of each block, of four blocks.
  __m512i of_four[4];
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    const __m512i a = words[2 * i].v, b = words[2 * i + 1].v;
    of_four[i] = larger(_mm512_shuffle_i64x2(a, b, 0x88), _mm512_shuffle_i64x2(a, b, 0xDD));
  }
  // In quarter q of the registers: block q of each four.
  __m512i of_eight[2];
#pragma GCC unroll 2
  for (int i = 0; i < 2; ++i) {
    const __m512i a = of_four[2 * i], b = of_four[2 * i + 1];
    of_eight[i] = larger(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
  }
  const __m512 a = _mm512_castsi512_ps(of_eight[0]), b = _mm512_castsi512_ps(of_eight[1]);
  const __m512i pairs = larger(_mm512_castps_si512(_mm512_shuffle_ps(a, b, 0x88)),
                               _mm512_castps_si512(_mm512_shuffle_ps(a, b, 0xDD)));
  return {larger(_mm512_and_si512(pairs, _mm512_set1_epi32(static_cast<int>(0xFFFF0000u))),
                 _mm512_slli_epi32(pairs, 16))};
}

// A value per lane, spread over the numbers of words[r].
inline F32x16 spread(F32x16 of_blocks, int r) {
  struct alignas(64) Lanes {
    int32_t v[kStripWords][16];
  };
  static constexpr Lanes kLanes = [] {
    Lanes lanes{};
    for (int word = 0; word < kStripWords; ++word) {
      for (int i = 0; i < 16; ++i) lanes.v[word][i] = lane_of_block(2 * word + i / 8);
    }
    return lanes;
  }();
  return {_mm512_permutexvar_ps(_mm512_load_si512(kLanes.v[r]), of_blocks.v)};
}

// Sixteen bytes per block, four words each of which is a lane (precision/random_bits.h), laid over
// the blocks.
class StripBytes {
 public:
  void set(const U32x16* w) {
    const __m512i a = _mm512_unpacklo_epi32(w[0].v, w[1].v),
                  b = _mm512_unpackhi_epi32(w[0].v, w[1].v);
    const __m512i c = _mm512_unpacklo_epi32(w[2].v, w[3].v),
                  d = _mm512_unpackhi_epi32(w[2].v, w[3].v);
    _mm512_store_si512(bytes_, _mm512_unpacklo_epi64(a, c));
    _mm512_store_si512(bytes_ + 64, _mm512_unpackhi_epi64(a, c));
    _mm512_store_si512(bytes_ + 128, _mm512_unpacklo_epi64(b, d));
    _mm512_store_si512(bytes_ + 192, _mm512_unpackhi_epi64(b, d));
  }
  // Of words[r]: the byte of each even number in bits 0-7, of the odd one behind it in 8-15.
  U32x16 pairs(int r) const {
    return {_mm512_cvtepu16_epi32(
        _mm256_load_si256(reinterpret_cast<const __m256i*>(bytes_ + 32 * r)))};
  }

 private:
  alignas(64) uint8_t bytes_[kStripColumns];
};

}  // namespace QSTEP_SIMD_BODY
}  // namespace qstep::ops

#endif
