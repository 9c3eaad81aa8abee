#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

#include "ops/attention/attention.h"
#include "ops/attention/attention_tile.h"
#include "ops/parallel_for.h"

namespace qstep::ops {

void check_attention_shape(const Tensor& qkv, const AttentionShape& shape, std::string_view op) {
  if (shape.batch < 0 || shape.seq_len < 1 || shape.n_heads < 1 || shape.n_kv_heads < 1 ||
      shape.n_heads % shape.n_kv_heads != 0) {
    throw Error(
        ExitCode::kInternal,
        fmt::format("{}: impossible shape: B {}, T {}, H {}, K {} (H must be a multiple of K)", op,
                    shape.batch, shape.seq_len, shape.n_heads, shape.n_kv_heads));
  }
  if (shape.head_dim < 1 || shape.head_dim > kMaxHeadDim) {
    throw Error(ExitCode::kInternal,
                fmt::format("{}: head_dim {} is outside 1 .. {}", op, shape.head_dim, kMaxHeadDim));
  }
  expect_shape(qkv, shape.n_tokens(), shape.qkv_width(), "attention: qkv");
}

void check_attention(const Tensor& o, const Tensor& lse, const Tensor& qkv,
                     const AttentionShape& shape) {
  check_attention_shape(qkv, shape, "attention");
  expect_shape(o, shape.n_tokens(), shape.q_width(), "attention: o");
  expect_shape(lse, shape.batch * shape.n_heads, shape.seq_len, "attention: lse");
  expect_dtype(o, qkv.dtype, "attention: o");
  expect_dtype(lse, Dtype::kF32, "attention: lse");
}

namespace cpu {

namespace tile {

namespace {

constexpr int64_t kTileRows = 128;  // query rows that share one packing of k and v
constexpr int64_t kTileKeys = 128;  // keys of a tile: the packed k and v stay in the L2 cache
constexpr float kLog2E = std::numbers::log2e_v<float>;
constexpr float kLn2 = std::numbers::ln2_v<float>;
constexpr float kInfinity = std::numeric_limits<float>::infinity();

// The pieces of scratch of one tile. Its rows r are the positions of one head after those of the
// other; where there are eight or more each head starts a new group of eight, so that the rows of a
// group are never more than seven positions apart.
template <class T>
struct Tiles {
  Tiles(float* scratch, int64_t group, int64_t n_rows, int64_t head_dim)
      : pitch(n_rows < kRows ? n_rows : round_up(n_rows, kRows)),
        rows(round_up(group * pitch, kRows)),
        width(round_up(head_dim, kLanes)),
        words(divide_up(head_dim, Words<T>::kPerWord)),
        q_ld(round_up(words, kLanes)),
        carver(scratch),
        q(carver.take(rows * q_ld)),
        k(carver.take(kTileKeys * words)),
        v(carver.take(kTileKeys / Words<T>::kPerWord * width)),
        s(carver.take(kRows * kScoreStride)),
        p(carver.take(kRows * kTileKeys / Words<T>::kPerWord)),
        o(carver.take(rows * width)),
        maximum(carver.take(rows + kLanes)),
        sum(carver.take(rows * kLanes)) {}

