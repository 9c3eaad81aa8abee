#include "trainer/head.h"

#include <algorithm>

namespace qstep::trainer {

using ops::Accumulate;
using ops::Tensor;

namespace {

// Large enough that the head's GEMMs run at full speed, small beside the weights of any model whose
// vocabulary makes it matter.
constexpr int64_t kLogitBytes = int64_t{128} << 20;
constexpr int64_t kRowMultiple = 16;

// f(rows of the chunk) for each chunk of n rows.
template <class F>
void for_each_chunk(int64_t n, int64_t chunk_rows, F&& f) {
  for (int64_t first = 0; first < n; first += chunk_rows) {
    f(first, std::min(chunk_rows, n - first));
  }
}

}  // namespace

int64_t head_chunk_rows(const ModelConfig& model, int64_t n_tokens, ops::Dtype dtype) {
  const int64_t row_bytes = model.padded_vocab() * ops::size_bytes(dtype);
  const int64_t limit = std::max(kRowMultiple, kLogitBytes / row_bytes);
  const int64_t n_chunks = (n_tokens + limit - 1) / limit;
  const int64_t rows = (n_tokens + n_chunks - 1) / n_chunks;
  return std::min(n_tokens, (rows + kRowMultiple - 1) / kRowMultiple * kRowMultiple);
}

void Head::forward(ops::Ops& ops, const Tensor& loss, const Tensor& y, const Tensor& targets) {
  for_each_chunk(y.rows, logits_.rows, [&](int64_t first, int64_t n) {
    const Tensor logits = logits_.row_range(0, n);
    linear_.forward(ops, logits, y.row_range(first, n));
    ops.cross_entropy_forward(loss.col_range(first, n), logits, targets.col_range(first, n),
                              vocab_size_);
  });
}

void Head::forward_backward(ops::Ops& ops, const Tensor& loss, const Tensor& dy, const Tensor& dw,
                            const Tensor& y, const Tensor& targets, float scale, Accumulate grads,
                            PhaseTimer& timer) {
  for_each_chunk(y.rows, logits_.rows, [&](int64_t first, int64_t n) {
    timer.enter(Phase::kForward);
    const Tensor logits = logits_.row_range(0, n);
    linear_.forward(ops, logits, y.row_range(first, n));
    ops.cross_entropy_backward(loss.col_range(first, n), logits, targets.col_range(first, n),
                               vocab_size_, scale);
    timer.enter(Phase::kBackward);
    linear_.backward(ops, dy.row_range(first, n), dw, {}, logits,
                     first == 0 ? grads : Accumulate::kYes);
  });
}

Tensor Head::logits(ops::Ops& ops, const Tensor& y) {
  const Tensor logits = logits_.row_range(0, y.rows);
  linear_.forward(ops, logits, y);
  return logits.col_range(0, vocab_size_);
}

}  // namespace qstep::trainer
