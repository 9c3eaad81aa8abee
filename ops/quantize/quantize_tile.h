// Sixteen units of a tensor side by side in the lanes of a register, out of memory and back: the
// only place that knows in which direction a quantizer runs.
//
//   columnwise  lanes are 16 columns, elements follow each other down the rows
//   rowwise     lanes are 16 rows, elements follow each other along the row (a transposition)
#pragma once

#include "ops/quantized_tensor.h"
#include "ops/simd/simd_transpose.h"
#include "ops/simd/simd_words.h"
#include "precision/quantize_unit.h"

namespace qstep::ops::cpu {

// Where a group of units lies in the tensor. Beyond `lanes` and `elements` there is nothing: zeros
// are read, nothing is written.
struct Place {
  Orientation orientation = Orientation::kRowwise;
  int64_t row = 0, col = 0;  // of the first element of lane 0
  int lanes = 16;            // at most 16
  int elements = 16;         // along k, at most the unit
};

template <int kUnit, class T>
QSTEP_HD_INLINE void load_units(F32x16* v, const T* data, int64_t ld, const Place& p) {
  const T* const first = data + p.row * ld + p.col;
  const bool whole = p.lanes == 16 && p.elements == kUnit;
  if (p.orientation == Orientation::kColumnwise) {
    if (whole) {
#pragma GCC unroll 16
      for (int i = 0; i < kUnit; ++i) v[i] = load(first + i * ld);
      return;
    }
    int i = 0;
    for (; i < p.elements; ++i) v[i] = load_n(first + i * ld, p.lanes);
    for (; i < kUnit; ++i) v[i] = broadcast(0.0f);
    return;
  }
  if (whole) {
#pragma GCC unroll 1
    for (int k = 0; k < kUnit; k += 16) load_transposed(v + k, first + k, ld);
    return;
  }
  for (int k = 0; k < kUnit; k += 16) {
    const int64_t n = std::clamp(p.elements - k, 0, 16);
    for (int lane = 0; lane < 16; ++lane) {
      v[k + lane] = lane < p.lanes && n > 0 ? load_n(first + lane * ld + k, n) : broadcast(0.0f);
    }
    transpose(v + k);
  }
}

// kExact: the values are BF16 numbers already; others are rounded. Clobbers v.
// kStream: past the caches.
template <int kUnit, bool kExact, bool kStream = false>
QSTEP_HD_INLINE void store_units(Bf16* data, int64_t ld, F32x16* v, const Place& p) {
  if constexpr (!kExact) {
#pragma GCC unroll 16
    for (int i = 0; i < kUnit; ++i) v[i] = precision::round_to_bf16(v[i]);
  }
  Bf16* const first = data + p.row * ld + p.col;
  const bool whole = p.lanes == 16 && p.elements == kUnit;
  if (p.orientation == Orientation::kColumnwise) {
    if (whole) {
#pragma GCC unroll 16
      for (int i = 0; i < kUnit; ++i) store_exact(first + i * ld, v[i]);
      return;
    }
    for (int i = 0; i < p.elements; ++i) store_n(first + i * ld, v[i], p.lanes);
    return;
  }
  if (whole) {
    if constexpr (kUnit == 16) {
      store_transposed(first, ld, v);
    } else {
#pragma GCC unroll 1
      for (int k = 0; k < kUnit; k += 32) store_transposed_pair<kStream>(first + k, ld, v + k);
    }
    return;
  }
  for (int k = 0; k < kUnit && k < p.elements; k += 16) {
    const int64_t n = std::min(p.elements - k, 16);
    transpose(v + k);
    for (int lane = 0; lane < p.lanes; ++lane) store_n(first + lane * ld + k, v[k + lane], n);
  }
}

// Sixteen rows of 64 columns, as four groups of sixteen columns.
inline constexpr int kWideColumns = 64;
inline constexpr int kWideGroups = kWideColumns / 16;

template <class T>
QSTEP_HD_INLINE void load_group(F32x16* v, const T* from, int64_t ld, int group) {
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) v[i] = load(from + i * ld + 16 * group);
}
template <bool kStream>
QSTEP_HD_INLINE void store_wide(Bf16* to, int64_t ld, const F32x16* v) {
  for (int i = 0; i < 16; ++i) {
    store_exact_pair<kStream>(to + i * ld, v[i], v[16 + i]);
    store_exact_pair<kStream>(to + i * ld + 32, v[32 + i], v[48 + i]);
  }
}

