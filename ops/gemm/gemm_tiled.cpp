#include "ops/gemm/gemm_tiled.h"

#include <algorithm>
#include <cstring>

#include "ops/parallel_for.h"
#include "ops/simd/simd.h"

namespace qstep::ops {

namespace {

int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace

void check_tiles(const Operand& a, const Operand& b) {
  for (const Operand* x : {&a, &b}) {
    check(x->dtype == Dtype::kBf16, "gemm: operands with tile scales are bf16");
    if (!tiled(*x)) continue;
    check(x->tile_rows > 0 && x->tile_k > 0, "gemm: an empty tile");
    check(x->tile_k % 2 == 0 || x->tile_k >= x->k, "gemm: a tile of an odd number of k");
  }
  const int64_t shorter = std::min(tile_k(a), tile_k(b)), longer = std::max(tile_k(a), tile_k(b));
  check(longer % shorter == 0 || longer == a.k, "gemm: tiles of a and b that overlap");
}

namespace cpu {

namespace {

// Rows of d that a thread works on at a time. With a panel of columns their sums take 24 KB and
// their words of 128 k 32 KB: both stay near while the panel's words, 12 KB, are in the first
// cache.
constexpr int64_t kBlockRows = 128;
static_assert(kBlockRows % kPanelRows == 0);

uint32_t word(Bf16 even, Bf16 odd) { return even.bits | static_cast<uint32_t>(odd.bits) << 16; }

// Words [0, n_words) of the rows [first, first + n) of x; rows behind them and an odd last k are
// zero.
template <int64_t kWidth>
void pack_panel(uint32_t* panel, const Operand& x, int64_t first, int64_t n, int64_t n_words) {
  const auto* const data = static_cast<const Bf16*>(x.data);
  const int64_t n_full = x.k / 2;  // words of two k
  if (n < kWidth || n_full < n_words) {
    std::memset(panel, 0, static_cast<size_t>(n_words * kWidth) * sizeof(uint32_t));
  }
  if (x.major == Major::kK) {
    constexpr int64_t kWords = 128;  // that part of the panel stays in the first cache
    for (int64_t from = 0; from < n_full; from += kWords) {
      const int64_t to = std::min(from + kWords, n_full);
      for (int64_t r = 0; r < n; ++r) {
        const Bf16* const row = data + (first + r) * x.ld;
        for (int64_t w = from; w < to; ++w) std::memcpy(panel + w * kWidth + r, row + 2 * w, 4);
      }
    }
  } else {
    for (int64_t w = 0; w < n_full; ++w) {
      const Bf16* const even = data + 2 * w * x.ld + first;
      const Bf16* const odd = even + x.ld;
      uint32_t* const out = panel + w * kWidth;
      if (n == kWidth) {
        for (int64_t r = 0; r < kWidth; ++r) out[r] = word(even[r], odd[r]);
      } else {
        for (int64_t r = 0; r < n; ++r) out[r] = word(even[r], odd[r]);
      }
    }
  }
  if (n_full < n_words) {
    const int64_t row_step = x.major == Major::kK ? x.ld : 1;
    const Bf16* const last = data + (x.k - 1) * (x.major == Major::kK ? 1 : x.ld);
    for (int64_t r = 0; r < n; ++r) {
      panel[n_full * kWidth + r] = word(last[(first + r) * row_step], Bf16{});
    }
  }
}

// The factors of rows [first, first + n) at k.
void take_factors(float* out, const Operand& x, int64_t first, int64_t n, int64_t k) {
  if (!tiled(x)) {
    std::fill_n(out, n, 1.0f);
    return;
  }
  const int64_t per_row = divide_up(x.k, x.tile_k);
  const float* const column = x.tile_scales + k / x.tile_k;
  for (int64_t r = 0; r < n; ++r) out[r] = column[(first + r) / x.tile_rows * per_row];
}

// n columns of one row of d from its sums.
template <class Out>
void finish_row(Out* d, const float* y, int64_t n, float factor, Accumulate accumulate,
                const Bf16* bias) {
  for_each_group(n, [&](int64_t i, int64_t lanes) {
    F32x16 x = load(y + i) * broadcast(factor);
    if (bias != nullptr) x = x + load_n(bias + i, lanes);
    if (accumulate == Accumulate::kYes) x = x + load_n(d + i, lanes);
    store_n(d + i, x, lanes);
  });
}

}  // namespace

void gemm_tiled(const Tensor& d, const Operand& a, const Operand& b, float factor,
                Accumulate accumulate, const Tensor& bias, Workspace& workspace,
                PanelKernel kernel) {
  check_tiles(a, b);
  const int64_t n_words = divide_up(a.k, 2);
  const int64_t words_per_tile = divide_up(std::min(tile_k(a), tile_k(b)), 2);
  const int64_t n_row_panels = divide_up(d.rows, kPanelRows);
  const int64_t n_column_panels = divide_up(d.cols, kPanelColumns);
  auto* const a_panels = workspace.take<uint32_t>(
      n_words * (n_row_panels * kPanelRows + n_column_panels * kPanelColumns));
  uint32_t* const b_panels = a_panels + n_words * n_row_panels * kPanelRows;
  parallel_for_dynamic(n_column_panels + n_row_panels, [&](int64_t item) {
    if (item < n_column_panels) {
      const int64_t first = item * kPanelColumns, n = std::min(kPanelColumns, d.cols - first);
      pack_panel<kPanelColumns>(b_panels + first * n_words, b, first, n, n_words);
    } else {
      const int64_t first = (item - n_column_panels) * kPanelRows;
      const int64_t n = std::min(kPanelRows, d.rows - first);
      pack_panel<kPanelRows>(a_panels + first * n_words, a, first, n, n_words);
    }
  });

  // Blocks of rows one after the other, so that their panels stay in the cache of the core.
  parallel_for_dynamic(divide_up(d.rows, kBlockRows) * n_column_panels, [&](int64_t item) {
    const int64_t row = item / n_column_panels * kBlockRows;
    const int64_t column = item % n_column_panels * kPanelColumns;
    const int64_t n_rows = std::min(kBlockRows, d.rows - row);
    const int64_t n_columns = std::min(kPanelColumns, d.cols - column);
    alignas(64) float y[kBlockRows * kPanelColumns];
    alignas(64) float sa[kBlockRows] = {}, sb[kPanelColumns] = {};
    std::fill_n(y, divide_up(n_rows, kPanelRows) * kPanelRows * kPanelColumns, 0.0f);
    for (int64_t w = 0; w < n_words; w += words_per_tile) {
      const int64_t length = std::min(words_per_tile, n_words - w);
      take_factors(sa, a, row, n_rows, 2 * w);
      take_factors(sb, b, column, n_columns, 2 * w);
      for (int64_t r = 0; r < n_rows; r += kPanelRows) {
        kernel(y + r * kPanelColumns, a_panels + (row + r) * n_words + w * kPanelRows,
               b_panels + column * n_words + w * kPanelColumns, length, sa + r, sb);
      }
    }
    const auto* const bias_part = bias ? bias.as<Bf16>() + column : nullptr;
    dispatch_float(d.dtype, [&](auto tag) {
      auto* const out = d.as<decltype(tag)>() + row * d.ld + column;
      for (int64_t r = 0; r < n_rows; ++r) {
        finish_row(out + r * d.ld, y + r * kPanelColumns, n_columns, factor, accumulate, bias_part);
      }
    });
  });
}

}  // namespace cpu
}  // namespace qstep::ops
