// The matrix products inside attention: eight rows of `a` against panels of sixteen columns of `b`.
// Everything is packed first, so that the product needs no case for ragged sizes, strides or types.
//
// The unit is the word, 32 bits: what one lane multiplies in one instruction along the summed
// dimension. Where the processor multiplies pairs of BF16 a word is two neighbours, otherwise one
// FP32 value. Buffers of words are float arrays whatever they hold.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "ops/ops.h"
#include "ops/simd/simd.h"

namespace qstep::ops::cpu::tile {

inline constexpr int64_t kRows = 8;  // rows of one product
// Panels of one product: 8 x 3 sums, 3 of b and 1 of a fill the 32 registers of AVX-512.
inline constexpr int64_t kMaxPanels = QSTEP_AVX512 ? 3 : 1;

constexpr int64_t round_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }
constexpr int64_t divide_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit; }

// Hands out pieces of a scratch block, each on a cache line. Without a block it only measures.
class Carver {
 public:
  explicit Carver(float* base) : base_(base) {}
  float* take(int64_t n) {
    float* const p = base_ == nullptr ? nullptr : base_ + used_;
    used_ += round_up(n, kLanes);
    return p;
  }
  int64_t used() const { return used_; }

 private:
  float* base_;
  int64_t used_ = 0;
};

// ---- words ----------------------------------------------------------------------------------

struct F32Words {
  static constexpr int64_t kPerWord = 1;
  using Vec = F32x16;

  static Vec load(const float* p) { return ops::load(p); }
  static Vec broadcast(const float* p) { return ops::broadcast(*p); }
  static F32x16 multiply_add(F32x16 sum, Vec a, Vec b) { return fma(a, b, sum); }
  // The words of n <= 16 neighbours along the summed dimension, zero behind them.
  template <class T>
  static F32x16 along(const T* p, int64_t n) {
    return load_n(p, n);
  }
  // Sixteen values as words: 16 / kPerWord words at p.
  static void store_along(float* p, F32x16 x) { ops::store(p, x); }
};

#if QSTEP_AVX512 && defined(__AVX512BF16__)
struct Bf16Words {
  static constexpr int64_t kPerWord = 2;
  using Vec = __m512bh;

  static Vec load(const float* p) { return (__m512bh)_mm512_loadu_si512(p); }
  static Vec broadcast(const float* p) {
    int32_t bits;
    std::memcpy(&bits, p, sizeof bits);
    return (__m512bh)_mm512_set1_epi32(bits);
  }
  static F32x16 multiply_add(F32x16 sum, Vec a, Vec b) { return {_mm512_dpbf16_ps(sum.v, a, b)}; }
  static F32x16 along(const Bf16* p, int64_t n) {  // n <= 32
    const __mmask32 first = n >= 32 ? ~0u : (1u << n) - 1u;
    return {_mm512_castsi512_ps(_mm512_maskz_loadu_epi16(first, p))};
  }
  static void store_along(float* p, F32x16 x) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), (__m256i)_mm512_cvtneps_pbh(x.v));
  }
  // Sixteen words (even[i], odd[i]).
  static F32x16 across(F32x16 even, F32x16 odd) {
    const __m512i halves = (__m512i)_mm512_cvtne2ps_pbh(odd.v, even.v);
    const __m512i order =
        _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6,
                         21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    return {_mm512_castsi512_ps(_mm512_permutexvar_epi16(order, halves))};
  }
};
template <class T>
using Words = std::conditional_t<std::is_same_v<T, Bf16>, Bf16Words, F32Words>;
#else
template <class T>
using Words = F32Words;
#endif

// ---- lanes ----------------------------------------------------------------------------------

// The first n lanes become zero, whatever they hold.
inline F32x16 zero_first(F32x16 x, int64_t n) {
#if QSTEP_AVX512
  return {_mm512_maskz_mov_ps(static_cast<__mmask16>(~first_lanes(n)), x.v)};
#else
  float lanes[kLanes];
  store(lanes, x);
  std::fill(lanes, lanes + n, 0.0f);
  return load(lanes);
#endif
}

// 2^x for x <= 127; zero from -150 down. x = n + r, |r| <= 1/2, and for 2^r a minimax polynomial of
// degree 6 with 2^0 = 1 (relative error 2^-25 before rounding). NaN stays NaN.
inline F32x16 exp2(F32x16 x) {
  const F32x16 clamped = max(broadcast(-200.0f), x);
  const F32x16 n = round_to_integer(clamped);
  const F32x16 r = clamped - n;
  F32x16 p = broadcast(1.54614449e-4f);
  for (const float c :
       {1.3400428e-3f, 9.61805694e-3f, 5.55032715e-2f, 0.240226507f, 0.693147182f, 1.0f}) {
    p = fma(p, r, broadcast(c));
  }
  return scale_by_power(p, n);
}

