// One task is one query head: for each tile of keys, every tile of rows that sees it. Products are
// formed transposed, keys in rows and queries in lanes, so that lse and delta are vectors and ds
// can be packed for its two uses as it is computed:
//   s^T = k q^T, dp^T = v do^T      rows k, v          panels over q, do (words along D)
//   dv += p^T do, dk += ds^T q      rows p^T, ds^T     panels of do, q (words across query rows)
//   dq^T += k^T ds^T                rows k^T           panels of ds^T (words across keys)
#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

#include "ops/attention/attention.h"
#include "ops/attention/attention_tile.h"
#include "ops/parallel_for.h"

namespace qstep::ops {

void check_attention_backward(const Tensor& dqkv, const Tensor& d_o, const Tensor& qkv,
                              const Tensor& o, const Tensor& lse, const AttentionShape& shape) {
  check_attention(o, lse, qkv, shape);
  expect_shape(dqkv, qkv.rows, qkv.cols, "attention_backward: dqkv");
  expect_shape(d_o, o.rows, o.cols, "attention_backward: d_o");
  expect_dtype(dqkv, qkv.dtype, "attention_backward: dqkv");
  expect_dtype(d_o, qkv.dtype, "attention_backward: d_o");
}

namespace cpu {

namespace {

using namespace tile;

constexpr int64_t kTileRows = 64;  // query rows: their four packed forms nearly fill the L1 cache
constexpr int64_t kTilePanels = kTileRows / kLanes;
constexpr int64_t kTileKeys = 128;
constexpr float kLog2E = std::numbers::log2e_v<float>;

// Where the gradients of a head's keys and values go: the tensor, or FP32 partial sums.
template <class G>
struct KeyGradients {
  G* dk;
  G* dv;
  int64_t ld;
};

template <class T>
struct Head {
  const T *q, *k, *v, *o, *d_o;
  T* dq;
  const float* lse;
  int64_t qkv_ld, o_ld, do_ld, dqkv_ld;
  int64_t seq_len, head_dim;
};

// Scratch of one task. Row tiles and key tiles are padded to their full size.
template <class T>
struct Scratch {
  static constexpr int64_t kPerWord = Words<T>::kPerWord;
  static constexpr int64_t kKeyWords = kTileKeys / kPerWord;
  static constexpr int64_t kRowWords = kTileRows / kPerWord;

  Scratch(float* base, int64_t seq_len, int64_t head_dim)
      : n_rows(round_up(seq_len, kTileRows)),
        width(round_up(head_dim, kLanes)),
        height(round_up(head_dim, kRows)),
        words(divide_up(head_dim, kPerWord)),
        key_ld(round_up(words, kLanes)),
        carver(base),
        q_t(carver.take(n_rows * words)),
        do_t(carver.take(n_rows * words)),
        q(carver.take(n_rows / kPerWord * width)),
        d_o(carver.take(n_rows / kPerWord * width)),
        dq_t(carver.take(n_rows * height)),
        lse(carver.take(n_rows)),
        delta(carver.take(n_rows)),
        k(carver.take(kTileKeys * key_ld)),
        v(carver.take(kTileKeys * key_ld)),
        k_t(carver.take(round_up(height, kLanes) * kKeyWords)),
        dk(carver.take(kTileKeys * width)),
        dv(carver.take(kTileKeys * width)),
        s(carver.take(kRows * kTileRows)),
        dp(carver.take(kRows * kTileRows)),
        p(carver.take(kRows * kRowWords)),
        ds(carver.take(kRows * kRowWords)),
        ds_t(carver.take(kKeyWords * kTileRows)) {}

