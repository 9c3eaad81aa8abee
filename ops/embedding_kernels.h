// The embedding (ops/embedding.h) for the CUDA backend. Forward reads and writes a row per token;
// backward sorts the tokens (token_order.h) and then reads dx once, and reads and writes each row
// of dwte that occurs once: additions in the order of the tokens, as on the CPU. What a token that
// occurs often takes is the wait for one load after another; so a thread has several rows of dx in
// flight, and a row of dwte is cut among warps. The order of additions, and the bits, stay.
//
// No thread can throw: a negative token's row of x becomes NaN, which ends the step as a loss that
// is not finite.
#pragma once

#include <limits>

#include "ops/embedding.h"
#include "ops/group.h"
#include "ops/token_order.h"

namespace qstep::ops::device {

template <class T>
struct EmbedToken {
  Rows<T> x;
  const int32_t* tokens;
  Rows<const T> wte, wpe;  // wpe: or none
  int64_t first_token, n_rows, seq_len, first_position;

  QSTEP_HD void operator()(int64_t n, int64_t g) const {
    const int64_t row = tokens[n] - first_token;
    Group r{};
    if (row >= 0 && row < n_rows) r = load(wte.row(row), g);
    if (wpe.data != nullptr) {
      const Group position = load(wpe.row(first_position + n % seq_len), g);
      r = map([](float a, float b) { return a + b; }, r, position);
    }
    if (tokens[n] < 0) {
      r = map([](float) { return std::numeric_limits<float>::quiet_NaN(); }, r);
    }
    store(x.row(n), g, r);
  }
};

// The end of the run of entries of one row that starts at `first`: in steps that double while the
// run lasts, since most are short and some are very long.
QSTEP_HD inline int64_t run_end(const uint64_t* entries, int64_t first, int64_t n) {
  const int64_t row = entry_row(entries[first]);
  int64_t end = first + 1;
  for (int64_t step = 1; step > 0;) {
    if (end + step <= n && entry_row(entries[end + step - 1]) == row) {
      end += step;
      step *= 2;
    } else {
      step /= 2;
    }
  }
  return end;
}

// Rows of dx that a thread has in flight.
inline constexpr int kRowsAhead = 8;

// Team (i, slice): in a slice of the columns, the run of entries that starts at i, if one does.
template <class T>
struct AddToWte {
  static constexpr int64_t kGroupsPerSlice = kWarp;

  Rows<float> dwte;
  Rows<const T> dx;
  const uint64_t* entries;
  int64_t n, n_rows, slices;

  template <class Team>
  QSTEP_HD void operator()(const Team& team, float*, int64_t index) const {
    const int64_t i = index / slices, first = index % slices * kGroupsPerSlice;
    const int64_t row = entry_row(entries[i]);
    if (row >= n_rows || (i > 0 && entry_row(entries[i - 1]) == row)) return;
    const int64_t end = run_end(entries, i, n);
    const Row<float> out = dwte.row(row);
    const int64_t left = n_groups(out.n) - first;
    team.each(left < kGroupsPerSlice ? left : kGroupsPerSlice, [&](int64_t group) {
      const int64_t g = first + group;
      Group sum = load(out, g);
      int64_t k = i;
      if (dx.aligned && out.count(g) == kGroup) {
        for (; k + kRowsAhead <= end; k += kRowsAhead) {
          Group ahead[kRowsAhead];
          QSTEP_UNROLL(8)
          for (int j = 0; j < kRowsAhead; ++j) {
            ahead[j] = load_whole(dx.row(entry_position(entries[k + j])).data + g * kGroup);
          }
          QSTEP_UNROLL(8)
          for (int j = 0; j < kRowsAhead; ++j) sum = added(sum, ahead[j]);
        }
      }
      for (; k < end; ++k) sum = added(sum, load(dx.row(entry_position(entries[k])), g));
      store(out, g, sum);
    });
  }

 private:
  QSTEP_HD_INLINE static Group added(const Group& a, const Group& b) {
    return map([](float u, float v) { return u + v; }, a, b);
  }
};

template <class T>
struct AddToWpe {
  Rows<float> dwpe;
  Rows<const T> dx;
  int64_t n, seq_len;
  bool accumulate;

  QSTEP_HD void operator()(int64_t t, int64_t g) const {
    Group sum{};
    if (accumulate) sum = load(dwpe.row(t), g);
    for (int64_t i = t < seq_len ? t : n; i < n; i += seq_len) {
      sum = map([](float a, float b) { return a + b; }, sum, load(dx.row(i), g));
    }
    store(dwpe.row(t), g, sum);
  }
};

template <class Launch>
void embedding_forward(const Launch& launch, const Tensor& x, const Tensor& tokens,
                       const Tensor& wte, int64_t first_token, const Tensor& wpe, int64_t seq_len,
                       int64_t first_position) {
  check_embedding_forward(x, tokens, wte, first_token, wpe, seq_len, first_position);
  dispatch_float(x.dtype, [&]<class T>(T) {
    over_groups(launch, x.rows, x.cols,
                EmbedToken<T>{rows_of<T>(x), tokens.as<int32_t>(), rows_of<const T>(wte),
                              wpe ? rows_of<const T>(wpe) : Rows<const T>{}, first_token, wte.rows,
                              seq_len, first_position});
  });
}

template <class Launch>
void embedding_backward(const Launch& launch, const Tensor& dwte, int64_t first_token,
                        const Tensor& dwpe, const Tensor& dx, const Tensor& tokens, int64_t seq_len,
                        Accumulate dwpe_mode) {
  check_embedding_backward(dwte, first_token, dwpe, dx, tokens, seq_len);
  const uint64_t* const entries =
      sort_tokens(launch, tokens.as<int32_t>(), dx.rows, first_token, dwte.rows);
  const bool accumulate = dwpe_mode == Accumulate::kYes;
  dispatch_float(dx.dtype, [&]<class T>(T) {
    const Rows<const T> dx_rows = rows_of<const T>(dx);
    constexpr int64_t kPerSlice = AddToWte<T>::kGroupsPerSlice;
    const int64_t groups = n_groups(dx.cols), slices = (groups + kPerSlice - 1) / kPerSlice;
    launch.teams(dx.rows * slices, team_size(groups, 1, kWarp), 0,
                 AddToWte<T>{rows_of<float>(dwte), dx_rows, entries, dx.rows, dwte.rows, slices});
    if (!dwpe) return;
    const int64_t positions = accumulate ? std::min(seq_len, dwpe.rows) : dwpe.rows;
    over_groups(launch, positions, dwpe.cols,
                AddToWpe<T>{rows_of<float>(dwpe), dx_rows, dx.rows, seq_len, accumulate});
  });
}

}  // namespace qstep::ops::device
