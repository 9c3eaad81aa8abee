#include "ops/quantize/quantize_rows.h"

#include "ops/simd/simd_words.h"

namespace qstep::ops::cpu {

#if QSTEP_AVX512

using precision::AmaxScope;
using precision::ElementFormat;
using precision::FourOverSix;
using precision::QuantFormat;
using precision::Range;
using precision::Rounding;
using precision::UnitContext;

namespace {

// What a strip is multiplied by before and after rounding, and whether it needs the rounding that
// minds NaN and overflow.
struct StripScales {
  F32x16 enc, s;
  bool tame;
};

template <class Magnitudes>
StripScales strip_scales(const precision::UnitPlan& plan, const UnitContext<F32x16>& context,
                         const Magnitudes& magnitudes, U32x16& raw) {
  U16x32 words[kStripWords];
#pragma GCC unroll 8
  for (int r = 0; r < kStripWords; ++r) words[r] = magnitudes.of(r);
  const U32x16 own = largest_of_blocks(words);
  raw = max_bits(raw, own);
  U32x16 amax = own;
  if (any(less_bits(broadcast_bits(0x7F800000u), own))) {
    for (int r = 0; r < kStripWords; ++r) words[r] = magnitudes.of_numbers(r);
    amax = largest_of_blocks(words);
  }
  const auto scale = precision::nvfp4_scale_of<F32x16>(plan, nullptr, from_bits(amax), context);
  return {scale.enc, scale.s, precision::is_tame<ElementFormat::kE2m1, F32x16>(own, scale.enc)};
}

// The largest |x| of kRows rows of a strip in every column, NaN being larger than all, or left out.
template <int kRows>
struct StripMagnitudes {
  const Bf16* x;
  int64_t ld;

  U16x32 of(int r) const {
    U16x32 largest = magnitude(load_words(x + 32 * r));
    for (int i = 1; i < kRows; ++i) {
      largest = max_words(largest, magnitude(load_words(x + i * ld + 32 * r)));
    }
    return largest;
  }
  U16x32 of_numbers(int r) const {
    U16x32 largest = without_nan(magnitude(load_words(x + 32 * r)));
    for (int i = 1; i < kRows; ++i) {
      largest = max_words(largest, without_nan(magnitude(load_words(x + i * ld + 32 * r))));
    }
    return largest;
  }
};

template <Range kRange>
F32x16 nearest(F32x16 x) {
  if constexpr (kRange == Range::kTame) {
    return precision::round_nearest_tame<ElementFormat::kE2m1>(x);
  } else {
    return precision::round_nearest<ElementFormat::kE2m1>(x);
  }
}

template <Range kRange, bool kStream>
void round_nearest_row(Bf16* to, const Bf16* x, const F32x16* enc, const F32x16* s) {
#pragma GCC unroll 8
  for (int r = 0; r < kStripWords; ++r) {
    const U16x32 words = load_words(x + 32 * r);
    store_numbers<kStream>(to + 32 * r, nearest<kRange>(even_numbers(words) * enc[r]) * s[r],
                           nearest<kRange>(odd_numbers(words) * enc[r]) * s[r]);
  }
}

// 2^-9 times the byte at bit kAt of every lane, as precision::random_fraction makes it.
template <int kAt>
F32x16 fraction(U32x16 pairs) {
  const U32x16 moved = shift_left(pairs, 15 - kAt) & broadcast_bits(0x007F8000u);
  return from_bits(moved | broadcast_bits(0x3F000000u)) - broadcast(0.5f);
}

template <Range kRange, bool kStream>
void round_stochastic_row(Bf16* to, const Bf16* x, const F32x16* enc, const F32x16* s,
                          const StripBytes& bytes) {
#pragma GCC unroll 8
  for (int r = 0; r < kStripWords; ++r) {
    const U16x32 words = load_words(x + 32 * r);
    const U32x16 pairs = bytes.pairs(r);
    const F32x16 even = precision::round_stochastic_e2m1_by<kRange>(even_numbers(words) * enc[r],
                                                                    fraction<0>(pairs));
    const F32x16 odd = precision::round_stochastic_e2m1_by<kRange>(odd_numbers(words) * enc[r],
                                                                   fraction<8>(pairs));
    store_numbers<kStream>(to + 32 * r, even * s[r], odd * s[r]);
  }
}

// Strips whose random words are made together.
constexpr int kCalls = 2;

// Of a strip whose blocks are the calls from `first` on.
void set_counters(precision::RandomWords<F32x16>& words, uint64_t first) {
  alignas(64) uint32_t low[kStripBlocks], high[kStripBlocks];
  for (int block = 0; block < kStripBlocks; ++block) {
    const uint64_t call = first + static_cast<uint64_t>(block);
    low[lane_of_block(block)] = static_cast<uint32_t>(call);
    high[lane_of_block(block)] = static_cast<uint32_t>(call >> 32);
  }
  words.w[0] = load_bits(low);
  words.w[1] = load_bits(high);
}

// Rows of one strip of columns that share their blocks: 1 or 16.
template <int kRows, bool kStream>
class Strip {
 public:
  Strip(const Side& side, const Bf16* x, int64_t ld)
      : side_(side), x_(x), to_(side.q->values.as<Bf16>()), ld_(ld), to_ld_(side.q->values.ld) {
    context_.outer_amax = broadcast(side.outer_amax);
    context_.outer = {broadcast(side.outer.s_enc), broadcast(side.outer.s_dec),
                      broadcast(side.outer.block_factor)};
  }