  // Room to fill past the last key.
  static constexpr int64_t kScoreStride = kTileKeys + kLanes;
  int64_t pitch;  // rows from head to head
  int64_t rows;   // all, in whole groups of eight
  int64_t width;  // D in whole panels
  int64_t words;  // of D
  int64_t q_ld;
  Carver carver;
  float* q;        // [r][word of D]
  float* k;        // panels over the keys: [key / 16][word of D][16]
  float* v;        // panels over D: [d / 16][word of keys][16]
  float* s;        // [8][key]
  float* p;        // [8][word of keys]
  float* o;        // [r][D], not yet divided by the sum
  float* maximum;  // [r], of s log2(e) / sqrt(D)
  float* sum;      // [r][16], of exp2(s log2(e) / sqrt(D) - maximum) over keys = lane mod 16
};

// Lane m < 8 becomes the fold over the lanes of rows[m].
template <class F>
F32x16 fold_rows(F32x16 (&rows)[kLanes], F&& f) {
  for (int64_t m = kRows; m < kLanes; ++m) rows[m] = broadcast(0.0f);
  transpose(rows);
  for (int64_t half = kLanes / 2; half > 0; half /= 2) {
    for (int64_t i = 0; i < half; ++i) rows[i] = f(rows[i], rows[i + half]);
  }
  return rows[0];
}

// One tile of keys against eight rows: updates maximum and sum, rescales what o holds, leaves p.
// s holds n_panels x 16 products; row m sees the first visible[m].
template <class T>
[[gnu::noinline]] void softmax_step(const Tiles<T>& t, int64_t first_row,
                                    const int64_t (&visible)[kRows], int64_t n_panels, float scale,
                                    Accumulate o_mode) {
  const int64_t n_keys = n_panels * kLanes;
  F32x16 highest[kLanes];
  for (int64_t m = 0; m < kRows; ++m) {
    float* const s = t.s + m * t.kScoreStride;
    for (int64_t j = visible[m]; j < n_keys; j += kLanes) store(s + j, broadcast(-kInfinity));
    highest[m] = load(s);
    for (int64_t j = kLanes; j < n_keys; j += kLanes) highest[m] = max(highest[m], load(s + j));
  }
  const F32x16 row_maximum = fold_rows(highest, [](F32x16 a, F32x16 b) { return max(a, b); });
  const F32x16 before = load_part(t.maximum + first_row, kRows);
  const F32x16 now = max(before, row_maximum * broadcast(scale));
  float correction[kLanes];
  store(correction, exp2(before - now));
  store_part(t.maximum + first_row, now, kRows);

  for (int64_t m = 0; m < kRows; ++m) {
    const float* const s = t.s + m * t.kScoreStride;
    float* const p = t.p + m * (kTileKeys / Words<T>::kPerWord);
    const F32x16 minus_maximum = broadcast(-t.maximum[first_row + m]);
    float* const sum = t.sum + (first_row + m) * kLanes;
    F32x16 total = load(sum) * broadcast(correction[m]);
    for (int64_t j = 0; j < n_keys; j += kLanes) {
      const F32x16 e = exp2(fma(load(s + j), broadcast(scale), minus_maximum));
      total = total + e;
      Words<T>::store_along(p + j / Words<T>::kPerWord, e);
    }
    store(sum, total);
    if (o_mode == Accumulate::kNo || correction[m] == 1.0f) continue;
    float* const o = t.o + (first_row + m) * t.width;
    for (int64_t d = 0; d < t.width; d += kLanes) {
      store(o + d, load(o + d) * broadcast(correction[m]));
    }
  }
}

// Eight finished rows: o / sum and log sum exp.
template <class T>
void write_rows(const Tiles<T>& t, const QueryTile<T>& tile, int64_t first_row) {
  F32x16 sums[kLanes];
  for (int64_t m = 0; m < kRows; ++m) sums[m] = load(t.sum + (first_row + m) * kLanes);
  float sum[kLanes];
  store(sum, fold_rows(sums, [](F32x16 a, F32x16 b) { return a + b; }));
  for (int64_t m = 0; m < kRows; ++m) {
    const int64_t g = (first_row + m) / t.pitch;
    const int64_t row = (first_row + m) % t.pitch;
    if (g >= tile.group || row >= tile.n_rows) continue;
    const F32x16 inverse = broadcast(1.0f / sum[m]);
    const float* const o = t.o + (first_row + m) * t.width;
    T* const out = tile.o + row * tile.o_ld + g * tile.head_dim;
    for_each_group(tile.head_dim, [&](int64_t d, int64_t lanes) {
      store_n(out + d, load(o + d) * inverse, lanes);
    });
    if (tile.lse != nullptr) {
      tile.lse[g * tile.lse_ld + row] = t.maximum[first_row + m] * kLn2 + std::log(sum[m]);
    }
  }
}

}  // namespace

int64_t query_tile_rows(int64_t group) {
  const int64_t n = std::max<int64_t>(1, kTileRows / group);
  return n > kRows ? n / kRows * kRows : n;
}

template <class T>
int64_t query_tile_scratch(int64_t group, int64_t n_rows, int64_t head_dim) {
  return Tiles<T>(nullptr, group, n_rows, head_dim).carver.used();
}

template <class T>
void attend(const QueryTile<T>& tile, float* scratch) {
  using W = Words<T>;
  const int64_t head_dim = tile.head_dim;
  const Tiles<T> t(scratch, tile.group, tile.n_rows, head_dim);
  const float scale = kLog2E / std::sqrt(static_cast<float>(head_dim));

  for (int64_t g = 0; g < tile.group; ++g) {
    const int64_t first = g * t.pitch;
    pack_rows<T>(t.q + first * t.q_ld, t.q_ld, g + 1 < tile.group ? t.pitch : t.rows - first,
                 {tile.q + g * head_dim, tile.q_ld, tile.n_rows, head_dim});
  }
  std::fill_n(t.maximum, t.rows, -kInfinity);
  std::fill_n(t.sum, t.rows * kLanes, 0.0f);

  const int64_t n_keys = tile.first_position + tile.n_rows;
  for (int64_t first_key = 0; first_key < n_keys; first_key += kTileKeys) {
    const int64_t n = std::min(kTileKeys, n_keys - first_key);
    pack_row_panels<T>(t.k, t.words * kLanes, divide_up(n, kLanes),
                       {tile.k + first_key * tile.k_ld, tile.k_ld, n, head_dim});
    const int64_t v_panel = kTileKeys / W::kPerWord * kLanes;
    pack_column_panels<T>(t.v, v_panel, divide_up(n, W::kPerWord),
                          {tile.v + first_key * tile.v_ld, tile.v_ld, n, head_dim});
    for (int64_t r = 0; r < t.rows; r += kRows) {
      int64_t visible[kRows];
      int64_t most = 0;
      for (int64_t m = 0; m < kRows; ++m) {
        // Rows of padding see what the last row sees.
        const int64_t row = std::min((r + m) % t.pitch, tile.n_rows - 1);
        visible[m] = std::clamp<int64_t>(tile.first_position + row + 1 - first_key, 0, n);
        most = std::max(most, visible[m]);
      }
      if (most == 0) continue;
      const int64_t n_panels = divide_up(most, kLanes);
      multiply<W>({t.s, t.kScoreStride, kLanes}, {t.q + r * t.q_ld, t.q_ld},
                  {t.k, t.words * kLanes}, n_panels, t.words, Accumulate::kNo);
      const Accumulate o_mode = first_key == 0 ? Accumulate::kNo : Accumulate::kYes;
      softmax_step(t, r, visible, n_panels, scale, o_mode);
      multiply<W>({t.o + r * t.width, t.width, kLanes}, {t.p, kTileKeys / W::kPerWord},
                  {t.v, v_panel}, t.width / kLanes, divide_up(most, W::kPerWord), o_mode);
    }
  }

  for (int64_t r = 0; r < t.rows; r += kRows) write_rows(t, tile, r);
}

template int64_t query_tile_scratch<float>(int64_t, int64_t, int64_t);
template int64_t query_tile_scratch<Bf16>(int64_t, int64_t, int64_t);
template void attend<float>(const QueryTile<float>&, float*);
template void attend<Bf16>(const QueryTile<Bf16>&, float*);

}  // namespace tile

void attention_forward(const Tensor& o, const Tensor& lse, const Tensor& qkv,
                       const AttentionShape& shape, Workspace& workspace) {
  check_attention(o, lse, qkv, shape);
  const int64_t head_dim = shape.head_dim;
  const int64_t group = shape.n_heads / shape.n_kv_heads;
  const int64_t rows = std::min(shape.seq_len, tile::query_tile_rows(group));
  const int64_t n_tiles = tile::divide_up(shape.seq_len, rows);
  const int64_t n_heads = shape.batch * shape.n_kv_heads;
  dispatch_float(qkv.dtype, [&]<class T>(T) {
    const int64_t per_thread = tile::query_tile_scratch<T>(group, rows, head_dim);
    float* const scratch = workspace.take<float>(max_threads() * per_thread);
    T* const o_data = o.as<T>();
    const T* const qkv_data = qkv.as<T>();
    float* const lse_data = lse.as<float>();
    // The last tiles see the most keys and go first.
    parallel_for_dynamic(n_tiles * n_heads, [&](int64_t i) {
      const int64_t first = (n_tiles - 1 - i / n_heads) * rows;
      const int64_t b = i % n_heads / shape.n_kv_heads;
      const int64_t kv = i % shape.n_kv_heads;
      const T* const sequence = qkv_data + b * shape.seq_len * qkv.ld;
      const T* const k = sequence + shape.q_width() + kv * head_dim;
      const int64_t q_column = kv * group * head_dim;
      tile::attend<T>({.q = sequence + first * qkv.ld + q_column,
                       .q_ld = qkv.ld,
                       .o = o_data + (b * shape.seq_len + first) * o.ld + q_column,
                       .o_ld = o.ld,
                       .lse = lse_data + (b * shape.n_heads + kv * group) * lse.ld + first,
                       .lse_ld = lse.ld,
                       .k = k,
                       .k_ld = qkv.ld,
                       .v = k + shape.kv_width(),
                       .v_ld = qkv.ld,
                       .group = group,
                       .n_rows = std::min(rows, shape.seq_len - first),
                       .first_position = first,
                       .head_dim = head_dim},
                      scratch + this_thread() * per_thread);
    });
  });
}

}  // namespace cpu
}  // namespace qstep::ops