// rows[i] lane j <-> rows[j] lane i.
inline void transpose(F32x16 (&rows)[kLanes]) {
#if QSTEP_AVX512
  __m512 t[kLanes];
  for (int i = 0; i < kLanes; i += 2) {
    t[i] = _mm512_unpacklo_ps(rows[i].v, rows[i + 1].v);
    t[i + 1] = _mm512_unpackhi_ps(rows[i].v, rows[i + 1].v);
  }
  __m512 u[kLanes];
  for (int i = 0; i < kLanes; i += 4) {
    for (int j = 0; j < 2; ++j) {
      const __m512d a = _mm512_castps_pd(t[i + j]);
      const __m512d b = _mm512_castps_pd(t[i + j + 2]);
      u[i + 2 * j] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, b));
      u[i + 2 * j + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, b));
    }
  }
  for (int j = 0; j < 4; ++j) {  // column j of every 4 x 4 block of 4 x 4 blocks
    const __m512 ab_even = _mm512_shuffle_f32x4(u[j], u[j + 4], 0x88);
    const __m512 ab_odd = _mm512_shuffle_f32x4(u[j], u[j + 4], 0xDD);
    const __m512 cd_even = _mm512_shuffle_f32x4(u[j + 8], u[j + 12], 0x88);
    const __m512 cd_odd = _mm512_shuffle_f32x4(u[j + 8], u[j + 12], 0xDD);
    rows[j].v = _mm512_shuffle_f32x4(ab_even, cd_even, 0x88);
    rows[j + 8].v = _mm512_shuffle_f32x4(ab_even, cd_even, 0xDD);
    rows[j + 4].v = _mm512_shuffle_f32x4(ab_odd, cd_odd, 0x88);
    rows[j + 12].v = _mm512_shuffle_f32x4(ab_odd, cd_odd, 0xDD);
  }
#else
  float lanes[kLanes][kLanes];
  for (int i = 0; i < kLanes; ++i) store(lanes[i], rows[i]);
  for (int i = 0; i < kLanes; ++i) {
    float column[kLanes];
    for (int j = 0; j < kLanes; ++j) column[j] = lanes[j][i];
    rows[i] = load(column);
  }
#endif
}

// ---- packing --------------------------------------------------------------------------------

// The source is n_rows rows of `width` elements, `ld` apart; what lies outside counts as zero.
template <class T>
struct Source {
  const T* data;
  int64_t ld;
  int64_t n_rows;
  int64_t width;
};

// Sixteen columns of the words across rows: word w holds rows w kPerWord .. + kPerWord.
template <class T>
inline F32x16 across_rows(const Source<T>& x, int64_t w, int64_t column, int64_t n) {
  const auto row = [&](int64_t i) {
    return i < x.n_rows ? load_n(x.data + i * x.ld + column, n) : broadcast(0.0f);
  };
  if constexpr (Words<T>::kPerWord == 1) {
    return row(w);
  } else {
    return Words<T>::across(row(2 * w), row(2 * w + 1));
  }
}

// dst[row][word]: words along the width, `dst_ld` (a multiple of 16) apart, n_dst_rows rows.
template <class T>
void pack_rows(float* dst, int64_t dst_ld, int64_t n_dst_rows, const Source<T>& x) {
  constexpr int64_t kStep = kLanes * Words<T>::kPerWord;
  for (int64_t i = 0; i < n_dst_rows; ++i) {
    for (int64_t c = 0; c < x.width; c += kStep) {
      store(dst + i * dst_ld + c / Words<T>::kPerWord,
            i < x.n_rows ? Words<T>::along(x.data + i * x.ld + c, std::min(kStep, x.width - c))
                         : broadcast(0.0f));
    }
  }
}

// Panels over the rows, words along the width: dst[panel][word][row % 16], `panel` words apart.
template <class T>
void pack_row_panels(float* dst, int64_t panel, int64_t n_panels, const Source<T>& x) {
  constexpr int64_t kStep = kLanes * Words<T>::kPerWord;
  const int64_t n_words = divide_up(x.width, Words<T>::kPerWord);
  for (int64_t p = 0; p < n_panels; ++p) {
    for (int64_t c = 0; c < x.width; c += kStep) {
      F32x16 block[kLanes];
      for (int64_t i = 0; i < kLanes; ++i) {
        const int64_t row = p * kLanes + i;
        block[i] = row < x.n_rows
                       ? Words<T>::along(x.data + row * x.ld + c, std::min(kStep, x.width - c))
                       : broadcast(0.0f);
      }
      transpose(block);
      const int64_t w = c / Words<T>::kPerWord;
      for (int64_t i = 0; i < std::min(kLanes, n_words - w); ++i) {
        store(dst + p * panel + (w + i) * kLanes, block[i]);
      }
    }
  }
}

// Panels over the width, words across the rows: dst[panel][row / kPerWord][column % 16].
template <class T>
void pack_column_panels(float* dst, int64_t panel, int64_t n_words, const Source<T>& x) {
  for (int64_t w = 0; w < n_words; ++w) {
    for_each_group(x.width, [&](int64_t c, int64_t n) {
      store(dst + c / kLanes * panel + w * kLanes, across_rows(x, w, c, n));
    });
  }
}