  StripScales scales_at(int64_t row, int64_t col) {
    const precision::UnitPlan& plan = side_.plan;
    if (side_.spec().amax == AmaxScope::kRow) {
      context_.outer_amax = broadcast(side_.lane_amax[row]);
      context_.outer = precision::nvfp4_factors(context_.outer_amax, plan.range, plan.headroom);
    }
    const StripMagnitudes<kRows> magnitudes{x_ + row * ld_ + col, ld_};
    return strip_scales(plan, context_, magnitudes, raw_);
  }

  // Of `kCalls` strips of the chunk that begin at (row, col) and the next rows.
  void random_bytes(const Chunk& c, int64_t row, int64_t col, StripBytes* bytes) const {
    const precision::UnitPlan& plan = side_.plan;
    precision::RandomWords<F32x16> words[kCalls];
    for (int i = 0; i < kCalls; ++i) {
      set_counters(words[i], side_.random_index(c, row + i, col) / 16);
    }
    precision::random_words<kCalls>(plan.seed, words, plan.element_stream, plan.step);
    for (int i = 0; i < kCalls; ++i) bytes[i].set(words[i].w);
  }

  // bytes: of the strip's rows; null: to nearest.
  void round(int64_t row, int64_t col, const StripScales& scales, const StripBytes* bytes,
             int64_t ahead) const {
    F32x16 enc[kStripWords], s[kStripWords];
#pragma GCC unroll 8
    for (int r = 0; r < kStripWords; ++r) {
      enc[r] = spread(scales.enc, r);
      s[r] = spread(scales.s, r);
    }
    const Bf16* const from = x_ + row * ld_ + col;
    Bf16* const to = to_ + row * to_ld_ + col;
    for (int i = 0; i < kRows; ++i) {
      if (ahead != 0) prefetch_elements(from + i * ld_ + ahead, kStripColumns);
      const StripBytes* const own = bytes == nullptr ? nullptr : bytes + i;
      if (scales.tame) {
        round_row<Range::kTame>(to + i * to_ld_, from + i * ld_, enc, s, own);
      } else {
        round_row<Range::kAny>(to + i * to_ld_, from + i * ld_, enc, s, own);
      }
    }
  }

  U32x16 raw() const { return raw_; }

 private:
  template <Range kRange>
  static void round_row(Bf16* to, const Bf16* x, const F32x16* enc, const F32x16* s,
                        const StripBytes* bytes) {
    if (bytes == nullptr) return round_nearest_row<kRange, kStream>(to, x, enc, s);
    round_stochastic_row<kRange, kStream>(to, x, enc, s, *bytes);
  }

  const Side& side_;
  const Bf16* x_;
  Bf16* to_;
  int64_t ld_, to_ld_;
  UnitContext<F32x16> context_{};
  U32x16 raw_ = broadcast_bits(0);
};

template <int kRows, bool kStream>
void quantize_strips(const Side& side, const Bf16* x, int64_t ld, const Chunk& c,
                     ChunkResult& result) {
  constexpr int64_t kGroup = 16 / kRows;  // strips down a group
  Strip<kRows, kStream> strip(side, x, ld);
  StripScales scales[kGroup];
  StripBytes bytes[16 + kCalls - 1];  // of the rows of a group
  const bool stochastic = side.spec().rounding == Rounding::kStochastic;
  for (int64_t col = c.col; col < c.col + c.cols; col += kStripColumns) {
    for (int64_t r = c.row; r < c.row + c.rows; r += kGroup * kRows) {
      const int64_t n = std::min(kGroup, (c.row + c.rows - r) / kRows);
      // Apart, so that one strip does not wait for the divisions of another.
      for (int64_t i = 0; i < n; ++i) scales[i] = strip.scales_at(r + i * kRows, col);
      for (int64_t i = 0; i < n * kRows && stochastic; i += kCalls) {
        strip.random_bytes(c, r + i, col, bytes + i);
      }
      for (int64_t i = 0; i < n; ++i) {
        strip.round(r + i * kRows, col, scales[i], stochastic ? bytes + i * kRows : nullptr,
                    c.ahead);
      }
    }
  }
  result.raw = std::max(result.raw, largest_lane(strip.raw()));
}

bool fits(const Side& side, const Chunk& c) {
  const precision::QuantSpec& spec = side.spec();
  const bool square = spec.block.square();
  return spec.format == QuantFormat::kNvfp4 && side.orientation == Orientation::kRowwise &&
         spec.hadamard == 0 && spec.four_over_six == FourOverSix::kNone &&
         spec.rounding != Rounding::kMsEden && spec.amax != AmaxScope::kGroup128 &&
         (!square || (c.rows % 16 == 0 && spec.amax != AmaxScope::kRow)) && side.cols % 16 == 0 &&
         !side.wants_stats && side.encoded == nullptr;
}

}  // namespace

int64_t quantize_rows(const Side& side, const Bf16* x, int64_t ld, const Chunk& chunk,
                      ChunkResult& result) {
  if (!fits(side, chunk)) return 0;
  Chunk strips = chunk;
  strips.cols = chunk.cols / kStripColumns * kStripColumns;
  if (strips.cols == 0) return 0;
  const bool square = side.spec().block.square();
  const auto run = square ? side.streams ? quantize_strips<16, true> : quantize_strips<16, false>
                   : side.streams ? quantize_strips<1, true>
                                  : quantize_strips<1, false>;
  run(side, x, ld, strips, result);
  return strips.cols;
}

#else

int64_t quantize_rows(const Side&, const Bf16*, int64_t, const Chunk&, ChunkResult&) { return 0; }

#endif

}  // namespace qstep::ops::cpu
