#include "ops/embedding.h"

#include "ops/add_row.h"
#include "ops/parallel_for.h"
#include "ops/simd/simd.h"

namespace qstep::ops::cpu {

namespace {

void check_tokens(const int32_t* tokens, int64_t n, std::string_view what) {
  for (int64_t i = 0; i < n; ++i) check(tokens[i] >= 0, what);
}

// The rows of a table that holds some of the tokens: first, first + 1, ...
struct TokenRows {
  int64_t first, n_rows;

  bool contain(int32_t token) const { return token >= first && token < first + n_rows; }
  int64_t row(int32_t token) const { return token - first; }
};

// sum[i] += x[i]
template <class T>
void add_to_row(float* sum, const T* x, int64_t n) {
  for_each_group(n, [&](int64_t i, int64_t lanes) {
    store_n(sum + i, load_n(sum + i, lanes) + load_n(x + i, lanes), lanes);
  });
}

// Each thread owns a slice of the channels (whole cache lines) and walks all tokens in order: the
// order of every element's sum is that of the tokens, without atomics, for any number of threads.
template <class T>
void add_to_wte(const Tensor& dwte, int64_t first_token, const Tensor& dx, const int32_t* tokens) {
  const TokenRows rows{first_token, dwte.rows};
  float* const pdwte = dwte.as<float>();
  const int64_t groups = (dx.cols + kLanes - 1) / kLanes;
  const int64_t slices = std::min(groups, max_threads());
  const T* const pdx = dx.as<T>();
  parallel_for(slices, [&](int64_t slice) {
    const int64_t first = slice * groups / slices * kLanes;
    const int64_t last = std::min((slice + 1) * groups / slices * kLanes, dx.cols);
    for (int64_t n = 0; n < dx.rows; ++n) {
      if (!rows.contain(tokens[n])) continue;
      float* const row = pdwte + rows.row(tokens[n]) * dwte.ld;
      add_to_row(row + first, pdx + n * dx.ld + first, last - first);
    }
  });
}

template <class T>
void add_to_wpe(const Tensor& dwpe, const Tensor& dx, int64_t seq_len, Accumulate mode) {
  float* const pdwpe = dwpe.as<float>();
  const T* const pdx = dx.as<T>();
  const int64_t positions = mode == Accumulate::kYes ? std::min(seq_len, dwpe.rows) : dwpe.rows;
  parallel_for(positions, [&](int64_t t) {
    float* const row = pdwpe + t * dwpe.ld;
    if (mode == Accumulate::kNo) std::fill(row, row + dwpe.cols, 0.0f);
    if (t >= seq_len) return;
    for (int64_t n = t; n < dx.rows; n += seq_len) add_to_row(row, pdx + n * dx.ld, dx.cols);
  });
}

}  // namespace

void embedding_forward(const Tensor& x, const Tensor& tokens, const Tensor& wte,
                       int64_t first_token, const Tensor& wpe, int64_t seq_len,
                       int64_t first_position) {
  check_embedding_forward(x, tokens, wte, first_token, wpe, seq_len, first_position);
  const int32_t* const token = tokens.as<int32_t>();
  check_tokens(token, x.rows, "embedding_forward: a negative token");
  const TokenRows rows{first_token, wte.rows};
  dispatch_float(x.dtype, [&](auto tag) {
    using T = decltype(tag);
    T* const px = x.as<T>();
    const T* const pwte = wte.as<T>();
    const T* const pwpe = wpe ? wpe.as<T>() : nullptr;
    parallel_for(x.rows, [&](int64_t n) {
      T* const row = px + n * x.ld;
      const T* const embedding =
          rows.contain(token[n]) ? pwte + rows.row(token[n]) * wte.ld : nullptr;
      const T* const position =
          pwpe != nullptr ? pwpe + (first_position + n % seq_len) * wpe.ld : nullptr;
      if (embedding != nullptr && position != nullptr) {
        add_row(row, embedding, position, x.cols);
      } else if (const T* const only = embedding != nullptr ? embedding : position) {
        std::copy(only, only + x.cols, row);
      } else {
        std::fill(row, row + x.cols, T{});
      }
    });
  });
}

void embedding_backward(const Tensor& dwte, int64_t first_token, const Tensor& dwpe,
                        const Tensor& dx, const Tensor& tokens, int64_t seq_len,
                        Accumulate dwpe_mode) {
  check_embedding_backward(dwte, first_token, dwpe, dx, tokens, seq_len);
  const int32_t* const token = tokens.as<int32_t>();
  check_tokens(token, dx.rows, "embedding_backward: a negative token");
  dispatch_float(dx.dtype, [&](auto tag) {
    using T = decltype(tag);
    add_to_wte<T>(dwte, first_token, dx, token);
    if (dwpe) add_to_wpe<T>(dwpe, dx, seq_len, dwpe_mode);
  });
}

}  // namespace qstep::ops::cpu
