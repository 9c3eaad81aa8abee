#include "trainer/model/head.h"

#include <algorithm>

namespace qstep::trainer {

using ops::Accumulate;
using ops::Tensor;

namespace {

// Large enough that the head's GEMMs run at full speed, small beside the weights of any model whose
// vocabulary makes it matter.
constexpr int64_t kLogitBytes = int64_t{128} << 20;
constexpr int64_t kRowMultiple = 16;

// Of ops.cross_entropy_part.
constexpr int64_t kPartRows = 3;

// f(rows of the chunk) for each chunk of n rows.
template <class F>
void for_each_chunk(int64_t n, int64_t rows, F&& f) {
  for (int64_t first = 0; first < n; first += rows) {
    f(first, std::min(rows, n - first));
  }
}

}  // namespace

int64_t head_chunk_rows(int64_t n_columns, int64_t n_tokens, ops::Dtype dtype) {
  const int64_t limit = std::max(kRowMultiple, kLogitBytes / (n_columns * ops::size_bytes(dtype)));
  const int64_t n_chunks = (n_tokens + limit - 1) / limit;
  const int64_t rows = (n_tokens + n_chunks - 1) / n_chunks;
  return std::min(n_tokens, (rows + kRowMultiple - 1) / kRowMultiple * kRowMultiple);
}

HeadActivations lay_out_head(ops::Arena& arena, const ModelConfig& model, int64_t n_tokens,
                             ops::Dtype dtype, int64_t tensor) {
  const int64_t columns = model.padded_vocab() / tensor;
  const int64_t rows = head_chunk_rows(columns, n_tokens, dtype);
  HeadActivations a;
  a.logits = arena.take("logits", dtype, rows, columns);
  if (tensor == 1) return a;
  a.parts = arena.take("logits", ops::Dtype::kF32, 1, kPartRows * tensor * rows);
  a.lse = arena.take("logits", ops::Dtype::kF32, 1, rows);
  return a;
}

// loss and lse of a chunk, of whose columns this rank has `logits`.
void Head::join_loss(ops::Ops& ops, const Tensor& loss, const Tensor& lse, const Tensor& logits,
                     const Tensor& targets) {
  const int64_t n_parts = kPartRows * group_->size();
  const Tensor parts = a_.parts.col_range(0, n_parts * logits.rows).reshape(n_parts, logits.rows);
  ops.cross_entropy_part(group_->own_rows(parts), logits, targets, first_token_, vocab_size_);
  group_->gather_rows(parts);
  ops.cross_entropy_join(loss, lse, parts);
}

void Head::forward(ops::Ops& ops, const Tensor& loss, const Tensor& y, const Tensor& targets) {
  group_->gather_rows(y);
  for_each_chunk(y.rows, a_.logits.rows, [&](int64_t first, int64_t n) {
    const Tensor logits = a_.logits.row_range(0, n);
    const Tensor chunk_loss = loss.col_range(first, n), chunk_targets = targets.col_range(first, n);
    linear_.forward(ops, logits, y.row_range(first, n));
    if (shared()) {
      join_loss(ops, chunk_loss, a_.lse.col_range(0, n), logits, chunk_targets);
    } else {
      ops.cross_entropy_forward(chunk_loss, logits, chunk_targets, vocab_size_);
    }
  });
}

void Head::forward_backward(ops::Ops& ops, const Tensor& loss, const Tensor& dy, const Tensor& dw,
                            const Tensor& y, const Tensor& targets, float scale, Accumulate grads,
                            Timeline& timer) {
  group_->gather_rows(y);
  for_each_chunk(y.rows, a_.logits.rows, [&](int64_t first, int64_t n) {
    timer.enter(Phase::kForward);
    const Tensor logits = a_.logits.row_range(0, n);
    const Tensor chunk_loss = loss.col_range(first, n), chunk_targets = targets.col_range(first, n);
    linear_.forward(ops, logits, y.row_range(first, n));
    if (shared()) {
      const Tensor lse = a_.lse.col_range(0, n);
      join_loss(ops, chunk_loss, lse, logits, chunk_targets);
      ops.cross_entropy_part_backward(logits, lse, chunk_targets, first_token_, vocab_size_, scale);
    } else {
      ops.cross_entropy_backward(chunk_loss, logits, chunk_targets, vocab_size_, scale);
    }
    timer.enter(Phase::kBackward);
    linear_.backward(ops, dy.row_range(first, n), dw, {}, logits,
                     first == 0 ? grads : Accumulate::kYes);
  });
  group_->sum_rows(dy);
}

Tensor Head::logits(ops::Ops& ops, const Tensor& y) {
  const Tensor logits = a_.logits.row_range(0, y.rows);
  linear_.forward(ops, logits, y);
  return logits.col_range(0, vocab_size_);
}

}  // namespace qstep::trainer