// f(v) for groups of sixteen rows of 32 columns, in any order of the columns: what does not care
// need not take numbers of BF16 apart in order.
template <class T, class F>
QSTEP_HD_INLINE void for_unordered_groups(const T* from, int64_t ld, F&& f) {
  F32x16 v[16];
#if QSTEP_AVX512
  if constexpr (std::is_same_v<T, Bf16>) {
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) v[i] = even_numbers(load_words(from + i * ld));
    f(v);
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) v[i] = odd_numbers(load_words(from + i * ld));
    f(v);
    return;
  }
#endif
  for (int group = 0; group < 2; ++group) {
    load_group(v, from, ld, group);
    f(v);
  }
}

// The random words of a unit's sixteens (numerics 4.3). `first` is the index of lane 0's first
// element in the order of the blocks; lanes are `stride` apart, the length of the operand's rows.
class UnitRandom {
 public:
  UnitRandom(const precision::UnitPlan& plan, uint64_t first, uint64_t stride)
      : plan_(plan), first_(first), stride_(stride) {}

  precision::RandomWords<F32x16> operator()(int block, uint32_t stream) const {
    if (stride_ % 16 != 0) return gather(block, stream);
    return words(stream, [&](uint64_t lane) {
      return first_ / 16 + lane * (stride_ / 16) + static_cast<uint64_t>(block);
    });
  }

  // Those of the first blocks of sixteen operand rows and of the next three sixteens; whole calls
  // only.
  void of_wide(precision::RandomWords<F32x16>* words, uint32_t stream) const {
    for (int group = 0; group < kWideGroups; ++group) {
      set_counters(words[group], [&](uint64_t lane) {
        return first_ / 16 + (16 * static_cast<uint64_t>(group) + lane) * (stride_ / 16);
      });
    }
    constexpr int kTogether = 2;  // as many as registers have room for
    for (int group = 0; group < kWideGroups; group += kTogether) {
      precision::random_words<kTogether>(plan_.seed, words + group, stream, plan_.step);
    }
  }

  // One word per block of sixteen: block b has word b % 4 of call b / 4.
  U32x16 scale_word(int block, uint32_t stream) const {
    const auto index = [&](uint64_t lane) {
      return (first_ + lane * stride_) / 16 + static_cast<uint64_t>(block);
    };
    const auto w = words(stream, [&](uint64_t lane) { return index(lane) / 4; });
    alignas(64) uint32_t of[4][16], picked[16];
    for (int i = 0; i < 4; ++i) store_bits(of[i], w.w[i]);
    for (uint64_t lane = 0; lane < 16; ++lane) picked[lane] = of[index(lane) % 4][lane];
    return load_bits(picked);
  }

 private:
  template <class Counter>
  precision::RandomWords<F32x16> words(uint32_t stream, Counter&& counter) const {
    precision::RandomWords<F32x16> words;
    set_counters(words, counter);
    precision::random_words<1>(plan_.seed, &words, stream, plan_.step);
    return words;
  }

  template <class Counter>
  static void set_counters(precision::RandomWords<F32x16>& words, Counter&& counter) {
    alignas(64) uint32_t low[16], high[16];
    for (uint64_t lane = 0; lane < 16; ++lane) {
      const uint64_t c = counter(lane);
      low[lane] = static_cast<uint32_t>(c);
      high[lane] = static_cast<uint32_t>(c >> 32);
    }
    words.w[0] = load_bits(low);
    words.w[1] = load_bits(high);
  }

  // Rows whose length is no multiple of 16: a unit's bytes lie in two calls.
  precision::RandomWords<F32x16> gather(int block, uint32_t stream) const {
    alignas(64) uint32_t w[4][16] = {};
    for (uint64_t lane = 0; lane < 16; ++lane) {
      for (uint64_t i = 0; i < 16; ++i) {
        const uint64_t e = first_ + lane * stride_ + 16 * static_cast<uint64_t>(block) + i;
        const auto call = precision::philox4x32(
            plan_.seed, {{static_cast<uint32_t>(e / 16), static_cast<uint32_t>(e / 16 >> 32),
                          stream, plan_.step}});
        const uint32_t byte = call.w[e / 4 % 4] >> (8 * (e % 4)) & 0xFFu;
        w[i / 4][lane] |= byte << (8 * (i % 4));
      }
    }
    return {{load_bits(w[0]), load_bits(w[1]), load_bits(w[2]), load_bits(w[3])}};
  }

  const precision::UnitPlan& plan_;
  uint64_t first_, stride_;
};

}  // namespace qstep::ops::cpu
