#include "trainer/timing/op_work.h"

#include <fmt/format.h>

#include <algorithm>

#include "trainer/config/model_config.h"

namespace qstep::trainer {

using ops::Accumulate;
using ops::AttentionShape;
using ops::Operand;
using ops::QuantizedTensor;
using ops::Tensor;

namespace {

double product(int64_t a, int64_t b) { return static_cast<double>(a) * static_cast<double>(b); }

double bytes_of(const Tensor& x) { return x ? static_cast<double>(x.bytes()) : 0; }

// n columns of every row of x.
double part_of(const Tensor& x, int64_t n) { return product(x.rows, n * size_bytes(x.dtype)); }

// Codes with their scales of blocks or rows.
double code_operand_bytes(const Operand& x) {
  const ops::ScaleMode mode = x.form.scales;
  const double scales = mode == ops::ScaleMode::kRow
                            ? static_cast<double>(x.rows) * sizeof(float)
                            : product(block_scale_count(mode, x.rows, x.k),
                                      scales_are_bytes(mode) ? 1 : sizeof(float));
  return product(x.rows, code_bytes(x.form, x.k)) + scales;
}

double operand_bytes(const Operand& x) {
  const double tiles = x.tile_scales == nullptr ? 0
                                                : product((x.rows + x.tile_rows - 1) / x.tile_rows,
                                                          (x.k + x.tile_k - 1) / x.tile_k) *
                                                      sizeof(float);
  return product(x.rows, x.k * size_bytes(x.dtype)) + tiles;
}

int64_t touched_rows(const Tensor& table, const Tensor& tokens) {
  return std::min(table.rows, tokens.size());
}

int64_t qk_width(const AttentionShape& shape) { return shape.q_width() + shape.kv_width(); }

}  // namespace

OpWork passes(std::initializer_list<Tensor> tensors) {
  OpWork work;
  for (const Tensor& x : tensors) work.bytes += bytes_of(x);
  return work;
}

OpWork add_work(const Tensor& y, std::span<const Tensor> x) {
  OpWork work = passes({y});
  for (const Tensor& addend : x) work.bytes += bytes_of(addend);
  return work;
}

OpWork gradient(const Tensor& g, Accumulate accumulate) {
  return accumulate == Accumulate::kYes ? passes({g, g}) : passes({g});
}

OpWork gemm_work(const Tensor& d, const Operand& a, const Operand& b, Accumulate accumulate,
                 const Tensor& bias) {
  OpWork work = gradient(d, accumulate) + passes({bias});
  work.flops = gemm_flops(a.rows, b.rows, a.k);
  const bool native = a.codes != nullptr && b.codes != nullptr;
  work.bytes +=
      native ? code_operand_bytes(a) + code_operand_bytes(b) : operand_bytes(a) + operand_bytes(b);
  work.type = a.dtype;
  return work;
}

OpWork quantize_work(const QuantizedTensor& rowwise, const QuantizedTensor& columnwise,
                     const Tensor& x) {
  OpWork work = passes({x, rowwise.scale, rowwise.tile_scales, columnwise.scale,
                        columnwise.tile_scales, rowwise.values, rowwise.codes, rowwise.block_scales,
                        columnwise.codes, columnwise.block_scales});
  if (columnwise.values.data != rowwise.values.data) work.bytes += bytes_of(columnwise.values);
  const auto text = [](const QuantizedTensor& q) {
    return q ? precision::describe(q.spec) : std::string();
  };
  const bool same = rowwise && columnwise && rowwise.spec == columnwise.spec;
  work.kind = !rowwise              ? text(columnwise)
              : !columnwise || same ? text(rowwise)
                                    : fmt::format("{}; {}", text(rowwise), text(columnwise));
  return work;
}

OpWork embedding_forward_work(const Tensor& x, const Tensor& tokens, const Tensor& wte,
                              const Tensor& wpe, int64_t seq_len) {
  OpWork work = passes({x, tokens});
  work.bytes += bytes_of(wte.row_range(0, touched_rows(wte, tokens)));
  if (wpe) work.bytes += bytes_of(wpe.row_range(0, std::min(seq_len, wpe.rows)));
  return work;
}

OpWork embedding_backward_work(const Tensor& dwte, const Tensor& dwpe, const Tensor& dx,
                               const Tensor& tokens, int64_t seq_len, Accumulate dwpe_mode) {
  OpWork work = passes({dx, tokens});
  work.bytes += 2 * bytes_of(dwte.row_range(0, touched_rows(dwte, tokens)));
  if (!dwpe) return work;
  const bool adds = dwpe_mode == Accumulate::kYes;
  return work + gradient(adds ? dwpe.row_range(0, std::min(seq_len, dwpe.rows)) : dwpe, dwpe_mode);
}

OpWork qk_norm_forward_work(const Tensor& y, const Tensor& rstd, const Tensor& qkv,
                            const Tensor& wq, const Tensor& wk) {
  return passes({y, rstd, qkv, wq, wk});
}

OpWork qk_norm_backward_work(const Tensor& dwq, const Tensor& dwk, const Tensor& qkv,
                             const Tensor& rstd, const AttentionShape& shape, Accumulate dw_mode) {
  OpWork work = gradient(dwq, dw_mode) + gradient(dwk, dw_mode) + passes({rstd});
  work.bytes += 3 * part_of(qkv, qk_width(shape));
  return work;
}

OpWork rope_work(const Tensor& qkv, const Tensor& table, const AttentionShape& shape) {
  OpWork work = passes({table.row_range(0, std::min(shape.seq_len, table.rows))});
  work.bytes += 2 * part_of(qkv, qk_width(shape));
  return work;
}

OpWork attention_forward_work(const Tensor& o, const Tensor& lse, const Tensor& qkv,
                              const AttentionShape& shape) {
  OpWork work = passes({o, lse, qkv});
  work.flops =
      2 * product(shape.n_tokens(), shape.q_width()) * static_cast<double>(shape.seq_len + 1);
  work.type = qkv.dtype;
  return work;
}

OpWork attention_backward_work(const Tensor& dqkv, const Tensor& d_o, const Tensor& qkv,
                               const Tensor& o, const Tensor& lse, const AttentionShape& shape) {
  OpWork work = attention_forward_work(o, lse, qkv, shape) + passes({dqkv, d_o});
  work.flops *= 2;
  return work;
}

OpWork attention_cached_work(const Tensor& o, const Tensor& qkv, const AttentionShape& shape,
                             int64_t first_position) {
  OpWork work = passes({o, qkv});
  // Keys and values: those of the cache, and the new ones that are appended to it.
  const int64_t cached = first_position + shape.seq_len;
  work.bytes += product(cached, 2 * shape.kv_width() * size_bytes(qkv.dtype));
  work.flops = 2 * product(shape.seq_len, shape.q_width()) *
               static_cast<double>(2 * first_position + shape.seq_len + 1);
  work.type = qkv.dtype;
  return work;
}

OpWork adamw_work(const Tensor& w, const Tensor& master, const Tensor& m, const Tensor& v,
                  const Tensor& grad) {
  OpWork work = passes({master, master, m, m, v, v, grad});
  if (w.data != master.data) work.bytes += bytes_of(w);
  return work;
}

}  // namespace qstep::trainer