  int64_t n_rows;  // T in whole tiles
  int64_t width;   // D in whole panels
  int64_t height;  // D in whole groups of eight
  int64_t words;   // of D
  int64_t key_ld;
  Carver carver;
  // The head's rows.
  float* q_t;    // [row / 16][word of D][16]
  float* do_t;   // like q_t
  float* q;      // [row tile][d / 16][word of rows][16]
  float* d_o;    // like q
  float* dq_t;   // [row / 16][D][16], to be multiplied by 1 / sqrt(D)
  float* lse;    // [row], times log2(e); infinity in rows of padding, whose p becomes zero
  float* delta;  // [row]
  // A tile of keys.
  float* k;    // [key][word of D]
  float* v;    // [key][word of D]
  float* k_t;  // [D][word of keys]
  float* dk;   // [key][D], to be multiplied by 1 / sqrt(D)
  float* dv;   // [key][D]
  // A tile of keys against a tile of rows; the first four for eight keys at a time.
  float* s;     // [8][row]
  float* dp;    // [8][row]
  float* p;     // [8][word of rows]
  float* ds;    // [8][word of rows]
  float* ds_t;  // [row / 16][word of keys][16]
};

template <class T>
void pack_head(const Scratch<T>& t, const Head<T>& head) {
  const int64_t head_dim = head.head_dim;
  const Source<T> q{head.q, head.qkv_ld, head.seq_len, head_dim};
  const Source<T> d_o{head.d_o, head.do_ld, head.seq_len, head_dim};
  pack_row_panels(t.q_t, t.words * kLanes, t.n_rows / kLanes, q);
  pack_row_panels(t.do_t, t.words * kLanes, t.n_rows / kLanes, d_o);
  const int64_t panel = Scratch<T>::kRowWords * kLanes;
  for (int64_t row = 0; row < t.n_rows; row += kTileRows) {
    const int64_t n = head.seq_len - row;
    const int64_t at = row / Scratch<T>::kPerWord * t.width;
    pack_column_panels<T>(t.q + at, panel, Scratch<T>::kRowWords,
                          {q.data + row * q.ld, q.ld, n, head_dim});
    pack_column_panels<T>(t.d_o + at, panel, Scratch<T>::kRowWords,
                          {d_o.data + row * d_o.ld, d_o.ld, n, head_dim});
  }
  std::fill_n(t.dq_t, t.n_rows * t.height, 0.0f);
  for (int64_t row = 0; row < t.n_rows; ++row) {
    const bool exists = row < head.seq_len;
    t.lse[row] = exists ? head.lse[row] * kLog2E : std::numeric_limits<float>::infinity();
    t.delta[row] = !exists ? 0.0f : sum_groups(head_dim, [&](F32x16 sum, int64_t d, int64_t n) {
      return fma(load_n(head.d_o + row * head.do_ld + d, n),
                 load_n(head.o + row * head.o_ld + d, n), sum);
    });
  }
}

template <class T>
void pack_keys(const Scratch<T>& t, const Head<T>& head, int64_t first_key) {
  const int64_t n = std::min(kTileKeys, head.seq_len - first_key);
  const Source<T> k{head.k + first_key * head.qkv_ld, head.qkv_ld, n, head.head_dim};
  const Source<T> v{head.v + first_key * head.qkv_ld, head.qkv_ld, n, head.head_dim};
  pack_rows(t.k, t.key_ld, kTileKeys, k);
  pack_rows(t.v, t.key_ld, kTileKeys, v);
  pack_columns(t.k_t, Scratch<T>::kKeyWords, t.height, k);
  std::fill_n(t.dk, kTileKeys * t.width, 0.0f);
  std::fill_n(t.dv, kTileKeys * t.width, 0.0f);
}

// p and ds of two neighbouring keys (m, m + 1 of the eight) and sixteen rows. A row sees a key from
// its own position on: the first `hidden` + 0, 1 rows do not.
template <class T>
[[gnu::noinline]] void score_gradients(const Scratch<T>& t, int64_t m, int64_t panel, int64_t row,
                                       int64_t hidden, int64_t key_word, float scale) {
  using W = Words<T>;
  const F32x16 lse = load(t.lse + row);
  const F32x16 delta = load(t.delta + row);
  F32x16 pair[2];
  for (int64_t i = 0; i < 2; ++i) {
    const int64_t at = (m + i) * kTileRows + panel * kLanes;
    F32x16 p = exp2(fma(load(t.s + at), broadcast(scale), broadcast(0.0f) - lse));
    F32x16 ds = p * (load(t.dp + at) - delta);
    const int64_t n_hidden = std::clamp<int64_t>(hidden + i, 0, kLanes);
    if (n_hidden > 0) {
      p = zero_first(p, n_hidden);
      ds = zero_first(ds, n_hidden);
    }
    W::store_along(t.p + at / W::kPerWord, p);
    W::store_along(t.ds + at / W::kPerWord, ds);
    pair[i] = ds;
  }
  float* const ds_t = t.ds_t + (panel * Scratch<T>::kKeyWords + key_word) * kLanes;
  if constexpr (W::kPerWord == 2) {
    store(ds_t, W::across(pair[0], pair[1]));
  } else {
    store(ds_t, pair[0]);
    store(ds_t + kLanes, pair[1]);
  }
}

// Adds what rows first_row .. + kTileRows contribute to dq and to the tile of keys.
template <class T>
void tile_backward(const Scratch<T>& t, int64_t first_key, int64_t n_keys, int64_t first_row,
                   float scale) {
  using W = Words<T>;
  constexpr int64_t kKeyWords = Scratch<T>::kKeyWords;
  constexpr int64_t kRowWords = Scratch<T>::kRowWords;
  const int64_t d_panel = t.words * kLanes;      // of q_t and do_t
  const int64_t row_panel = kRowWords * kLanes;  // of q and d_o
  const int64_t at = first_row / W::kPerWord * t.width;

  for (int64_t j = 0; j < n_keys; j += kRows) {
    // Rows before the first key of the eight see none of them.
    const int64_t skipped = std::clamp<int64_t>(first_key + j - first_row, 0, kTileRows);
    const int64_t first_panel = skipped / kLanes;
    for (int64_t panel = 0; panel < first_panel; ++panel) {  // dq reads two panels at once
      std::fill_n(t.ds_t + (panel * kKeyWords + j / W::kPerWord) * kLanes,
                  kRows / W::kPerWord * kLanes, 0.0f);
    }
    if (skipped == kTileRows) continue;
    const int64_t n_panels = kTilePanels - first_panel;
    const int64_t panel_at = (first_row / kLanes + first_panel) * d_panel;
    multiply<W>({t.s + first_panel * kLanes, kTileRows, kLanes}, {t.k + j * t.key_ld, t.key_ld},
                {t.q_t + panel_at, d_panel}, n_panels, t.words, Accumulate::kNo);
    multiply<W>({t.dp + first_panel * kLanes, kTileRows, kLanes}, {t.v + j * t.key_ld, t.key_ld},
                {t.do_t + panel_at, d_panel}, n_panels, t.words, Accumulate::kNo);
    for (int64_t panel = first_panel; panel < kTilePanels; ++panel) {
      const int64_t row = first_row + panel * kLanes;
      for (int64_t m = 0; m < kRows; m += 2) {
        score_gradients(t, m, panel, row, first_key + j + m - row, (j + m) / W::kPerWord, scale);
      }
    }
    const int64_t w = skipped / W::kPerWord;
    multiply<W>({t.dv + j * t.width, t.width, kLanes}, {t.p + w, kRowWords},
                {t.d_o + at + w * kLanes, row_panel}, t.width / kLanes, kRowWords - w,
                Accumulate::kYes);
    multiply<W>({t.dk + j * t.width, t.width, kLanes}, {t.ds + w, kRowWords},
                {t.q + at + w * kLanes, row_panel}, t.width / kLanes, kRowWords - w,
                Accumulate::kYes);
  }
  constexpr int64_t kStep = 2;
  for (int64_t panel = 0; panel < kTilePanels; panel += kStep) {
    const int64_t last_row = first_row + (panel + kStep) * kLanes - 1;
    const int64_t seen = std::clamp<int64_t>(last_row + 1 - first_key, 0, round_up(n_keys, kRows));
    if (seen == 0) continue;
    for (int64_t d = 0; d < t.height; d += kRows) {
      multiply<W>({t.dq_t + (first_row + panel * kLanes) * t.height + d * kLanes, kLanes,
                   t.height * kLanes},
                  {t.k_t + d * kKeyWords, kKeyWords},
                  {t.ds_t + panel * kKeyWords * kLanes, kKeyWords * kLanes}, kStep,
                  divide_up(seen, W::kPerWord), Accumulate::kYes);
    }
  }
}

template <class T>
void write_dq(const Scratch<T>& t, const Head<T>& head, float scale) {
  for (int64_t row = 0; row < head.seq_len; row += kLanes) {
    for_each_group(head.head_dim, [&](int64_t d, int64_t n) {
      F32x16 block[kLanes];
      for (int64_t i = 0; i < kLanes; ++i) {
        block[i] = i < n ? load(t.dq_t + row * t.height + (d + i) * kLanes) : broadcast(0.0f);
      }
      transpose(block);
      for (int64_t i = 0; i < std::min(kLanes, head.seq_len - row); ++i) {
        store_n(head.dq + (row + i) * head.dqkv_ld + d, block[i] * broadcast(scale), n);
      }
    });
  }
}

template <class T, class G>
void head_backward(const Head<T>& head, const KeyGradients<G>& grad, float* base) {
  const Scratch<T> t(base, head.seq_len, head.head_dim);
  const float scale = 1.0f / std::sqrt(static_cast<float>(head.head_dim));
  pack_head(t, head);
  for (int64_t first_key = 0; first_key < head.seq_len; first_key += kTileKeys) {
    const int64_t n_keys = std::min(kTileKeys, head.seq_len - first_key);
    pack_keys(t, head, first_key);
    for (int64_t row = first_key / kTileRows * kTileRows; row < head.seq_len; row += kTileRows) {
      tile_backward(t, first_key, n_keys, row, scale * kLog2E);
    }
    for (int64_t j = 0; j < n_keys; ++j) {
      for_each_group(head.head_dim, [&](int64_t d, int64_t n) {
        const int64_t at = (first_key + j) * grad.ld + d;
        store_n(grad.dk + at, load(t.dk + j * t.width + d) * broadcast(scale), n);
        store_n(grad.dv + at, load(t.dv + j * t.width + d), n);
      });
    }
  }
  write_dq(t, head, scale);
}

// out[row] = the sum of the group's partial sums, head after head.
template <class T>
void add_group(T* out, const float* partial, int64_t head_stride, int64_t group, int64_t head_dim) {
  for_each_group(head_dim, [&](int64_t d, int64_t n) {
    F32x16 sum = load_n(partial + d, n);
    for (int64_t g = 1; g < group; ++g) sum = sum + load_n(partial + g * head_stride + d, n);
    store_n(out + d, sum, n);
  });
}

}  // namespace

void attention_backward(const Tensor& dqkv, const Tensor& d_o, const Tensor& qkv, const Tensor& o,
                        const Tensor& lse, const AttentionShape& shape, Workspace& workspace) {
  check_attention_backward(dqkv, d_o, qkv, o, lse, shape);
  const int64_t head_dim = shape.head_dim;
  const int64_t seq_len = shape.seq_len;
  const int64_t group = shape.n_heads / shape.n_kv_heads;
  const int64_t n_heads = shape.batch * shape.n_heads;
  const int64_t head_size = seq_len * head_dim;
  dispatch_float(qkv.dtype, [&]<class T>(T) {
    const int64_t per_thread = Scratch<T>(nullptr, seq_len, head_dim).carver.used();
    const int64_t n_partial = group > 1 ? n_heads * head_size : 0;
    float* const scratch = workspace.take<float>(max_threads() * per_thread + 2 * n_partial);
    float* const dk_partial = scratch + max_threads() * per_thread;  // [b, h][T][D]
    float* const dv_partial = dk_partial + n_partial;
    T* const dqkv_data = dqkv.as<T>();
    const T* const qkv_data = qkv.as<T>();
    const T* const o_data = o.as<T>();
    const T* const do_data = d_o.as<T>();
    const float* const lse_data = lse.as<float>();
    const int64_t k_column = shape.q_width();
    const int64_t v_column = shape.q_width() + shape.kv_width();

    parallel_for_dynamic(n_heads, [&](int64_t i) {
      const int64_t b = i / shape.n_heads;
      const int64_t h = i % shape.n_heads;
      const int64_t kv = h / group;
      const T* const in = qkv_data + b * seq_len * qkv.ld;
      T* const out = dqkv_data + b * seq_len * dqkv.ld;
      const int64_t o_at = h * head_dim;
      const Head<T> head{.q = in + h * head_dim,
                         .k = in + k_column + kv * head_dim,
                         .v = in + v_column + kv * head_dim,
                         .o = o_data + b * seq_len * o.ld + o_at,
                         .d_o = do_data + b * seq_len * d_o.ld + o_at,
                         .dq = out + h * head_dim,
                         .lse = lse_data + i * lse.ld,
                         .qkv_ld = qkv.ld,
                         .o_ld = o.ld,
                         .do_ld = d_o.ld,
                         .dqkv_ld = dqkv.ld,
                         .seq_len = seq_len,
                         .head_dim = head_dim};
      float* const mine = scratch + this_thread() * per_thread;
      if (group == 1) {
        head_backward<T, T>(
            head, {out + k_column + kv * head_dim, out + v_column + kv * head_dim, dqkv.ld}, mine);
      } else {
        head_backward<T, float>(
            head, {dk_partial + i * head_size, dv_partial + i * head_size, head_dim}, mine);
      }
    });
    if (group == 1) return;
    parallel_for(qkv.rows, [&](int64_t n) {
      const int64_t b = n / seq_len;
      T* const out = dqkv_data + n * dqkv.ld;
      for (int64_t kv = 0; kv < shape.n_kv_heads; ++kv) {
        const int64_t at = (b * shape.n_heads + kv * group) * head_size + n % seq_len * head_dim;
        add_group(out + k_column + kv * head_dim, dk_partial + at, head_size, group, head_dim);
        add_group(out + v_column + kv * head_dim, dv_partial + at, head_size, group, head_dim);
      }
    });
  });
}

}  // namespace cpu
}  // namespace qstep::ops