// dst[column][row / kPerWord]: the transpose, words across the rows; n_words a multiple of 16.
template <class T>
void pack_columns(float* dst, int64_t n_words, int64_t n_dst_rows, const Source<T>& x) {
  for (int64_t w = 0; w < n_words; w += kLanes) {
    for_each_group(x.width, [&](int64_t c, int64_t n) {
      F32x16 block[kLanes];
      for (int64_t i = 0; i < kLanes; ++i) block[i] = across_rows(x, w + i, c, n);
      transpose(block);
      for (int64_t i = 0; i < std::min(kLanes, n_dst_rows - c); ++i) {
        store(dst + (c + i) * n_words + w, block[i]);
      }
    });
  }
}

// ---- the product ----------------------------------------------------------------------------

struct Rows {  // row m at data + m ld
  const float* data;
  int64_t ld;
};
struct Panels {  // panel p at data + p stride: [word][16]
  const float* data;
  int64_t stride;
};
struct Result {  // row m of panel p at data + m ld + p stride: [16]
  float* data;
  int64_t ld;
  int64_t stride;
};

// Not inlined: every register of the loop is spoken for, whatever surrounds the call.
template <class W, int kPanels>
[[gnu::noinline]] void multiply_panels(const Result& c, const Rows& a, const Panels& b,
                                       int64_t n_words, Accumulate mode) {
  constexpr int kHalf = kRows / 2;
  const float* const upper = a.data;  // two base addresses and one stride reach all eight rows
  const float* const lower = a.data + kHalf * a.ld;
  F32x16 sum[kRows][kPanels];
#pragma GCC unroll 8
  for (int m = 0; m < kRows; ++m) {
#pragma GCC unroll 3
    for (int p = 0; p < kPanels; ++p) {
      sum[m][p] =
          mode == Accumulate::kYes ? load(c.data + m * c.ld + p * c.stride) : broadcast(0.0f);
    }
  }
  for (int64_t w = 0; w < n_words; ++w) {
    typename W::Vec right[kPanels];
#pragma GCC unroll 3
    for (int p = 0; p < kPanels; ++p) right[p] = W::load(b.data + p * b.stride + w * kLanes);
#pragma GCC unroll 8
    for (int m = 0; m < kRows; ++m) {
      const float* const half = m < kHalf ? upper : lower;
      const typename W::Vec left = W::broadcast(half + m % kHalf * a.ld + w);
#pragma GCC unroll 3
      for (int p = 0; p < kPanels; ++p) sum[m][p] = W::multiply_add(sum[m][p], left, right[p]);
    }
  }
#pragma GCC unroll 8
  for (int m = 0; m < kRows; ++m) {
#pragma GCC unroll 3
    for (int p = 0; p < kPanels; ++p) store(c.data + m * c.ld + p * c.stride, sum[m][p]);
  }
}

// c[8][16 n_panels] (+)= a[8][n_words] b[n_words][16 n_panels], each element summed in word order.
template <class W>
inline void multiply(Result c, const Rows& a, Panels b, int64_t n_panels, int64_t n_words,
                     Accumulate mode) {
  while (n_panels > 0) {
    const int64_t n = std::min(kMaxPanels, n_panels == 4 ? 2 : n_panels);  // 4 = 2 + 2
    if (n == 3) multiply_panels<W, 3>(c, a, b, n_words, mode);
    if (n == 2) multiply_panels<W, 2>(c, a, b, n_words, mode);
    if (n == 1) multiply_panels<W, 1>(c, a, b, n_words, mode);
    c.data += n * c.stride;
    b.data += n * b.stride;
    n_panels -= n;
  }
}

// ---- rows of queries ------------------------------------------------------------------------

// Rows that read one key/value head: `group` query heads side by side, n_rows consecutive
// positions.
template <class T>
struct QueryTile {
  const T* q;  // q[t, g D + d]
  int64_t q_ld;
  T* o;  // like q
  int64_t o_ld;
  float* lse;  // lse[g, t]; null when nobody asks
  int64_t lse_ld;
  const T* k;  // [position, d], from position 0
  int64_t k_ld;
  const T* v;
  int64_t v_ld;
  int64_t group;
  int64_t n_rows;
  int64_t first_position;  // of row 0: row t sees positions 0 .. first_position + t
  int64_t head_dim;
};

// Positions in one tile, about kTileRows / group: what a task's packing of k and v is shared by.
int64_t query_tile_rows(int64_t group);
// Floats of scratch for one tile.
template <class T>
int64_t query_tile_scratch(int64_t group, int64_t n_rows, int64_t head_dim);
// o and lse of the tile.
template <class T>
void attend(const QueryTile<T>& tile, float* scratch);

}  // namespace qstep::ops::cpu::tile
